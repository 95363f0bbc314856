"""The search page in a browser: found, opened, looked at, exported; by mouse and by keyboard."""

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.contract.topics import TopicServer, topic_server
from tests.search.browser import browser, needs_chromium
from tests.search.kit import (
    Answer,
    Asked,
    FakeStore,
    Function,
    function,
    real_store,
    row,
    study,
)

pytestmark = needs_chromium
EXPORTS = "projects/local/topics/exports"
WEB = Path(__file__).parents[2] / "functions" / "search" / "web"


@pytest.fixture(scope="module")
def topics() -> Iterator[TopicServer]:
    with topic_server(EXPORTS) as server:
        yield server


@pytest.fixture(scope="module")
def full(topics: TopicServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """The function before a store with thirty studies."""
    folder = tmp_path_factory.mktemp("page")
    files = [
        *study(1),
        *study(
            2,
            "MR",
            series=1,
            instances=1,
            PatientName="Yamada^Tarou=山田^太郎",
            StudyDate="20250203",
            SpecificCharacterSet="ISO_IR 192",
        ),
        *(
            file
            for number in range(3, 31)
            for file in study(number, series=1, instances=1, PatientName=f"Crowd^{number}")
        ),
    ]
    settings = {
        "SEARCH_EXPORTS": "true",
        "EXPORTS_TOPIC": EXPORTS,
        "EXPORT_DESTINATIONS": "gs://exports/ct,gs://exports/mr",
        "PUBSUB_EMULATOR_HOST": topics.address,
    }
    with (
        real_store(folder / "store", files) as endpoint,
        function(endpoint, folder, **settings) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture
def page(chromium: Browser, full: Function) -> Iterator[Page]:
    """The page, loaded; nothing it does may be an error or lead to another host."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(20_000)
    opened = context.new_page()
    errors: list[str] = []
    opened.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    opened.on("pageerror", lambda error: errors.append(str(error)))
    urls: list[str] = []
    opened.on("request", lambda request: urls.append(request.url))
    opened.goto(full.url)
    expect(opened.locator("#status")).to_contain_text("studies")
    yield opened
    context.close()
    assert errors == []
    assert all(url.startswith((full.url, "blob:")) for url in urls)
    assert not any("Doe" in url or "Yamada" in url for url in urls)


def found(page: Page) -> list[str]:
    return [text.splitlines()[0] for text in page.locator("tr.study td.patient").all_inner_texts()]


def test_a_name_is_found_without_leaving_the_keyboard(page: Page) -> None:
    expect(page.get_by_label("Patient name")).to_be_focused()
    page.keyboard.type("ya")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    assert found(page) == ["Yamada, Tarou (山田, 太郎)"]
    expect(page.locator("tr.study .badge")).to_have_text("MR")
    toggle = page.get_by_role("button", name="Series of Yamada")
    toggle.focus()
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    page.get_by_role("button", name="Instances of series 1 Axial 1").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Instance 1").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Instance 1")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize(
    ("label", "typed", "count"),
    [
        ("Patient ID", "P2", "1 study"),
        ("Accession number", "A1", "1 study"),
        ("Study date from", "2025-02-01", "1 study"),
        ("Study date to", "2023-01-01", "No study found"),
    ],
)
def test_each_field_narrows_the_search(page: Page, label: str, typed: str, count: str) -> None:
    page.get_by_label(label).fill(typed)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#status")).to_have_text(count)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#status")).to_have_text("25 and more studies")


def test_a_modality_is_chosen(page: Page) -> None:
    page.get_by_label("Modality").select_option("MR")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#status")).to_have_text("1 study")


def test_pages_are_turned(page: Page) -> None:
    first = found(page)
    assert len(first) == 25
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#status")).to_have_text("Studies 26 to 30")
    assert not set(found(page)) & set(first)
    expect(page.get_by_role("heading", name="Studies")).to_be_focused()
    page.get_by_role("button", name="Previous").click()
    expect(page.locator("#status")).to_have_text("25 and more studies")


def test_a_study_is_opened_down_to_a_picture_and_its_metadata(page: Page) -> None:
    page.get_by_label("Patient name").fill("Doe")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Series of Doe, Jane, 2024-01-31").click()
    expect(page.locator(".series > li")).to_have_count(2)
    page.get_by_role("button", name="Instances of series 2 Axial 2").click()
    pictures = page.locator(".instances img")
    expect(pictures).to_have_count(3)
    for picture in pictures.all():
        expect(picture).to_have_js_property("naturalWidth", 64)
    page.get_by_role("button", name="Instance 2").click()
    expect(page.locator("#image")).to_have_js_property("naturalWidth", 64)
    expect(page.get_by_role("cell", name="Series Description")).to_be_visible()
    page.get_by_label("Find in the metadata").fill("0010,0020")
    expect(page.locator("#attributes tr:visible")).to_have_count(1)
    expect(page.locator("#attributes tr:visible")).to_contain_text("P1")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_an_export_is_asked_for(page: Page, topics: TopicServer) -> None:
    page.get_by_label("Patient name").fill("Doe")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    page.get_by_role("button", name="Export the study of Doe, Jane").click()
    dialog = page.get_by_role("dialog", name="Export")
    dialog.get_by_label("Destination").select_option("gs://exports/mr")
    dialog.get_by_label("Folder below it").fill("trial-7")
    dialog.get_by_label("Format").select_option("png")
    topics.messages.clear()
    dialog.get_by_role("button", name="Ask for the export").click()
    expect(page.locator("#status")).to_contain_text("Export asked for")
    (published,) = topics.messages[EXPORTS]
    sent = json.loads(base64.b64decode(published["data"]))
    assert (sent["path"], sent["destination"], sent["format"]) == (
        "studies/1.2.1",
        "gs://exports/mr/trial-7",
        "png",
    )


def test_what_was_found_is_downloaded_as_a_spreadsheet(page: Page) -> None:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download as CSV").click()
    lines = Path(waiting.value.path()).read_text("utf-8-sig").splitlines()
    assert waiting.value.suggested_filename == "studies.csv"
    assert len(lines) == 31
    assert lines[0].startswith('"PatientName",')


# Before a store that is slow, or has more than is shown


def gif(width: int) -> Answer:
    """A picture of one colour, this wide."""
    size = width.to_bytes(2, "little") * 2
    frame = b"," + bytes(4) + size + b"\0\2\2\x44\1\0"
    return Answer(
        body=b"GIF89a" + size + b"\x80\0\0" + bytes(6) + frame + b";",
        headers={"Content-Type": "image/gif"},
    )


@pytest.fixture
def planned(chromium: Browser, store: FakeStore, tmp_path: Path) -> Iterator[Page]:
    """The page before a store that answers by plan; not loaded yet."""
    store.answers(Answer())
    with function(store.url, tmp_path) as running:
        context = chromium.new_context(accept_downloads=True, base_url=running.url)
        context.set_default_timeout(20_000)
        yield context.new_page()
        context.close()


def test_what_comes_late_is_not_shown_with_another_instance(
    planned: Page, store: FakeStore
) -> None:
    late_metadata, late_picture = threading.Event(), threading.Event()

    def plan(asked: Asked) -> Answer:
        below, _, last = asked.path.rpartition("/")
        uid = below.rpartition("/")[2]
        if last == "metadata":
            assert uid == "1.2" or late_metadata.wait(60)
            return Answer(body=json.dumps([row(t00100020=f"Patient-of-{uid}")]).encode())
        if last == "rendered":
            assert uid == "1.1" or late_picture.wait(60)
            return gif(16 if uid == "1.1" else 32)
        numbers = (1, 2) if last == "instances" else (1,)
        found = [
            row(
                t0020000D="1",
                t0020000E="1",
                t00080018=f"1.{n}",
                t00200013=n,
                t00280010=16,
                t00280011=16,
            )
            for n in numbers
        ]
        return Answer(body=json.dumps(found).encode())

    store.plan = plan
    planned.goto("/")
    planned.get_by_role("button", name="Series of").click()
    planned.get_by_role("button", name="Instances of").click()
    attributes = planned.locator("#attributes")
    with planned.expect_request("**/instances/1.1/metadata"):
        planned.get_by_role("button", name="Instance 1").click()
    expect(planned.locator("#image")).to_have_js_property("naturalWidth", 16)
    planned.keyboard.press("Escape")
    planned.get_by_role("button", name="Instance 2").click()
    expect(attributes).to_contain_text("Patient-of-1.2")
    assert planned.evaluate("document.getElementById('image').naturalWidth") == 0
    with planned.expect_response("**/instances/1.1/metadata") as waiting:
        late_metadata.set()
    waiting.value.finished()
    late_picture.set()
    expect(planned.locator("#image")).to_have_js_property("naturalWidth", 32)
    expect(attributes).to_contain_text("Patient-of-1.2")


def test_what_is_cut_says_so(planned: Page, store: FakeStore) -> None:
    def plan(asked: Asked) -> Answer:
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        begin, end = int(query.get("offset", 0)), 6000
        places = range(begin, min(begin + int(query["limit"]), end))
        return Answer(
            body=json.dumps(
                [row(t0020000D=f"1.{n}", t0020000E=f"2.{n}", t00080060="CT") for n in places]
            ).encode()
        )

    store.plan = plan
    planned.goto("/")
    expect(planned.locator("#status")).to_have_text("25 and more studies")
    with planned.expect_download() as waiting:
        planned.get_by_role("button", name="Download as CSV").click()
    assert waiting.value.suggested_filename == "studies-first-5000.csv"
    assert len(Path(waiting.value.path()).read_text("utf-8-sig").splitlines()) == 5001
    expect(planned.locator("#notes")).to_contain_text("The spreadsheet ends after 5000 studies")
    planned.get_by_role("button", name="Series of").first.click()
    expect(planned.locator(".series > li")).to_have_count(5000)
    expect(planned.locator("tr.detail").first).to_contain_text(
        "There are more series than the 5000 shown"
    )
    expect(planned.locator("tr.study td").filter(has_text="CT").first).to_contain_text(
        "perhaps more"
    )


def test_every_control_has_a_name_and_every_picture_a_text(page: Page) -> None:
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, img, th')].filter(node => {
          if (node.tagName === 'IMG') return !node.hasAttribute('alt');
          const labels = node.labels ? [...node.labels].map(label => label.textContent).join('') : '';
          return !(node.getAttribute('aria-label') || labels || node.textContent.trim());
        }).map(node => node.outerHTML)"""
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1


def test_a_narrow_screen_does_not_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_policy_stops_what_is_not_the_pages_own(full: Function) -> None:
    policy = full.send("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for name in ("index.html", "search.css", "search.js"):
        text = (WEB / name).read_text()
        assert "http:" not in text
        assert "https:" not in text
        assert " style=" not in text
        assert "innerHTML" not in text
    etag = full.send("/search.js").headers["etag"]
    assert full.send("/search.js", headers={"If-None-Match": etag}).status == 304

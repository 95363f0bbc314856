"""A study opened in the page: its series in order, thumbnails, one instance and its neighbours."""

import json
import threading
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.search.browser import needs_chromium
from tests.search.kit import Answer, FakeStore, Received, row

pytestmark = needs_chromium


def opened(page: Page, name: str) -> None:
    """The study of a patient, opened."""
    page.get_by_label("Patient name").fill(name)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    page.locator("tr.study td.patient").click()


def test_a_study_is_opened_down_to_a_picture_and_its_metadata(page: Page) -> None:
    opened(page, "Doe")
    expect(page.locator(".series > li")).to_have_count(2)
    page.get_by_role("button", name="Instances of series 2 Axial 2").click()
    pictures = page.locator(".instances img")
    expect(pictures).to_have_count(3)
    for picture in pictures.all():
        expect(picture).to_have_js_property("naturalWidth", 160)
    page.get_by_role("button", name="Instance 2").click()
    expect(page.locator("#image")).to_have_js_property("naturalWidth", 64)
    expect(page.get_by_role("cell", name="Series Description")).to_be_visible()
    page.get_by_label("Find in the metadata").fill("0010,0020")
    expect(page.locator("#attributes tr:visible")).to_have_count(1)
    expect(page.locator("#attributes tr:visible")).to_contain_text("P1")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_series_is_in_order_from_its_first_to_its_last_instance(page: Page) -> None:
    opened(page, "Yamada")
    items = page.locator(".instances > li")
    expect(items).to_have_count(50)
    labels = [text.splitlines()[0] for text in items.all_inner_texts()]
    assert labels == [f"Instance {number}" for number in range(1, 51)]


def test_thumbnails_are_drawn_small_by_the_store(page: Page) -> None:
    with page.expect_response("**/rendered?viewport=160,160") as waiting:
        opened(page, "Yamada")
    assert waiting.value.status == 200
    expect(page.locator(".instances img").first).to_have_js_property("naturalWidth", 160)


def title(page: Page, number: int) -> None:
    """Instance NUMBER is on show."""
    expect(page.get_by_role("heading", name="Instance")).to_have_text(
        f"Yamada, Tarou (山田, 太郎) · Instance {number}"
    )


def test_an_instance_leads_to_its_neighbours_by_buttons_keys_and_wheel(page: Page) -> None:
    opened(page, "Yamada")
    page.locator(".instances button").nth(9).click()
    title(page, 10)
    expect(page.locator("#instance-about")).to_have_text("P2 · MR 1 Axial 1 · 10 of 50")
    page.get_by_role("button", name="Next").click()
    title(page, 11)
    page.get_by_role("button", name="Previous").click()
    title(page, 10)
    page.keyboard.press("ArrowRight")
    title(page, 11)
    page.keyboard.press("ArrowUp")
    title(page, 10)
    page.locator("#figure").hover()
    page.mouse.wheel(0, 100)
    title(page, 11)
    page.keyboard.press("End")
    title(page, 50)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    title(page, 50)


def test_arrow_keys_in_a_field_stay_in_the_field(page: Page) -> None:
    opened(page, "Yamada")
    page.locator(".instances button").first.click()
    page.get_by_label("Find in the metadata").press("ArrowRight")
    title(page, 1)


def test_an_instance_is_downloaded_as_a_file(page: Page) -> None:
    opened(page, "Yamada")
    page.locator(".instances button").first.click()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download .dcm").click()
    assert waiting.value.suggested_filename == "1.2.2.1.1.dcm"
    assert Path(waiting.value.path()).read_bytes()[128:132] == b"DICM"


def test_the_uid_of_an_instance_is_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(page, "Yamada")
    page.locator(".instances button").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Copy UID").click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "1.2.2.1.1"


# Before a store that answers by plan


def series(*instances: dict[str, object]) -> bytes:
    """Rows of a study with one series of these instances."""
    rows = [
        row(t0020000D="1", t0020000E="1", t00280010=16, t00280011=16, **instance)
        for instance in instances
    ]
    return json.dumps(rows).encode()


def test_instances_of_one_number_are_in_order_of_their_position(
    planned: Page, store: FakeStore
) -> None:
    def at(uid: str, z: float) -> dict[str, object]:
        place: dict[str, object] = {"vr": "DS", "Value": [0, 0, z]}
        number: dict[str, object] = {"vr": "IS", "Value": [1]}
        return {
            **json.loads(series({"t00080018": uid}))[0],
            "00200032": place,
            "00200013": number,
        }

    rows = [at("1.3", 3.5), at("1.1", -20), at("1.2", 0)]

    def plan(request: Received) -> Answer:
        if request.path.endswith("rendered"):
            return gif(16)
        return Answer(
            body=json.dumps(rows if request.path.endswith("instances") else rows[:1]).encode()
        )

    store.plan = plan
    planned.goto("/")
    planned.get_by_role("button", name="Series of").click()
    expect(planned.locator(".instances img")).to_have_count(3)
    sources = [image.get_attribute("src") for image in planned.locator(".instances img").all()]
    assert [str(source).split("/")[-2] for source in sources] == ["1.1", "1.2", "1.3"]


def test_a_long_series_is_drawn_as_one_scrolls(planned: Page, store: FakeStore) -> None:
    instances = series(*({"t00080018": f"1.{n}", "t00200013": n} for n in range(1, 601)))

    def plan(request: Received) -> Answer:
        if request.path.endswith("rendered"):
            return gif(16)
        return Answer(body=instances if request.path.endswith("instances") else series({}))

    store.plan = plan
    planned.goto("/")
    planned.get_by_role("button", name="Series of").click()
    expect(planned.locator(".head")).to_contain_text("600 instances")
    items = planned.locator(".instances > li")
    expect(planned.get_by_role("button", name="Show more of 600 instances")).to_be_visible()
    before = items.count()
    assert before < 600
    planned.get_by_role("button", name="Show more").scroll_into_view_if_needed()
    expect(items.nth(before)).to_be_attached()


def gif(width: int) -> Answer:
    """A picture of one colour, this wide."""
    size = width.to_bytes(2, "little") * 2
    frame = b"," + bytes(4) + size + b"\0\2\2\x44\1\0"
    return Answer(
        body=b"GIF89a" + size + b"\x80\0\0" + bytes(6) + frame + b";",
        headers={"Content-Type": "image/gif"},
    )


def test_what_comes_late_is_not_shown_with_another_instance(
    planned: Page, store: FakeStore
) -> None:
    late_metadata = threading.Event()
    late_picture = threading.Event()

    def plan(request: Received) -> Answer:
        below, _, last = request.path.rpartition("/")
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

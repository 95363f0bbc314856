"""The list of studies in a browser: found, sorted, kept as a URL; by mouse and by keyboard."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Page, expect

from functions.search.targets import ASSETS
from tests.contract.strictbucket import StrictBuckets
from tests.search.browser import needs_chromium
from tests.search.kit import Answer, FakeStore, Function, Received, row

pytestmark = needs_chromium
WEB = Path(__file__).parents[2] / "functions" / "search" / "web"


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
    page.get_by_role("button", name="Instance 1 ").first.focus()
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
    expect(page.locator("#status")).to_have_text("30 studies")


@pytest.mark.parametrize(("code", "count"), [("mr", "1 study"), ("RTPLAN", "No study found")])
def test_any_modality_can_be_typed(page: Page, code: str, count: str) -> None:
    page.get_by_label("Modality").fill(code)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#status")).to_have_text(count)


def test_the_newest_study_comes_first(page: Page) -> None:
    assert found(page)[0] == "Yamada, Tarou (山田, 太郎)"
    expect(page.get_by_role("columnheader", name="Study date")).to_have_attribute(
        "aria-sort", "descending"
    )


def test_a_click_on_a_column_sorts_by_it_and_another_the_other_way(page: Page) -> None:
    header = page.get_by_role("columnheader", name="Patient")
    header.get_by_role("button").click()
    assert found(page)[0] == "Crowd, 10"
    header.get_by_role("button").click()
    assert found(page)[0] == "Yamada, Tarou (山田, 太郎)"
    expect(header).to_have_attribute("aria-sort", "descending")


def test_a_row_says_how_many_series_and_instances_its_study_has(page: Page) -> None:
    newest = page.locator("tr.study").first
    expect(newest.locator("td[data-label=Series]")).to_have_text("1")
    expect(newest.locator("td[data-label=Instances]")).to_have_text("50")


def test_a_click_on_a_row_opens_its_study(page: Page) -> None:
    newest = page.locator("tr.study").first
    newest.locator("td[data-label=Description]").click()
    expect(page.get_by_role("button", name="Series of Yamada")).to_have_attribute(
        "aria-expanded", "true"
    )
    expect(page.locator(".series > li")).to_have_count(1)


def test_the_size_of_a_page_is_chosen(page: Page) -> None:
    page.get_by_label("Studies on a page").select_option("50")
    expect(page.locator("tr.study")).to_have_count(30)
    expect(page.locator("#range")).to_have_text("1–30 of 30")


def test_a_search_has_a_url_without_patient_data(page: Page, full: Function) -> None:
    page.get_by_label("Patient name").fill("ya")
    page.get_by_label("Patient ID").fill("P2")
    page.get_by_label("Study date from").fill("2025-01-01")
    page.get_by_label("Modality").fill("MR")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    assert page.url == f"{full.url}/#from=2025-01-01&modality=MR"
    page.reload()
    expect(page.locator("#status")).to_have_text("1 study")
    expect(page.get_by_label("Modality")).to_have_value("MR")
    expect(page.get_by_label("Patient name")).to_have_value("")


def test_a_malformed_url_of_a_search_is_the_plain_list(page: Page, full: Function) -> None:
    page.goto(f"{full.url}/#from=yesterday&modality=%3Cb%3E&sort=-x&page=-1&size=7")
    page.reload()
    expect(page.locator("#status")).to_have_text("30 studies")
    assert len(found(page)) == 25


def test_back_leads_to_the_search_before_and_its_values(page: Page) -> None:
    page.get_by_label("Patient name").fill("ya")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    page.get_by_label("Patient name").fill("doe")
    page.keyboard.press("Enter")
    expect(page.locator("tr.study td.patient")).to_contain_text("Doe")
    page.go_back()
    expect(page.locator("tr.study td.patient")).to_contain_text("Yamada")
    expect(page.get_by_label("Patient name")).to_have_value("ya")
    page.go_back()
    expect(page.locator("#status")).to_have_text("30 studies")


def test_back_to_before_a_reload_shows_no_values_of_a_later_search(page: Page) -> None:
    for name in ("ya", "doe"):
        page.get_by_label("Patient name").fill(name)
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_have_text("1 study")
    page.reload()
    expect(page.locator("#status")).to_have_text("30 studies")
    page.get_by_label("Patient name").fill("crowd")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("28 studies")
    page.go_back()
    page.go_back()
    expect(page.locator("#status")).to_have_text("30 studies")
    expect(page.get_by_label("Patient name")).to_have_value("")


def test_while_it_loads_the_list_says_so(planned: Page, store: FakeStore) -> None:
    store.answers(Answer(delay_s=60))
    planned.goto("/")
    expect(planned.locator("#status")).to_have_text("Searching…")
    expect(planned.locator("#results")).to_have_attribute("aria-busy", "true")
    store.released.set()
    expect(planned.locator("#status")).to_have_text("No study found")
    expect(planned.locator("#results")).not_to_have_attribute("aria-busy", "true")
    store.released.clear()


def test_back_during_a_search_does_not_show_its_rows_under_other_values(
    planned: Page, store: FakeStore
) -> None:
    def answer(request: Received) -> Answer:
        if request.path != "studies":
            return Answer()
        name = parse_qs(request.query).get("PatientName", ["Nobody"])[0]
        body = json.dumps([row(t0020000D="1.2", t00100010={"Alphabetic": name})]).encode()
        return Answer(body=body, delay_s=60 if name == "Beta" else 0)

    store.plan = answer
    planned.goto("/")
    planned.get_by_label("Patient name").fill("Alpha")
    planned.keyboard.press("Enter")
    expect(planned.locator("tr.study td.patient")).to_contain_text("Alpha")
    planned.get_by_label("Patient name").fill("Beta")
    planned.keyboard.press("Enter")
    expect(planned.locator("#status")).to_have_text("Searching…")
    expect(planned.locator("tr.study")).to_be_hidden()
    planned.go_back()
    expect(planned.locator("tr.study td.patient")).to_contain_text("Alpha")
    store.released.set()
    planned.wait_for_load_state("networkidle")
    expect(planned.locator("tr.study td.patient")).to_contain_text("Alpha")
    expect(planned.get_by_label("Patient name")).to_have_value("Alpha")
    store.released.clear()


def test_pages_are_turned(page: Page) -> None:
    first = found(page)
    assert len(first) == 25
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#range")).to_have_text("26–30 of 30")
    assert not set(found(page)) & set(first)
    expect(page.get_by_role("heading", name="Studies")).to_be_focused()
    page.get_by_role("button", name="Previous").click()
    expect(page.locator("#range")).to_have_text("1–25 of 30")


def test_what_was_found_is_downloaded_as_a_spreadsheet(page: Page) -> None:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download as CSV").click()
    lines = Path(waiting.value.path()).read_text("utf-8-sig").splitlines()
    assert waiting.value.suggested_filename == "studies.csv"
    assert len(lines) == 31
    assert lines[0].startswith('"PatientName",')


def test_the_request_is_shown_as_curl_and_both_find_the_same(page: Page) -> None:
    page.get_by_label("Patient name").fill("ya")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    page.get_by_role("button", name="Show the request").click()
    command = page.get_by_role("region", name="As a curl command").inner_text()
    answer = subprocess.run(
        ["sh", "-c", command], capture_output=True, check=True, text=True, timeout=60
    )
    assert [study["0020000D"]["Value"] for study in json.loads(answer.stdout)] == [["1.2.2"]]


def test_the_request_is_shown_as_python_that_runs(page: Page) -> None:
    page.get_by_label("Patient ID").fill("P2")
    page.get_by_label("Modality").fill("MR")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    page.get_by_role("button", name="Show the request").click()
    program = page.get_by_role("region", name="As a Python program").inner_text()
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert answer.stdout == "1.2.2\n"


def test_a_quote_in_a_name_stays_a_value_of_the_curl_command(page: Page) -> None:
    page.get_by_label("Patient name").fill("O'Ya $(id) `id`")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("No study found")
    page.get_by_role("button", name="Show the request").click()
    command = page.get_by_role("region", name="As a curl command").inner_text()
    shown = subprocess.run(
        ["sh", "-c", command.replace("curl ", "printf '%s\\n' ", 1)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert json.loads(shown.stdout.splitlines()[-1])["PatientName"] == "O'Ya $(id) `id`"


# Before a store that has more than is shown


def many(request: Received, number: int) -> Answer:
    """The rows of a search that finds so many."""
    query = {name: values[0] for name, values in parse_qs(request.query).items()}
    begin = int(query.get("offset", 0))
    places = range(begin, min(begin + int(query["limit"]), number))
    rows = [
        row(t0020000D=f"1.{n}", t0020000E=f"2.{n}", t00080060="CT", t00080018=f"3.{n}")
        for n in places
    ]
    return Answer(body=json.dumps(rows).encode())


def test_of_too_many_studies_the_newest_are_shown(planned: Page, store: FakeStore) -> None:
    month_ago = (datetime.now(UTC) - timedelta(days=40)).strftime("%Y%m%d")

    def plan(request: Received) -> Answer:
        since = parse_qs(request.query).get("StudyDate", ["19000101-"])[0]
        return many(request, 6000 if since < month_ago else 30)

    store.plan = plan
    planned.goto("/")
    expect(planned.locator("#status")).to_have_text("30 studies")
    expect(planned.locator("#notes")).to_contain_text("These are the newest, since")


@pytest.fixture
def cut(planned: Page, store: FakeStore) -> Page:
    """The page before a store that has more of everything than is shown."""
    store.plan = lambda request: many(request, 6000)
    planned.goto("/")
    expect(planned.locator("#status")).to_have_text("1,000+ studies")
    return planned


def test_a_list_of_studies_that_is_cut_says_so(cut: Page) -> None:
    notes = cut.locator("#notes")
    expect(notes).to_contain_text("There are more than these 1,000 studies")
    instances = cut.locator("td[data-label=Instances]").first
    expect(instances).to_have_text("500+")


def test_a_spreadsheet_that_is_cut_says_so(cut: Page) -> None:
    with cut.expect_download() as waiting:
        cut.get_by_role("button", name="Download as CSV").click()
    assert waiting.value.suggested_filename == "studies-first-5000.csv"
    text = Path(waiting.value.path()).read_text("utf-8-sig")
    assert len(text.splitlines()) == 5001
    notes = cut.locator("#notes")
    expect(notes).to_contain_text("The spreadsheet ends after 5000 studies")


def test_a_list_of_series_that_is_cut_says_so(cut: Page) -> None:
    cut.get_by_role("button", name="Series of").first.click()
    expect(cut.locator(".series > li")).to_have_count(5000)
    detail = cut.locator("tr.detail").first
    expect(detail).to_contain_text("There are more series than the 5000 shown")
    modalities = cut.locator("td[data-label=Modality]").first
    expect(modalities).to_contain_text("perhaps more")


def test_every_control_has_a_name_and_every_picture_a_text(page: Page) -> None:
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, img, th')].filter(node => {
          if (node.tagName === 'IMG') return !node.hasAttribute('alt');
          const labels = [...(node.labels ?? [])].map(label => label.textContent).join('');
          return !(node.getAttribute('aria-label') || labels || node.textContent.trim());
        }).map(node => node.outerHTML)"""
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1


def test_a_narrow_screen_does_not_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator("tr.study").first.click()
    expect(page.locator(".instances img").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_narrow_screen_has_one_field_until_more_are_asked_for(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    expect(page.get_by_label("Patient name")).to_be_visible()
    expect(page.get_by_label("Modality")).to_be_hidden()
    page.get_by_role("button", name="More filters").click()
    expect(page.get_by_label("Modality")).to_be_visible()


def test_a_mistake_in_a_date_that_is_folded_away_unfolds_it(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Study date from").fill("2025-01-02")
    page.get_by_label("Study date to").fill("2025-01-01")
    page.get_by_role("button", name="Fewer filters").click()
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("alert")).to_have_text("The first date is after the last.")
    expect(page.get_by_label("Study date from")).to_be_focused()


@pytest.mark.parametrize(("label", "typed"), [("Study date to", "1066-10-14"), ("Modality", "7")])
def test_a_field_that_is_folded_away_unfolds_when_the_browser_finds_a_mistake_in_it(
    page: Page, label: str, typed: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.get_by_role("button", name="More filters").click()
    page.get_by_label(label).fill(typed)
    page.get_by_role("button", name="Fewer filters").click()
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_label(label)).to_be_focused()


def test_filters_that_a_url_names_are_not_folded_away(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Modality").fill("MR")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#status")).to_have_text("1 study")
    page.reload()
    expect(page.get_by_label("Modality")).to_be_visible()


def test_a_narrow_screen_shows_studies_as_cards_that_stay_a_table(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    card = page.get_by_role("row").filter(has_text="Yamada")
    expect(card).to_have_css("display", "grid")
    expect(card.get_by_role("cell").filter(has_text="2025-02-03")).to_be_visible()
    page.get_by_label("Order").select_option("patient")
    assert found(page)[0] == "Crowd, 10"


def test_the_policy_blocks_code_that_is_not_the_pages_own(
    full: Function, buckets: StrictBuckets
) -> None:
    policy = full.send("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy.replace(buckets.url, "")
    for name in ("index.html", "search.css", *(path.name for path in WEB.glob("*.js"))):
        text = (WEB / name).read_text()
        assert "http:" not in text
        assert "https:" not in text
        assert " style=" not in text
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval", text)
    etag = full.send("/search.js").headers["etag"]
    assert full.send("/search.js", headers={"If-None-Match": etag}).status == 304


def test_every_file_of_the_page_is_served_and_no_other() -> None:
    assert {path.name for path in WEB.iterdir()} == set(ASSETS.values())
    described = json.loads((WEB / "openapi.json").read_text())["paths"]
    assert set(ASSETS) <= set(described)

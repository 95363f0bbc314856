"""Every state of the page, on a wide and a narrow screen, light and dark: it fits, its texts can be
read, and a picture of it is kept in the test's folder."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from tests.search.browser import drag, needs_chromium

pytestmark = needs_chromium
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SCREENS = {"wide": (1280, 900), "narrow": (390, 844)}

# Texts whose contrast with their ground is below 4.5 to 1 (WCAG 2.2, 1.4.3); those of disabled
# controls do not count.
FAINT = """() => {
  const numbers = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (node) => {
    const [r, g, b, alpha = 1] = numbers(getComputedStyle(node).backgroundColor);
    return alpha > 0 || !node.parentElement ? [r, g, b] : ground(node.parentElement);
  };
  const top = document.querySelector('dialog[open]') ?? document.body;
  const faint = [];
  for (const node of top.querySelectorAll('*')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest(':disabled, .hidden, .skip')) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(1)} ${node.outerHTML.slice(0, 80)}`);
  }
  return faint;
}"""


def search(page: Page, name: str) -> None:
    page.get_by_label("Patient name").fill(name)
    page.get_by_label("Patient name").press("Enter")


def the_list(page: Page) -> Locator:
    return page.locator("tr.study .badge").first


def nothing_found(page: Page) -> Locator:
    search(page, "nobody")
    return page.get_by_text("No study matches")


def a_mistake(page: Page) -> Locator:
    page.get_by_label("Study date from").fill("2025-01-02")
    page.get_by_label("Study date to").fill("2025-01-01")
    page.get_by_role("button", name="Search").click()
    return page.get_by_text("The first date is after the last.")


def one_study(page: Page) -> None:
    search(page, "Yamada")
    expect(page.locator("#status")).to_have_text("1 study")


def an_open_study(page: Page) -> Locator:
    one_study(page)
    page.locator("tr.study td.patient").click()
    return page.locator(".instances img").first


def an_instance(page: Page) -> Locator:
    an_open_study(page)
    page.locator(".instances button").nth(2).click()
    return page.get_by_role("cell", name="Study Date")


def an_export(page: Page) -> Locator:
    one_study(page)
    page.get_by_role("button", name="Export the study of Yamada").click()
    return page.get_by_role("dialog", name="Export")


def a_requested_export(page: Page) -> Locator:
    an_export(page)
    page.get_by_role("dialog").get_by_role("button", name="Export").click()
    return page.get_by_text("Requested; waiting for its outcome")


def finished_exports(page: Page) -> Locator:
    """One that is done, and one that is done in part."""
    done = {"outcome": "exported", "counts": {"objects": 50}, "bytes": 26_300_000}
    partial = {
        "outcome": "partial",
        "reason": "not_found",
        "detail": "some instances could not be retrieved",
        "counts": {"objects": 49, "failures": 1},
        "bytes": 25_800_000,
    }
    for outcome in (done, partial):
        state = {"state": "done", "outcome": outcome}
        page.route("**/requests/*", answered_with(state))
        an_export(page)
        page.get_by_role("dialog").get_by_role("button", name="Export").click()
        word = "Partly done" if outcome is partial else "Done"
        expect(page.locator("#exports-list li").first).to_contain_text(word)
    return page.locator("#exports-list li").last


def answered_with(state: object) -> Callable[[Route], None]:
    """Answers every request with this."""
    return lambda route: route.fulfill(json=state)


def the_request(page: Page) -> Locator:
    page.get_by_role("button", name="Show the request").click()
    return page.get_by_text("search_for_studies")


def uploads(page: Page) -> Locator:
    """Files with every kind of outcome, one that waits for its own, and one that is too large."""
    outcomes: list[dict[str, object]] = [
        {"outcome": "stored"},
        {"outcome": "duplicate"},
        {
            "outcome": "rejected",
            "reason": "unsupported_input",
            "detail": "not an image",
        },
        {
            "outcome": "partial",
            "reason": "rejected",
            "detail": "some members could not be stored",
            "counts": {"stored": 118, "skipped": 1, "rejected": 1, "members": 120},
        },
    ]
    known: dict[str, dict[str, object]] = {}

    def answer(route: Route) -> None:
        if len(known) < len(outcomes):
            known.setdefault(route.request.url, dict(outcomes[len(known)]))
        outcome = known.get(route.request.url)
        state = {"state": "done", "outcome": outcome} if outcome else {"state": "open"}
        route.fulfill(json=state)

    page.route("**/requests/*", answer)
    names = ["scan.dcm", "copy.dcm", "other.dcm", "night.zip", "a-name-without-end" * 5, "late"]
    files: list[FilePayload] = [
        {"name": name, "mimeType": "", "buffer": bytes(1000)} for name in names
    ]
    too_large: FilePayload = {
        "name": "mammo.dcm",
        "mimeType": "",
        "buffer": bytes(3_000_001),
    }
    page.locator("#files").set_input_files([*files, too_large])
    expect(page.locator("#uploads-status")).to_contain_text("1 partial")
    return page.locator("#uploads-list")


def uploads_on_their_way(page: Page) -> Locator:
    page.route(re.compile("&upload_id="), lambda _route: None)  # the bucket does not answer
    files: list[FilePayload] = [
        {
            "name": f"{number}.dcm",
            "mimeType": "",
            "buffer": bytes(500_000),
        }
        for number in range(6)
    ]
    page.locator("#files").set_input_files(files)
    expect(page.locator("#uploads-status")).to_contain_text("3 being sent")
    return page.get_by_role("button", name="Stop")


def a_file_over_the_page(page: Page) -> Locator:
    drag(page, [Path(__file__)], drop=False)
    return page.get_by_text("Drop files, folders or archives")


STATES = (
    the_list,
    nothing_found,
    a_mistake,
    an_open_study,
    an_instance,
    an_export,
    a_requested_export,
    finished_exports,
    the_request,
    uploads,
    uploads_on_their_way,
    a_file_over_the_page,
)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_state_fits_and_can_be_read(
    page: Page, state: Callable[[Page], Locator], tmp_path: Path
) -> None:
    expect(state(page)).to_be_visible()
    for screen, (width, height) in SCREENS.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=tmp_path / f"{state.__name__}-{screen}-{scheme}.png")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate(FAINT) == []

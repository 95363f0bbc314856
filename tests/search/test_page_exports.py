"""An export from the page: its place, and what became of it."""

import base64
import json

from playwright.sync_api import Page, expect

from tests.contract.topics import TopicServer
from tests.search.browser import needs_chromium
from tests.search.conftest import EXPORTS

pytestmark = needs_chromium


def test_an_export_is_asked_for(page: Page, topics: TopicServer) -> None:
    page.get_by_label("Patient name").fill("Doe")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    page.get_by_role("button", name="Export the study of Doe, Jane").click()
    dialog = page.get_by_role("dialog", name="Export")
    dialog.get_by_label("Destination").select_option("gs://exports/mr")
    dialog.get_by_label("Folder in it").fill("trial-7")
    dialog.get_by_label("Format").select_option("png")
    topics.messages.clear()
    dialog.get_by_role("button", name="Export").click()
    expect(page.locator("#exports-list")).to_contain_text("gs://exports/mr/trial-7")
    (published,) = topics.messages[EXPORTS]
    sent = json.loads(base64.b64decode(published["data"]))
    assert (sent["path"], sent["destination"], sent["format"]) == (
        "studies/1.2.1",
        "gs://exports/mr/trial-7",
        "png",
    )

"""An export from the page: its destination, and its outcome."""

import base64
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.contract.strictbucket import StrictBuckets
from tests.contract.topics import TopicServer
from tests.search.browser import needs_chromium
from tests.search.conftest import EXPORTS, STATE
from tests.search.kit import Function, fake_store, function, kept

pytestmark = needs_chromium
EXPORTED: dict[str, Any] = {
    "outcome": "exported",
    "counts": {"objects": 6},
    "bytes": 12_345_678,
}


def asked_for(page: Page, topics: TopicServer) -> dict[str, str]:
    """An export of Jane Doe's study as the page proposes it: the command."""
    page.get_by_label("Patient name").fill("Doe")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    page.get_by_role("button", name="Export the study of Doe, Jane").click()
    topics.messages.clear()
    requested = page.locator("#exports-list li").filter(has_text="Requested")
    before = requested.count()
    page.get_by_role("dialog", name="Export").get_by_role("button", name="Export").click()
    expect(requested).to_have_count(before + 1)
    (published,) = topics.messages[EXPORTS]
    command: dict[str, str] = json.loads(base64.b64decode(published["data"]))
    return command


def test_an_export_is_asked_for(page: Page, topics: TopicServer) -> None:
    page.get_by_label("Patient name").fill("Doe")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("1 study")
    page.get_by_role("button", name="Export the study of Doe, Jane").click()
    dialog = page.get_by_role("dialog", name="Export")
    dialog.get_by_label("Destination").select_option("gs://exports/mr")
    dialog.get_by_label("Folder in it").fill("trial-7")
    dialog.get_by_label("Format").select_option(label="PNG pictures")
    topics.messages.clear()
    dialog.get_by_role("button", name="Export").click()
    expect(page.locator("#exports-list")).to_contain_text("PNG pictures of")
    expect(page.locator("#exports-list")).to_contain_text("gs://exports/mr/trial-7")
    (published,) = topics.messages[EXPORTS]
    sent = json.loads(base64.b64decode(published["data"]))
    assert sent["path"] == "studies/1.2.1"
    assert sent["destination"] == "gs://exports/mr/trial-7"
    assert sent["format"] == "png"


def test_each_export_has_its_own_folder(page: Page, topics: TopicServer) -> None:
    first = asked_for(page, topics)["destination"]
    second = asked_for(page, topics)["destination"]
    for destination in (first, second):
        assert re.fullmatch(r"gs://exports/ct/exports/\d{4}-\d\d-\d\d-[a-z0-9]{6}", destination)
    assert first != second
    expect(page.locator("#exports-list")).to_contain_text(second)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Done: 6 objects, 12.3 MB, in gs://exports/ct/"),
        (
            {
                "outcome": "partial",
                "counts": {"objects": 5, "failures": 1},
                "reason": "rejected",
            },
            "; 1 failure. rejected",
        ),
        ({"outcome": "rejected", "reason": "not_found"}, "Not exported. not_found"),
    ],
)
def test_what_became_of_an_export_is_shown(
    page: Page,
    topics: TopicServer,
    buckets: StrictBuckets,
    changes: dict[str, Any],
    text: str,
) -> None:
    command = asked_for(page, topics)
    kept(buckets, STATE, command["request_id"], **EXPORTED | changes)
    expect(page.locator("#exports-list li").first.locator(".state")).to_contain_text(text)


def test_a_request_that_has_no_outcome_yet_is_open(full: Function) -> None:
    answer = full.send(f"/requests/{uuid.uuid4()}")
    assert answer.status == 200
    assert answer.json()["state"] == "open"


def test_callers_see_only_some_fields_of_an_outcome(full: Function, buckets: StrictBuckets) -> None:
    request_id = str(uuid.uuid4())
    kept(buckets, STATE, request_id, **EXPORTED, name="object-name")
    assert set(full.send(f"/requests/{request_id}").json()["outcome"]) == {
        "outcome",
        "counts",
        "bytes",
    }


def test_a_request_with_a_guessable_id_is_not_shown(full: Function, buckets: StrictBuckets) -> None:
    kept(buckets, STATE, "nightly", **EXPORTED)
    assert full.send("/requests/nightly").status == 404


def test_without_exports_no_request_is_shown(search: Function) -> None:
    assert search.send(f"/requests/{uuid.uuid4()}").status == 404


def test_missing_rights_on_the_exports_topic_are_reported_to_the_operator(
    full: Function, topics: TopicServer
) -> None:
    topics.refuse = ["PERMISSION_DENIED"]
    command = {
        "path": "studies/1.2.1",
        "destination": "gs://exports/ct/x",
        "format": "png",
    }
    answer = full.query("/exports", command)
    assert answer.status == 502
    assert answer.reason == "unauthorized"
    message = "the exports topic refuses the service's own credentials; tell its operator"
    assert answer.json()["error"]["message"] == message
    assert message in full.log()


def test_a_state_bucket_that_is_away_is_unavailable(full: Function, buckets: StrictBuckets) -> None:
    buckets.failures = [503] * 4
    try:
        assert full.send(f"/requests/{uuid.uuid4()}").status == 502
    finally:
        buckets.failures = []


def test_a_state_bucket_that_is_missing_is_unavailable(
    buckets: StrictBuckets, tmp_path: Path
) -> None:
    settings = {
        "SEARCH_EXPORTS": "true",
        "EXPORTS_TOPIC": EXPORTS,
        "EXPORT_DESTINATIONS": "gs://exports/ct",
        "STATE_BUCKET": "dicom-nowhere",
        "STORAGE_EMULATOR_HOST": buckets.url,
    }
    with fake_store() as store, function(store.url, tmp_path, **settings) as running:
        answer = running.send(f"/requests/{uuid.uuid4()}")
    assert answer.status == 502
    assert answer.reason == "unavailable"


def test_a_study_is_opened_in_the_viewer_that_the_operator_has(page: Page) -> None:
    page.get_by_label("Patient name").fill("Doe")
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name="Open the study of Doe, Jane in the viewer")
    expect(link).to_have_attribute(
        "href", "https://viewer.example.org/viewer?StudyInstanceUIDs=1.2.1"
    )
    expect(link).to_have_attribute("rel", "noopener noreferrer")

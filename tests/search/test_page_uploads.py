"""Uploads from the page, in a browser: files are dropped, sent to the bucket, and their outcomes
shown."""

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect

from tests import scans
from tests.contract.strictbucket import StrictBuckets
from tests.search.browser import drag, needs_chromium
from tests.search.conftest import LANDING, STATE
from tests.search.kit import Function, kept

pytestmark = needs_chromium
SCAN = scans.dicom(("1.2", "1.2.3", "1.2.3.4"), scans.noise(1, 500_000))
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(autouse=True)
def empty(buckets: StrictBuckets) -> Iterator[None]:
    """The landing bucket is empty, whatever other files' tests left in it, and nothing goes wrong
    in it."""
    buckets.buckets[LANDING].clear()
    yield
    buckets.buckets[LANDING].clear()
    buckets.uploads.plan.clear()
    buckets.failures.clear()


@pytest.fixture
def shaken(chromium: Browser, full: Function) -> Iterator[Page]:
    """The page, where a fault of the network is no error of the page's."""
    context = chromium.new_context(base_url=full.url)
    context.set_default_timeout(20_000)
    opened = context.new_page()
    opened.goto("/")
    expect(opened.locator("#status")).to_have_text("30 studies")
    yield opened
    context.close()


def written(folder: Path, **files: bytes) -> list[Path]:
    """Files whose names stand for a patient's."""
    paths = []
    for name, data in files.items():
        path = folder / f"Doe-{name.replace('_', '.')}"
        path.write_bytes(data)
        paths.append(path)
    return paths


def entry(page: Page, name: str) -> Locator:
    """A file of the list."""
    return page.locator("#uploads-list li").filter(has_text=name)


def request_ids(buckets: StrictBuckets) -> list[str]:
    """Of what was uploaded, in the order in which it was written."""
    return [f"upload-{name.removeprefix('uploads/')}" for name in buckets.buckets[LANDING]]


def tell(buckets: StrictBuckets, **record: Any) -> None:
    """Let the one upload have this outcome."""
    (request_id,) = request_ids(buckets)
    kept(buckets, STATE, request_id, **record)


def test_a_dropped_file_arrives_byte_for_byte_under_a_name_that_says_nothing(
    page: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    drag(page, written(tmp_path, scan_dcm=SCAN))
    expect(entry(page, "Doe-scan.dcm")).to_contain_text("waiting for its outcome")
    (name,) = buckets.names(LANDING)
    assert re.fullmatch(f"uploads/{ID}", name)
    assert buckets.read(LANDING, name) == SCAN


def test_the_page_cannot_send_to_another_bucket(shaken: Page, buckets: StrictBuckets) -> None:
    before = buckets.requests.total()
    refused = (
        """(url) => fetch(url, {method: "POST", body: "{}"}).then(() => "sent", () => "refused")"""
    )
    other = f"{buckets.url}/upload/storage/v1/b/{STATE}/o?uploadType=resumable&name=x"
    assert shaken.evaluate(refused, other) == "refused"
    assert buckets.requests.total() == before


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"outcome": "stored"}, "Stored"),
        ({"outcome": "duplicate"}, "Duplicate: the DICOM store already had it, byte for byte"),
        (
            {"outcome": "conflict", "reason": "conflict", "detail": "other bytes"},
            "Conflict: other bytes",
        ),
        ({"outcome": "rejected", "reason": "unsafe_archive"}, "Rejected: unsafe_archive"),
        (
            {
                "outcome": "stored",
                "counts": {
                    "stored": 2,
                    "skipped": 1,
                    "members": 3,
                },
            },
            "Stored: 3 files in it: 2 stored, 1 skipped",
        ),
        (
            {
                "outcome": "partial",
                "reason": "rejected",
                "counts": {"stored": 2, "rejected": 1, "members": 3},
            },
            "Partly stored: 3 files in it: 2 stored, 1 rejected; rejected",
        ),
    ],
    ids=lambda value: value["outcome"] if isinstance(value, dict) else "",
)
def test_what_became_of_a_file_is_shown(
    page: Page, buckets: StrictBuckets, tmp_path: Path, record: dict[str, Any], text: str
) -> None:
    drag(page, written(tmp_path, scan_dcm=SCAN))
    expect(entry(page, "Doe-scan.dcm")).to_contain_text("waiting for its outcome")
    tell(buckets, **record)
    expect(entry(page, "Doe-scan.dcm").locator(".state")).to_have_text(text)
    expect(page.locator("#uploads-status")).to_have_text(f"1 file: 1 {record['outcome']}")


def test_files_can_be_chosen_too(page: Page, buckets: StrictBuckets, tmp_path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload files").click()
    chooser.value.set_files(written(tmp_path, a_dcm=SCAN, b_dcm=SCAN[:-4]))
    expect(page.locator("#uploads-status")).to_have_text("2 files: 2 sent, no outcome yet")
    assert len(buckets.names(LANDING)) == 2


def test_a_folder_is_walked_through(page: Page, buckets: StrictBuckets, tmp_path: Path) -> None:
    inner = tmp_path / "night" / "inner"
    inner.mkdir(parents=True)
    for place, name in [(inner, "a"), (inner.parent, "b"), (inner, ".hidden"), (inner, "DICOMDIR")]:
        (place / name).write_bytes(SCAN)
    drag(page, [tmp_path / "night"])
    expect(entry(page, "night/inner/a")).to_be_visible()
    expect(page.locator("#uploads-status")).to_have_text("2 files: 2 sent, no outcome yet")


def test_a_folder_without_a_scan_is_said_to_have_none(page: Page, tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / "DICOMDIR").write_bytes(SCAN)
    drag(page, [tmp_path / "night"])
    expect(page.get_by_role("alert")).to_have_text("There are no files to upload.")


def test_metadata_and_its_jpeg_go_as_one_file(
    page: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    text = scans.metadata(("1.2", "1.3", "1.4"))
    picture = scans.jpeg()
    drag(page, written(tmp_path, x_json=text, x_jpg=picture, y_jpg=picture))
    expect(page.locator("#uploads-status")).to_have_text("2 files: 2 sent, no outcome yet")
    joined = max((blob.data for blob in buckets.buckets[LANDING].values()), key=len)
    assert joined.startswith(b"--")
    assert text in joined
    assert picture in joined


@pytest.mark.parametrize(
    ("data", "text"), [(b"", "The file is empty."), (bytes(3_000_001), "Larger than 3.0 MB.")]
)
def test_what_cannot_be_taken_is_not_sent(
    page: Page, buckets: StrictBuckets, tmp_path: Path, data: bytes, text: str
) -> None:
    drag(page, written(tmp_path, a_dcm=data))
    expect(entry(page, "Doe-a.dcm")).to_contain_text(text)
    expect(page.locator("#uploads-status")).to_have_text("1 file: 1 not sent")
    expect(page.get_by_role("button", name="Send again")).to_be_hidden()
    assert not buckets.names(LANDING)


def test_a_folder_of_more_files_than_the_limit_is_refused_though_they_are_pairs(
    page: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    folder = tmp_path / "night"
    folder.mkdir()
    for number in range(2501):
        for ending in ("json", "jpg"):
            (folder / f"{number}.{ending}").write_bytes(b"1")
    drag(page, [folder])
    expect(page.get_by_role("alert")).to_contain_text("more than 5,000 files")
    assert not buckets.names(LANDING)


def test_a_drop_has_a_limit(page: Page, buckets: StrictBuckets) -> None:
    files: list[FilePayload] = [
        {
            "name": f"{number}.dcm",
            "mimeType": "",
            "buffer": b"1",
        }
        for number in range(5001)
    ]
    page.locator("#files").set_input_files(files)
    expect(page.get_by_role("alert")).to_contain_text("more than 5,000 files")
    assert not buckets.names(LANDING)


def test_three_files_are_sent_at_a_time(page: Page, buckets: StrictBuckets, tmp_path: Path) -> None:
    page.route(f"{buckets.url}/**", lambda _route: None)  # the bucket does not answer
    files = {f"f{number}": SCAN for number in range(5)}
    drag(page, written(tmp_path, **files))
    text = "5 files: 2 to send, 3 being sent"
    expect(page.locator("#uploads-status")).to_have_text(text)


def test_uploads_can_be_stopped(page: Page, buckets: StrictBuckets, tmp_path: Path) -> None:
    page.route(f"{buckets.url}/**", lambda _route: None)  # the bucket does not answer
    drag(page, written(tmp_path, **{f"f{number}": SCAN for number in range(5)}))
    expect(page.locator("#uploads-status")).to_contain_text("3 being sent")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#uploads-status")).to_have_text("5 files: 5 stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert not buckets.names(LANDING)


def test_a_file_that_is_stopped_while_it_begins_is_not_sent(
    page: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    held: list[Route] = []
    page.route("**/uploads", lambda route: held.append(route))
    drag(page, written(tmp_path, a_dcm=SCAN))
    expect(page.locator("#uploads-status")).to_have_text("1 file: 1 being sent")
    page.get_by_role("button", name="Stop").click()
    held[0].continue_()
    expect(page.locator("#uploads-status")).to_have_text("1 file: 1 stopped")
    assert not buckets.names(LANDING)


def test_a_file_that_is_stopped_between_two_attempts_is_not_sent_again(
    shaken: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    held: list[Route] = []

    def refuse_once(route: Route) -> None:
        held.append(route)
        route.fulfill(status=503, headers={"Retry-After": "600"}, body="{}")

    shaken.route("**/uploads", refuse_once)
    with shaken.expect_response("**/uploads"):
        drag(shaken, written(tmp_path, a_dcm=SCAN))
    shaken.get_by_role("button", name="Stop").click()
    expect(shaken.locator("#uploads-status")).to_have_text("1 file: 1 stopped")
    assert len(held) == 1


def test_what_was_stopped_can_be_sent_again(
    page: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    page.route(f"{buckets.url}/**", lambda _route: None)  # the bucket does not answer
    drag(page, written(tmp_path, **{f"f{number}": SCAN for number in range(5)}))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#uploads-status")).to_have_text("5 files: 5 stopped")
    page.unroute(f"{buckets.url}/**")
    page.get_by_role("button", name="Send again").click()
    expect(page.locator("#uploads-status")).to_have_text("5 files: 5 sent, no outcome yet")
    assert len(buckets.names(LANDING)) == 5


@pytest.mark.parametrize("fault", ["drop", "lose", "503", "429", "gone", "404"])
def test_a_fault_that_passes_does_not_end_an_upload(
    shaken: Page, buckets: StrictBuckets, tmp_path: Path, fault: str
) -> None:
    buckets.uploads.plan[:] = [fault]
    drag(shaken, written(tmp_path, a_dcm=SCAN))
    expect(entry(shaken, "Doe-a.dcm")).to_contain_text("waiting for its outcome")
    (name,) = buckets.names(LANDING)
    assert buckets.read(LANDING, name) == SCAN


def test_an_interrupted_upload_continues_where_it_stopped(
    shaken: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    buckets.uploads.plan[:] = ["half"]
    buckets.uploads.ranges.clear()
    drag(shaken, written(tmp_path, a_dcm=SCAN))
    expect(entry(shaken, "Doe-a.dcm")).to_contain_text("waiting for its outcome")
    size = len(SCAN)
    assert buckets.uploads.ranges[-1] == f"bytes 262144-{size - 1}/{size}"


def test_an_upload_that_makes_progress_is_not_given_up(
    shaken: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    buckets.uploads.plan[:] = ["half", ""] * 7  # the chunk, and the question how much is there
    large = scans.dicom(("1.2", "1.2.3", "1.2.3.5"), scans.noise(2, 2_500_000))
    drag(shaken, written(tmp_path, a_dcm=large))
    expect(entry(shaken, "Doe-a.dcm")).to_contain_text("waiting for its outcome", timeout=60_000)
    (name,) = buckets.names(LANDING)
    assert buckets.read(LANDING, name) == large


def test_an_upload_waits_for_a_bucket_that_is_away(
    shaken: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    buckets.failures = [503] * 4  # as often as the function asks
    drag(shaken, written(tmp_path, a_dcm=SCAN))
    expect(entry(shaken, "Doe-a.dcm")).to_contain_text("waiting for its outcome")


@pytest.mark.parametrize("change", ["gone", "other bytes"])
def test_a_file_that_cannot_be_read_any_more_is_given_up_at_once(
    shaken: Page, buckets: StrictBuckets, tmp_path: Path, change: str
) -> None:
    held: list[Route] = []
    shaken.route("**/uploads", lambda route: held.append(route))
    (path,) = written(tmp_path, a_dcm=SCAN)
    drag(shaken, [path])
    expect(shaken.locator("#uploads-status")).to_have_text("1 file: 1 being sent")
    path.unlink()  # as when a medium is taken out
    if change == "other bytes":
        path.write_bytes(SCAN[:-4])
    held[0].continue_()
    text = "Not sent. The file was deleted or changed since it was chosen."
    expect(entry(shaken, "Doe-a.dcm")).to_contain_text(text, timeout=10_000)
    assert not buckets.names(LANDING)


def test_a_refusal_is_shown(shaken: Page, tmp_path: Path) -> None:
    shaken.route(
        "**/uploads",
        lambda route: route.fulfill(
            status=403, body=json.dumps({"error": {"reason": "forbidden", "message": "Not you"}})
        ),
    )
    drag(shaken, written(tmp_path, a_dcm=SCAN))
    expect(entry(shaken, "Doe-a.dcm")).to_contain_text("Not sent. Not you")


def test_what_needs_a_person_comes_first(
    page: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    drag(page, written(tmp_path, a_dcm=SCAN, b_dcm=b"no scan"))
    expect(page.locator("#uploads-status")).to_contain_text("2 sent")
    for request_id, name in zip(request_ids(buckets), buckets.names(LANDING), strict=True):
        is_scan = buckets.read(LANDING, f"uploads/{request_id.removeprefix('upload-')}") == SCAN
        kept(
            buckets,
            STATE,
            request_id,
            outcome="stored" if is_scan else "rejected",
            id=name,
        )
    expect(page.locator("#uploads-list li").first).to_contain_text("Doe-b.dcm")
    expect(page.locator("#uploads-status")).to_have_text("2 files: 1 stored, 1 rejected")


def test_outcomes_that_are_known_are_shown_without_waiting_in_between(
    page: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    page.clock.install()
    page.clock.pause_at(datetime.datetime.now() + datetime.timedelta(hours=1))
    drag(page, written(tmp_path, **{f"f{number}": SCAN for number in range(20)}))
    expect(page.locator("#uploads-list li.sent")).to_have_count(20)
    for request_id in request_ids(buckets):
        kept(buckets, STATE, request_id, outcome="stored")
    page.clock.run_for(1000)
    expect(page.locator("#uploads-list li.done")).to_have_count(20)


def test_after_an_upload_one_can_search_again(
    page: Page, buckets: StrictBuckets, tmp_path: Path
) -> None:
    drag(page, written(tmp_path, a_dcm=SCAN))
    expect(entry(page, "Doe-a.dcm")).to_contain_text("waiting for its outcome")
    tell(buckets, outcome="stored")
    with page.expect_response("**/studies/_query"):
        page.get_by_role("button", name="Search again").click()


def test_where_uploads_are_off_none_are_offered(planned: Page) -> None:
    planned.goto("/")
    expect(planned.locator("#status")).to_have_text("No study found")
    expect(planned.get_by_role("button", name="Upload files")).to_be_hidden()

"""Files dropped on the search page, through the whole local system."""

import json
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from infra.local.stack import Stack
from tests import scans
from tests.e2e.conftest import Seen
from tests.search.browser import browser, drag, needs_chromium

pytestmark = needs_chromium
UIDS = ("1.2.826.7", "1.2.826.7.1", "1.2.826.7.1.1")


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with browser() as running:
        opened = running.new_page()
        opened.goto(stack.function_url("search"))
        expect(opened.get_by_role("button", name="Upload files")).to_be_visible()
        yield opened


def outcome(page: Page, path: Path, text: str) -> None:
    """Drop a file, and see this outcome on the page."""
    drag(page, [path])
    state = page.locator("#uploads-list li").filter(has_text=path.name).locator(".state")
    expect(state).to_have_text(text, timeout=60_000)


def test_every_file_dropped_on_the_page_gets_its_outcome(
    page: Page, stack: Stack, seen: Seen, tmp_path: Path
) -> None:
    scan = scans.dicom(UIDS, scans.noise(1, 2_000_000))
    (tmp_path / "first.dcm").write_bytes(scan)
    outcome(page, tmp_path / "first.dcm", "Stored")
    (tmp_path / "again.dcm").write_bytes(scan)
    outcome(
        page, tmp_path / "again.dcm", "Duplicate: the DICOM store already had it, byte for byte"
    )
    (tmp_path / "other.dcm").write_bytes(scan[:-4] + bytes(4))
    outcome(
        page,
        tmp_path / "other.dcm",
        "Conflict: the DICOM store has other bytes under the same UIDs",
    )
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7")
    outcome(
        page,
        tmp_path / "letter.pdf",
        "Rejected: unsupported_input: neither DICOM, nor metadata with a JPEG, nor an archive",
    )
    with zipfile.ZipFile(tmp_path / "night.zip", "w") as archive:
        archive.writestr("copy.dcm", scan)
        archive.writestr("readme.txt", "no scan")
    outcome(page, tmp_path / "night.zip", "Duplicate: 2 files in it: 1 duplicate, 1 skipped")
    own = [record for record in seen.records if "member" not in record]
    assert all(record["request_id"].startswith("upload-") for record in own)


def night(folder: Path, study: str, count: int) -> Path:
    """A folder of so many scans."""
    folder.mkdir()
    for number in range(count):
        scan = scans.dicom(
            (study, f"{study}.1", f"{study}.1.{number}"), scans.noise(number, 50_000)
        )
        (folder / f"{study}-{number}").write_bytes(scan)
    return folder


def uploaded(stack: Stack) -> set[str]:
    """The request ids of what lies in the landing bucket."""
    names = (item["name"] for item in stack.buckets.objects("dicom-landing", "uploads/"))
    return {f"upload-{name.removeprefix('uploads/')}" for name in names}


def ledger(stack: Stack) -> Counter[str]:
    """How many records the ledger has, by request id."""
    lines: list[str] = []
    for item in stack.buckets.objects("dicom-ledger"):
        lines += stack.buckets.download("dicom-ledger", item["name"]).decode().splitlines()
    return Counter(json.loads(line).get("request_id", "") for line in lines)


def test_a_folder_dropped_on_the_page_has_one_record_for_each_file_in_the_ledger(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    before = uploaded(stack)
    drag(page, [night(tmp_path / "night", "1.2.826.9", 60)])
    stored = page.locator("#uploads-list li.done").filter(has_text="1.2.826.9-")
    expect(stored).to_have_count(60, timeout=120_000)
    new = uploaded(stack) - before
    end = time.monotonic() + 30
    while not new <= {*ledger(stack)} and time.monotonic() < end:
        time.sleep(0.5)
    records = ledger(stack)
    assert len(new) == 60
    assert {records[request_id] for request_id in new} == {1}


def test_uploads_outlive_the_functions(page: Page, stack: Stack, tmp_path: Path) -> None:
    drag(page, [night(tmp_path / "night", "1.2.826.10", 60)])
    for name in ("search", "store_upload", "notify"):
        stack.kill_function(name)
    stored = page.locator("#uploads-list li.done").filter(has_text="1.2.826.10-")
    expect(stored).to_have_count(60, timeout=120_000)


def test_metadata_and_its_jpeg_become_one_instance(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    pair = [tmp_path / "x.json", tmp_path / "x.jpg"]
    pair[0].write_bytes(scans.metadata(("1.2.826.8", "1.2.826.8.1", "1.2.826.8.1.1")))
    pair[1].write_bytes(scans.jpeg())
    drag(page, pair)
    state = page.locator("#uploads-list li").filter(has_text="x.json + x.jpg").locator(".state")
    expect(state).to_have_text("Stored", timeout=60_000)


def test_no_name_of_a_file_is_in_a_bucket_or_a_log(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "Doe-Jane.dcm").write_bytes(b"no scan")
    drag(page, [tmp_path / "Doe-Jane.dcm"])
    expect(page.locator("#uploads-list")).to_contain_text("Rejected")
    kept = [path for path in stack.data.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"Doe-Jane" in path.read_bytes() or "Doe-" in path.name]

"""`upload` on a strict bucket server: which objects it writes, and what it says of the others."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli.upload import Source, _alone
from tests.cli.conftest import run
from tests.cli.desk import Desk
from tests.contract.strictbucket import StrictBuckets, strict_buckets
from tests.pubsub.conftest import Emulator, wait_until

LANDING = "dicom-landing"
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def buckets() -> Iterator[StrictBuckets]:
    with strict_buckets(LANDING) as server:
        yield server


@pytest.fixture
def desk(buckets: StrictBuckets, emulator: Emulator, tmp_path: Path) -> Desk:
    return Desk(emulator, tmp_path, buckets.url)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


def written(path: Path, data: bytes = b"scan") -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return str(path)


def upload(desk: Desk, *arguments: str) -> Done:
    return run("upload", *arguments, system=desk.file)


@pytest.mark.parametrize(
    ("names", "alone"),
    [
        (["a/x.json", "a/x.jpg"], []),
        (["a/x.json", "a/x.JPEG"], []),
        (["instance.json", "image.jpg"], ["image.jpg", "instance.json"]),
        (["a/x.json", "b/x.jpg"], ["a/x.json", "b/x.jpg"]),
        (["scan.dcm", "scan"], []),
    ],
)
def test_halves_that_are_uploaded_alone_are_named(names: list[str], alone: list[str]) -> None:
    assert _alone([Source(Path(name), name) for name in names]) == alone


@pytest.mark.parametrize(
    "given",
    [("one/IM0001", "two/IM0001"), ("one/night", "two/night")],
)
def test_two_files_with_one_name_are_refused_before_anything_is_sent(
    desk: Desk, buckets: StrictBuckets, scans: Path, given: tuple[str, str]
) -> None:
    for place in ("one", "two"):
        written(scans / place / "IM0001")
        written(scans / place / "IM0002")
        (scans / place / "night").mkdir()
        written(scans / place / "night" / "IM0001")
    done = upload(desk, "--no-wait", *(str(scans / path) for path in given))
    assert done.returncode == 1
    assert str(scans / "one") in done.stderr
    assert str(scans / "two") in done.stderr
    assert buckets.names(LANDING) == []


def test_a_file_that_is_given_twice_is_uploaded_once(
    desk: Desk, buckets: StrictBuckets, scans: Path
) -> None:
    path = written(scans / "a.dcm")
    done = upload(desk, path, path, "--no-wait")
    assert done.stdout == "1 file uploaded to gs://dicom-landing\n"
    assert buckets.requests["create"] == 1


def test_a_file_that_was_overwritten_is_no_success(
    desk: Desk, buckets: StrictBuckets, scans: Path
) -> None:
    path = written(scans / "a.dcm")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(upload, desk, path, "--timeout", "30")
        wait_until(lambda: buckets.names(LANDING))
        (blob,) = buckets.buckets[LANDING].values()
        publish_outcome(desk, blob.name, blob.generation, "superseded")
    done = running.result()
    assert done.returncode == 1
    assert "1 file: 1 superseded" in done.stdout


def publish_outcome(desk: Desk, name: str, generation: int, outcome: str) -> None:
    record = {"outcome": outcome, "name": name, "generation": str(generation)}
    topic = desk.system.topic("outcomes")
    desk.pubsub.publish(topic, json.dumps(record).encode(), function="store_upload")

"""`upload` on a strict bucket server: which objects it writes, and what it says of the others."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.sources import Folder, Source
from cli.system import ROOT
from cli.upload import _alone
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


NOT_UTF_8 = b"b\xfc.dcm"


def put_odd_files(folder: Path) -> None:
    """Files that no object can be named after."""
    Path(os.fsdecode(os.fsencode(folder) + b"/" + NOT_UTF_8)).write_bytes(b"scan")
    deep = folder.joinpath(*["long" * 55] * 5)
    deep.mkdir(parents=True)
    (deep / "x.dcm").write_bytes(b"scan")


def test_files_that_cannot_be_uploaded_are_named_and_do_not_stop_the_others(
    desk: Desk, buckets: StrictBuckets, scans: Path
) -> None:
    written(scans / "a.dcm")
    put_odd_files(scans)
    written(scans / "z.dcm")
    done = upload(desk, str(scans), "--no-wait")
    assert done.returncode == 1
    assert buckets.names(LANDING) == ["scans/a.dcm", "scans/z.dcm"]
    assert done.stdout == "2 files uploaded to gs://dicom-landing\n"
    errors = done.stderr.splitlines()
    assert len(errors) == 2
    assert r"b\udcfc.dcm was not uploaded: its name is not UTF-8" in errors[0]
    assert errors[1].endswith("was not uploaded: the name of its object is longer than 1024 bytes")


def test_a_file_that_cloud_storage_refuses_is_no_success(
    desk: Desk, buckets: StrictBuckets, scans: Path
) -> None:
    buckets.failures = [403]
    path = written(scans / "a.dcm")
    done = upload(desk, path)
    assert done.returncode == 1
    assert f"error: {path} was not uploaded: you may not do this" in done.stderr
    assert done.stdout == "1 file: 1 not uploaded, in gs://dicom-landing\n"


def test_a_bucket_that_is_missing_is_said_once(
    desk: Desk, buckets: StrictBuckets, scans: Path
) -> None:
    del buckets.buckets[LANDING]
    written(scans / "a.dcm")
    written(scans / "b.dcm")
    done = upload(desk, str(scans), "--no-wait")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: not found: POST /upload/storage/v1/b/dicom-landing/o"
    ]


@contextmanager
def watching(desk: Desk, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """`upload --watch` on a folder, until the `with` block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "upload", "--watch", str(folder), "--system", str(desk.file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def test_a_watched_file_that_cannot_be_uploaded_is_said_once_and_others_follow(
    desk: Desk, buckets: StrictBuckets, scans: Path
) -> None:
    buckets.failures = [403]
    written(scans / "a.dcm")
    put_odd_files(scans)
    written(scans / "z.dcm")
    with watching(desk, scans) as watcher:
        wait_until(lambda: "scans/z.dcm" in buckets.names(LANDING))
        written(scans / "later.dcm")
        wait_until(lambda: "scans/later.dcm" in buckets.names(LANDING))
        watcher.send_signal(signal.SIGINT)
        _, said = watcher.communicate(timeout=30)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert "a.dcm was not uploaded" in errors[0]
    assert watcher.returncode == 130


def test_a_watched_file_with_a_time_in_the_future_is_uploaded(
    desk: Desk, buckets: StrictBuckets, scans: Path
) -> None:
    path = written(scans / "a.dcm")
    tomorrow = time.time() + 86400
    os.utime(path, (tomorrow, tomorrow))
    with watching(desk, scans):
        wait_until(lambda: buckets.names(LANDING))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(scans: Path, clock: Clock) -> Folder:
    return Folder(scans, "in/", clock)


def due(folder: Folder, clock: Clock, now: float) -> list[str]:
    clock.now = now
    return [source.path.name for source in folder.due()]


def test_a_watched_file_is_complete_when_it_has_not_changed_for_two_seconds(
    scans: Path, folder: Folder, clock: Clock
) -> None:
    path = scans / "a.dcm"
    written(path)
    assert due(folder, clock, 0.0) == []
    written(path, b"longer scan")
    # Its own time says that it is old, as that of a copy does.
    os.utime(path, (1, 1))
    assert due(folder, clock, 1.5) == []
    assert due(folder, clock, 3.0) == []
    assert due(folder, clock, 3.5) == ["a.dcm"]
    assert due(folder, clock, 10.0) == []
    written(path, b"another scan")
    assert due(folder, clock, 11.0) == []
    assert due(folder, clock, 13.0) == ["a.dcm"]


def test_a_file_that_is_written_during_the_upload_of_another_is_not_complete_then(
    scans: Path, folder: Folder, clock: Clock
) -> None:
    written(scans / "a.dcm")
    assert due(folder, clock, 0.0) == []
    clock.now = 2.0
    for source in folder.due():
        # The upload takes five seconds, and another file grows.
        assert source.path.name == "a.dcm"
        clock.now = 7.0
        written(scans / "z.dcm")
    assert due(folder, clock, 8.0) == []
    assert due(folder, clock, 10.0) == ["z.dcm"]


def test_a_watched_file_that_failed_is_tried_again_after_longer_and_longer(
    scans: Path, folder: Folder, clock: Clock
) -> None:
    path = scans / "a.dcm"
    written(path)
    assert due(folder, clock, 0.0) == []
    clock.now = 2.0
    (source,) = folder.due()
    assert folder.failed(source)
    assert due(folder, clock, 61.0) == []
    assert due(folder, clock, 62.0) == ["a.dcm"]
    assert not folder.failed(source)
    assert due(folder, clock, 181.0) == []
    assert due(folder, clock, 182.0) == ["a.dcm"]
    written(path, b"another scan")
    assert due(folder, clock, 183.0) == []
    assert due(folder, clock, 185.0) == ["a.dcm"]
    assert folder.failed(source)


def test_new_files_do_not_wait_for_those_that_failed(
    scans: Path, folder: Folder, clock: Clock
) -> None:
    for number in range(20):
        written(scans / f"{number:02}.dcm")
    assert due(folder, clock, 0.0) == []
    clock.now = 2.0
    for source in folder.due():
        folder.failed(source)
    written(scans / "new.dcm")
    assert due(folder, clock, 60.0) == []
    tried = []
    clock.now = 100.0
    for source in folder.due():
        clock.now += 1.0
        tried.append(source.path.name)
    assert tried == ["new.dcm", "00.dcm", "01.dcm", "02.dcm", "03.dcm", "04.dcm"]


def test_files_of_a_folder_that_cannot_be_listed_for_a_moment_are_not_sent_again(
    scans: Path, folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(scans / "inner" / "a.dcm")
    assert due(folder, clock, 0.0) == []
    assert due(folder, clock, 2.0) == ["a.dcm"]
    with monkeypatch.context() as broken:
        broken.setattr(os, "scandir", _stale)
        due(folder, clock, 3.0)
    assert due(folder, clock, 4.0) == []
    assert due(folder, clock, 10.0) == []


def _stale(path: object) -> None:
    raise OSError(errno.ESTALE, "stale file handle", str(path))


def test_a_folder_that_cannot_be_read_is_no_success(
    desk: Desk, buckets: StrictBuckets, scans: Path
) -> None:
    written(scans / "a.dcm")
    closed = scans / "closed"
    closed.mkdir(mode=0)
    if os.access(closed, os.R_OK):
        pytest.skip("root can read every folder")
    done = upload(desk, str(scans), "--no-wait")
    closed.chmod(0o700)
    assert done.returncode == 1
    assert f"{closed} was not uploaded: Permission denied" in done.stderr
    assert buckets.names(LANDING) == ["scans/a.dcm"]

"""The members of an archive, pairs above all: each to one outcome in whatever order they lie, in
bounded memory and few readings."""

import gzip
import io
import itertools
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.common.errors import PermanentError, RetryableError
from functions.common.events.messages import Message
from functions.common.events.outcomes import Word
from functions.common.settings import Settings
from functions.store import archive_progress
from functions.store.archive import Member
from functions.store.archive_limits import WAITING_BYTES, Budget
from functions.store.archive_pairs import Window
from functions.store.archive_progress import Progress
from functions.store.archive_upload import ArchiveSlice
from functions.store.instances import Instance
from functions.store.verdicts import Verdict
from tests import scans

# Each setting's default, and an archive may be unpacked to 500 times its size.
SETTINGS = replace(Settings.load("", {}), archive_max_ratio=500)
EVENT = {"bucket": "landing", "name": "x", "generation": "1", "size": "1"}
KINDS = pytest.mark.parametrize("kind", ["zip", "tar", "gzip"])


def packed(kind: str, files: list[tuple[str, bytes]]) -> bytes:
    if kind == "zip":
        return scans.zipped(files)
    return scans.tarred(files, "w:gz" if kind == "gzip" else "w")


def metadata(number: int) -> bytes:
    return scans.metadata(("1.2", "1.2.3", f"1.2.3.{number}"))


class Run:
    """An archive, gone through in slices as follow-up messages do it, and what came of it."""

    def __init__(self, open_file: Callable[[], BinaryIO], kind: str, size: int) -> None:
        self.open_file, self.kind, self.size = open_file, kind, size
        self.opened = 0
        self.outcomes: dict[str, list[Word]] = {}
        self.details: dict[str, str] = {}
        self.sent: dict[str, bytes] = {}  # the request's first bytes, by SOP Instance UID
        self.progress = Progress()
        self.slices = 0
        self.settings = SETTINGS
        self.window_bytes = WAITING_BYTES
        self.publish: Callable[..., None] = self.note

    def slice(self, members: int = 10**9) -> bool:
        """One that goes past so many members; the next one is a new process."""
        left = itertools.count(members - 1, -1)
        follow_up = Message(archive_progress.dump(EVENT, self.progress))
        _, self.progress = archive_progress.load(follow_up)
        kind: Any = self.kind
        self.slices += 1
        one = ArchiveSlice(
            open_file=self._opened,
            kind=kind,
            budget=Budget(self.settings, self.size),
            store=self._store,
            publish=lambda *told: self.publish(*told),
            time_left=lambda: next(left) > 0,
            progress=self.progress,
            window=Window(self.window_bytes),
        )
        return one.run()

    def finish(self, members: int = 10**9) -> None:
        while not self.slice(members):
            assert self.slices < 200

    def note(self, found: Verdict, member: Member) -> None:
        self.outcomes.setdefault(member.name, []).append(found.outcome.outcome)
        self.details[member.name] = found.outcome.detail

    def _opened(self) -> BinaryIO:
        self.opened += 1
        return self.open_file()

    def _store(self, instance: Instance, place: str) -> Word:
        body = bytearray()
        for chunk in instance.body():
            body += chunk[: max(0, 100_000 - len(body))]
        self.sent[instance.resource.instance] = bytes(body)
        return "stored"


def run_of(kind: str, files: list[tuple[str, bytes]]) -> Run:
    data = packed(kind, files)
    return Run(lambda: io.BytesIO(data), kind, len(data))


@contextmanager
def unpacked_bytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes are unpacked in a `with`, whatever for."""
    sizes: list[int] = []

    def counting(kind: type, name: str) -> None:
        original = getattr(kind, name)

        def counted(self: Any, *arguments: Any) -> Any:
            data = original(self, *arguments)
            sizes.append(len(data))
            return data

        monkeypatch.setattr(kind, name, counted)

    counting(zipfile.ZipExtFile, "_read1")
    counting(gzip._GzipReader, "read")
    yield sizes


def content(files: list[tuple[str, bytes]]) -> int:
    return sum(len(data) for _, data in files)


@settings(max_examples=60)
@given(
    st.sampled_from(["zip", "tar", "gzip"]),
    st.permutations([(n, ending) for n in range(1, 7) for ending in ("json", "jpg")]),
    st.integers(0, 6),
    st.sampled_from([1, 2, 10**9]),
)
def test_pairs_in_any_order_are_each_stored_once(
    kind: str, order: list[tuple[int, str]], left_out: int, in_a_slice: int
) -> None:
    files = []
    make: dict[str, Callable[[int], bytes]] = {"json": metadata, "jpg": scans.jpeg}
    for n, ending in order[left_out:]:
        files.append((f"p/{n}.{ending}", make[ending](n)))
    names = {name for name, _ in files}
    run = run_of(kind, files)
    run.finish(in_a_slice)
    for number in range(1, 7):
        text = f"p/{number}.json"
        picture = f"p/{number}.jpg"
        if {text, picture} <= names:
            assert run.outcomes[text] == ["stored"]
            assert run.outcomes[picture] == ["stored"]
            assert scans.jpeg(number) in run.sent[f"1.2.3.{number}"]
        elif text in names:
            assert run.outcomes[text] == ["rejected"]
        elif picture in names:
            assert run.outcomes[picture] == ["skipped"]
    assert sum(run.progress.counts.values()) == run.progress.mark.members == len(files)


@KINDS
@pytest.mark.parametrize("ending", ["jpeg", "json"])
def test_a_second_one_of_a_kind_and_name_has_an_outcome_too(kind: str, ending: str) -> None:
    jpegs = [("a.jpg", scans.jpeg(1)), ("a.jpeg", scans.jpeg(2))]
    texts = [("a.json", metadata(1)), ("a.JSON", metadata(2))]
    files = [*jpegs, texts[0]] if ending == "jpeg" else [*texts, jpegs[0]]
    run = run_of(kind, files)
    run.finish()
    assert run.progress.counts == {"stored": 2, "skipped" if ending == "jpeg" else "rejected": 1}


@KINDS
@pytest.mark.parametrize("first", ["json", "jpg", "mixed"])
def test_four_hundred_pairs_unpack_no_more_than_three_times_their_content(
    monkeypatch: pytest.MonkeyPatch, kind: str, first: str
) -> None:
    numbers = range(1, 401)
    texts = [(f"{n}.json", metadata(n)) for n in numbers]
    jpegs = [(f"{n}.jpg", scans.jpeg(n) + scans.noise(n, 7000)) for n in numbers]
    files = {
        "json": texts + jpegs,
        "jpg": jpegs + texts,
        "mixed": [file for pair in zip(jpegs, texts, strict=True) for file in pair],
    }[first]
    run = run_of(kind, files)
    with unpacked_bytes(monkeypatch) as sizes:
        run.finish()
    assert run.progress.counts == {"stored": 800}
    assert sum(sizes) <= 3 * (content(files) + 1024 * len(files))
    assert run.opened == 1


def test_a_zip_of_much_metadata_unpacks_no_more_than_three_times_its_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    padding = {"00091001": {"vr": "UT", "Value": ["x" * 100_000]}}
    numbers = range(1, 401)
    files = []
    for number in numbers:
        uids = ("1.2", "1.2.3", f"1.2.3.{number}")
        files.append((f"{number}.json", scans.metadata(uids, **padding)))
    files += [(f"{number}.jpg", scans.jpeg(number)) for number in numbers]
    run = run_of("zip", files)
    with unpacked_bytes(monkeypatch) as sizes:
        run.finish()
    assert run.progress.counts == {"stored": 800}
    assert sum(sizes) <= 3 * content(files)


@KINDS
def test_large_members_whose_headers_are_long_are_unpacked_once(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    files = []
    for number in range(1, 13):
        uids = ("1.2", "1.2.3", f"1.2.3.{number}")
        picture = scans.jpeg(number, comment=b"x" * 65_000) + scans.noise(number, 1_500_000)
        private = scans.element(0x00090010, "LO", b"MAKER")
        private += scans.element(0x00091001, "UN", scans.noise(number, 1_500_000))
        scan = scans.dicom(uids, private=private)
        request = scans.multipart_request(scans.metadata(uids), picture)
        texts = [(f"{number}.json", scans.metadata(uids)), (f"{number}.jpg", picture)]
        files += [(f"{number}.dcm", scan), (f"{number}.request", request), *texts]
    run = run_of(kind, files)
    with unpacked_bytes(monkeypatch) as sizes:
        run.finish()
    assert run.progress.counts == {"stored": 48}
    assert sum(sizes) <= 1.2 * content(files)


@pytest.mark.parametrize("outer", ["zip", "tar", "gzip"])
def test_pairs_in_an_inner_zip_unpack_no_more_than_three_times_their_content(
    monkeypatch: pytest.MonkeyPatch, outer: str
) -> None:
    numbers = range(1, 101)
    files = [(f"{n}.json", metadata(n)) for n in numbers]
    files += [(f"{n}.jpg", scans.jpeg(n) + scans.noise(n, 7000)) for n in numbers]
    inner = scans.zipped(files)
    run = run_of(outer, [("in.zip", inner)])
    with unpacked_bytes(monkeypatch) as sizes:
        run.finish()
    assert run.progress.counts == {"stored": 200}
    assert sum(sizes) <= 3 * (content(files) + len(inner))


def test_a_large_inner_zip_is_unpacked_twice_however_many_members_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uids = [("1.2", "1.2.3", f"1.2.3.{n}") for n in range(60)]
    files = [(uid[2], scans.dicom(uid, scans.noise(n, 200_000))) for n, uid in enumerate(uids)]
    inner = scans.zipped(files)
    assert len(inner) > 10_000_000
    run = run_of("zip", [("in.zip", inner)])
    with unpacked_bytes(monkeypatch) as sizes:
        run.finish()
    assert run.progress.counts == {"stored": 60}
    assert sum(sizes) <= 2.2 * len(inner) + content(files)


def test_a_large_inner_zip_of_a_tar_gz_is_refused_with_the_reason() -> None:
    inner = scans.zipped([("a", scans.noise(1, 9_000_000))])
    run = run_of("gzip", [("in.zip", inner)])
    run.finish()
    assert run.outcomes == {"in.zip": ["rejected"]}
    assert "upload it separately" in run.details["in.zip"]


def test_a_compressed_archive_of_pairs_side_by_side_is_read_once() -> None:
    files = []
    for number in range(20):
        picture = scans.jpeg(number) + scans.noise(number, 1_500_000)
        files += [(f"{number:03}.jpg", picture), (f"{number:03}.json", metadata(number))]
    data = packed("gzip", files)
    read = 0

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            piece = super().read(size)
            read += len(piece)
            return piece

    run = Run(lambda: Counting(data), "gzip", len(data))
    run.finish()
    assert run.progress.counts == {"stored": 40}
    assert read < 1.2 * len(data)


@pytest.mark.parametrize("kind", ["tar", "gzip"])
def test_halves_too_far_apart_in_a_tar_are_refused_with_the_reason(kind: str) -> None:
    between = [(f"{n}.jpg", scans.jpeg(n) + scans.noise(n, 20_000)) for n in range(2, 7)]
    files = [("1.json", metadata(1)), *between, ("1.jpg", scans.jpeg(1)), ("6.json", metadata(6))]
    run = run_of(kind, files)
    run.window_bytes = 64 * 1024
    run.finish()
    assert run.outcomes["1.json"] == ["rejected"]
    assert "side by side" in run.details["1.json"]
    assert run.outcomes["1.jpg"] == ["skipped"]
    assert run.outcomes["6.json"] == run.outcomes["6.jpg"] == ["stored"]


@KINDS
@pytest.mark.parametrize("with_metadata", [False, True])
def test_halves_that_wait_do_not_fill_the_memory(
    tmp_path: Path, kind: str, with_metadata: bool
) -> None:
    picture = scans.jpeg(1) + scans.noise(1, 1_000_000)
    files = [(f"{number}.jpg", picture) for number in range(60)]
    if with_metadata:
        files += [(f"{number}.json", metadata(number)) for number in range(60)]
    path = tmp_path / "archive"
    path.write_bytes(packed(kind, files))
    run = Run(lambda: path.open("rb"), kind, path.stat().st_size)
    tracemalloc.start()
    try:
        run.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(run.progress.counts.values()) == len(files)
    if kind == "zip" and with_metadata:
        assert run.progress.counts == {"stored": 120}
    assert peak < 32 * 1024 * 1024


def test_thousands_of_pictures_without_metadata_are_each_skipped() -> None:
    run = run_of("tar", [(f"{n}.jpg", b"\xff\xd8\xff") for n in range(6000)])
    run.finish()
    assert run.progress.counts == {"skipped": 6000}


@pytest.mark.parametrize("kind", ["tar", "gzip"])
def test_what_waits_when_an_archive_is_cut_has_its_outcome(kind: str) -> None:
    files = [
        ("a.json", metadata(1)),
        ("b.jpg", scans.jpeg(2)),
        ("c.json", metadata(2)),
        ("b.json", metadata(3)),
    ]
    data = packed(kind, [*files, ("cut", scans.noise(1, 400_000)), ("never.json", metadata(4))])
    run = Run(lambda: io.BytesIO(data[: len(data) // 2]), kind, len(data) // 2)
    with pytest.raises(PermanentError):
        run.finish()
    assert run.outcomes == {
        "a.json": ["rejected"],
        "b.jpg": ["stored"],
        "b.json": ["stored"],
        "c.json": ["rejected"],
        "cut": ["rejected"],
    }
    assert [name for name, _ in run.progress.failed] == ["cut", "a.json", "c.json"]


@pytest.mark.parametrize("in_a_slice", [1, 2, 3, 4, 10**9])
@pytest.mark.parametrize("outer", ["zip", "tar", "gzip"])
@pytest.mark.parametrize("inner", ["tar", "gzip"])
def test_an_inner_archive_that_is_cut_fails_once_wherever_a_slice_ends(
    inner: str, outer: str, in_a_slice: int
) -> None:
    uids = ("1.2", "1.2.3", "1.2.3.4")
    # The JPEG waits, so that every later slice reads the inner archive again.
    within = [("a.dcm", scans.dicom(uids)), ("b.jpg", scans.jpeg(1)), ("c.dcm", scans.dicom(uids))]
    whole = packed(inner, [*within, ("never", scans.noise(1, 400_000))])
    files = [("in", whole[: len(whole) // 2]), ("last.dcm", scans.dicom(uids))]
    run = run_of(outer, files)
    run.finish(in_a_slice)
    assert run.outcomes == {
        "in/a.dcm": ["stored"],
        "in/b.jpg": ["skipped"],
        "in/c.dcm": ["stored"],
        "in/never": ["rejected"],
        "in": ["rejected"],
        "last.dcm": ["stored"],
    }
    assert [name for name, _ in run.progress.failed] == ["in/never", "in"]
    assert run.progress.counts == {"stored": 3, "skipped": 1, "rejected": 2}
    assert run.progress.mark.members == 6


def test_a_half_that_is_reported_is_counted_once_though_the_next_is_not() -> None:
    run = run_of("tar", [(f"{n}.json", metadata(n)) for n in range(4)])
    calls = itertools.count(1)

    def flaky(*told: Any) -> None:
        if next(calls) == 3:
            raise RetryableError("unavailable")
        run.note(*told)

    run.publish = flaky
    run.finish()
    assert run.slices == 2
    assert run.progress.counts == {"rejected": 4}
    assert [name for name, _ in run.progress.failed] == ["0.json", "1.json", "2.json", "3.json"]


def test_nothing_behind_a_member_with_a_bug_is_counted_though_others_fail_too() -> None:
    run = run_of("zip", [(f"{n}.txt", b"text") for n in range(20)])

    def buggy(verdict: Verdict, member: Member) -> None:
        if member.name == "2.txt":
            raise TypeError
        if member.name == "5.txt":
            raise RetryableError("unavailable")
        run.note(verdict, member)

    run.publish = buggy
    with pytest.raises(TypeError):
        run.slice()
    assert run.progress.mark.place == (2,)
    assert run.progress.counts == {"skipped": 2}


@KINDS
def test_members_that_an_earlier_slice_counted_are_not_counted_again(kind: str) -> None:
    run = run_of(kind, [(f"{n}.txt", b"text") for n in range(8)])
    run.settings = replace(SETTINGS, archive_max_members=10)
    run.finish(3)
    assert run.slices == 3
    assert run.progress.counts == {"skipped": 8}


def test_members_behind_a_half_that_waits_are_not_counted_again() -> None:
    inner = packed("zip", [("alone.jpg", scans.jpeg())])
    run = run_of("zip", [("inner.zip", inner), *((f"{n}.txt", b"text") for n in range(8))])
    run.settings = replace(SETTINGS, archive_max_members=10)
    run.finish(7)
    assert run.slices == 2
    assert run.progress.counts == {"skipped": 9}


def test_bytes_of_a_continued_inner_zip_are_not_counted_again() -> None:
    inner = packed("zip", [(f"{n}.txt", scans.noise(n, 1_000_000)) for n in range(8)])
    run = run_of("zip", [("inner.zip", inner)])
    run.settings = replace(SETTINGS, archive_max_bytes=10_000_000, archive_max_ratio=10**9)
    run.finish(6)
    assert run.slices == 2
    assert run.progress.counts == {"skipped": 8}


def test_a_limit_that_is_exceeded_behind_the_mark_ends_an_archive() -> None:
    inner = packed("zip", [("alone.jpg", scans.jpeg())])
    files = [("inner.zip", inner), *((f"{n}.txt", b"text") for n in range(8))]
    run = run_of("tar", files)
    run.settings = replace(SETTINGS, archive_max_members=8)
    run.slice(7)
    with pytest.raises(PermanentError, match="unsafe_archive"):
        run.finish(7)
    assert run.progress.mark.members == 8


@KINDS
def test_a_pair_that_contradicts_itself_fails_both_halves(kind: str) -> None:
    files = [
        ("a.json", scans.metadata(("1", "1.2", "1.2.3"), **{"00280010": {"Value": [17]}})),
        ("a.jpg", scans.jpeg(1)),
    ]
    run = run_of(kind, files)
    run.finish()
    assert run.outcomes == {"a.json": ["rejected"], "a.jpg": ["rejected"]}
    assert "Rows" in run.details["a.jpg"]


@KINDS
def test_a_png_that_is_called_a_jpeg_is_no_half(kind: str) -> None:
    run = run_of(kind, [("a.json", metadata(1)), ("a.jpg", b"\x89PNG\r\n\x1a\n" + bytes(99))])
    run.finish()
    assert run.outcomes == {"a.json": ["rejected"], "a.jpg": ["skipped"]}


@KINDS
def test_json_that_is_not_metadata_leaves_its_jpeg_alone(kind: str) -> None:
    run = run_of(kind, [("a.json", b"{}"), ("a.jpg", scans.jpeg(1))])
    run.finish()
    assert run.outcomes == {"a.json": ["skipped"], "a.jpg": ["skipped"]}


@KINDS
def test_a_multipart_request_file_in_an_archive_is_one_instance(kind: str) -> None:
    body = scans.multipart_request(metadata(1), scans.jpeg(1))
    run = run_of(kind, [("multipart-request.file", body)])
    run.finish()
    assert run.outcomes == {"multipart-request.file": ["stored"]}
    assert scans.jpeg(1) in run.sent["1.2.3.1"]


def test_an_archive_that_exceeds_a_limit_ends_there() -> None:
    run = run_of("tar", [(f"{n}.txt", b"text") for n in range(20)])
    run.settings = replace(SETTINGS, archive_max_members=10)
    with pytest.raises(PermanentError) as caught:
        run.finish()
    assert caught.value.reason == "unsafe_archive"
    assert run.progress.counts == {"skipped": 10}

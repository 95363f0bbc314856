"""Halves of pairs in an archive: each to one outcome in whatever order they lie, in bounded memory
and few readings."""

import io
import itertools
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.common.errors import PermanentError, RetryableError
from functions.common.events.messages import Message, ObjectFinalized
from functions.common.events.outcomes import Outcome, Word
from functions.common.resources import ObjectRef
from functions.store import continuation, halves
from functions.store.archive import Limits
from functions.store.continuation import Progress
from functions.store.halves import Half
from functions.store.members import Members
from functions.store.storing import Instance
from tests import scans

LIMITS = Limits(20_000, 1 << 40, 1 << 40, 500, 1, 1024)
EVENT = ObjectFinalized(ObjectRef("landing", "x", 1), 1, "", "", {}, "")


def packed(kind: str, files: list[tuple[str, bytes]]) -> bytes:
    return (
        scans.zipped(files)
        if kind == "zip"
        else scans.tarred(files, "w:gz" if kind == "gzip" else "w")
    )


def metadata(number: int) -> bytes:
    return scans.metadata(("1.2", "1.2.3", f"1.2.3.{number}"))


def jpeg(number: int, size: int = 1000) -> bytes:
    return b"\xff\xd8\xff\xe0" + scans.noise(number, size - 4)


class Run:
    """An archive, gone through in slices as follow-up messages do it, and what came of it."""

    def __init__(self, open_file: Callable[[], BinaryIO], kind: str, size: int) -> None:
        self.open_file, self.kind, self.size = open_file, kind, size
        self.opened = 0
        self.outcomes: dict[str, list[Word]] = {}
        self.jpegs: dict[str, bytes] = {}  # by SOP Instance UID, the request that it was sent in
        self.progress = Progress()
        self.slices = 0
        self.publish = self._publish

    def slice(self, members: int = 10**9) -> bool:
        """One, in which so many instances are stored; the next one is a new process."""
        left = itertools.count(members - 1, -1)
        _, self.progress = continuation.load(Message(continuation.dump(EVENT, self.progress)))
        kind: Any = self.kind
        self.slices += 1
        return Members(
            self._opened,
            kind,
            EVENT.ref,
            self.size,
            LIMITS,
            self._store,
            lambda outcome: self.publish(outcome),
            lambda: next(left) > 0,
            self.progress,
        ).run()

    def finish(self, members: int = 10**9) -> None:
        while not self.slice(members):
            assert self.slices < 200

    def _opened(self) -> BinaryIO:
        self.opened += 1
        return self.open_file()

    def _store(self, instance: Instance, place: str) -> Word:
        body = bytearray()
        for chunk in instance.body():
            body += chunk[: max(0, 100_000 - len(body))]
        self.jpegs[instance.resource.instance] = bytes(body)
        return "stored"

    def _publish(self, outcome: Outcome) -> None:
        self.outcomes.setdefault(outcome.member, []).append(outcome.outcome)


def run_of(kind: str, files: list[tuple[str, bytes]]) -> Run:
    data = packed(kind, files)
    return Run(lambda: io.BytesIO(data), kind, len(data))


KINDS = pytest.mark.parametrize("kind", ["zip", "tar", "gzip"])


@settings(max_examples=60)
@given(
    st.sampled_from(["zip", "tar", "gzip"]),
    st.permutations([(n, ending) for n in range(1, 7) for ending in ("json", "jpg")]),
    st.integers(0, 6),
    st.sampled_from([1, 2, 10**9]),
    st.sampled_from([700, 1400, 3500, 1 << 22]),
)
def test_pairs_in_any_order_are_each_stored_once(
    kind: str, order: list[tuple[int, str]], left_out: int, in_a_slice: int, kept: int
) -> None:
    files = [
        (f"p/{n}.{ending}", metadata(n) if ending == "json" else jpeg(n))
        for n, ending in order[left_out:]
    ]
    names = {name for name, _ in files}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halves, "_KEPT_BYTES", max(kept, len(metadata(1))))
        run = run_of(kind, files)
        run.finish(in_a_slice)
    for number in range(1, 7):
        mine = names & {f"p/{number}.json", f"p/{number}.jpg"}
        alone: list[Word] = ["rejected"] if f"p/{number}.json" in mine else ["skipped"]
        assert all(run.outcomes[name] == (["stored"] if len(mine) == 2 else alone) for name in mine)
        if len(mine) == 2:
            assert jpeg(number) in run.jpegs[f"1.2.3.{number}"]
    assert sum(run.progress.counts.values()) == run.progress.members == len(files)


@KINDS
@pytest.mark.parametrize("ending", ["jpeg", "json"])
def test_a_second_one_of_a_kind_and_name_has_an_outcome_too(kind: str, ending: str) -> None:
    jpegs, texts = (
        [("a.jpg", jpeg(1)), ("a.jpeg", jpeg(2))],
        [("a.json", metadata(1)), ("a.JSON", metadata(2))],
    )
    run = run_of(kind, [*jpegs, texts[0]] if ending == "jpeg" else [*texts, jpegs[0]])
    run.finish()
    words = Counter(itertools.chain.from_iterable(run.outcomes.values()))
    assert (
        words
        == run.progress.counts
        == {"stored": 2, "skipped" if ending == "jpeg" else "rejected": 1}
    )


@KINDS
def test_all_jpegs_first_are_two_readings_whatever_their_number(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "_KEPT_BYTES", 64 * 1024)
    numbers = range(40)
    files = [(f"{n:03}.jpg", jpeg(n, 40_000)) for n in numbers] + [
        (f"{n:03}.json", metadata(n)) for n in numbers
    ]
    run = run_of(kind, files)
    run.finish()
    assert run.progress.counts == {"stored": 80}
    assert run.opened == 2


def test_a_compressed_archive_of_pairs_side_by_side_is_unpacked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [
        file
        for n in range(20)
        for file in ((f"{n:03}.jpg", jpeg(n, 1_500_000)), (f"{n:03}.json", metadata(n)))
    ]
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


@pytest.mark.parametrize("with_metadata", [False, True])
def test_halves_that_wait_do_not_fill_the_memory(tmp_path: Path, with_metadata: bool) -> None:
    path = tmp_path / "a.zip"
    picture = jpeg(1, 1_000_000)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60):
            archive.writestr(f"{number}.jpg", picture)
        for number in range(60 if with_metadata else 0):
            archive.writestr(f"{number}.json", metadata(number))
    run = Run(lambda: path.open("rb"), "zip", path.stat().st_size)
    tracemalloc.start()
    try:
        run.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert run.progress.counts == ({"stored": 120} if with_metadata else {"skipped": 60})
    assert peak < 20 * 1024 * 1024


def test_thousands_of_pictures_without_metadata_are_each_skipped() -> None:
    run = run_of("tar", [(f"{n}.jpg", b"\xff\xd8\xff") for n in range(6000)])
    run.finish()
    assert run.progress.counts == {"skipped": 6000}


@pytest.mark.parametrize("kind", ["tar", "gzip"])
def test_what_waits_when_an_archive_is_cut_has_its_outcome(kind: str) -> None:
    files = [
        ("a.json", metadata(1)),
        ("b.jpg", jpeg(2)),
        ("c.json", metadata(2)),
        ("b.json", metadata(3)),
    ]
    data = packed(kind, [*files, ("cut", scans.noise(1, 400_000)), ("never.json", metadata(4))])
    run = Run(lambda: io.BytesIO(data[: len(data) // 2]), kind, len(data) // 2)
    with pytest.raises(PermanentError):
        run.finish()
    words = {
        "a.json": ["rejected"],
        "b.jpg": ["stored"],
        "c.json": ["rejected"],
        "b.json": ["stored"],
    }
    assert run.outcomes == {**words, "cut": ["rejected"]}
    assert [name for name, _ in run.progress.failed] == ["cut", "a.json", "c.json"]


def test_a_half_that_is_reported_is_counted_once_though_the_next_is_not() -> None:
    run = run_of("zip", [(f"{n}.json", metadata(n)) for n in range(4)])
    calls = itertools.count(1)

    def flaky(outcome: Outcome) -> None:
        if next(calls) == 3:
            raise RetryableError("unavailable")
        run._publish(outcome)

    run.publish = flaky
    run.finish()
    assert run.slices == 2
    assert run.progress.counts == {"rejected": 4}
    assert [name for name, _ in run.progress.failed] == ["0.json", "1.json", "2.json", "3.json"]


def test_a_continuation_that_names_halves_that_are_not_there_ends() -> None:
    run = run_of("zip", [("a", b"1")])
    for half in (Half.of("json", "a.json", (7,), 1), Half.of("jpeg", "a.jpg", (8,), 1)):
        run.progress.waiting.add(half)
    with pytest.raises(PermanentError) as caught:
        run.finish()
    assert caught.value.reason == "invalid_event"


def test_more_names_than_a_message_holds_are_refused() -> None:
    long = "\\" * 900
    run = run_of("tar", [(f"{n}{long}.jpg", b"\xff\xd8\xff") for n in range(2500)])
    with pytest.raises(PermanentError) as caught:
        run.finish()
    assert caught.value.reason == "unsafe_archive"
    assert 2200 < sum(run.progress.counts.values()) < 2400

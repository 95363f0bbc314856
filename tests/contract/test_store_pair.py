"""Metadata and a JPEG as two objects: in either order one instance, and one left alone is
reported."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import scans
from tests.contract.landing import ARCHIVE, LANDING, QUARANTINE, Landing, landing, words

UIDS = ("1.2", "1.2.3", "1.2.3.4")
NOW = "2999-01-01T00:00:00Z"  # younger than any wait
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Landing]:
    with landing(tmp_path) as made:
        yield made


@pytest.mark.parametrize("first", ["json", "jpg"])
@pytest.mark.parametrize("ending", ["jpg", "JPEG"])
def test_the_second_to_arrive_brings_both_to_their_outcome(
    place: Landing, first: str, ending: str
) -> None:
    halves = {"json": ("x/1.json", scans.metadata(UIDS)), "jpg": (f"x/1.{ending}", scans.jpeg())}
    early = place.upload(*halves.pop(first), created=NOW)
    assert place.deliver(early) == "operation_pending"
    late = place.upload(*halves.popitem()[1], created=NOW)
    assert place.deliver(late) == ""
    records = place.world.outcomes
    assert words(records) == [("stored", ""), ("stored", "")]
    assert {record["name"] for record in records} == {early.name, late.name}
    assert {(record["study"], record["series"], record["instance"]) for record in records} == {UIDS}
    assert scans.jpeg() in (place.stored(UIDS) or b"")
    assert place.deliver(early, attempt=2) == ""
    assert words(place.world.outcomes)[2:] == [("duplicate", "")]
    assert place.instances() == 1


def test_both_at_once_are_one_instance(place: Landing) -> None:
    blobs = [
        place.upload("1.json", scans.metadata(UIDS), created=NOW),
        place.upload("1.jpg", scans.jpeg(), created=NOW),
    ]
    place.at_once(*blobs)
    for blob in blobs:
        place.deliver(blob)
    said = [(record["name"], record["outcome"]) for record in place.world.outcomes]
    assert {(blob.name, "stored") for blob in blobs} <= set(said)
    assert {outcome for _, outcome in said} <= {"stored", "duplicate"}
    assert place.instances() == 1


def test_a_new_process_that_gets_it_again_finds_the_same(place: Landing) -> None:
    early = place.upload("1.json", scans.metadata(UIDS), created=NOW)
    late = place.upload("1.jpg", scans.jpeg(), created=NOW)
    place.deliver(late)
    place.restart()
    assert place.deliver(early) == ""
    assert {word for word, _ in words(place.world.outcomes)} <= {"stored", "duplicate"}
    assert place.instances() == 1


def test_other_metadata_under_the_same_uids_is_a_conflict(place: Landing) -> None:
    place.upload("1.json", scans.metadata(UIDS))
    place.deliver(place.upload("1.jpg", scans.jpeg(1)))
    place.upload("2.json", scans.metadata(UIDS))
    place.deliver(place.upload("2.jpg", scans.jpeg(2)))
    assert words(place.world.outcomes) == [("stored", "")] * 2 + [("conflict", "conflict")] * 2
    assert "conflict/2.json" in place.buckets.names(QUARANTINE)
    assert "conflict/2.jpg" in place.buckets.names(QUARANTINE)
    assert place.buckets.names(LANDING) == ["1.jpg", "1.json"]


@pytest.mark.parametrize(
    ("name", "data"), [("1.json", scans.metadata(UIDS)), ("1.jpg", scans.jpeg())]
)
def test_one_left_alone_is_reported_after_a_while(place: Landing, name: str, data: bytes) -> None:
    assert words(place.drop(name, data, created=LONG_AGO)) == [("rejected", "unsupported_input")]
    assert place.buckets.read(QUARANTINE, f"unsupported_input/{name}") == data


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("1.json", b"{}"),
        ("1.json", b'{"a": 1}'),
        ("1.json", b"[1, 2]"),
        ("1.json", b"{" * 5000),
        ("1.json", b'{"0020000D": 1}'),
        ("1.json", scans.metadata(("1", "1", "x"))),
        ("1.json", scans.metadata(UIDS, **{"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}})),
        ("1.json", scans.metadata(UIDS, **{"00420011": {"vr": "OB", "BulkDataURI": "pdf"}})),
        ("1.json", scans.metadata(UIDS, **{"7FE00010": {"vr": "OB", "InlineBinary": "AA=="}})),
        ("1.json", scans.metadata(UIDS, **{"7FE00010": {"vr": "OB", "BulkDataURI": "a\r\nX: b"}})),
        ("metadata", scans.metadata(UIDS)),
        ("picture", scans.jpeg()),
    ],
)
def test_what_cannot_be_a_pair_does_not_wait(place: Landing, name: str, data: bytes) -> None:
    assert words(place.drop(name, data, created=NOW)) == [("rejected", "unsupported_input")]
    assert place.buckets.names(LANDING) == []


def test_what_a_person_need_not_write_is_filled_in(place: Landing) -> None:
    (document,) = json.loads(scans.metadata(UIDS))
    for tag in ("00020010", "00080005", "7FE00010"):
        del document[tag]
    place.upload("1.json", json.dumps(document).encode())
    place.deliver(place.upload("1.jpg", scans.jpeg()))
    assert words(place.world.outcomes) == [("stored", "")] * 2


def test_both_sources_are_moved(tmp_path: Path) -> None:
    settings = {"SOURCE_DISPOSITION": "move", "MOVE_DESTINATION": f"gs://{ARCHIVE}"}
    with landing(tmp_path, **settings) as place:
        early = place.upload("1.json", scans.metadata(UIDS), created=NOW)
        place.deliver(place.upload("1.jpg", scans.jpeg(), created=NOW))
        assert place.buckets.names(LANDING) == []
        assert place.buckets.names(ARCHIVE) == ["1.jpg", "1.json"]
        place.restart()
        assert place.deliver(early, attempt=2) == ""
        assert words(place.world.outcomes) == [("stored", ""), ("stored", ""), ("superseded", "")]


def test_metadata_that_would_fill_the_memory_is_refused(place: Landing) -> None:
    text = scans.metadata(UIDS, **{"00091001": [{}] * 300_000})
    assert words(place.drop("1.json", text, created=NOW)) == [("rejected", "unsupported_input")]

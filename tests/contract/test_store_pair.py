"""Metadata and a JPEG as two objects: one instance, one outcome for each of the two, in any order,
with repetitions and killed processes."""

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from functions.common.events.messages import AGAIN
from tests import scans
from tests.contract.kills import KilledError, killing
from tests.contract.landing import ARCHIVE, LANDING, QUARANTINE, Landing, landing, words
from tests.contract.strictbucket import Blob
from tests.contract.world import STATE

UIDS = ("1.2", "1.2.3", "1.2.3.4")
NOW = "2999-01-01T00:00:00Z"  # younger than any wait
LONG_AGO = "2020-01-01T00:00:00Z"
STORED = ("stored", "")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Landing]:
    with landing(tmp_path) as made:
        yield made


def pair(place: Landing, stem: str = "1", uids: scans.Uids = UIDS) -> list[Blob]:
    """Upload both halves."""
    return [
        place.upload(f"{stem}.json", scans.metadata(uids), created=NOW),
        place.upload(f"{stem}.jpg", scans.jpeg(), created=NOW),
    ]


def deliver_all(place: Landing, blobs: list[Blob], first: int = 1) -> None:
    """Deliver each in turn, a new process each time, until all are acknowledged.

    Args:
        first: the number of the first of these deliveries.
    """
    waiting = list(blobs)
    for attempt in range(first, first + 8):
        for blob in list(waiting):
            place.restart()
            if place.deliver(blob, attempt=attempt) == "":
                waiting.remove(blob)
    assert not waiting


def by_name(place: Landing) -> dict[str, list[tuple[str, str]]]:
    """The records of each object."""
    found: dict[str, list[tuple[str, str]]] = {}
    for record in place.world.outcomes:
        found.setdefault(record["name"], []).extend(words([record]))
    return found


@pytest.mark.parametrize("first", ["json", "jpg"])
@pytest.mark.parametrize("ending", ["jpg", "JPEG"])
def test_each_half_reports_its_own_outcome_once(place: Landing, first: str, ending: str) -> None:
    halves = {"json": ("x/1.json", scans.metadata(UIDS)), "jpg": (f"x/1.{ending}", scans.jpeg())}
    early = place.upload(*halves.pop(first), created=NOW)
    assert place.deliver(early) == "operation_pending"
    late = place.upload(*halves.popitem()[1], created=NOW)
    assert place.deliver(late) == ""
    assert place.deliver(early, attempt=2) == ""
    assert by_name(place) == {late.name: [STORED], early.name: [STORED]}
    for record in place.world.outcomes:
        assert (record["study"], record["series"], record["instance"]) == UIDS
    assert scans.jpeg() in (place.stored(UIDS) or b"")
    assert place.world.requests("POST", "store") == 1


def test_both_at_once_in_two_processes_are_stored_and_reported_once(place: Landing) -> None:
    for run in range(20):
        name = str(run)
        blobs = pair(place, name, ("1.2", "1.2.3", f"1.2.3.{run}"))
        answers = place.at_once(*blobs, processes=True)
        waiting = [blob for blob, answer in zip(blobs, answers, strict=True) if answer]
        deliver_all(place, waiting, first=2)
        found = by_name(place)
        assert found[f"{name}.json"] == found[f"{name}.jpg"] == [STORED]
    assert place.world.requests("POST", "store") == 20
    assert set(place.world.answers) <= {"", "operation_pending"}


def test_an_event_that_comes_again_long_after_repeats_the_word(place: Landing) -> None:
    blobs = pair(place)
    deliver_all(place, blobs)
    deliver_all(place, blobs)
    assert by_name(place) == {"1.json": [STORED] * 2, "1.jpg": [STORED] * 2}
    assert place.world.requests("POST", "store") == 1


def test_an_event_of_reconcile_is_processed_again_with_the_same_outcome(place: Landing) -> None:
    blobs = pair(place)
    deliver_all(place, blobs)
    data, attributes = place.event(blobs[0])
    for _ in range(2):
        again = {**attributes, AGAIN: "reconcile"}
        assert place.world.deliver(place.handle, data, again) == ""
    assert by_name(place)["1.json"] == [STORED] * 3


@pytest.mark.parametrize("disposition", ["keep", "delete", "move"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_any_two_steps_changes_no_word(
    tmp_path: Path, disposition: str, when: str
) -> None:
    settings = {"SOURCE_DISPOSITION": disposition, "MOVE_DESTINATION": f"gs://{ARCHIVE}"}
    with landing(tmp_path, **settings) as place:
        for step in itertools.count():
            name = str(step)
            blobs = pair(place, name, ("1.2", "1.2.3", f"1.2.3.{step}"))
            with killing(place.world.services, step, when) as kill:
                for blob in blobs:
                    place.restart()
                    with contextlib.suppress(KilledError):
                        place.deliver(blob)
            deliver_all(place, blobs, first=2)
            found = by_name(place)
            assert set(found[f"{name}.json"] + found[f"{name}.jpg"]) == {STORED}, step
            if not kill.happened:
                break
        assert step > 12
        assert place.instances() == step + 1
        left = place.buckets.names(LANDING)
        assert len(left) == (2 * (step + 1) if disposition == "keep" else 0)


def test_the_claim_of_a_process_that_died_is_void_in_the_end(place: Landing) -> None:
    blobs = pair(place)
    with killing(place.world.services, 6, "after"), pytest.raises(KilledError):
        place.deliver(blobs[0])
    (name,) = place.buckets.names(STATE)
    assert name.endswith(".claim")
    place.restart()
    assert place.deliver(blobs[1]) == "operation_pending"
    state = place.buckets.buckets[STATE]
    state[name] = replace(state[name], created=LONG_AGO)
    assert place.deliver(blobs[1], attempt=2) == ""
    assert place.deliver(blobs[0], attempt=2) == ""
    assert by_name(place) == {"1.json": [STORED], "1.jpg": [STORED]}


def test_a_state_bucket_that_is_missing_loses_nothing(place: Landing) -> None:
    kept = place.buckets.buckets.pop(STATE)
    blobs = pair(place)
    assert place.deliver(blobs[0]) == "unavailable"
    place.buckets.buckets[STATE] = kept
    deliver_all(place, blobs, first=2)
    assert by_name(place) == {"1.json": [STORED], "1.jpg": [STORED]}


# One half again


def test_a_jpeg_uploaded_again_alone_gets_the_outcome_and_its_metadata_stays(
    place: Landing,
) -> None:
    deliver_all(place, pair(place))
    again = place.upload("1.jpg", scans.jpeg(2), created=NOW)
    deliver_all(place, [again])
    assert by_name(place) == {
        "1.json": [STORED],
        "1.jpg": [STORED, ("conflict", "conflict")],
    }
    assert place.buckets.names(LANDING) == ["1.json"]
    assert place.buckets.names(QUARANTINE) == ["conflict/1.jpg", "conflict/1.jpg.reason.json"]
    assert scans.jpeg(1) in (place.stored(UIDS) or b"")


def test_metadata_uploaded_again_alone_gets_the_outcome_and_its_jpeg_stays(place: Landing) -> None:
    deliver_all(place, pair(place))
    text = scans.metadata(UIDS, **{"00100020": {"vr": "LO", "Value": ["other"]}})
    deliver_all(place, [place.upload("1.json", text, created=NOW)])
    assert by_name(place)["1.json"] == [STORED, ("conflict", "conflict")]
    assert by_name(place)["1.jpg"] == [STORED]
    assert place.buckets.names(LANDING) == ["1.jpg"]


def test_new_metadata_is_never_put_to_the_picture_of_another_instance(place: Landing) -> None:
    deliver_all(place, pair(place))
    others = ("1.2", "1.2.3", "1.2.3.5")
    text = place.upload("1.json", scans.metadata(others), created=NOW)
    assert place.deliver(text) == "operation_pending"
    picture = place.upload("1.jpg", scans.jpeg(2), created=NOW)
    deliver_all(place, [text, picture], first=2)
    assert by_name(place) == {"1.json": [STORED] * 2, "1.jpg": [STORED] * 2}
    assert scans.jpeg(2) in (place.stored(others) or b"")
    assert scans.jpeg(1) in (place.stored(UIDS) or b"")


def test_the_same_half_again_is_stored_and_the_other_untouched(place: Landing) -> None:
    deliver_all(place, pair(place))
    deliver_all(place, [place.upload("1.jpg", scans.jpeg(), created=NOW)])
    assert by_name(place) == {"1.json": [STORED], "1.jpg": [STORED] * 2}
    assert place.instances() == 1


def test_other_metadata_under_the_same_uids_is_a_conflict(place: Landing) -> None:
    deliver_all(place, pair(place))
    blobs = [
        place.upload("2.json", scans.metadata(UIDS), created=NOW),
        place.upload("2.jpg", scans.jpeg(2), created=NOW),
    ]
    deliver_all(place, blobs)
    found = by_name(place)
    assert found["2.json"] == found["2.jpg"] == [("conflict", "conflict")]
    assert {"conflict/2.json", "conflict/2.jpg"} <= set(place.buckets.names(QUARANTINE))
    assert place.buckets.names(LANDING) == ["1.jpg", "1.json"]


def test_a_pair_is_as_old_as_its_bytes_whatever_changed_their_metadata_since(
    tmp_path: Path,
) -> None:
    with landing(tmp_path, CONFLICT_POLICY="overwrite") as place:
        deliver_all(place, pair(place))
        text = place.upload("2.json", scans.metadata(UIDS), created=LONG_AGO)
        place.upload("2.jpg", scans.jpeg(2), created=LONG_AGO, more={"updated": NOW})
        deliver_all(place, [text])
        assert by_name(place)["2.json"] == [("conflict", "conflict")]
        assert scans.jpeg(1) in (place.stored(UIDS) or b"")


# Files that are not a pair


@pytest.mark.parametrize(
    ("name", "data"), [("1.json", scans.metadata(UIDS)), ("1.jpg", scans.jpeg())]
)
def test_one_left_alone_is_reported_after_a_while(place: Landing, name: str, data: bytes) -> None:
    assert words(place.drop(name, data, created=LONG_AGO)) == [("rejected", "unsupported_input")]
    assert place.buckets.read(QUARANTINE, f"unsupported_input/{name}") == data


@pytest.mark.parametrize(
    ("name", "data"), [("instance.json", scans.metadata(UIDS)), ("image.jpg", scans.jpeg())]
)
def test_the_sidecar_of_a_single_half_says_what_to_do(
    place: Landing, name: str, data: bytes
) -> None:
    place.drop(name, data, created=LONG_AGO)
    detail = place.sidecar(f"unsupported_input/{name}")["detail"]
    assert "NAME.json" in detail
    assert "multipart-request.file" in detail


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("1.json", b"{}"),
        ("1.json", b'{"a": 1}'),
        ("1.json", b"[1, 2]"),
        ("1.json", b"{" * 5000),
        ("1.json", b'{"0020000D": 1}'),
        ("1.json", scans.metadata(("1", "1", "x"))),
        ("1.json", scans.metadata(UIDS, **{"0020000D": None})),
        ("1.json", scans.metadata(UIDS, **{"0020000D": ["1.2"]})),
        ("1.json", scans.metadata(UIDS, **{"0020000D": {"vr": "UI", "Value": None}})),
        ("1.json", scans.metadata(UIDS, **{"0020000D": {"vr": "UI", "Value": [["1.2"]]}})),
        ("1.json", scans.metadata(UIDS, **{"0020000D": {"vr": "UI", "Value": [None]}})),
        ("1.json", scans.metadata(UIDS, **{"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}})),
        ("1.json", scans.metadata(UIDS, **{"00420011": {"vr": "OB", "BulkDataURI": "pdf"}})),
        ("1.json", scans.metadata(UIDS, **{"7FE00010": {"vr": "OB", "InlineBinary": "AA=="}})),
        ("1.json", scans.metadata(UIDS, **{"7FE00010": {"vr": "OB", "BulkDataURI": "a\r\nX: b"}})),
        ("1.json", scans.metadata(UIDS, **{"7FE00010": {"vr": "OB", "BulkDataURI": ""}})),
        ("1.json", scans.metadata(UIDS, **{"7FE00010": ["InlineBinary"]})),
        ("1.json", scans.metadata(UIDS)[:-2] + b', "00091001": ' + b"[" * 900 + b"]" * 900 + b"}]"),
        ("1.json", scans.metadata(UIDS, **{"00091001": [{}] * 300_000})),
        ("metadata", scans.metadata(UIDS)),
        ("picture", scans.jpeg()),
        ("1.jpg", b"\x89PNG\r\n\x1a\n" + bytes(100)),
    ],
)
def test_what_cannot_be_half_a_pair_does_not_wait(place: Landing, name: str, data: bytes) -> None:
    assert words(place.drop(name, data, created=NOW)) == [("rejected", "unsupported_input")]
    assert place.buckets.names(LANDING) == []


def test_a_png_that_is_called_a_jpeg_is_never_stored(place: Landing) -> None:
    text = place.upload("1.json", scans.metadata(UIDS), created=NOW)
    picture = place.upload("1.jpg", b"\x89PNG\r\n\x1a\n" + bytes(100), created=NOW)
    assert place.deliver(text) == "operation_pending"
    assert place.deliver(picture) == ""
    assert place.deliver(text, attempt=2) == "operation_pending"
    assert by_name(place) == {"1.jpg": [("rejected", "unsupported_input")]}
    right = place.upload("1.jpg", scans.jpeg(), created=NOW)
    deliver_all(place, [text, right], first=2)
    assert by_name(place)["1.json"] == [STORED]


def test_a_dicom_file_that_is_called_a_jpeg_is_a_dicom_file(place: Landing) -> None:
    others = ("1.2", "1.2.3", "1.2.3.5")
    text = place.upload("1.json", scans.metadata(UIDS), created=NOW)
    scan = place.upload("1.jpg", scans.dicom(others), created=NOW)
    assert place.deliver(text) == "operation_pending"
    assert place.deliver(scan) == ""
    assert by_name(place) == {"1.jpg": [STORED]}
    assert place.stored(others) == scan.data


# The JPEG's own header


def with_value(tag: str, vr: str, value: object) -> bytes:
    return scans.metadata(UIDS, **{tag: {"vr": vr, "Value": [value]}})


LOSSLESS = "1.2.840.10008.1.2.4.70"


@pytest.mark.parametrize(
    ("text", "picture", "said"),
    [
        (with_value("00280010", "US", 15), scans.jpeg(), "Rows is 15 in the metadata and 16"),
        (with_value("00280011", "US", "x"), scans.jpeg(), "Columns is 0 in the metadata and 16"),
        (with_value("00280002", "US", 1), scans.jpeg(), "SamplesPerPixel"),
        (with_value("00280100", "US", 16), scans.jpeg(), "BitsAllocated"),
        (with_value("00280101", "US", 12), scans.jpeg(), "BitsStored"),
        (with_value("00280004", "CS", "MONOCHROME2"), scans.jpeg(), "PhotometricInterpretation"),
        (with_value("00280004", "CS", "RGB"), scans.jpeg(), "PhotometricInterpretation"),
        (with_value("00280008", "IS", 2), scans.jpeg(), "NumberOfFrames"),
        (with_value("00020010", "UI", LOSSLESS), scans.jpeg(), "TransferSyntaxUID"),
        (scans.metadata(UIDS), scans.jpeg(progressive=True), "progressive"),
        (scans.metadata(UIDS), scans.jpeg(grey=True), "SamplesPerPixel"),
        (scans.metadata(UIDS), scans.jpeg().replace(b"\xff\xc0", b"\xff\xc3"), "Transfer"),
        (scans.metadata(UIDS), scans.jpeg()[:-2], "truncated"),
        (scans.metadata(UIDS), scans.jpeg()[:-300], "truncated"),
        (scans.metadata(UIDS), scans.jpeg()[:200], "truncated"),
    ],
)
def test_an_undecodable_pair_is_rejected_with_the_contradiction(
    place: Landing, text: bytes, picture: bytes, said: str
) -> None:
    blobs = [
        place.upload("1.json", text, created=NOW),
        place.upload("1.jpg", picture, created=NOW),
    ]
    deliver_all(place, blobs)
    assert by_name(place) == {name: [("rejected", "rejected")] for name in ("1.json", "1.jpg")}
    assert all(said in record["detail"] for record in place.world.outcomes)
    assert place.instances() == 0
    assert len(place.buckets.names(QUARANTINE)) == 4


def test_what_a_person_need_not_write_is_filled_in(place: Landing) -> None:
    (document,) = json.loads(scans.metadata(UIDS))
    for tag in list(document):
        if tag.startswith(("0002", "0028", "7FE0", "00080005")):
            del document[tag]
    blobs = [
        place.upload("1.json", json.dumps(document).encode(), created=NOW),
        place.upload("1.jpg", scans.jpeg(), created=NOW),
    ]
    deliver_all(place, blobs)
    assert by_name(place) == {"1.json": [STORED], "1.jpg": [STORED]}
    (stored,) = place.get("studies/1.2/series/1.2.3/instances/1.2.3.4/metadata")
    values = [stored[tag]["Value"][0] for tag in ("00280010", "00280011", "00280100", "00280102")]
    assert values == [16, 16, 8, 7]


@pytest.mark.parametrize(
    "picture", [scans.jpeg() + b"appended", scans.jpeg(comment=b"x" * 60_000), scans.jpeg(5)]
)
def test_a_jpeg_is_whole_whatever_surrounds_its_image(place: Landing, picture: bytes) -> None:
    blobs = [
        place.upload("1.json", scans.metadata(UIDS), created=NOW),
        place.upload("1.jpg", picture, created=NOW),
    ]
    deliver_all(place, blobs)
    assert by_name(place) == {"1.json": [STORED], "1.jpg": [STORED]}


# The how-to's multipart-request.file


def test_the_how_tos_multipart_request_file_is_one_instance(place: Landing) -> None:
    body = scans.multipart_request(scans.metadata(UIDS), scans.jpeg())
    (record,) = place.drop("multipart-request.file", body)
    assert words([record]) == [STORED]
    assert (record["study"], record["series"], record["instance"]) == UIDS
    assert scans.jpeg() in (place.stored(UIDS) or b"")
    assert place.buckets.requests == {"read": 1}
    assert place.world.requests("POST", "store") == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda body: body[:-5], "unsupported_input"),
        (lambda body: body[:300], "unsupported_input"),
        (lambda body: body.replace(b"image/jpeg", b"image/png!"), "unsupported_input"),
        (
            lambda body: body.replace(b"Location: jpeg-image", b"Location: other-name"),
            "unsupported_input",
        ),
        (
            lambda body: body.replace(
                b"syntax=1.2.840.10008.1.2.4.50", b"syntax=1.2.840.10008.1.2.4.70"
            ),
            "rejected",
        ),
        (lambda body: body.replace(b'"Value": [16]', b'"Value": [17]'), "rejected"),
        (lambda body: body[:-2] + body[2:], "unsupported_input"),
    ],
)
def test_a_multipart_file_that_is_wrong_is_rejected(
    place: Landing, change: Callable[[bytes], bytes], reason: str
) -> None:
    body = scans.multipart_request(scans.metadata(UIDS), scans.jpeg())
    assert words(place.drop("request", change(body))) == [("rejected", reason)]
    assert place.instances() == 0


def test_looking_for_the_other_half_lists_no_names_that_only_begin_alike(place: Landing) -> None:
    for number in range(10):
        place.upload(f"1.2.840.{number}.dcm", b"")
    assert place.deliver(place.upload("1.json", scans.metadata(UIDS), created=NOW))
    assert place.buckets.listed == 1


def test_a_pair_costs_few_requests(place: Landing) -> None:
    blobs = pair(place)
    place.deliver(blobs[0])
    place.restart()
    place.deliver(blobs[1])
    # Once the owner of the pair, once the delivery that finds its outcome already written.
    assert place.buckets.requests == Counter(
        read=3,
        missing=2,
        stat=1,
        list=1,
        create=3,
    )

"""Single instances: all outcomes, between a strict bucket server and a real DICOM store."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functions.common.dicom.dicomjson import INSTANCE_UID, SERIES_UID, STUDY_UID
from tests import scans
from tests.contract.landing import ARCHIVE, LANDING, QUARANTINE, Landing, landing, words
from tests.contract.servers import Answer, planned
from tests.contract.world import OUTCOMES

UIDS = ("1.2", "1.2.3", "1.2.3.4")
SCAN = scans.dicom(UIDS, scans.noise(1, 300_000))
OTHER = SCAN[:-4] + bytes(4)
EARLIER = "2020-01-01T00:00:00Z"
LATER = "2999-01-01T00:00:00Z"  # than anything is stored


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Landing]:
    with landing(tmp_path) as made:
        yield made


def test_one_read_one_store_request_one_message(place: Landing) -> None:
    (record,) = place.drop("night 1/üñí.dcm", SCAN)
    assert record["outcome"] == "stored"
    assert record["bytes"] == len(SCAN)
    assert (record["study"], record["series"], record["instance"]) == UIDS
    assert place.stored(UIDS) == SCAN
    assert place.buckets.requests == {"read": 1}
    assert place.world.requests("POST", "store") == 1
    assert place.world.topics.published == len(place.world.outcomes) == 1


@pytest.mark.parametrize(
    "syntax", [scans.EXPLICIT, scans.IMPLICIT, scans.BIG_ENDIAN, scans.DEFLATED]
)
def test_every_encoding_is_stored_byte_for_byte(place: Landing, syntax: str) -> None:
    data = scans.dicom(UIDS, scans.noise(2, 5000), syntax=syntax)
    assert words(place.drop("a", data)) == [("stored", "")]
    assert place.stored(UIDS) == data


def test_a_header_larger_than_the_head_costs_no_second_reading(place: Landing) -> None:
    item = scans.element(0x00091002, "UN", scans.noise(3, 900_000))
    private = scans.element(0x00090010, "LO", b"MAKER") + scans.element(
        0x00091001,
        "SQ",
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        + item
        + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0",
        undefined=True,
    )
    data = scans.dicom(UIDS, private=private)
    assert words(place.drop("a.dcm", data)) == [("stored", "")]
    assert place.stored(UIDS) == data
    assert place.buckets.requests == {"read": 1}


def test_a_header_of_many_megabytes_is_read_once_more(place: Landing) -> None:
    creator = scans.element(0x00090010, "LO", b"MAKER")
    large = scans.element(0x00091001, "UN", scans.noise(3, 5_000_000))
    data = scans.dicom(UIDS, private=creator + large)
    assert words(place.drop("a.dcm", data)) == [("stored", "")]
    assert place.stored(UIDS) == data
    assert place.buckets.requests == {"read": 2}


def test_a_file_without_preamble_is_for_the_store_to_judge(place: Landing) -> None:
    assert words(place.drop("a.dcm", SCAN[132:])) == [("stored", "")]
    assert place.stored(UIDS) == SCAN[132:]


def test_an_object_that_is_unpacked_on_the_way_is_stored_unpacked(place: Landing) -> None:
    # Cloud Storage's decompressive transcoding: size and checksum in the event are those of the
    # packed bytes.
    blob = place.upload("a.dcm", SCAN)
    packed = gzip.compress(SCAN)
    resource = {**blob.resource, "size": str(len(packed)), "crc32c": "AAAAAA=="}
    place.buckets.extra = {"x-goog-stored-content-encoding": "gzip"}
    data = json.dumps(resource).encode()
    attributes = {"eventType": "OBJECT_FINALIZE"}
    assert place.world.deliver(place.handle, data, attributes) == ""
    assert place.stored(UIDS) == SCAN


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello", "unsupported_input"),
        (b"", "unsupported_input"),
        (SCAN[:100], "unsupported_input"),
        (SCAN[:300], "unsupported_input"),
        (scans.dicom(("1.2", "1.2.3", "1.2.x")), "unsupported_input"),
        (scans.dicom(("1.2", "1.2.3", "1." + "2" * 63)), "unsupported_input"),
        (scans.dicom(("1.2", "", "1.2.3")), "unsupported_input"),
        (scans.meta(sop_class="1.2.840.10008.1.3.10"), "unsupported_input"),
        (SCAN[:-99], "rejected"),
        (b'{"a": 1}', "unsupported_input"),
        (b"PK\x03\x04 no zip", "unsupported_input"),
        (gzip.compress(b"no tar", mtime=0), "unsupported_input"),
    ],
)
def test_what_can_never_be_stored_goes_to_quarantine_with_its_reason(
    place: Landing, data: bytes, reason: str
) -> None:
    (record,) = place.drop("night/x", data, metadata={"from": "scanner"})
    assert record["outcome"] == "rejected"
    assert record["reason"] == reason
    kept = f"{reason}/night/x"
    assert place.buckets.names(QUARANTINE) == [kept, f"{kept}.reason.json"]
    assert place.buckets.read(QUARANTINE, kept) == data
    assert place.buckets.buckets[QUARANTINE][kept].metadata == {"from": "scanner"}
    sidecar = place.sidecar(kept)
    assert sidecar["reason"] == reason
    assert sidecar["name"] == "night/x"
    assert sidecar["outcome_id"] == record["id"]
    assert place.buckets.names(LANDING) == []


def test_a_later_upload_of_a_name_replaces_nothing_in_quarantine(place: Landing) -> None:
    place.drop("x", b"junk")
    later = place.upload("x", b"more junk")
    # Quarantined, but its outcome cannot be published: all of it comes again.
    place.world.topics.refuse = ["UNAVAILABLE"] * 4
    assert place.deliver(later) == "unavailable"
    place.restart()
    place.deliver(later, attempt=2)
    names = place.buckets.names(QUARANTINE)
    first, second = (name for name in names if not name.endswith(".reason.json"))
    assert first == "unsupported_input/x"
    assert second == f"unsupported_input/x~{later.generation}"
    assert place.buckets.read(QUARANTINE, first) == b"junk"
    assert place.buckets.read(QUARANTINE, second) == b"more junk"
    assert place.sidecar(second)["generation"] == str(later.generation)
    assert words(place.world.outcomes) == [("rejected", "unsupported_input")] * 2


def test_an_upload_that_is_called_like_a_sidecar_replaces_none(place: Landing) -> None:
    place.drop("x", b"junk")
    named = place.upload("x.reason.json", b"more junk")
    place.deliver(named)
    kept = f"unsupported_input/x.reason.json~{named.generation}"
    assert place.buckets.read(QUARANTINE, kept) == b"more junk"
    assert place.sidecar("unsupported_input/x")["name"] == "x"
    assert place.sidecar(kept)["name"] == "x.reason.json"


def test_a_folders_placeholder_is_left_alone(place: Landing) -> None:
    assert words(place.drop("night/", b"")) == [("skipped", "unsupported_input")]
    assert place.buckets.names(LANDING) == ["night/"]
    assert not place.buckets.names(QUARANTINE)


# Deliveries


def test_the_same_event_five_times_twice_at_once_is_stored_and_reported_once(
    place: Landing,
) -> None:
    blob = place.upload("a.dcm", SCAN)
    place.at_once(blob, blob)
    for _ in range(3):
        place.deliver(blob)
    assert words(place.world.outcomes) == [("stored", "")]
    assert place.instances() == 1


def test_a_new_process_that_gets_the_event_again_says_the_same(place: Landing) -> None:
    blob = place.upload("a.dcm", SCAN)
    place.deliver(blob)
    place.restart()
    place.deliver(blob, attempt=2)
    assert words(place.world.outcomes) == [("stored", ""), ("stored", "")]
    assert place.instances() == 1


def test_identical_bytes_under_another_name_are_a_duplicate(place: Landing) -> None:
    assert words(place.drop("a.dcm", SCAN)) == [("stored", "")]
    assert words(place.drop("b.dcm", SCAN)) == [("duplicate", "")]
    assert place.instances() == 1


def test_an_overwritten_or_vanished_source_is_superseded(place: Landing) -> None:
    first = place.upload("a.dcm", SCAN)
    second = place.upload("a.dcm", scans.dicom(("1.2", "1.2.3", "1.2.3.5")))
    place.deliver(first)
    del place.buckets.buckets[LANDING]["a.dcm"]
    place.deliver(second)
    assert words(place.world.outcomes) == [("superseded", ""), ("superseded", "")]
    assert place.instances() == 0


def test_an_object_overwritten_while_it_is_quarantined_is_not_deleted(place: Landing) -> None:
    first = place.upload("a", b"junk")
    # The outcome cannot be published: quarantined, and still in the landing bucket.
    place.world.topics.refuse = ["UNAVAILABLE"] * 4
    assert place.deliver(first) == "unavailable"
    place.upload("a", SCAN)
    place.deliver(first, attempt=2)
    assert words(place.world.outcomes) == [("superseded", "")]
    assert place.buckets.read(LANDING, "a") == SCAN


@pytest.mark.parametrize(
    "attributes", [{}, {"eventType": "OBJECT_DELETE"}, {"follow-up": "archive"}]
)
def test_what_is_no_upload_is_refused(place: Landing, attributes: dict[str, str]) -> None:
    blob = place.upload("a.dcm", SCAN)
    assert place.world.deliver(place.handle, json.dumps(blob.resource).encode(), attributes) == ""
    assert words(place.world.outcomes) == [("rejected", "invalid_event")]


def test_an_object_of_another_bucket_is_refused(place: Landing) -> None:
    blob = place.buckets.put(ARCHIVE, "a.dcm", SCAN)
    assert place.deliver(blob) == ""
    assert words(place.world.outcomes) == [("rejected", "invalid_event")]
    assert place.instances() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"name": "\ud800.dcm"},
        {"name": ""},
        {"name": ".."},
        {"name": "a\nb"},
        {"name": ["a"]},
        {"name": "x" * 1025},
        {"generation": str(2**63)},
        {"generation": "9" * 19},
        {"generation": "-1"},
        {"generation": 1.5},
        {"size": "1e9"},
        {"metadata": [1]},
    ],
)
def test_an_event_of_an_object_that_cannot_be_is_refused_at_once(
    place: Landing, change: dict[str, Any]
) -> None:
    blob = place.upload("a.dcm", SCAN)
    data = json.dumps({**blob.resource, **change}).encode()
    assert place.world.deliver(place.handle, data, {"eventType": "OBJECT_FINALIZE"}) == ""
    assert words(place.world.outcomes) == [("rejected", "invalid_event")]


# The DICOM store's answers


def test_other_bytes_under_the_same_uids_are_a_conflict(place: Landing) -> None:
    place.drop("a.dcm", SCAN)
    assert words(place.drop("b.dcm", OTHER)) == [("conflict", "conflict")]
    assert place.stored(UIDS) == SCAN
    assert place.buckets.read(QUARANTINE, "conflict/b.dcm") == OTHER
    assert place.buckets.names(LANDING) == ["a.dcm"]


def test_policy_by_prefix_keeps_or_overwrites(tmp_path: Path) -> None:
    with landing(tmp_path, CONFLICT_POLICY="reject,keep/=keep,new/=overwrite") as place:
        place.drop("a.dcm", SCAN)
        assert words(place.drop("keep/b.dcm", OTHER)) == [("conflict", "conflict")]
        assert place.stored(UIDS) == SCAN
        assert not place.buckets.names(QUARANTINE)
        assert words(place.drop("new/b.dcm", OTHER, created=LATER)) == [("stored", "")]
        assert place.stored(UIDS) == OTHER
        assert place.buckets.names(LANDING) == ["a.dcm", "keep/b.dcm", "new/b.dcm"]


def test_overwrite_never_puts_older_bytes_in_the_place_of_newer_ones(tmp_path: Path) -> None:
    with landing(tmp_path, CONFLICT_POLICY="overwrite") as place:
        first = place.upload("1/a.dcm", SCAN, created=EARLIER)
        place.deliver(first)
        assert words(place.drop("2/a.dcm", OTHER, created=LATER)) == [("stored", "")]
        place.restart()
        # Acknowledged too late: it comes once more.
        assert place.deliver(first, attempt=2) == ""
        assert words(place.world.outcomes)[2:] == [("conflict", "conflict")]
        assert place.stored(UIDS) == OTHER
        assert place.buckets.read(QUARANTINE, "conflict/1/a.dcm") == SCAN
        records = place.drop("3/a.zip", scans.zipped([("a.dcm", SCAN)]), created=EARLIER)
        assert words(records) == [("conflict", "conflict"), ("rejected", "conflict")]
        assert place.stored(UIDS) == OTHER


def test_overwrite_deletes_nothing_if_the_new_bytes_are_gone(tmp_path: Path) -> None:
    with landing(tmp_path, CONFLICT_POLICY="overwrite") as place:
        place.drop("a.dcm", SCAN, created=EARLIER)
        place.buckets.once = ["b.dcm"]
        assert words(place.drop("b.dcm", OTHER, created=LATER)) == [("superseded", "")]
        assert place.stored(UIDS) == SCAN


def test_overwrite_says_so_if_an_instance_was_deleted_and_the_new_one_is_refused(
    tmp_path: Path,
) -> None:
    with landing(tmp_path, CONFLICT_POLICY="overwrite") as place:
        place.drop("a.dcm", SCAN, created=EARLIER)
        place.world.fault(method="POST", kind="status", status=413, skip=1)
        (record,) = place.drop("b.dcm", OTHER, created=LATER)
        assert words([record]) == [("rejected", "rejected")]
        assert "after the stored instance was deleted" in record["detail"]
        assert place.buckets.read(QUARANTINE, "rejected/b.dcm") == OTHER


def test_overwrite_reports_what_was_stored_although_its_answer_was_lost(tmp_path: Path) -> None:
    with landing(tmp_path, CONFLICT_POLICY="overwrite") as place:
        place.drop("a.dcm", SCAN, created=EARLIER)
        place.world.fault(method="POST", kind="reset", when="after", skip=1, count=1)
        place.world.fault(method="POST", kind="status", status=413, skip=1, count=1)
        assert place.deliver(place.upload("b.dcm", OTHER, created=LATER)) == ""
        assert place.stored(UIDS) == OTHER


def report(detail: str, code: int = 272, instance: str = "") -> bytes:
    failed: dict[str, Any] = {
        "00081197": {"vr": "US", "Value": [code]},
        "00091097": {"vr": "LT", "Value": [detail]},
    }
    if instance:
        failed["00081155"] = {"vr": "UI", "Value": [instance]}
    return json.dumps([{"00081198": {"vr": "SQ", "Value": [failed]}}]).encode()


def retrieved(data: bytes) -> Answer:
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n"
    return Answer(
        200, {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}, body
    )


EXISTS = "An instance already exists in this DICOM Store with the same UIDs."


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([Answer(409, body=report(EXISTS)), retrieved(SCAN)], "duplicate"),
        ([Answer(409, body=report(EXISTS)), retrieved(OTHER)], "conflict"),
        ([Answer(409, body=report("", 0x0111)), retrieved(SCAN)], "duplicate"),
        ([Answer(409, body=report("The file is damaged.")), retrieved(SCAN)], "rejected"),
        ([Answer(200, body=report("The file is damaged."))], "rejected"),
        ([Answer(400, body=b"no")], "rejected"),
        ([Answer(415, body=b"no")], "rejected"),
        (
            [
                Answer(409, body=report("A delete operation is running.")),
                Answer(200, body=report("")),
            ],
            "operation_pending",
        ),
        ([Answer(409, body=report(EXISTS)), Answer(404)], "unavailable"),
    ],
)
def test_a_refusal_is_read_and_not_guessed(
    tmp_path: Path, answers: list[Answer], expected: str
) -> None:
    with (
        planned(*answers) as store,
        landing(tmp_path, HEALTHCARE_ENDPOINT=f"{store.url}/v1") as place,
    ):
        answer = place.deliver(place.upload("a.dcm", SCAN))
        assert [answer or record["outcome"] for record in place.world.outcomes or [{}]] == [
            expected
        ]
        assert "damaged" not in json.dumps(
            place.world.outcomes
        )  # the store's words may hold patient data


def refuse_without_report(place: Landing) -> None:
    """The store refuses the next instance, and does not say why."""
    place.world.fault(
        method="POST",
        kind="status",
        status=409,
        body="no report",
        count=1,
    )


def test_an_unreadable_refusal_is_rejected_with_its_status(place: Landing) -> None:
    refuse_without_report(place)
    (record,) = place.drop("a.dcm", SCAN)
    assert record["outcome"] == "rejected"
    assert record["reason"] == "rejected"
    assert "409" in record["detail"]


def test_what_was_stored_and_its_answer_lost_is_stored_although_it_is_refused_then(
    place: Landing,
) -> None:
    place.world.fault(method="POST", kind="reset", when="after", count=1)
    refuse_without_report(place)
    assert words(place.drop("a.dcm", SCAN)) == [("stored", "")]
    assert place.stored(UIDS) == SCAN


def test_credentials_that_fail_for_a_moment_during_the_comparison_do_not_decide(
    tmp_path: Path,
) -> None:
    refused = Answer(401)
    nothing = Answer(200, body=b"[]")
    exists = Answer(409, body=report(EXISTS))
    with (
        planned(exists, refused, refused, nothing, retrieved(SCAN)) as store,
        landing(tmp_path, HEALTHCARE_ENDPOINT=f"{store.url}/v1") as place,
    ):
        assert words(place.drop("a.dcm", SCAN)) == [("duplicate", "")]


def test_what_was_stored_and_its_answer_lost_is_stored_although_it_exists_then(
    tmp_path: Path,
) -> None:
    exists = Answer(409, body=report(EXISTS))
    with (
        planned(Answer(503), exists, retrieved(SCAN)) as store,
        landing(tmp_path, HEALTHCARE_ENDPOINT=f"{store.url}/v1") as place,
    ):
        assert words(place.drop("a.dcm", SCAN)) == [("stored", "")]


def test_a_member_that_exists_when_a_follow_up_message_continues_with_it_is_stored(
    tmp_path: Path,
) -> None:
    with (
        planned(Answer(409, body=report(EXISTS)), retrieved(SCAN)) as store,
        landing(tmp_path, HEALTHCARE_ENDPOINT=f"{store.url}/v1") as place,
    ):
        blob = place.upload("a.zip", scans.zipped([("1.dcm", OTHER), ("2.dcm", SCAN)]))
        mark = {"place": [1], "members": 1, "total_bytes": 1, "waiting": []}
        place.deliver_follow_up(
            {"event": blob.resource, "mark": mark, "counts": {"stored": 1}, "failed": []}
        )
        member, own = place.world.outcomes
        assert words([member]) == [("stored", "")]
        assert own["counts"] == {"members": 2, "stored": 2}


def test_a_damaged_copy_of_a_stored_instance_is_rejected_on_every_delivery(place: Landing) -> None:
    place.drop("a.dcm", SCAN)
    blob = place.upload("b.dcm", SCAN[:-99])
    place.deliver(blob, attempt=3)
    assert words(place.world.outcomes) == [("stored", ""), ("rejected", "rejected")]


def test_a_refusal_on_a_second_delivery_stands_if_missing_resources_are_forbidden(
    place: Landing,
) -> None:
    place.world.fault(method="GET", path="instances", kind="status", status=403)
    place.world.fault(method="POST", kind="status", status=409, body="no report")
    blob = place.upload("a.dcm", SCAN)
    assert place.deliver(blob, attempt=2) == ""
    assert words(place.world.outcomes) == [("rejected", "rejected")]


def test_a_refusal_on_a_second_delivery_waits_while_nothing_may_be_read(place: Landing) -> None:
    place.world.fault(method="GET", kind="status", status=403)
    place.world.fault(method="POST", kind="status", status=409, body="no report")
    blob = place.upload("a.dcm", SCAN)
    assert place.deliver(blob, attempt=2) == "unauthorized"
    assert not place.world.outcomes


def test_success_that_cannot_be_read_is_checked(place: Landing) -> None:
    place.world.fault(
        method="POST",
        kind="status",
        status=200,
        body="done",
        count=1,
    )
    assert (
        place.deliver(place.upload("a.dcm", SCAN)) == "unavailable"
    )  # it said so, and nothing was there
    assert words(place.drop("b.dcm", SCAN)) == [("stored", "")]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_service_that_is_set_up_wrong_quarantines_nothing(place: Landing, status: int) -> None:
    place.world.fault(method="POST", kind="status", status=status, count=1)
    assert place.deliver(place.upload("a.dcm", SCAN)) == "unavailable"
    assert not place.buckets.names(QUARANTINE)
    assert place.buckets.names(LANDING) == ["a.dcm"]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"kind": "status", "status": 403}, "unauthorized"),
        ({"kind": "status", "status": 429, "retry_after": 60}, "rate_limited"),
        ({"kind": "status", "status": 503, "retry_after": 60}, "rate_limited"),
    ],
)
def test_what_may_pass_is_handed_back_and_then_recovers(
    place: Landing, rule: dict[str, Any], reason: str
) -> None:
    place.world.fault(method="POST", count=1, **rule)
    blob = place.upload("a.dcm", SCAN)
    assert place.deliver(blob) == reason
    assert not place.world.outcomes
    assert place.deliver(blob, attempt=2) == ""
    assert words(place.world.outcomes) == [("stored", "")]


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429, "retry_after": 1},
        {"kind": "reset"},
        {"kind": "reset", "when": "after"},
        {"kind": "truncate"},
    ],
)
def test_a_passing_fault_costs_one_more_request(place: Landing, rule: dict[str, Any]) -> None:
    place.world.fault(method="POST", count=1, **rule)
    (record,) = place.drop("a.dcm", SCAN)
    assert record["outcome"] == "stored"
    assert place.stored(UIDS) == SCAN
    assert place.buckets.requests["read"] <= 2
    assert place.world.requests("POST", "store") == 2


# The bucket


def test_a_read_that_is_cut_sends_nothing_and_is_done_again(place: Landing) -> None:
    place.buckets.cuts = [200_000]
    assert words(place.drop("a.dcm", SCAN)) == [("stored", "")]
    assert place.stored(UIDS) == SCAN
    assert place.instances() == 1


def test_bytes_that_do_not_match_the_checksum_are_never_stored(place: Landing) -> None:
    blob = place.upload("a.dcm", SCAN)
    resource = json.dumps({**blob.resource, "crc32c": "AAAAAA=="}).encode()
    attributes = {"eventType": "OBJECT_FINALIZE"}
    assert place.world.deliver(place.handle, resource, attributes, budget_s=3.0) in (
        "unavailable",
        "deadline_exceeded",
    )
    assert place.instances() == 0


def test_a_quarantine_that_is_missing_loses_nothing(place: Landing) -> None:
    del place.buckets.buckets[QUARANTINE]
    blob = place.upload("a", b"junk")
    assert place.deliver(blob) == "unavailable"
    assert not place.world.outcomes
    place.buckets.buckets[QUARANTINE] = {}
    assert place.deliver(blob, attempt=2) == ""
    assert words(place.world.outcomes) == [("rejected", "unsupported_input")]


def test_a_source_that_is_deleted_before_it_is_copied_leaves_no_sidecar(place: Landing) -> None:
    blob = place.upload("a", b"junk")
    place.buckets.busy_copies = 4
    assert place.deliver(blob) == "unavailable"
    del place.buckets.buckets[LANDING]["a"]
    assert place.deliver(blob, attempt=2) == ""
    assert words(place.world.outcomes) == [("superseded", "")]
    assert place.buckets.names(QUARANTINE) == []


# Files in which a UID occurs twice: the DICOM store may read the other one

TWICE = pytest.mark.parametrize(
    ("tag", "twin"),
    [
        (0x0020000D, ("9.9", "1.2.3", "1.2.3.4")),
        (0x0020000E, ("1.2", "9.9", "1.2.3.4")),
        (0x00080018, ("1.2", "1.2.3", "9.9")),
    ],
)


@TWICE
def test_a_uid_that_stands_twice_is_reported_as_the_store_reads_it(
    place: Landing, tag: int, twin: scans.Uids
) -> None:
    data = SCAN + scans.element(tag, "UI", b"9.9")
    (record,) = place.drop("a.dcm", data)
    assert words([record]) == [("rejected", "rejected")]
    assert (record["study"], record["series"], record["instance"]) == twin
    assert place.stored(twin) == data
    assert place.stored(UIDS) is None
    assert place.buckets.read(QUARANTINE, "rejected/a.dcm") == data


@TWICE
def test_a_uid_that_stands_twice_is_rejected_although_missing_instances_are_forbidden(
    place: Landing, tag: int, twin: scans.Uids
) -> None:
    place.world.fault(method="GET", path="instances/", kind="status", status=403)
    (record,) = place.drop("a.dcm", SCAN + scans.element(tag, "UI", b"9.9"))
    assert words([record]) == [("rejected", "rejected")]
    assert (record["study"], record["series"], record["instance"]) == twin


def test_a_file_that_exists_under_uids_that_cannot_be_read_is_rejected(place: Landing) -> None:
    place.drop("a.dcm", scans.dicom(("9.9", "1.2.3", "1.2.3.4")))
    place.world.fault(method="GET", path="instances/", kind="status", status=403)
    data = SCAN + scans.element(0x0020000D, "UI", b"9.9")
    assert words(place.drop("b.dcm", data)) == [("rejected", "rejected")]


@TWICE
def test_overwrite_deletes_no_instance_but_the_one_that_the_store_means(
    tmp_path: Path, tag: int, twin: scans.Uids
) -> None:
    with landing(tmp_path, CONFLICT_POLICY="overwrite") as place:
        assert words(place.drop("a.dcm", SCAN, created=EARLIER)) == [("stored", "")]
        other = scans.dicom(twin)
        assert words(place.drop("b.dcm", other, created=EARLIER)) == [("stored", "")]
        forged = place.drop("c.dcm", OTHER + scans.element(tag, "UI", b"9.9"), created=LATER)
        assert forged[0]["outcome"] in ("rejected", "conflict")
        assert place.stored(UIDS) == SCAN
        assert place.stored(twin) == other


@TWICE
def test_an_archive_reports_a_uid_that_stands_twice_as_the_store_reads_it(
    place: Landing, tag: int, twin: scans.Uids
) -> None:
    data = SCAN + scans.element(tag, "UI", b"9.9")
    member, _ = place.drop("a.zip", scans.zipped([("a", data)]))
    assert words([member]) == [("rejected", "rejected")]
    assert (member["study"], member["series"], member["instance"]) == twin


def referenced(*uids: str) -> bytes:
    study, series, instance = uids
    url = f"https://x/studies/{study}/series/{series}/instances/{instance}"
    item = {
        "00081155": {"vr": "UI", "Value": [instance]},
        "00081190": {"vr": "UR", "Value": [url]},
    }
    return json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()


@pytest.mark.parametrize(
    "text", [referenced("1.2", "1.2.3", "9"), referenced("9", "1.2.3", "1.2.3.4")]
)
def test_a_report_that_neither_stores_nor_fails_the_instance_is_rejected(
    tmp_path: Path, text: bytes
) -> None:
    with (
        planned(Answer(200, body=text), Answer(404)) as store,
        landing(tmp_path, HEALTHCARE_ENDPOINT=f"{store.url}/v1") as place,
    ):
        assert words(place.drop("a.dcm", SCAN)) == [("rejected", "rejected")]


@pytest.mark.parametrize("info", [{}, {"blobStorageInfo": {}}, None])
def test_overwrite_replaces_nothing_whose_age_the_store_does_not_report(
    tmp_path: Path, info: dict[str, Any] | None
) -> None:
    tags = (STUDY_UID, SERIES_UID, INSTANCE_UID)
    match = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in zip(tags, UIDS, strict=True)}
    age = Answer(404) if info is None else Answer(200, body=json.dumps(info).encode())
    with (
        planned(
            Answer(409, body=report(EXISTS, instance=UIDS[2])),
            retrieved(OTHER),
            Answer(200, body=json.dumps([match]).encode()),
            age,
        ) as store,
        landing(
            tmp_path, HEALTHCARE_ENDPOINT=f"{store.url}/v1", CONFLICT_POLICY="overwrite"
        ) as place,
    ):
        assert words(place.drop("a.dcm", SCAN, created=LATER)) == [("conflict", "conflict")]
        assert "DELETE" not in [request.method for request in store.seen]
        assert place.buckets.read(QUARANTINE, "conflict/a.dcm") == SCAN


def test_overwrite_deletes_nothing_where_the_failure_names_no_instance(tmp_path: Path) -> None:
    with (
        planned(Answer(409, body=report(EXISTS)), retrieved(OTHER)) as store,
        landing(
            tmp_path, HEALTHCARE_ENDPOINT=f"{store.url}/v1", CONFLICT_POLICY="overwrite"
        ) as place,
    ):
        assert words(place.drop("a.dcm", SCAN, created=LATER)) == [("conflict", "conflict")]
        assert "DELETE" not in [request.method for request in store.seen]


# The source after the outcome


def test_a_stored_source_is_kept_deleted_or_moved_by_prefix(tmp_path: Path) -> None:
    settings = {
        "SOURCE_DISPOSITION": "keep,d/=delete,m/=move",
        "MOVE_DESTINATION": f"gs://{ARCHIVE}/done",
    }
    with landing(tmp_path, **settings) as place:
        for number, name in enumerate(("k/a", "d/a", "m/a")):
            data = scans.dicom(("1.2", "1.2.3", f"1.2.3.{number + 1}"))
            assert words(place.drop(name, data)) == [("stored", "")]
        assert place.buckets.names(LANDING) == ["k/a"]
        assert place.buckets.names(ARCHIVE) == ["done/m/a"]
        blob = place.upload("m/b", SCAN)
        place.deliver(blob)
        place.restart()
        place.deliver(blob, attempt=2)  # acknowledged too late: it is gone already
        assert words(place.world.outcomes)[-2:] == [("stored", ""), ("superseded", "")]


def test_a_copy_whose_answer_is_lost_is_not_made_twice(tmp_path: Path) -> None:
    settings = {"SOURCE_DISPOSITION": "move", "MOVE_DESTINATION": f"gs://{ARCHIVE}/done"}
    with landing(tmp_path, **settings) as place:
        place.buckets.lost = ["copy"]
        assert words(place.drop("scan.dcm", SCAN)) == [("stored", "")]
        assert place.buckets.requests["copy"] == 2
        assert place.buckets.names(ARCHIVE) == ["done/scan.dcm"]
        assert place.buckets.names(LANDING) == []


def test_a_later_upload_of_a_name_replaces_nothing_that_was_moved(tmp_path: Path) -> None:
    settings = {"SOURCE_DISPOSITION": "move", "MOVE_DESTINATION": f"gs://{ARCHIVE}/done"}
    with landing(tmp_path, **settings) as place:
        place.drop("scan.dcm", SCAN)
        later = place.upload("scan.dcm", scans.dicom(("1.2", "1.2.3", "1.2.3.5")))
        place.deliver(later)
        place.buckets.buckets[LANDING]["scan.dcm"] = (
            later  # killed after the copy, before the source was deleted
        )
        place.restart()
        place.deliver(later, attempt=2)
        kept = place.buckets.names(ARCHIVE)
        assert kept == ["done/scan.dcm", f"done/scan.dcm~{later.generation}"]
        assert [place.buckets.read(ARCHIVE, name) for name in kept] == [SCAN, later.data]
        assert place.buckets.names(LANDING) == []


@pytest.mark.parametrize("name", ["n" * 1024, "ü" * 505])
def test_a_name_that_is_too_long_below_the_destination_is_cut(tmp_path: Path, name: str) -> None:
    settings = {"SOURCE_DISPOSITION": "move", "MOVE_DESTINATION": f"gs://{ARCHIVE}/done"}
    with landing(tmp_path, **settings) as place:
        blob = place.upload(name, SCAN)
        assert place.deliver(blob) == ""
        assert words(place.world.outcomes) == [("stored", "")]
        (kept,) = place.buckets.names(ARCHIVE)
        assert kept.startswith(f"done/{name[:400]}")
        assert kept.endswith(f"~{blob.generation}")
        assert place.buckets.names(LANDING) == []


def test_the_storage_class_is_the_objects_or_the_prefixs(tmp_path: Path) -> None:
    with landing(tmp_path, STORAGE_CLASS="old/=COLDLINE") as place:
        place.drop("old/a", scans.dicom(("1", "1", "1")))
        place.drop(
            "old/b", scans.dicom(("1", "1", "2")), metadata={"dicom-storage-class": "archive"}
        )
        place.drop("c", scans.dicom(("1", "1", "3")))
        path = "studies/1/series/1/instances/{}:getStorageInfo"
        infos = [place.get(path.format(number)) for number in "123"]
        assert [i["blobStorageInfo"]["storageClass"] for i in infos] == [
            "COLDLINE",
            "ARCHIVE",
            "STANDARD",
        ]
        (record,) = place.drop(
            "d", scans.dicom(("1", "1", "4")), metadata={"dicom-storage-class": "cheap"}
        )
        assert record["outcome"] == "rejected"
        assert record["reason"] == "rejected"


UPLOAD = "8f14e45f-ceea-467a-9575-7ba0c0f0d8aa"


def test_what_the_page_uploads_has_an_outcome_that_is_asked_for_by_its_request(
    place: Landing,
) -> None:
    (record,) = place.drop(f"uploads/{UPLOAD}", SCAN)
    assert record["request_id"] == f"upload-{UPLOAD}"
    (message,) = place.world.topics.messages[OUTCOMES]
    assert message["attributes"]["request_id"] == f"upload-{UPLOAD}"


@pytest.mark.parametrize("half", [scans.metadata(UIDS), scans.jpeg()], ids=["json", "jpeg"])
def test_half_a_pair_that_the_page_uploads_alone_is_rejected_at_once(
    place: Landing, half: bytes
) -> None:
    (record,) = place.drop(f"uploads/{UPLOAD}", half)
    assert record["outcome"] == "rejected"
    assert record["reason"] == "unsupported_input"
    assert record["request_id"] == f"upload-{UPLOAD}"


@pytest.mark.parametrize(
    "name", [UPLOAD, f"night/uploads/{UPLOAD}", f"uploads/{UPLOAD}.dcm", "uploads/a.dcm"]
)
def test_objects_of_other_names_came_by_no_request(place: Landing, name: str) -> None:
    (record,) = place.drop(name, SCAN)
    assert "request_id" not in record


def test_an_archive_that_the_page_uploads_has_one_outcome_for_its_request(place: Landing) -> None:
    archive = scans.zipped([("a.dcm", SCAN), ("b.txt", b"no scan")])
    records = place.drop(f"uploads/{UPLOAD}", archive)
    (own,) = [record for record in records if "request_id" in record]
    assert "member" not in own
    assert own["counts"] == {"members": 2, "stored": 1, "skipped": 1}

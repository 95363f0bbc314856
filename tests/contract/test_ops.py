"""Reconcile and replay against a strict bucket server: what is found, what is done, and what is
left alone."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from functions.common.clients.pubsub import Topics
from functions.common.clients.storage import Buckets
from functions.common.clients.transport import Transport
from ops.places import Places
from ops.reconcile import reconcile
from ops.replay import replay_quarantine
from ops.subscription import Subscriptions
from tests import scans
from tests.contract.landing import LANDING, NEXT, QUARANTINE, UPLOADS, Landing, landing, words

LEDGER = "dicom-ledger"
UIDS = ("1.2", "1.2.3", "1.2.3.4")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Landing]:
    with landing(tmp_path) as made:
        made.buckets.buckets[LEDGER] = {}
        yield made


@pytest.fixture
def places(place: Landing) -> Places:
    transport, pubsub = Transport(), place.world.topics.address
    return Places(
        {"landing": LANDING, "quarantine": QUARANTINE, "ledger": LEDGER},
        {"uploads": UPLOADS},
        {},
        {},
        "outcomes/",
        Buckets(transport, place.buckets.url),
        Topics(transport, pubsub),
        Subscriptions(transport, pubsub),
    )


def write_ledger(place: Landing, name: str) -> None:
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in place.world.outcomes)
    place.buckets.put(LEDGER, f"outcomes/{name}", lines)


def test_what_has_no_outcome_is_published_again_and_stored(place: Landing, places: Places) -> None:
    place.drop("done.dcm", scans.dicom(UIDS))
    place.drop("done.zip", scans.zipped([("lost.dcm", scans.dicom(UIDS))]))
    write_ledger(place, "1.ndjson")
    lost = place.upload(
        "lost.dcm", scans.dicom(("1", "2", "3")), metadata={"dicom-storage-class": "NEARLINE"}
    )
    place.upload("young.dcm", b"", created="2999-01-01T00:00:00Z")

    counts = reconcile(places, "", 900, dry_run=True).counts
    assert counts == {
        "outcomes": 2,
        "objects": 4,
        "with an outcome": 2,
        "too young": 1,
        "to publish": 1,
    }
    assert not place.world.topics.messages.get(UPLOADS)

    assert reconcile(places, "", 900, dry_run=False).counts["published"] == 1
    place.finish(lost)
    assert place.stored(("1", "2", "3"))
    write_ledger(place, "2.ndjson")
    assert reconcile(places, "", 900, dry_run=False).counts["published"] == 0


def test_an_archive_whose_follow_up_was_lost_is_begun_anew(
    place: Landing, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.store.handler._SLICE_PART", 2)  # a slice ends after one member
    content = scans.zipped([(str(n), scans.dicom(("1", "1", str(n)))) for n in (1, 2, 3, 4)])
    assert place.deliver(place.upload("a.zip", content)) == ""
    lost = place.world.topics.messages[NEXT]
    follow_up = lost.pop()
    assert (
        place.world.deliver(
            place.handle,
            base64.b64decode(follow_up["data"]),
            follow_up["attributes"],
            follow_up=True,
        )
        == ""
    )
    lost.clear()
    assert place.instances() == 2
    assert reconcile(places, "", 900, dry_run=False).counts["published"] == 1
    place.follow()  # in the process that remembers having gone on with it
    assert place.instances() == 4
    assert words(place.world.outcomes)[-1:] == [("stored", "")]


def test_an_overwritten_object_needs_an_outcome_of_its_own(place: Landing, places: Places) -> None:
    place.drop("a.dcm", scans.dicom(UIDS))
    write_ledger(place, "1.ndjson")
    place.upload("a.dcm", scans.dicom(("1", "2", "3")))
    assert reconcile(places, "a", 900, dry_run=True).counts["to publish"] == 1
    assert reconcile(places, "b", 900, dry_run=True).counts["to publish"] == 0


def test_quarantine_is_replayed_under_the_old_names(place: Landing, places: Places) -> None:
    place.world.fault(method="POST", kind="status", status=400, count=2)
    for number in (1, 2):
        place.drop(f"n/{number}.dcm", scans.dicom(("1", "1", str(number))), metadata={"k": "v"})
    place.drop("junk", b"junk")
    place.upload("n/2.dcm", b"something else")
    assert words(place.world.outcomes) == [("rejected", "rejected")] * 2 + [
        ("rejected", "unsupported_input")
    ]
    before = place.buckets.names(QUARANTINE)

    assert replay_quarantine(places, "rejected/", dry_run=True).counts == {
        "to replay": 1,
        "name taken": 1,
    }
    assert place.buckets.names(QUARANTINE) == before

    assert replay_quarantine(places, "rejected/", dry_run=False).counts == {
        "replayed": 1,
        "name taken": 1,
    }
    assert place.buckets.names(LANDING) == ["n/1.dcm", "n/2.dcm"]
    assert [name for name in place.buckets.names(QUARANTINE) if "n/1" in name] == []
    blob = place.buckets.buckets[LANDING]["n/1.dcm"]
    assert blob.metadata == {"k": "v"}
    place.finish(blob)
    assert words(place.world.outcomes)[-1:] == [("stored", "")]


def test_a_replay_that_was_cut_off_goes_on(place: Landing, places: Places) -> None:
    place.drop("a", b"junk")
    place.upload("a", b"junk")  # copied back, and killed before it was taken out
    assert replay_quarantine(places, "", dry_run=False).counts == {"replayed": 1}
    assert place.buckets.names(QUARANTINE) == []


def test_what_is_no_note_of_ours_is_left_alone(place: Landing, places: Places) -> None:
    place.buckets.put(QUARANTINE, "x.reason.json", b"{}")
    place.buckets.put(
        QUARANTINE,
        "y.reason.json",
        b'{"bucket": "other", "name": "y", "generation": 1, "reason": "r"}',
    )
    place.buckets.put(QUARANTINE, "y", b"")
    assert replay_quarantine(places, "", False).counts == {
        "unreadable notes": 1,
        "of another bucket": 1,
    }
    assert len(place.buckets.names(QUARANTINE)) == 3

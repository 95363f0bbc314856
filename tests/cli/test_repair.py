"""Reconcile and replay against a strict bucket server and a Pub/Sub emulator: what is found,
published, and left alone."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.app import main
from cli.reconcile import Which, compared
from cli.replay import replay_quarantine
from tests import scans
from tests.cli.desk import Desk
from tests.contract.landing import LANDING, NEXT, QUARANTINE, Landing, landing, words
from tests.pubsub.conftest import Emulator

LEDGER = "dicom-ledger"
UIDS = ("1.2", "1.2.3", "1.2.3.4")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Landing]:
    with landing(tmp_path) as made:
        made.buckets.buckets[LEDGER] = {}
        yield made


@pytest.fixture
def desk(place: Landing, emulator: Emulator, tmp_path: Path) -> Desk:
    return Desk(emulator, tmp_path, place.buckets.url)


def write_ledger(place: Landing, name: str) -> None:
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in place.world.outcomes)
    place.buckets.put(LEDGER, f"outcomes/{name}", lines)


def reconcile(
    desk: Desk,
    prefix: str = "",
    since: str | None = None,
    until: str | None = None,
    dry_run: bool = False,
) -> dict[str, int]:
    which = Which.of(prefix, since, until, older_than_s=900)
    return dict(compared(desk.clients, which, dry_run).counts)


def deliver_published(desk: Desk, place: Landing) -> int:
    """Deliver what was published on the uploads topic; how many messages."""
    messages = desk.came("uploads")
    for message in messages:
        attributes = dict(message.attributes)
        assert place.world.deliver(place.handle, message.data, attributes) == ""
    return len(messages)


def test_an_object_without_an_outcome_is_published_again_and_stored(
    place: Landing, desk: Desk
) -> None:
    place.drop("done.dcm", scans.dicom(UIDS))
    place.drop("done.zip", scans.zipped([("lost.dcm", scans.dicom(UIDS))]))
    write_ledger(place, "1.ndjson")
    metadata = {"dicom-storage-class": "NEARLINE"}
    place.upload("lost.dcm", scans.dicom(("1", "2", "3")), metadata=metadata)
    place.upload("young.dcm", b"", created="2999-01-01T00:00:00Z")

    assert reconcile(desk, dry_run=True) == {
        "outcomes": 2,
        "objects": 4,
        "with an outcome": 2,
        "too young": 1,
        "to publish": 1,
    }
    assert desk.came("uploads") == []

    assert reconcile(desk)["published"] == 1
    assert deliver_published(desk, place) == 1
    assert place.stored(("1", "2", "3"))
    write_ledger(place, "2.ndjson")
    assert reconcile(desk).get("published", 0) == 0


def test_an_archive_whose_follow_up_was_lost_starts_again(
    place: Landing, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "functions.store.archive_upload._MEMBER_PART", 2
    )  # a slice ends after one member
    content = scans.zipped([(str(n), scans.dicom(("1", "1", str(n)))) for n in (1, 2, 3, 4)])
    assert place.deliver(place.upload("a.zip", content)) == ""
    lost = place.world.topics.messages[NEXT]
    follow_up = lost.pop()
    data = base64.b64decode(follow_up["data"])
    attributes = follow_up["attributes"]
    assert place.world.deliver(place.handle, data, attributes, follow_up=True) == ""
    lost.clear()
    assert place.instances() == 2
    assert reconcile(desk)["published"] == 1
    deliver_published(desk, place)  # to the process that remembers having continued it
    place.follow()
    assert place.instances() == 4
    assert words(place.world.outcomes)[-1:] == [("stored", "")]


def test_an_overwritten_object_needs_its_own_outcome(place: Landing, desk: Desk) -> None:
    place.drop("a.dcm", scans.dicom(UIDS))
    write_ledger(place, "1.ndjson")
    place.upload("a.dcm", scans.dicom(("1", "2", "3")))
    assert reconcile(desk, "a", dry_run=True)["to publish"] == 1
    assert "to publish" not in reconcile(desk, "b", dry_run=True)


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (None, None, ["a", "b", "c"]),
        ("2026-02-01", None, ["b", "c"]),
        ("2026-02-01", "2026-03-01T00:00:00Z", ["b"]),
        (None, "2026-02-01", ["a"]),
    ],
)
def test_only_objects_between_the_dates_are_compared(
    place: Landing, desk: Desk, since: str | None, until: str | None, found: list[str]
) -> None:
    for month, name in enumerate(("a", "b", "c"), 1):
        place.upload(name, b"", created=f"2026-0{month}-15T00:00:00Z")
    reconcile(desk, since=since, until=until)
    published = [message.attributes["objectId"] for message in desk.came("uploads")]
    assert published == found


def test_an_object_belongs_to_the_date_when_it_was_written_not_edited(
    place: Landing, desk: Desk
) -> None:
    edited = {"updated": "2026-03-05T00:00:00Z"}
    place.upload("a", b"", created="2026-01-15T00:00:00Z", more=edited)
    assert "objects" not in reconcile(desk, since="2026-02-01")
    assert reconcile(desk, since="2026-01-01", until="2026-02-01")["published"] == 1


def test_an_old_object_that_was_just_edited_is_not_too_young(place: Landing, desk: Desk) -> None:
    edited = {"updated": "2999-01-01T00:00:00Z"}
    place.upload("a", b"", created="2026-01-15T00:00:00Z", more=edited)
    assert reconcile(desk)["published"] == 1


def test_a_date_before_all_objects_means_all(place: Landing, desk: Desk) -> None:
    place.upload("a", b"", created="2026-01-15T00:00:00Z")
    assert reconcile(desk, since="0001-01-01")["published"] == 1


@pytest.mark.parametrize("seconds", ["1e13", "1e300", "inf", "nan"])
def test_an_age_that_no_object_has_is_refused(
    desk: Desk, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    arguments = ["reconcile", "--older-than-s", seconds, "--system", str(desk.file)]
    assert main(arguments) == 2
    assert "error: Invalid value for '--older-than-s'" in capsys.readouterr().err


def test_the_ledger_is_read_only_since_shortly_before_the_first_date(
    place: Landing, desk: Desk
) -> None:
    for day in ("01-30T00:00:00+00:00", "01-31T23:30:00+00:00", "02-02T00:00:00Z"):
        place.buckets.put(LEDGER, f"outcomes/2026-{day}_1a2b.ndjson", b"not JSON\n")
    counts = reconcile(desk, since="2026-02-01")
    assert counts["unreadable lines of the ledger"] == 2


def test_a_line_of_the_ledger_that_is_nested_too_deeply_is_counted(
    place: Landing, desk: Desk
) -> None:
    place.buckets.put(LEDGER, "outcomes/1.ndjson", b"[" * 200_000)
    assert reconcile(desk)["unreadable lines of the ledger"] == 1


def test_quarantine_is_replayed_under_the_old_names(place: Landing, desk: Desk) -> None:
    place.world.fault(method="POST", kind="status", status=400, count=2)
    for number in (1, 2):
        data = scans.dicom(("1", "1", str(number)))
        place.drop(f"n/{number}.dcm", data, metadata={"k": "v"})
    place.drop("junk", b"junk")
    place.upload("n/2.dcm", b"something else")
    assert words(place.world.outcomes) == [
        ("rejected", "rejected"),
        ("rejected", "rejected"),
        ("rejected", "unsupported_input"),
    ]
    before = place.buckets.names(QUARANTINE)

    planned = replay_quarantine(desk.clients, "rejected/", dry_run=True)
    assert planned.counts == {"to replay": 1, "name taken": 1}
    assert place.buckets.names(QUARANTINE) == before

    done = replay_quarantine(desk.clients, "rejected/", dry_run=False)
    assert done.counts == {"replayed": 1, "name taken": 1}
    assert place.buckets.names(LANDING) == ["n/1.dcm", "n/2.dcm"]
    assert [name for name in place.buckets.names(QUARANTINE) if "n/1" in name] == []
    blob = place.buckets.buckets[LANDING]["n/1.dcm"]
    assert blob.metadata == {"k": "v"}
    place.finish(blob)
    assert words(place.world.outcomes)[-1:] == [("stored", "")]


def test_an_interrupted_replay_continues(place: Landing, desk: Desk) -> None:
    place.drop("a", b"junk")
    place.upload("a", b"junk")  # copied back, and killed before it was deleted from quarantine
    assert replay_quarantine(desk.clients, "", dry_run=False).counts == {"replayed": 1}
    assert place.buckets.names(QUARANTINE) == []


def test_a_sidecar_that_an_interrupted_replay_left_is_deleted(place: Landing, desk: Desk) -> None:
    place.drop("a", b"junk")
    del place.buckets.buckets[QUARANTINE]["unsupported_input/a"]
    planned = replay_quarantine(desk.clients, "", dry_run=True)
    assert planned.counts == {"without its object": 1}
    assert len(place.buckets.names(QUARANTINE)) == 1
    done = replay_quarantine(desk.clients, "", dry_run=False)
    assert done.counts == {"without its object": 1}
    assert place.buckets.names(QUARANTINE) == []


def test_a_delete_whose_answer_is_lost_leaves_no_sidecar(place: Landing, desk: Desk) -> None:
    place.drop("a", b"junk")
    place.buckets.lost = ["delete"]
    assert replay_quarantine(desk.clients, "", dry_run=False).counts == {"replayed": 1}
    assert place.buckets.names(QUARANTINE) == []
    assert place.buckets.names(LANDING) == ["a"]


def test_an_object_that_is_being_quarantined_at_this_moment_is_left_alone(
    place: Landing, desk: Desk
) -> None:
    place.world.topics.refuse = ["UNAVAILABLE"] * 4
    # It is copied, and its outcome cannot be published: the source is not deleted yet.
    place.deliver(place.upload("a", b"junk"))
    before = place.buckets.names(QUARANTINE)
    assert len(before) == 2
    done = replay_quarantine(desk.clients, "", dry_run=False)
    assert done.counts == {"still being quarantined": 1}
    assert place.buckets.names(QUARANTINE) == before


def test_sidecars_of_others_are_left_alone(place: Landing, desk: Desk) -> None:
    note = {"bucket": "other", "name": "y", "generation": 1, "reason": "r"}
    place.buckets.put(QUARANTINE, "x.reason.json", b"{}")
    place.buckets.put(QUARANTINE, "y.reason.json", json.dumps(note).encode())
    place.buckets.put(QUARANTINE, "y", b"")
    assert replay_quarantine(desk.clients, "", dry_run=False).counts == {
        "unreadable sidecars": 1,
        "of another bucket": 1,
    }
    assert len(place.buckets.names(QUARANTINE)) == 3

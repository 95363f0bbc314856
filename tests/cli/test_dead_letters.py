"""Dead letters on a real Pub/Sub emulator: listing and replaying them, by function, with their
age."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.app import main
from cli.replay import replay_dead_letters
from cli.system import LEDGER
from functions.common.deadline import utc_now
from functions.common.events.messages import FIRST_PUBLISHED
from functions.common.settings import DELETE, STORE
from functions.delete.handler import handle
from tests.cli.desk import Desk
from tests.contract.world import World, instance, world
from tests.pubsub.conftest import Emulator

SOURCE_TIME = "CloudPubSubDeadLetterSourceTopicPublishTime"
LONG_AGO = "2020-01-01T00:00:00.123456789Z"
COMMAND = json.dumps({"path": "studies/1.2", "request_id": "old"}).encode()
DELETE_NEXT = f"{DELETE}/follow-ups"
ROLES = {
    STORE: "uploads",
    DELETE: "deletes",
    DELETE_NEXT: "deletes_next",
    LEDGER: "outcomes",
}


def replay(desk: Desk, function: str | None = None, dry_run: bool = False) -> dict[str, int]:
    return dict(replay_dead_letters(desk.clients, function, dry_run).counts)


@pytest.fixture
def desk(emulator: Emulator, tmp_path: Path) -> Desk:
    return Desk(emulator, tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[World]:
    with world("delete_resource", tmp_path) as made:
        yield made


def delivered(store: World, message: Any, attempt: int = 1) -> list[dict[str, Any]]:
    """The outcome of the delete for a message."""
    before = len(store.outcomes)
    published = message.publish_time.isoformat()
    store.deliver(
        handle, message.data, dict(message.attributes), attempt=attempt, published=published
    )
    store.run(handle)
    return store.outcomes[before:]


def test_dead_letters_of_all_functions_or_of_one_are_replayed(desk: Desk) -> None:
    for name in ROLES:
        desk.pubsub.publish(
            desk.dead[name],
            name.encode(),
            kept="yes",
            CloudPubSubDeadLetterSourceDeliveryCount="10",
        )
    assert replay(desk, dry_run=True) == {"to replay": 4, **{f"of {name}": 1 for name in ROLES}}
    assert replay(desk, LEDGER) == {"replayed": 1, "of ledger": 1}
    assert replay(desk) == {
        "replayed": 3,
        "of store_upload": 1,
        "of delete_resource": 1,
        "of delete_resource/follow-ups": 1,
    }
    assert replay(desk) == {}
    for name, role in ROLES.items():
        (message,) = desk.came(role)
        assert message.data == name.encode()
        assert set(message.attributes) == {"kept", FIRST_PUBLISHED}


def test_a_dead_letter_that_pubsub_refuses_does_not_stop_the_others(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = desk.dead[DELETE]
    desk.pubsub.publish(topic, b"before")
    # A message may have 100 attributes, and a replay adds one.
    desk.pubsub.publish(topic, b"full", **{f"key-{number}": "" for number in range(100)})
    desk.pubsub.publish(topic, b"after")
    assert main(["replay", "dead-letters", "--system", str(desk.file)]) == 1
    said = capsys.readouterr().out
    assert said == "2 replayed, 2 of delete_resource, 1 refused by Pub/Sub\n"
    assert {message.data for message in desk.came("deletes")} == {b"before", b"after"}
    assert replay(desk) == {"refused by Pub/Sub": 1}


def test_an_interrupted_replay_publishes_none_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.pubsub.publish(desk.dead[DELETE], b"1", b"2", b"3")
    publish = desk.clients.publish
    calls: list[Any] = []

    def interrupted(*arguments: Any) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(arguments)
        publish(*arguments)

    monkeypatch.setattr(desk.clients, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replay(desk)
    monkeypatch.undo()
    assert len(desk.came("deletes")) == 1
    assert replay(desk)["replayed"] == 2
    assert len(desk.came("deletes")) == 2


def test_thousands_are_given_back_after_a_dry_run(desk: Desk) -> None:
    desk.pubsub.publish(desk.dead[STORE], *(b"%d" % number for number in range(2100)))
    for _ in range(2):  # the second finds them all again
        assert replay(desk, STORE, dry_run=True)["to replay"] == 2100


def test_a_replayed_delete_is_as_old_as_its_command(desk: Desk, store: World) -> None:
    store.put(instance("1.2", "1.2.3", "1.2.3.4"))  # sent again after the command of long ago
    desk.pubsub.publish(desk.dead[DELETE], COMMAND, **{SOURCE_TIME: LONG_AGO})
    replay(desk)
    (message,) = desk.came("deletes")
    assert message.attributes[FIRST_PUBLISHED] == LONG_AGO
    (record,) = delivered(store, message)
    assert record["outcome"] == "rejected"
    assert record["detail"] == "stored again after the command was sent"
    assert len(store.found("instances")) == 1


def test_a_delete_that_is_dead_lettered_again_keeps_its_age(desk: Desk) -> None:
    said = {SOURCE_TIME: utc_now(), FIRST_PUBLISHED: LONG_AGO}
    desk.pubsub.publish(desk.dead[DELETE], COMMAND, **said)
    replay(desk)
    assert desk.came("deletes")[0].attributes[FIRST_PUBLISHED] == LONG_AGO


def test_a_replayed_delete_still_deletes_older_instances(desk: Desk, store: World) -> None:
    store.put(instance("1.2", "1.2.3", "1.2.3.4"))
    desk.pubsub.publish(desk.dead[DELETE], COMMAND, **{SOURCE_TIME: utc_now()})
    replay(desk)
    (record,) = delivered(store, desk.came("deletes")[0])
    assert record["outcome"] == "deleted"
    assert store.found("instances") == []


@pytest.mark.parametrize("told", ["", "yesterday"])
def test_a_replay_of_an_unknown_age_deletes_nothing(desk: Desk, store: World, told: str) -> None:
    store.put(instance("1.2", "1.2.3", "1.2.3.4"))
    desk.pubsub.publish(desk.dead[DELETE], COMMAND, **{SOURCE_TIME: told})
    replay(desk)
    (record,) = delivered(store, desk.came("deletes")[0])
    assert record["outcome"] == "rejected"
    assert len(store.found("instances")) == 1


def test_a_forged_age_makes_no_delete_younger(desk: Desk, store: World) -> None:
    desk.pubsub.publish(
        desk.dead[DELETE],
        COMMAND,
        **{SOURCE_TIME: LONG_AGO, FIRST_PUBLISHED: "2999-01-01T00:00:00Z"},
    )
    replay(desk)
    assert desk.came("deletes")[0].attributes[FIRST_PUBLISHED] == LONG_AGO
    store.put(instance("1.2", "1.2.3", "1.2.3.4"))
    forged = {FIRST_PUBLISHED: "2999-01-01T00:00:00Z"}
    store.deliver(handle, COMMAND, forged, published=LONG_AGO)
    assert store.outcomes[-1]["outcome"] == "rejected"
    assert len(store.found("instances")) == 1


def listed(desk: Desk, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """What `dead-letters list` prints for programs."""
    capsys.readouterr()
    arguments = ("dead-letters", "list", "--format", "ndjson", *arguments)
    assert main([*arguments, "--system", str(desk.file)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_dead_letters_are_listed_with_age_and_attempts_and_stay(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {SOURCE_TIME: LONG_AGO, "CloudPubSubDeadLetterSourceDeliveryCount": "10"}
    desk.pubsub.publish(desk.dead[DELETE], COMMAND, **said)
    for _ in range(2):
        (record,) = listed(desk, capsys, "--function", DELETE)
        assert record["function"] == DELETE
        assert record["attempts"] == "10"
        assert record["published"] == LONG_AGO
        assert record["data"] == {"path": "studies/1.2", "request_id": "old"}
    assert listed(desk, capsys, "--function", STORE) == []


def test_follow_ups_are_listed_with_their_function(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.pubsub.publish(desk.dead[DELETE_NEXT], b"{}")
    (record,) = listed(desk, capsys, "--function", DELETE)
    assert record["function"] == DELETE_NEXT


def test_the_table_names_the_subject_of_each_dead_letter(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"bucketId": "b", "objectId": "[red]\x1b[2J.dcm"}
    desk.pubsub.publish(desk.dead[STORE], b"{}", **named)
    assert main(["dead-letters", "list", "--system", str(desk.file)]) == 0
    printed = capsys.readouterr().out
    assert r"gs://b/[red]\x1b[2J.dcm" in printed
    assert printed.endswith("1 of 1 dead letter\n")


@pytest.mark.parametrize("levels", [500, 200_000])
def test_json_that_is_nested_too_deeply_is_shown_as_text(
    desk: Desk, capsys: pytest.CaptureFixture[str], levels: int
) -> None:
    deep = b"[" * levels + b"]" * levels
    (message_id,) = desk.pubsub.publish(desk.dead[STORE], deep)
    (record,) = listed(desk, capsys)
    assert record["data"].startswith("[[[[")
    assert main(["dead-letters", "show", message_id, "--system", str(desk.file)]) == 0


def test_a_count_that_stops_early_says_so(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.dead_letters._HELD_MAX", 200)
    desk.pubsub.publish(desk.dead[STORE], *(b"%d" % number for number in range(201)))
    for command in (["replay", "dead-letters", "--dry-run"], ["dead-letters", "list"]):
        assert main([*command, "--system", str(desk.file)]) == 0
        said = capsys.readouterr().err
        assert "there may be more than 200 of store_upload: no more are read" in said


def test_a_dead_letter_is_shown_by_its_id(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    (message_id,) = desk.pubsub.publish(desk.dead[STORE], b"\xff not JSON", kept="yes")
    assert main(["dead-letters", "show", message_id, "--system", str(desk.file)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["data"] == "\ufffd not JSON"
    assert record["attributes"] == {"kept": "yes"}

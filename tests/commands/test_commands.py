"""Commands by HTTP: what is published, what is refused, and what is answered later."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from functions.common.events.messages import FIRST_PUBLISHED
from tests.commands.conftest import DELETES, EXPORT, EXPORTS, STATE, Place, commands_place
from tests.webhooks.test_notify import RECORD


def test_an_export_is_published_on_its_topic_and_answered_202(commands: Place) -> None:
    answer = commands.post("/exports", EXPORT)
    request_id = answer.json()["request_id"]
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/requests/{request_id}"
    assert commands.published(EXPORTS) == [{**EXPORT, "request_id": request_id}]


def test_a_delete_is_published_on_its_topic(commands: Place) -> None:
    command = {
        "query": "PatientID=7",
        "max_studies": 3,
        "dry_run": True,
        "request_id": "night",
    }
    assert commands.post("/deletes", command).status_code == 202
    assert commands.published(DELETES) == [command]


@pytest.mark.parametrize("header", [True, False])
def test_a_command_that_is_sent_twice_is_published_once(commands: Place, header: bool) -> None:
    key = f"twice-{header}"
    headers = {"Idempotency-Key": key} if header else {}
    command = EXPORT if header else {**EXPORT, "request_id": key}
    answers = [commands.post("/exports", command, **headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert len(commands.published(EXPORTS)) == 1


def test_a_command_that_is_sent_many_times_at_once_is_published_once(commands: Place) -> None:
    command = {**EXPORT, "request_id": "at-once"}
    statuses: list[int] = []

    def send() -> None:
        statuses.append(commands.post("/exports", command).status_code)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {202, 409}
    assert 202 in statuses
    assert len(commands.published(EXPORTS)) == 1


def test_another_command_under_the_same_id_is_a_conflict(commands: Place) -> None:
    commands.post("/exports", {**EXPORT, "request_id": "same"})
    other = {**EXPORT, "path": "studies/1.2.4", "request_id": "same"}
    assert commands.post("/exports", other).status_code == 409
    delete = {"path": "studies/1.2.3", "request_id": "same"}
    assert commands.post("/deletes", delete).status_code == 409
    assert len(commands.published(EXPORTS)) == 1


def test_a_command_that_could_not_be_published_is_published_when_it_is_sent_again(
    commands: Place,
) -> None:
    command = {**EXPORT, "request_id": "again"}
    commands.topics.refuse = ["PERMISSION_DENIED"] * 8
    assert commands.post("/exports", command).status_code == 503
    commands.topics.refuse = []
    assert commands.post("/exports", command).status_code == 202
    assert len(commands.published(EXPORTS)) == 1


def test_a_command_that_could_not_be_published_is_published_once_by_many(
    commands: Place,
) -> None:
    command = {**EXPORT, "request_id": "again-by-many"}
    commands.topics.refuse = ["PERMISSION_DENIED"] * 8
    assert commands.post("/exports", command).status_code == 503
    commands.topics.refuse = []
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: commands.post("/exports", command), range(16)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len(commands.published(EXPORTS)) == 1


@pytest.mark.parametrize("given", ["a b", "a/b", "../a", "a?b", "ä", "a" * 129, "%0a", "", '"a"'])
def test_a_request_id_of_other_characters_is_refused(commands: Place, given: str) -> None:
    refused = commands.post("/exports", {**EXPORT, "request_id": given})
    assert refused.status_code == 400
    assert "request_id" in refused.json()["error"]["message"]


def test_a_study_uid_of_64_characters_fits_in_a_request_id(commands: Place) -> None:
    study = "1." + "2" * 62
    command = {
        **EXPORT,
        "path": f"studies/{study}",
        "request_id": f"a-name:{study}:100",
    }
    answer = commands.post("/exports", command)
    assert answer.status_code == 202
    assert commands.get(answer.headers["Location"]).json()["request_id"] == command["request_id"]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/exports", {**EXPORT, "pathh": "x"}, "path"),
        ("/exports", {**EXPORT, "path": 7}, "path"),
        ("/exports", {**EXPORT, "path": "studies/../1"}, "path"),
        ("/exports", {**EXPORT, "format": "tiff"}, "format"),
        ("/exports", {"path": "studies/1.2.3"}, "destination"),
        ("/exports", {"destination": "gs://dicom-export/a"}, "path or query"),
        ("/deletes", {"path": "studies/1.2", "dry_run": "yes"}, "dry_run"),
        ("/deletes", {"query": "PatientID=7"}, "max_studies"),
        ("/deletes", {"query": "PatientID=", "max_studies": 1}, "query"),
        ("/deletes", {"path": "studies/1.2", "stored_before": "today"}, "stored_before"),
        ("/deletes", {"path": "studies/1.2", "request_id": "a b"}, "request_id"),
        ("/exports", b"[" * 20_000, "JSON"),
        ("/exports", b"[]", "JSON"),
        ("/exports", b"", "JSON"),
    ],
)
def test_a_malformed_command_is_refused_by_the_name_of_its_key(
    commands: Place, path: str, body: Any, named: str
) -> None:
    answer = commands.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["reason"] == "invalid_command"
    assert named in answer.json()["error"]["message"]
    assert not commands.topics.messages


def test_a_body_over_the_limit_is_refused(commands: Place) -> None:
    assert commands.post("/exports", b" " * 70_000).status_code == 400


def test_an_export_to_a_place_that_is_not_allowed_is_refused(commands: Place) -> None:
    command = {**EXPORT, "destination": "gs://elsewhere/a"}
    assert commands.post("/exports", command).status_code == 403
    assert not commands.topics.messages


def test_other_paths_methods_and_media_types_are_refused(commands: Place) -> None:
    assert commands.get("/").status_code == 404
    refused = commands.get("/exports")
    assert refused.status_code == 405
    assert refused.headers["Allow"] == "POST"
    answer = commands.post("/exports", EXPORT, **{"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_a_request_is_accepted_until_its_outcome_is_kept(commands: Place) -> None:
    commands.post("/exports", {**EXPORT, "request_id": "asked"})
    assert commands.get("/requests/asked").json() == {"request_id": "asked", "state": "accepted"}
    (name,) = [
        name
        for name in commands.buckets.names(STATE)
        if b'"asked"' in commands.buckets.buckets[STATE][name].data
    ]
    kept = json.loads(commands.buckets.buckets[STATE][name].data)
    record = {**RECORD, "request_id": "asked", "outcome": "exported"}
    done = {**kept, "state": "done", "outcome": record}
    commands.buckets.put(STATE, name, json.dumps(done).encode())
    answer = commands.get("/requests/asked").json()
    assert answer == {"request_id": "asked", "state": "done", "outcome": record}


@pytest.mark.parametrize("path", ["/requests/unknown", "/requests/"])
def test_an_unknown_request_is_not_found(commands: Place, path: str) -> None:
    assert commands.get(path).status_code in (400, 404)


@pytest.fixture(scope="module")
def without_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The function with a state bucket that does not exist."""
    folder = tmp_path_factory.mktemp("without-state")
    with commands_place(folder, STATE_BUCKET="dicom-nowhere") as place:
        yield place


def test_a_command_is_unavailable_without_the_state_bucket(without_state: Place) -> None:
    answer = without_state.post("/exports", EXPORT)
    assert answer.status_code == 503
    assert answer.json()["error"]["reason"] == "unavailable"


def test_the_state_of_a_request_is_unavailable_without_the_state_bucket(
    without_state: Place,
) -> None:
    answer = without_state.get("/requests/unknown")
    assert answer.status_code == 503
    assert answer.json()["error"]["reason"] == "unavailable"


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ("PERMISSION_DENIED", "unauthorized"),
        ("RESOURCE_EXHAUSTED", "overloaded"),
        ("UNAVAILABLE", "unavailable"),
    ],
)
def test_a_topic_that_fails_is_named_with_its_reason(
    commands: Place, refused: str, reason: str
) -> None:
    commands.topics.refuse = [refused] * 8
    answer = commands.post("/exports", EXPORT)
    error = answer.json()["error"]
    assert answer.status_code == 503
    assert error["reason"] == reason
    assert error["message"].startswith("the exports topic ")


def test_a_state_bucket_without_permission_is_named(commands: Place) -> None:
    commands.buckets.failures = [403]
    answer = commands.get("/requests/unknown")
    error = answer.json()["error"]
    assert answer.status_code == 503
    assert error["reason"] == "unauthorized"
    assert error["message"].startswith("the state bucket ")


def test_a_busy_state_bucket_says_when_to_send_the_command_again(commands: Place) -> None:
    commands.buckets.retry_after = "100"  # more than the function waits itself
    commands.buckets.failures = [429]
    answer = commands.post("/exports", EXPORT)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "100"
    assert answer.json()["error"]["reason"] == "overloaded"


def test_a_command_is_accepted_once_it_is_published_although_its_state_cannot_be_written(
    commands: Place,
) -> None:
    commands.buckets.failures = [None, *[503] * 8]  # the request is kept, then nothing is written
    answer = commands.post("/exports", EXPORT)
    assert len(commands.published(EXPORTS)) == 1
    assert answer.status_code == 202


def test_a_command_is_published_although_the_answer_to_the_write_of_its_state_is_lost(
    commands: Place,
) -> None:
    commands.buckets.lost = ["create"]
    answer = commands.post("/exports", {**EXPORT, "request_id": "answer-lost"})
    assert answer.status_code == 202
    assert len(commands.published(EXPORTS)) == 1


def test_a_command_that_is_published_again_says_when_it_was_first_accepted(
    commands: Place,
) -> None:
    command = {"path": "studies/1.2.3", "request_id": "state-not-written"}
    assert commands.post("/deletes", command).status_code == 202
    (name,) = [
        name
        for name in commands.buckets.names(STATE)
        if b'"state-not-written"' in commands.buckets.buckets[STATE][name].data
    ]
    kept = json.loads(commands.buckets.buckets[STATE][name].data)
    # As if the state had not been written after the command was published.
    first_time = "2026-01-31T08:00:00.000000Z"
    accepted = {**kept, "state": "accepted", "time": first_time, "first_time": first_time}
    commands.buckets.put(STATE, name, json.dumps(accepted).encode())
    assert commands.post("/deletes", command).status_code == 202
    first, second = commands.topics.messages[DELETES]
    assert FIRST_PUBLISHED not in first.get("attributes", {})
    assert second["attributes"] == {FIRST_PUBLISHED: first_time}


def test_an_operator_sees_in_the_log_what_failed(commands: Place) -> None:
    commands.topics.refuse = ["PERMISSION_DENIED"] * 8
    commands.post("/deletes", {"path": "studies/1.2.3"})
    assert "the deletes topic refuses the service's own credentials" in commands.function.log()


def test_no_part_of_a_command_is_logged(commands: Place) -> None:
    commands.post("/deletes", {"query": "PatientName=Doe^Jane", "max_studies": 1})
    commands.post("/deletes", {"Doe^Jane": "Doe^Jane"})
    assert "Doe" not in commands.function.log()

"""Publishing, to the Pub/Sub emulator over gRPC."""

import base64
import json
from collections.abc import Iterator

import flask
import pytest

from functions.common.clients import transport
from functions.common.clients.pubsub import MESSAGE_LIMIT_BYTES, Topics
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError, UnpublishableError
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes
from functions.common.events.runtime import Services, event_function
from tests.contract.topics import TopicServer, topic_server
from tests.unit.test_architecture import ENVIRONMENT

TOPIC = ENVIRONMENT["OUTCOMES_TOPIC"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TopicServer]:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.001)
    with topic_server(TOPIC) as made:
        yield made


def publish(server: TopicServer, topic: str = TOPIC, data: bytes = b"x", **more: str) -> None:
    Topics(Transport(), server.address).publish(topic, data, more, Deadline(30))


def test_a_message_arrives_with_its_attributes_but_for_the_empty_ones(server: TopicServer) -> None:
    publish(server, data=b"\x00\xff", a="1", b="")
    data = base64.b64encode(b"\x00\xff").decode()
    assert server.messages == {TOPIC: [{"data": data, "attributes": {"a": "1"}}]}


@pytest.mark.parametrize(
    "status", ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "DEADLINE_EXCEEDED", "NOT_FOUND"]
)
def test_what_passes_is_tried_again(server: TopicServer, status: str) -> None:
    server.refuse = [status] * 3
    publish(server)
    assert len(server.messages[TOPIC]) == 1


REFUSALS = {
    "UNAVAILABLE": "unavailable",
    "NOT_FOUND": "unavailable",
    "RESOURCE_EXHAUSTED": "rate_limited",
    "PERMISSION_DENIED": "unauthorized",
    "UNAUTHENTICATED": "unauthorized",
}


@pytest.mark.parametrize(("status", "reason"), REFUSALS.items())
def test_what_stays_is_handed_back_without_the_server_s_text(
    server: TopicServer, status: str, reason: str
) -> None:
    server.refuse = [status] * 9
    with pytest.raises(RetryableError) as caught:
        publish(server)
    assert str(caught.value) == reason


def test_a_missing_topic_heals(server: TopicServer) -> None:
    with pytest.raises(RetryableError, match="unavailable"):
        publish(server, "projects/p/topics/not-yet-made")


def test_an_emulator_that_is_away_is_given_up_within_the_budget() -> None:
    deadline = Deadline(2)
    with pytest.raises(RetryableError):
        Topics(Transport(), "127.0.0.1:1").publish(TOPIC, b"x", {}, deadline)
    assert deadline.elapsed_s() < 10


def test_the_largest_message_is_taken_and_a_larger_one_is_refused_unsent(
    server: TopicServer,
) -> None:
    publish(server, data=bytes(MESSAGE_LIMIT_BYTES - 2), a="1")
    with pytest.raises(UnpublishableError):
        publish(server, data=bytes(MESSAGE_LIMIT_BYTES - 1), a="1")
    assert server.published == 1


def deliver(outcome: Outcome) -> int:
    """The status of one delivery whose handler publishes this."""

    def handle(
        message: Message, services: Services, outcomes: Outcomes, deadline: Deadline
    ) -> None:
        outcomes.publish(outcome)

    app = flask.Flask("test")
    view = event_function("delete_resource", handle)
    app.add_url_rule("/", "view", lambda: view(flask.request), methods=["POST"])
    push = {"message": {"data": base64.b64encode(b"{}").decode(), "messageId": "m1"}}
    return app.test_client().post("/", json=push).status_code


@pytest.fixture
def function(server: TopicServer, monkeypatch: pytest.MonkeyPatch) -> TopicServer:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
    return server


def test_a_message_that_is_too_large_is_a_bug_that_shows_once_and_ends_in_an_outcome(
    function: TopicServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deliver(Outcome("deleted", detail="x" * MESSAGE_LIMIT_BYTES)) == 204
    (published,) = function.messages[TOPIC]
    record = json.loads(base64.b64decode(published["data"]))
    assert record["outcome"] == "rejected"
    assert record["reason"] == "operation_failed"
    assert record["request_id"] == "m1"
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line.get("error_type") for line in lines] == ["UnpublishableError", None]
    assert lines[0]["error_place"].startswith("pubsub.py:")


def test_a_topic_that_refuses_every_message_loses_no_outcome(function: TopicServer) -> None:
    function.refuse = ["INVALID_ARGUMENT"] * 2
    assert deliver(Outcome("deleted")) == 503
    assert deliver(Outcome("deleted")) == 204

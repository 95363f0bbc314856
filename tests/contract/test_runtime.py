"""The wrapper round a handler, called like by a push subscription: statuses, outcomes, and what
must not be visible."""

import base64
import json
from collections.abc import Callable, Iterator

import flask
import pytest
from werkzeug.test import TestResponse

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes
from functions.common.events.runtime import FOLLOW_UPS_PATH, Services, event_function
from tests.contract.topics import TopicServer, topic_server
from tests.unit.test_architecture import ENVIRONMENT, ROOT

Act = Callable[[Message, Outcomes], None]
SECRET = "Doe^Jane"
METHODS = ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS"]


@pytest.fixture
def pubsub(monkeypatch: pytest.MonkeyPatch) -> Iterator[TopicServer]:
    with topic_server(ENVIRONMENT["OUTCOMES_TOPIC"]) as server:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
        yield server


def deliver(
    act: Act,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    path: str = "/",
    method: str = "POST",
) -> TestResponse:
    def handle(
        message: Message, services: Services, outcomes: Outcomes, deadline: Deadline
    ) -> None:
        act(message, outcomes)

    app = flask.Flask("test")
    view = event_function("delete_resource", handle)
    for rule in ("/", "/<path:path>"):
        app.add_url_rule(
            rule,
            rule,
            lambda path="": view(flask.request),
            methods=METHODS,
            provide_automatic_options=False,
        )
    data = base64.b64encode(json.dumps({"path": "studies/1", "request_id": "r1"}).encode()).decode()
    push = {"message": {"data": data, "messageId": "m1"}, "deliveryAttempt": 2}
    sent = json.dumps(push).encode() if body is None else body
    return app.test_client().open(path, method=method, data=sent, headers=headers)


def records(server: TopicServer) -> list[dict[str, object]]:
    messages = server.messages.get(ENVIRONMENT["OUTCOMES_TOPIC"], [])
    return [json.loads(base64.b64decode(message["data"])) for message in messages]


@pytest.mark.usefixtures("pubsub")
@pytest.mark.parametrize(("path", "follow_up"), [("/", False), (FOLLOW_UPS_PATH, True)])
def test_only_a_message_of_the_follow_ups_subscription_is_a_follow_up(
    path: str, follow_up: bool
) -> None:
    seen = []
    deliver(lambda message, _: seen.append(message.follow_up), path=path)
    assert seen == [follow_up]


def test_the_subscription_of_follow_ups_calls_the_path_that_the_runtime_knows() -> None:
    topology = json.loads((ROOT / "infra/topology.json").read_text())
    assert topology["follow_ups_path"] == FOLLOW_UPS_PATH


def raising(error: Exception) -> Act:
    def act(message: Message, outcomes: Outcomes) -> None:
        raise error

    return act


def test_what_is_done_is_acknowledged(pubsub: TopicServer) -> None:
    answer = deliver(
        lambda message, outcomes: outcomes.publish(Outcome("deleted", request_id="r1"))
    )
    assert answer.status_code == 204
    assert answer.data == b""
    assert [(r["outcome"], r["request_id"], r["attempt"]) for r in records(pubsub)] == [
        ("deleted", "r1", 2)
    ]


def test_what_can_never_be_done_is_recorded_and_acknowledged(pubsub: TopicServer) -> None:
    assert deliver(raising(PermanentError("not_found", "no such study"))).status_code == 204
    assert [(r["outcome"], r["reason"], r["request_id"]) for r in records(pubsub)] == [
        ("rejected", "not_found", "r1")
    ]


def test_a_command_with_the_attribute_of_a_notification_is_recorded(pubsub: TopicServer) -> None:
    data = base64.b64encode(b'{"path": "studies/1", "request_id": "r1"}').decode()
    attributes = {"eventType": "OBJECT_FINALIZE"}
    message = {"data": data, "messageId": "m1", "attributes": attributes}
    body = json.dumps({"message": message}).encode()
    assert deliver(raising(PermanentError("invalid_command")), body).status_code == 204
    assert [record["request_id"] for record in records(pubsub)] == ["r1"]


def test_what_may_pass_is_handed_back(
    pubsub: TopicServer, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = deliver(raising(RetryableError("rate_limited", 42)))
    assert answer.status_code == 503
    assert answer.data == b""
    assert answer.headers["Retry-After"] == "42"
    assert not pubsub.messages
    assert json.loads(capfd.readouterr().out)["reason"] == "rate_limited"


def test_a_bug_is_handed_back_and_says_where_but_not_what(
    pubsub: TopicServer, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = deliver(raising(KeyError(SECRET)))
    assert answer.status_code == 503
    assert answer.data == b""
    out, err = capfd.readouterr()
    assert SECRET not in out + err
    line = json.loads(out)
    assert line["severity"] == "ERROR"
    assert line["error_type"] == "KeyError"
    assert line["error_place"].startswith("test_runtime.py:")


def test_an_outcome_that_cannot_be_published_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, pubsub: TopicServer
) -> None:
    with topic_server("projects/p/topics/another") as broken:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", broken.address)
        assert (
            deliver(lambda message, outcomes: outcomes.publish(Outcome("deleted"))).status_code
            == 503
        )
        assert deliver(raising(PermanentError("rejected"))).status_code == 503


def never(message: Message, outcomes: Outcomes) -> None:
    raise AssertionError("must not be called")


@pytest.mark.parametrize("body", [b"", b"no JSON", b"{}", b"[]", b'{"path": "studies/1"}'])
def test_what_is_no_delivery_is_refused_so_that_its_sender_does_not_read_success(
    pubsub: TopicServer, capfd: pytest.CaptureFixture[str], body: bytes
) -> None:
    answer = deliver(never, body)
    assert answer.status_code == 400
    assert answer.get_json()["error"]["reason"] == "invalid_event"
    assert json.loads(capfd.readouterr().out)["reason"] == "invalid_event"
    assert not pubsub.messages


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_refused(pubsub: TopicServer, method: str) -> None:
    answer = deliver(never, method=method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "message",
    [
        {"data": "%"},
        {"data": 7},
        {"data": ["e30="]},
        {"attributes": ["x"]},
        {"data": "e30=\ud800"},
    ],
    ids=str,
)
def test_a_push_that_cannot_be_read_is_recorded_and_acknowledged(
    pubsub: TopicServer, message: dict[str, object]
) -> None:
    push = {"message": {"messageId": "m7", **message}, "deliveryAttempt": 3}
    assert deliver(never, json.dumps(push).encode()).status_code == 204
    assert [
        (r["outcome"], r["reason"], r["request_id"], r["attempt"]) for r in records(pubsub)
    ] == [("rejected", "invalid_event", "m7", 3)]


def test_a_cloud_event_of_another_type_is_recorded_and_acknowledged(pubsub: TopicServer) -> None:
    headers = {"ce-id": "e1", "ce-type": "google.cloud.storage.object.v1.deleted"}
    assert deliver(never, b"{}", headers).status_code == 204
    assert [(r["outcome"], r["reason"], r["request_id"]) for r in records(pubsub)] == [
        ("rejected", "invalid_event", "e1")
    ]


def test_an_id_that_may_hold_anything_is_not_logged(
    pubsub: TopicServer, capfd: pytest.CaptureFixture[str]
) -> None:
    push = {"message": {"messageId": f"{SECRET} 7"}}
    assert (
        deliver(raising(RetryableError("unavailable")), json.dumps(push).encode()).status_code
        == 503
    )
    assert SECRET not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Cloud-Trace-Context", "0123456789abcdef0123456789abcdef/123;o=1"),
        ("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"),
    ],
)
def test_the_trace_goes_with_the_outcome(pubsub: TopicServer, header: str, value: str) -> None:
    deliver(lambda message, outcomes: outcomes.publish(Outcome("deleted")), headers={header: value})
    assert records(pubsub)[0]["trace"] == "projects/p/traces/0123456789abcdef0123456789abcdef"


def test_a_request_id_that_may_hold_anything_is_not_taken(pubsub: TopicServer) -> None:
    data = base64.b64encode(json.dumps({"request_id": SECRET}).encode()).decode()
    body = json.dumps({"message": {"data": data, "messageId": "m1"}}).encode()
    assert deliver(raising(PermanentError("rejected")), body).status_code == 204
    assert records(pubsub)[0]["request_id"] == "m1"

"""The REST API, on the same port as gRPC."""

import base64
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.pubsub.conftest import PROJECT, Emulator

Call = Callable[..., Any]


@pytest.fixture
def call(emulator: Emulator) -> Call:
    """A call over REST; its answer as JSON."""

    def sent(method: str, path: str, body: Any = None) -> Any:
        return emulator.rest(method, path, body).json()

    return sent


@pytest.fixture
def topic(call: Call) -> Iterator[str]:
    """A topic that is created and deleted over REST."""
    name = f"{PROJECT}/topics/rest-topic"
    assert call("PUT", name, {}) == {"name": name}
    yield name
    assert call("DELETE", name) == {}


@pytest.fixture
def subscription(call: Call, topic: str) -> Iterator[str]:
    """A subscription that is created and deleted over REST."""
    name = f"{PROJECT}/subscriptions/rest-sub"
    settings = {
        "topic": topic,
        "ackDeadlineSeconds": 20,
        "messageRetentionDuration": "604800s",
    }
    created = call("PUT", name, settings)
    assert created["ackDeadlineSeconds"] == 20
    yield name
    assert call("DELETE", name) == {}


def test_a_message_is_published_pulled_and_acknowledged_over_rest(
    call: Call, topic: str, subscription: str
) -> None:
    data = base64.b64encode(b"hello").decode()
    message = {"data": data, "attributes": {"a": "ü"}}
    (message_id,) = call("POST", f"{topic}:publish", {"messages": [message]})["messageIds"]
    pulled = call("POST", f"{subscription}:pull", {"maxMessages": 5})
    received = pulled["receivedMessages"][0]
    expected = {**message, "messageId": message_id}
    assert received["message"].items() >= expected.items()
    acknowledged = {"ackIds": [received["ackId"]]}
    later = {**acknowledged, "ackDeadlineSeconds": 60}
    assert call("POST", f"{subscription}:modifyAckDeadline", later) == {}
    assert call("POST", f"{subscription}:acknowledge", acknowledged) == {}
    pull = {"maxMessages": 5, "returnImmediately": True}
    assert call("POST", f"{subscription}:pull", pull) == {}


def test_topics_and_their_subscriptions_are_listed_over_rest(
    call: Call, topic: str, subscription: str
) -> None:
    assert call("GET", topic) == {"name": topic}
    topics = call("GET", f"{PROJECT}/topics")["topics"]
    assert topic in [item["name"] for item in topics]
    assert call("GET", f"{topic}/subscriptions") == {"subscriptions": [subscription]}


def test_a_subscription_is_changed_over_rest(call: Call, subscription: str) -> None:
    patch = {"subscription": {"ackDeadlineSeconds": 30}, "updateMask": "ackDeadlineSeconds"}
    assert call("PATCH", subscription, patch)["ackDeadlineSeconds"] == 30
    push = {"pushConfig": {"pushEndpoint": "http://127.0.0.1:9/"}}
    assert call("POST", f"{subscription}:modifyPushConfig", push) == {}
    assert call("GET", subscription)["pushConfig"] == push["pushConfig"]
    assert call("POST", f"{subscription}:seek", {"time": "2035-01-01T00:00:00Z"}) == {}


def test_a_topic_that_was_deleted_over_rest_is_not_found(emulator: Emulator) -> None:
    name = f"{PROJECT}/topics/rest-deleted"
    emulator.rest("PUT", name, {})
    assert emulator.rest("DELETE", name).json() == {}
    assert emulator.rest("GET", name).status_code == 404


@pytest.mark.parametrize(
    "query", ["alt=json", "$alt=json&$.xgafv=2", "prettyPrint=false&fields=messageIds&key=k"]
)
def test_the_parameters_of_every_google_api_are_no_fields(emulator: Emulator, query: str) -> None:
    answer = emulator.rest(
        "POST", f"{emulator.topic()}:publish?{query}", {"messages": [{"data": "eA=="}]}
    )
    assert answer.status_code == 200
    assert len(answer.json()["messageIds"]) == 1
    assert emulator.rest("GET", f"{PROJECT}/topics?pageSize=1&alt=json").status_code == 200
    assert emulator.rest("GET", f"{PROJECT}/topics?colour=1").status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "topics/missing", b"", 404, "NOT_FOUND"),
        ("POST", "topics/missing:publish", b'{"messages":[{"data":"eA=="}]}', 404, "NOT_FOUND"),
        ("POST", "topics/missing:fly", b"{}", 404, "NOT_FOUND"),
        ("PUT", "topics/ab", b"{}", 400, "INVALID_ARGUMENT"),
        ("PUT", "topics/good-name", b"{", 400, "INVALID_ARGUMENT"),
        ("PUT", "topics/good-name", b"[]", 400, "INVALID_ARGUMENT"),
        ("PUT", "topics/good-name", b'{"colour": 1}', 400, "INVALID_ARGUMENT"),
        ("POST", "subscriptions/missing:pull", b'{"maxMessages":1}', 404, "NOT_FOUND"),
    ],
)
def test_an_error_has_its_status_and_code(
    emulator: Emulator, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    url = f"http://{emulator.address}/v1/{PROJECT}/{path}"
    answer = requests.request(method, url, data=body, timeout=10)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert error["code"] == status
    assert error["status"] == code
    assert error["message"]


def test_one_connection_serves_many_requests(emulator: Emulator) -> None:
    topic = emulator.topic()
    body = json.dumps({"messages": [{"data": "eA=="}]})
    connection = http.client.HTTPConnection(emulator.address, timeout=10)
    connection.connect()
    first = connection.sock
    for _ in range(5):
        for method, path, sent in (
            ("POST", f"/v1/{topic}:publish", body),
            ("GET", "/", None),
            ("HEAD", "/", None),
        ):
            connection.request(method, path, sent)
            with connection.getresponse() as answer:
                assert answer.status == 200
                answer.read()
            assert connection.sock is first
    connection.close()


def test_a_request_that_is_too_large_is_answered(emulator: Emulator) -> None:
    huge = requests.post(
        f"http://{emulator.address}/v1/{PROJECT}/topics/x", data=b"x" * 21_000_000, timeout=60
    )
    assert huge.status_code == 400


def test_garbage_does_no_harm(emulator: Emulator) -> None:
    host, port = emulator.address.split(":")
    for data in (
        b"PRI * HT",
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nnonsense",
        b"",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(data)
    assert emulator.rest("GET", f"{PROJECT}/topics").status_code == 200


def test_a_client_that_leaves_a_waiting_pull_takes_nothing_with_it(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    for _ in range(3):
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.post(
                f"http://{emulator.address}/v1/{subscription}:pull",
                json={"maxMessages": 1},
                timeout=0.3,
            )
    emulator.publish(topic, b"x")
    assert [item.message.data for item in emulator.pull(subscription)] == [b"x"]

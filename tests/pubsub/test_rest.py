"""The REST API, on the same port as gRPC."""

import base64
import http.client
import json
import socket

import pytest
import requests

from tests.pubsub.conftest import PROJECT, Emulator


def test_every_method_works_over_rest(emulator: Emulator) -> None:
    topic, subscription = f"{PROJECT}/topics/rest-topic", f"{PROJECT}/subscriptions/rest-sub"
    assert emulator.rest("PUT", topic, {}).json() == {"name": topic}
    created = emulator.rest(
        "PUT",
        subscription,
        {"topic": topic, "ackDeadlineSeconds": 20, "messageRetentionDuration": "604800s"},
    )
    assert created.json()["ackDeadlineSeconds"] == 20
    message = {"data": base64.b64encode(b"hello").decode(), "attributes": {"a": "ü"}}
    ids = emulator.rest("POST", f"{topic}:publish", {"messages": [message]}).json()["messageIds"]
    received = emulator.rest("POST", f"{subscription}:pull", {"maxMessages": 5}).json()[
        "receivedMessages"
    ]
    assert received[0]["message"].items() >= {**message, "messageId": ids[0]}.items()
    ack_ids = [received[0]["ackId"]]
    later = {"ackIds": ack_ids, "ackDeadlineSeconds": 60}
    assert emulator.rest("POST", f"{subscription}:modifyAckDeadline", later).json() == {}
    assert emulator.rest("POST", f"{subscription}:acknowledge", {"ackIds": ack_ids}).json() == {}
    pull = {"maxMessages": 5, "returnImmediately": True}
    assert emulator.rest("POST", f"{subscription}:pull", pull).json() == {}
    assert emulator.rest("GET", topic).json() == {"name": topic}
    assert topic in [
        item["name"] for item in emulator.rest("GET", f"{PROJECT}/topics").json()["topics"]
    ]
    assert emulator.rest("GET", f"{topic}/subscriptions").json() == {
        "subscriptions": [subscription]
    }
    patch = {"subscription": {"ackDeadlineSeconds": 30}, "updateMask": "ackDeadlineSeconds"}
    assert emulator.rest("PATCH", subscription, patch).json()["ackDeadlineSeconds"] == 30
    push = {"pushConfig": {"pushEndpoint": "http://127.0.0.1:9/"}}
    assert emulator.rest("POST", f"{subscription}:modifyPushConfig", push).json() == {}
    assert emulator.rest("GET", subscription).json()["pushConfig"] == push["pushConfig"]
    assert (
        emulator.rest("POST", f"{subscription}:seek", {"time": "2035-01-01T00:00:00Z"}).json() == {}
    )
    assert emulator.rest("DELETE", subscription).json() == {}
    assert emulator.rest("DELETE", topic).json() == {}
    assert emulator.rest("GET", topic).status_code == 404


@pytest.mark.parametrize(
    "query", ["alt=json", "$alt=json&$.xgafv=2", "prettyPrint=false&fields=messageIds&key=k"]
)
def test_the_parameters_of_every_google_api_are_no_fields(emulator: Emulator, query: str) -> None:
    answer = emulator.rest(
        "POST", f"{emulator.topic()}:publish?{query}", {"messages": [{"data": "eA=="}]}
    )
    assert answer.status_code == 200 and len(answer.json()["messageIds"]) == 1
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
    assert (answer.status_code, error["code"], error["status"]) == (status, status, code)
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

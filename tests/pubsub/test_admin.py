"""Detaching, IAM and refused requests, through google-cloud-pubsub and over REST."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.iam.v1 import policy_pb2

from tests.pubsub.conftest import PROJECT, Emulator, Endpoint, running, wait_until

INVALID_NAMES = ["nonsense", f"{PROJECT}/subscriptions/ab", f"{PROJECT}/subscriptions/google-x"]


@pytest.fixture
def publisher(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.address)
    return pubsub_v1.PublisherClient()


@pytest.fixture
def subscriber(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.address)
    client = pubsub_v1.SubscriberClient()
    yield client
    client.close()


# Detaching: projects.subscriptions.detach in the API's reference.


def test_a_detached_subscription_gives_no_messages(emulator: Emulator, publisher: Any) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    emulator.publish(topic, b"before")
    publisher.detach_subscription(request={"subscription": subscription})
    with pytest.raises(exceptions.FailedPrecondition):
        emulator.pull(subscription)


def test_a_detached_subscription_says_so(emulator: Emulator, publisher: Any) -> None:
    subscription = emulator.subscription(emulator.topic())
    publisher.detach_subscription(request={"subscription": subscription})
    assert emulator.subscriber.get_subscription(subscription=subscription).detached


def test_a_detached_subscription_is_none_of_its_topics(emulator: Emulator, publisher: Any) -> None:
    topic = emulator.topic()
    attached = emulator.subscription(topic)
    detached = emulator.subscription(topic)
    publisher.detach_subscription(request={"subscription": detached})
    assert list(publisher.list_topic_subscriptions(request={"topic": topic})) == [attached]


def test_detaching_stops_pushes(emulator: Emulator, publisher: Any, endpoint: Endpoint) -> None:
    topic = emulator.topic()
    push = {"push_config": {"push_endpoint": endpoint.url}}
    detached = emulator.subscription(topic, **push)
    other = emulator.subscription(topic, **push)
    publisher.detach_subscription(request={"subscription": detached})
    emulator.publish(topic, b"x")
    wait_until(lambda: endpoint.has(1))
    assert endpoint.bodies()[0]["subscription"] == other


def test_detaching_ends_a_stream(emulator: Emulator, publisher: Any, subscriber: Any) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    first: list[bytes] = []

    def take(message: Any) -> None:
        first.append(message.data)
        message.ack()

    stream = subscriber.subscribe(subscription, take)
    emulator.publish(topic, b"x")
    wait_until(lambda: first)
    publisher.detach_subscription(request={"subscription": subscription})
    with pytest.raises(exceptions.FailedPrecondition):
        stream.result(timeout=30)


def test_deleting_ends_a_stream(emulator: Emulator, subscriber: Any) -> None:
    subscription = emulator.subscription(emulator.topic())
    stream = subscriber.subscribe(subscription, lambda message: message.ack())
    subscriber.delete_subscription(request={"subscription": subscription})
    with pytest.raises(exceptions.NotFound):
        stream.result(timeout=30)


def test_a_subscription_stays_detached_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as emulator:
        topic = emulator.topic()
        subscription = emulator.subscription(topic)
        assert emulator.rest("POST", f"{subscription}:detach").json() == {}
        emulator.stop()
        emulator.start()
        emulator.publish(topic, b"x")
        with pytest.raises(exceptions.FailedPrecondition):
            emulator.pull(subscription)


# IAM


def test_everybody_has_every_permission(emulator: Emulator, publisher: Any) -> None:
    wanted = ["pubsub.topics.publish", "pubsub.topics.delete"]
    request = {"resource": emulator.topic(), "permissions": wanted}
    assert list(publisher.test_iam_permissions(request=request).permissions) == wanted


def test_a_policy_that_was_set_is_given_back(emulator: Emulator, subscriber: Any) -> None:
    resource = emulator.subscription(emulator.topic())
    binding = policy_pb2.Binding(role="roles/pubsub.subscriber", members=["user:a@example.org"])
    policy = policy_pb2.Policy(bindings=[binding])
    subscriber.set_iam_policy(request={"resource": resource, "policy": policy})
    assert subscriber.get_iam_policy(request={"resource": resource}).bindings == [binding]


def test_a_resource_without_a_policy_has_an_empty_one(emulator: Emulator, publisher: Any) -> None:
    assert not publisher.get_iam_policy(request={"resource": emulator.topic()}).bindings


def test_a_missing_resource_has_no_policy(publisher: Any) -> None:
    with pytest.raises(exceptions.NotFound):
        publisher.get_iam_policy(request={"resource": f"{PROJECT}/topics/missing"})


def test_iam_over_rest(emulator: Emulator) -> None:
    topic = emulator.topic()
    policy = {"bindings": [{"role": "roles/pubsub.publisher", "members": ["allUsers"]}]}
    assert emulator.rest("POST", f"{topic}:setIamPolicy", {"policy": policy}).json() == policy
    query = f"{topic}:getIamPolicy?options.requestedPolicyVersion=3"
    assert emulator.rest("GET", query).json() == policy
    wanted = {"permissions": ["pubsub.topics.publish"]}
    assert emulator.rest("POST", f"{topic}:testIamPermissions", wanted).json() == wanted


# What is refused


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_a_stream_on_an_invalid_name_ends_with_invalid_argument(subscriber: Any, name: str) -> None:
    stream = subscriber.subscribe(name, lambda message: message.ack())
    with pytest.raises(exceptions.InvalidArgument):
        stream.result(timeout=30)


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_an_invalid_name_is_an_invalid_argument_everywhere(subscriber: Any, name: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: subscriber.get_subscription(subscription=name),
        lambda: subscriber.pull(subscription=name, max_messages=1),
        lambda: subscriber.acknowledge(subscription=name, ack_ids=["a"]),
        lambda: subscriber.delete_subscription(subscription=name),
    ]
    for call in calls:
        with pytest.raises(exceptions.InvalidArgument):
            call()


@pytest.mark.parametrize(
    "path", ["nope", "push_config..x", "labels.a", "", "ack_deadline_seconds.x"]
)
def test_a_malformed_update_mask_is_an_invalid_argument(
    emulator: Emulator, subscriber: Any, path: str
) -> None:
    subscription = {"name": emulator.subscription(emulator.topic())}
    request = {"subscription": subscription, "update_mask": {"paths": [path]}}
    with pytest.raises(exceptions.InvalidArgument):
        subscriber.update_subscription(request=request)


def test_what_only_the_service_sets_cannot_be_updated(emulator: Emulator, subscriber: Any) -> None:
    subscription = {"name": emulator.subscription(emulator.topic()), "detached": True}
    request = {"subscription": subscription, "update_mask": {"paths": ["detached"]}}
    with pytest.raises(exceptions.InvalidArgument):
        subscriber.update_subscription(request=request)


DEEP = b'{"a":' * 100_000
MALFORMED = {
    "brackets that are nested too deeply": DEEP,
    "a mask that is no text": b'{"updateMask": 5}',
    "a mask with an unknown field": b'{"updateMask": "nope"}',
    "a mask with an empty part": b'{"updateMask": "pushConfig..x"}',
    "a number of 10,000 digits": b'{"subscription": {"ackDeadlineSeconds": '
    + b"9" * 10_000
    + b"}}",
    "text that is no UTF-8": b'{"updateMask": "\xff"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_body_is_answered(emulator: Emulator, body: bytes) -> None:
    subscription = emulator.subscription(emulator.topic())
    url = f"http://{emulator.address}/v1/{subscription}"
    answer = requests.patch(url, data=body, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"


def test_a_filter_that_is_too_long_is_refused(emulator: Emulator) -> None:
    body = {"topic": emulator.topic(), "filter": "(" * 5000}
    answer = emulator.rest("PUT", f"{PROJECT}/subscriptions/deep-filter", body)
    assert answer.status_code == 400

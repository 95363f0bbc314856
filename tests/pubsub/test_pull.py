"""Publishing and pulling with the stock clients over gRPC."""

import threading
from typing import Any

import google.cloud.pubsub_v1 as pubsub
import pytest
from google.api_core import exceptions

from tests.pubsub.conftest import PROJECT, Emulator, wait_until


def test_messages_come_as_they_were_published(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    ids = emulator.publish(topic, b"one", b"two", kind="a")
    received = emulator.pull(subscription)
    assert [item.message.data for item in received] == [b"one", b"two"]
    assert [item.message.message_id for item in received] == ids
    assert dict(received[0].message.attributes) == {"kind": "a"}
    assert received[0].message.publish_time.timestamp() > 1.7e9


def test_attempts_are_not_counted_without_a_dead_letter_policy(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    emulator.publish(topic, b"x")
    assert emulator.pull(subscription)[0].delivery_attempt == 0


def test_an_acknowledged_message_does_not_come_again(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    emulator.publish(topic, b"one", b"two")
    emulator.ack(subscription, emulator.pull(subscription))
    assert emulator.pulled(subscription, wait=False) == []


def test_every_subscription_has_its_own_copy_and_its_filter(emulator: Emulator) -> None:
    topic = emulator.topic()
    everything = emulator.subscription(topic)
    some = emulator.subscription(topic, filter='attributes.kind = "a"')
    emulator.publish(topic, b"1", kind="a")
    emulator.publish(topic, b"2", kind="b")
    assert emulator.pulled(everything) == [b"1", b"2"]
    assert emulator.pulled(some) == [b"1"]


def test_a_pull_waits_for_a_message(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    timer = threading.Timer(0.3, emulator.publish, (topic, b"late"))
    timer.start()
    assert emulator.pulled(subscription) == [b"late"]
    timer.join()


def test_nack_and_deadline_bring_a_message_back(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic, ack_deadline_seconds=1)
    emulator.publish(topic, b"x")
    first = emulator.pull(subscription)
    emulator.nack(subscription, first)
    second = emulator.pull(subscription)
    longer = {"name": subscription, "ack_deadline_seconds": 60}
    emulator.subscriber.update_subscription(
        subscription=longer, update_mask={"paths": ["ack_deadline_seconds"]}
    )
    third = emulator.pull(subscription)  # after the deadline of the second
    assert [item.message.message_id for item in second + third] == [first[0].message.message_id] * 2
    emulator.ack(subscription, second)  # too late
    emulator.ack(subscription, third)
    assert emulator.pulled(subscription, wait=False) == []


# Dead letters


def _failed(emulator: Emulator, subscription: str, times: int) -> list[int]:
    """Fail a message so many times; the attempts that were counted."""
    attempts = []
    for _ in range(times):
        received = emulator.pull(subscription)
        attempts.append(received[0].delivery_attempt)
        emulator.nack(subscription, received)
    return attempts


def test_a_message_that_fails_too_often_goes_to_the_dead_letter_topic(emulator: Emulator) -> None:
    topic = emulator.topic()
    dead = emulator.topic()
    hold = emulator.subscription(dead)
    policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
    subscription = emulator.subscription(topic, dead_letter_policy=policy)
    emulator.publish(topic, b"poison")
    assert _failed(emulator, subscription, 5) == [1, 2, 3, 4, 5]
    assert emulator.pulled(hold) == [b"poison"]
    assert emulator.pulled(subscription, wait=False) == []


def test_a_dead_letter_says_where_it_comes_from(emulator: Emulator) -> None:
    topic = emulator.topic()
    dead = emulator.topic()
    hold = emulator.subscription(dead)
    policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
    subscription = emulator.subscription(topic, dead_letter_policy=policy)
    emulator.publish(topic, b"poison", kind="a")
    _failed(emulator, subscription, 5)
    attributes = dict(emulator.pull(hold)[0].message.attributes)
    assert attributes.pop("CloudPubSubDeadLetterSourceTopicPublishTime")
    assert attributes == {
        "kind": "a",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
        "CloudPubSubDeadLetterSourceSubscription": subscription.rpartition("/")[2],
        "CloudPubSubDeadLetterSourceSubscriptionProject": "local",
    }


def test_a_missing_dead_letter_topic_loses_nothing(emulator: Emulator) -> None:
    topic = emulator.topic()
    policy = {"dead_letter_topic": f"{PROJECT}/topics/missing", "max_delivery_attempts": 5}
    subscription = emulator.subscription(topic, dead_letter_policy=policy)
    emulator.publish(topic, b"poison")
    assert _failed(emulator, subscription, 7) == [1, 2, 3, 4, 5, 6, 7]


# Order and time


def test_of_an_ordering_key_one_message_is_out_at_a_time(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic, enable_message_ordering=True)
    messages = [
        {"data": b"a1", "ordering_key": "a"},
        {"data": b"a2", "ordering_key": "a"},
        {"data": b"b1", "ordering_key": "b"},
        {"data": b"free"},
    ]
    emulator.publisher.publish(topic=topic, messages=messages)
    first = emulator.pull(subscription)
    assert [item.message.data for item in first] == [b"a1", b"b1", b"free"]
    emulator.nack(subscription, first[:1])
    again = emulator.pull(subscription)
    assert [item.message.data for item in again] == [b"a1"]
    emulator.ack(subscription, again)
    assert emulator.pulled(subscription) == [b"a2"]


def test_seek_to_a_time_purges(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    emulator.publish(topic, *[b"x"] * 20)
    emulator.subscriber.seek(request={"subscription": subscription, "time": {"seconds": 2**33}})
    assert emulator.pulled(subscription, wait=False) == []
    emulator.publish(topic, b"new")
    assert emulator.pulled(subscription) == [b"new"]


# Topics and subscriptions


def test_a_subscription_outlives_its_topic(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    emulator.publish(topic, b"x")
    emulator.publisher.delete_topic(topic=topic)
    config = emulator.subscriber.get_subscription(subscription=subscription)
    assert config.topic == "_deleted-topic_"
    assert emulator.pulled(subscription) == [b"x"]


def test_a_deleted_subscription_is_not_found(emulator: Emulator) -> None:
    subscription = emulator.subscription(emulator.topic())
    emulator.subscriber.delete_subscription(subscription=subscription)
    with pytest.raises(exceptions.NotFound):
        emulator.pull(subscription)


def test_a_subscription_is_updated(emulator: Emulator) -> None:
    subscription = emulator.subscription(emulator.topic())
    changed = emulator.subscriber.update_subscription(
        subscription={"name": subscription, "ack_deadline_seconds": 33},
        update_mask={"paths": ["ack_deadline_seconds"]},
    )
    assert changed.ack_deadline_seconds == 33


def test_a_topic_is_updated(emulator: Emulator) -> None:
    topic = emulator.topic()
    emulator.publisher.update_topic(
        topic={"name": topic, "labels": {"a": "b"}}, update_mask={"paths": ["labels"]}
    )
    assert dict(emulator.publisher.get_topic(topic=topic).labels) == {"a": "b"}


def test_topics_and_subscriptions_are_listed(emulator: Emulator) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    topics = emulator.publisher.list_topics(project=PROJECT)
    assert topic in [item.name for item in topics]
    subscriptions = emulator.subscriber.list_subscriptions(project=PROJECT)
    assert subscription in [item.name for item in subscriptions]
    assert list(emulator.publisher.list_topic_subscriptions(topic=topic)) == [subscription]


# What is refused


@pytest.mark.parametrize(
    "config",
    [
        {"ack_deadline_seconds": 601},
        {"filter": "nonsense"},
        {"push_config": {"push_endpoint": "ftp://x"}},
        {
            "dead_letter_policy": {
                "dead_letter_topic": f"{PROJECT}/topics/dead",
                "max_delivery_attempts": 4,
            }
        },
        {"retry_policy": {"minimum_backoff": {"seconds": 601}}},
        {"retry_policy": {"minimum_backoff": {"seconds": 20}, "maximum_backoff": {"seconds": 10}}},
        {"message_retention_duration": {"seconds": 1}},
        {"cloud_storage_config": {}},
        {"bigquery_config": {"table": "a.b.c"}},
    ],
)
def test_a_subscription_that_the_service_would_refuse(
    emulator: Emulator, config: dict[str, Any]
) -> None:
    topic = emulator.topic()
    with pytest.raises(exceptions.InvalidArgument):
        emulator.subscription(topic, **config)


def test_a_name_is_taken_once(emulator: Emulator) -> None:
    topic = emulator.topic()
    with pytest.raises(exceptions.AlreadyExists):
        emulator.publisher.create_topic(name=topic)


def test_a_missing_topic_is_not_found(emulator: Emulator) -> None:
    with pytest.raises(exceptions.NotFound):
        emulator.publish(f"{PROJECT}/topics/missing", b"x")
    with pytest.raises(exceptions.NotFound):
        emulator.subscription(f"{PROJECT}/topics/missing")


@pytest.mark.parametrize("name", ["ab", "1abc", "google", "a b c"])
def test_a_name_that_the_service_would_refuse(emulator: Emulator, name: str) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        emulator.publisher.create_topic(name=f"{PROJECT}/topics/{name}")


@pytest.mark.parametrize(
    "message",
    [{"data": b""}, {"data": b"x", "attributes": {"long": "v" * 1025}}],
    ids=["nothing in it", "an attribute that is too long"],
)
def test_a_message_that_the_service_would_refuse(
    emulator: Emulator, message: dict[str, Any]
) -> None:
    topic = emulator.topic()
    with pytest.raises(exceptions.InvalidArgument):
        emulator.publisher.publish(topic=topic, messages=[message])


# Streaming pull


class Streamed:
    """What a stock streaming subscriber got."""

    def __init__(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, subscription: str, **flow: int
    ) -> None:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.address)
        self.messages: list[Any] = []
        self.nacks = 0
        self.client = pubsub.SubscriberClient()
        control = pubsub.types.FlowControl(**flow)
        self.future = self.client.subscribe(subscription, self._take, flow_control=control)

    def _take(self, message: Any) -> None:
        self.messages.append(message)
        if self.nacks:
            self.nacks -= 1
            message.nack()
        else:
            message.ack()

    def close(self) -> None:
        self.future.cancel()
        self.future.result(30)
        self.client.close()


def test_a_stock_subscriber_gets_every_message_and_leaves_none_behind(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    stream = Streamed(emulator, monkeypatch, subscription, max_messages=5)
    stream.nacks = 3
    emulator.publish(topic, *[str(n).encode() for n in range(200)])
    wait_until(lambda: len(stream.messages) >= 203)
    assert {int(message.data) for message in stream.messages} == set(range(200))
    stream.close()
    emulator.publish(topic, b"after")
    assert emulator.pulled(subscription) == [b"after"]


def test_a_large_message_reaches_a_stock_pull_and_a_stream_stays_under_the_limit(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    for _ in range(4):
        emulator.publish(topic, b"x" * 2_000_000)
    stream = Streamed(emulator, monkeypatch, subscription)
    wait_until(lambda: len(stream.messages) == 4)
    stream.close()

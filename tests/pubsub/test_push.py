"""Push delivery: the body, the codes, the back-off, the end."""

import base64
import functools
import threading
import time

from tests.pubsub.conftest import Emulator, Endpoint, wait_until

FAST = {"minimum_backoff": {"nanos": 100_000_000}, "maximum_backoff": {"seconds": 1}}


def test_the_body_of_a_push(emulator: Emulator, endpoint: Endpoint) -> None:
    topic = emulator.topic()
    dead = emulator.topic()
    subscription = emulator.subscription(
        topic,
        push_config={"push_endpoint": f"{endpoint.url}/path?a=b"},
        dead_letter_policy={"dead_letter_topic": dead},
    )
    ids = emulator.publish(topic, b"data", b"", kind="ä")
    wait_until(lambda: len(endpoint.got) == 2)
    first, second = sorted(endpoint.bodies(), key=lambda body: int(body["message"]["messageId"]))
    assert first["subscription"] == subscription
    assert first["deliveryAttempt"] == 1
    message = first["message"]
    assert base64.b64decode(message["data"]) == b"data"
    assert message["attributes"] == {"kind": "ä"}
    assert message["messageId"] == message["message_id"] == ids[0]
    assert message["publishTime"] == message["publish_time"]
    assert second["message"]["data"] == ""
    assert endpoint.got[0][1] == "/path?a=b"


def test_only_some_statuses_acknowledge(emulator: Emulator, endpoint: Endpoint) -> None:
    topic = emulator.topic()
    emulator.subscription(topic, push_config={"push_endpoint": endpoint.url}, retry_policy=FAST)
    endpoint.statuses.extend([200, 201, 202, 204, 203, 301, 404, 429, 500])
    emulator.publish(topic, b"1")
    wait_until(lambda: len(endpoint.got) == 1)
    for number in (2, 3, 4):
        emulator.publish(topic, str(number).encode())
        wait_until(functools.partial(endpoint.has, number))
    emulator.publish(topic, b"5")
    wait_until(lambda: len(endpoint.got) == 10)  # five failures, then 204
    numbers = [base64.b64decode(body["message"]["data"]) for body in endpoint.bodies()]
    assert numbers == [b"1", b"2", b"3", b"4", *[b"5"] * 6]
    assert "deliveryAttempt" not in endpoint.bodies()[0]


def test_push_backs_off_also_without_a_policy(emulator: Emulator, endpoint: Endpoint) -> None:
    topic = emulator.topic()
    emulator.subscription(topic, push_config={"push_endpoint": endpoint.url})
    endpoint.statuses.extend([503] * 5)
    start = time.monotonic()
    emulator.publish(topic, b"x")
    wait_until(lambda: len(endpoint.got) == 6)
    # A lower bound alone: a busy machine may be slower.
    least_s = sum([0.1, 0.2, 0.4, 0.8, 1.6])
    assert endpoint.got[-1][0] - start >= least_s


def test_an_endpoint_that_is_down_gets_its_message_later(
    emulator: Emulator, endpoint: Endpoint
) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(
        topic, push_config={"push_endpoint": "http://127.0.0.1:9/"}, retry_policy=FAST
    )
    emulator.publish(topic, b"x")
    emulator.subscriber.modify_push_config(
        subscription=subscription, push_config={"push_endpoint": endpoint.url}
    )
    assert wait_until(lambda: endpoint.bodies())[0]["message"]["data"] == "eA=="


def test_an_endpoint_slower_than_the_deadline_is_asked_again(
    emulator: Emulator, endpoint: Endpoint
) -> None:
    topic = emulator.topic()
    emulator.subscription(
        topic,
        push_config={"push_endpoint": endpoint.url},
        retry_policy=FAST,
        ack_deadline_seconds=1,
    )
    hold = threading.Event()
    endpoint.before_answer = lambda: bool(hold.wait(30))
    emulator.publish(topic, b"x")
    wait_until(lambda: len(endpoint.got) >= 2)
    hold.set()


def test_push_dead_letters(emulator: Emulator, endpoint: Endpoint) -> None:
    topic = emulator.topic()
    dead = emulator.topic()
    hold = emulator.subscription(dead)
    emulator.subscription(
        topic,
        push_config={"push_endpoint": endpoint.url},
        retry_policy=FAST,
        dead_letter_policy={"dead_letter_topic": dead, "max_delivery_attempts": 6},
    )
    endpoint.statuses.extend([503] * 100)
    emulator.publish(topic, b"poison")
    assert emulator.pull(hold)[0].message.data == b"poison"
    assert [body["deliveryAttempt"] for body in endpoint.bodies()] == [1, 2, 3, 4, 5, 6]


def test_turning_push_off_makes_it_a_pull_subscription(
    emulator: Emulator, endpoint: Endpoint
) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic, push_config={"push_endpoint": endpoint.url})
    emulator.subscriber.modify_push_config(subscription=subscription, push_config={})
    emulator.publish(topic, b"x")
    assert emulator.pull(subscription)[0].message.data == b"x"
    assert endpoint.got == []

"""What survives the process, and what a Cloud Storage subscription writes."""

import contextlib
import json
import signal
import threading
from pathlib import Path

import psutil
import pytest
import requests

from infra.local.pubsub.queue import WINDOW
from tests.pubsub.conftest import Emulator, Endpoint, running, wait_until


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_unacknowledged_is_lost_by_a_restart(tmp_path: Path, how: int) -> None:
    with running(tmp_path) as emulator:
        topic = emulator.topic()
        subscription = emulator.subscription(
            topic, ack_deadline_seconds=60, filter='attributes.a = "b"'
        )
        emulator.publish(topic, b"acked", a="b")
        emulator.ack(subscription, emulator.pull(subscription))
        assert emulator.pull(subscription, wait=False) == []
        emulator.publish(topic, b"leased", a="b")
        stale = emulator.pull(subscription)
        ids = emulator.publish(topic, b"waiting", a="b")
        emulator.stop(how)
        emulator.start()
        emulator.ack(subscription, stale)  # an id of the run before means nothing now
        data = [item.message.data for item in emulator.pull(subscription)]
        assert data[-2:] == [
            b"leased",
            b"waiting",
        ]  # after kill -9 the last acknowledgement may be forgotten
        if how == signal.SIGTERM:
            assert len(data) == 2
        assert int(emulator.publish(topic, b"new", a="b")[0]) > int(ids[0])


def test_kill_9_while_publishing_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with running(tmp_path) as emulator:
        topic = emulator.topic()
        subscription = emulator.subscription(topic)
        answered: list[str] = []

        def publish() -> None:
            body = {"messages": [{"data": "eA=="}] * 3}
            with contextlib.suppress(requests.RequestException):
                while True:
                    answered.extend(
                        emulator.rest("POST", f"{topic}:publish", body).json()["messageIds"]
                    )

        publisher = threading.Thread(target=publish)
        publisher.start()
        wait_until(lambda: len(answered) > 100)
        emulator.stop(signal.SIGKILL)
        publisher.join()
        emulator.start()
        kept: set[str] = set()
        while received := emulator.pull(subscription, 1000, wait=False):
            kept |= {item.message.message_id for item in received}
            emulator.ack(subscription, received)
        assert set(answered) <= kept


def test_a_count_of_attempts_survives(tmp_path: Path) -> None:
    with running(tmp_path) as emulator:
        topic = emulator.topic()
        dead = emulator.topic()
        policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
        subscription = emulator.subscription(topic, dead_letter_policy=policy)
        emulator.publish(topic, b"x")
        received = emulator.pull(subscription)
        emulator.subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=[received[0].ack_id], ack_deadline_seconds=0
        )
        emulator.stop()
        emulator.start()
        assert emulator.pull(subscription)[0].delivery_attempt == 2


def test_two_emulators_cannot_share_a_folder(tmp_path: Path) -> None:
    with running(tmp_path), pytest.raises(AssertionError):
        Emulator(tmp_path)


def test_a_backlog_longer_than_the_window_comes_whole(tmp_path: Path) -> None:
    count = WINDOW + 1500
    with running(tmp_path) as emulator:
        topic = emulator.topic()
        subscription = emulator.subscription(topic)
        for start in range(0, count, 500):
            emulator.publish(
                topic, *[str(n).encode() for n in range(start, min(start + 500, count))]
            )
        seen: list[int] = []
        while len(seen) < count:
            received = emulator.pull(subscription, 1000)
            seen += [int(item.message.data) for item in received]
            emulator.ack(subscription, received)
        assert seen == list(range(count))
        assert emulator.pull(subscription, wait=False) == []


@pytest.mark.serial
def test_a_backlog_of_large_messages_stays_out_of_memory(tmp_path: Path) -> None:
    with running(tmp_path) as emulator:
        topic = emulator.topic()
        emulator.subscription(topic)
        emulator.publish(topic, b"x" * 1_000_000)
        before = psutil.Process(emulator.process.pid).memory_info().rss
        for _ in range(40):
            emulator.publish(topic, *[b"x" * 1_000_000] * 8)
        grown = psutil.Process(emulator.process.pid).memory_info().rss - before
        assert grown < 120 * 1024 * 1024, f"320 MB of backlog took {grown / 2**20:.0f} MiB"


def _sink(emulator: Emulator, topic: str, **config: object) -> None:
    fixed = {
        "bucket": "ledger",
        "filename_prefix": "out/",
        "filename_suffix": ".ndjson",
        "text_config": {},
    }
    emulator.subscription(topic, cloud_storage_config={**fixed, **config})


def test_a_cloud_storage_subscription_writes_batches(endpoint: Endpoint) -> None:
    endpoint.statuses.extend([503, 200, 200])
    with running(storage=endpoint.url) as emulator:
        topic = emulator.topic()
        _sink(emulator, topic, max_duration={"seconds": 1})
        lines = [json.dumps({"n": n}).encode() for n in range(3)]
        emulator.publish(topic, *lines)
        wait_until(lambda: len(endpoint.got) == 2)  # the first try was answered 503
        _time, path, body = endpoint.got[1]
        assert path.startswith("/upload/storage/v1/b/ledger/o?uploadType=media&name=out%2F")
        assert path.endswith(".ndjson")
        assert body["raw"] == b"".join(line + b"\n" for line in lines)


def test_a_full_batch_does_not_wait(endpoint: Endpoint) -> None:
    endpoint.statuses.extend([200] * 10)
    with running(storage=endpoint.url) as emulator:
        topic = emulator.topic()
        _sink(emulator, topic, max_duration={"seconds": 600}, max_bytes=2500)
        emulator.publish(topic, *[b"x" * 1000] * 4)
        wait_until(lambda: endpoint.got)
        assert endpoint.bodies()[0]["raw"].count(b"\n") >= 2


def test_stopping_writes_the_batch_and_keeps_messages_that_cannot_be_written(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    with running(tmp_path, storage=endpoint.url) as emulator:
        topic = emulator.topic()
        _sink(emulator, topic, max_duration={"seconds": 600})
        emulator.publish(topic, b"x")
        endpoint.statuses.extend([503])
        emulator.stop()
        assert len(endpoint.got) == 1
        emulator.start()
        endpoint.statuses.extend([200])
        emulator.stop()
        assert [body["raw"] for body in endpoint.bodies()] == [b"x\n", b"x\n"]
        emulator.start()
        emulator.stop()
        assert len(endpoint.got) == 2

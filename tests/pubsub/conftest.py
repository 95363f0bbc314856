"""An emulator in a separate process, stock clients, and an endpoint that records pushes."""

import collections
import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PROJECT = "projects/local"


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first true value of condition; fails after timeout_s."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return value


class Emulator:
    """The emulator as a process, on a free port."""

    def __init__(self, data: Path | None = None, storage: str = "http://127.0.0.1:9") -> None:
        self._arguments = ["--storage", storage, *(["--data", str(data)] if data else [])]
        self.start()

    def start(self, port: int = 0) -> None:
        command = [
            sys.executable,
            "-m",
            "infra.local.pubsub",
            "--port",
            str(port),
            *self._arguments,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        match = re.search(r":(\d+)$", self.process.stdout.readline())
        assert match
        self.address = f"127.0.0.1:{match[1]}"
        self.channel = grpc.insecure_channel(self.address)
        self.publisher: Any = PublisherClient(
            transport=PublisherGrpcTransport(channel=self.channel)
        )
        self.subscriber: Any = SubscriberClient(
            transport=SubscriberGrpcTransport(channel=self.channel)
        )
        self._names = iter(range(1_000_000))

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.channel.close()
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout
        self.process.stdout.close()
        return code

    def rest(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        return requests.request(method, f"http://{self.address}/v1/{path}", json=body, timeout=60)

    def topic(self) -> str:
        name = f"{PROJECT}/topics/topic-{os.getpid()}-{next(self._names)}"
        self.publisher.create_topic(name=name)
        return name

    def subscription(self, topic: str, **config: Any) -> str:
        name = f"{PROJECT}/subscriptions/sub-{os.getpid()}-{next(self._names)}"
        self.subscriber.create_subscription(
            request={
                "name": name,
                "topic": topic,
                **config,
            }
        )
        return name

    def publish(self, topic: str, *data: bytes, **attributes: str) -> list[str]:
        messages = [{"data": item, "attributes": attributes} for item in data]
        return list(self.publisher.publish(topic=topic, messages=messages).message_ids)

    def pull(self, subscription: str, limit: int = 100, wait: bool = True) -> list[Any]:
        request = {
            "subscription": subscription,
            "max_messages": limit,
            "return_immediately": not wait,
        }
        return list(self.subscriber.pull(request=request, timeout=60).received_messages)

    def pulled(self, subscription: str, wait: bool = True) -> list[bytes]:
        """The data of the messages that a pull gives."""
        return [item.message.data for item in self.pull(subscription, wait=wait)]

    def nack(self, subscription: str, received: list[Any]) -> None:
        """Say that the messages could not be handled."""
        self.subscriber.modify_ack_deadline(
            subscription=subscription,
            ack_ids=[item.ack_id for item in received],
            ack_deadline_seconds=0,
        )

    def ack(self, subscription: str, received: list[Any]) -> None:
        self.subscriber.acknowledge(
            subscription=subscription, ack_ids=[item.ack_id for item in received]
        )


@contextlib.contextmanager
def running(data: Path | None = None, storage: str = "http://127.0.0.1:9") -> Iterator[Emulator]:
    emulator = Emulator(data, storage)
    try:
        yield emulator
    finally:
        if emulator.process.poll() is None:
            emulator.stop()


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    with running() as process:
        yield process


class Endpoint:
    """An HTTP server that answers from a list of statuses, then 204, and keeps what it got."""

    def __init__(self) -> None:
        self.statuses: collections.deque[int] = collections.deque()
        self.got: list[tuple[float, str, dict[str, Any]]] = []
        self.before_answer: Callable[[], object] = lambda: None
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                content = (
                    json.loads(body) if "json" in self.headers["content-type"] else {"raw": body}
                )
                endpoint.got.append((time.monotonic(), self.path, content))
                endpoint.before_answer()
                self.send_response(endpoint.statuses.popleft() if endpoint.statuses else 204)
                self.send_header("content-length", "0")
                with contextlib.suppress(OSError):
                    self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def has(self, count: int) -> bool:
        return len(self.got) == count

    def bodies(self) -> list[dict[str, Any]]:
        return [body for _time, _path, body in self.got]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()

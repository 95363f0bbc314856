"""Requests that no sender of events makes, to a function as deployed: under functions-framework and
gunicorn, over a socket."""

import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.function_process import FunctionProcess, function_process
from tests.contract.topics import TopicServer, topic_server
from tests.unit.test_architecture import ENVIRONMENT

MIB = 1024 * 1024
THREADS = 16
SECRET = b"Planted^Patient"


@dataclass(frozen=True)
class Running:
    """A running function, its Pub/Sub, and its output."""

    function: FunctionProcess
    pubsub: TopicServer
    log_file: Path

    def answer(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer to a raw request."""
        port = int(self.function.url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
            raw.sendall(request)
            response = http.client.HTTPResponse(raw)
            response.begin()
            return response.status, response.read()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log_file = tmp_path_factory.mktemp("function") / "log"
    with topic_server(ENVIRONMENT["OUTCOMES_TOPIC"]) as pubsub:
        environ = {
            **ENVIRONMENT,
            "PUBSUB_EMULATOR_HOST": pubsub.address,
            "LOG_EXECUTION_ID": "true",
            "THREADS": str(THREADS),
        }
        with function_process("delete_resource", environ, log_file) as function:
            yield Running(function, pubsub, log_file)


@pytest.mark.parametrize(
    "body", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XYZ", b"-1\r\n", b"5;a=\x00\r\nhello\r\n0\r\n\r\n"]
)
def test_a_malformed_chunked_body_is_refused(running: Running, body: bytes) -> None:
    request = b"POST /?" + SECRET + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, answer = running.answer(request + body)
    assert status == 400
    assert json.loads(answer)["error"]["reason"] == "invalid_event"
    assert SECRET.decode() not in running.log_file.read_text()


def test_a_chunked_body_without_end_is_refused_after_the_limit(running: Running) -> None:
    before = running.function.rss_bytes()
    chunk = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"
    port = int(running.function.url.rstrip("/").rpartition(":")[2])
    with running.function.peak() as samples:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
            raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            # The function answers, and the server closes the connection, in the middle of it.
            with pytest.raises(OSError):
                for _ in range(600):
                    raw.sendall(chunk)
        assert running.function.send(b"{}") == 400
    assert max(samples) - before < 80 * MIB


def test_each_line_of_the_log_is_whole_with_many_threads_and_the_frameworks_own_ids(
    running: Running,
) -> None:
    data = base64.b64encode(json.dumps({"path": "nothing"}).encode()).decode()
    push = json.dumps({"message": {"data": data, "messageId": "m1"}}).encode()

    def deliver() -> None:
        for _ in range(40):
            assert running.function.send(push) == 204

    threads = [threading.Thread(target=deliver) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = running.log_file.read_text().splitlines()
    outcomes = [line for line in map(json.loads, lines) if line["event"] == "outcome"]
    assert len(outcomes) == 40 * THREADS

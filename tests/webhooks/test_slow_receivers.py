"""Receivers that are slow, or break off: when a call ends, and as what."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from urllib3.connectionpool import HTTPConnectionPool

from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.notify import sender
from functions.notify.sender import Sender
from tests.webhooks.receiver import receiver

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
LIMIT_S = 1.0
Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def receiving(answer: Answer) -> Iterator[str]:
    """A server that answers one connection in its own way; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()


def trickle(data: bytes) -> Answer:
    """A byte every tenth of a second, forever: each is in time for its read."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        for _ in range(300):
            connection.sendall(b"x")
            time.sleep(0.1)

    return answer


def then_reset(data: bytes) -> Answer:
    """Some bytes, and a reset instead of the rest."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        time.sleep(0.1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def send(url: str) -> int:
    return Sender(private=True).post(url, {}, b"{}", Deadline(LIMIT_S))


def test_a_status_that_trickles_ends_with_the_time_of_the_call() -> None:
    began = time.monotonic()
    with receiving(trickle(b"")) as url, pytest.raises(RetryableError):
        send(url)
    assert time.monotonic() - began < 15  # the trickle lasts 30 s


def test_headers_that_trickle_end_with_the_time_of_the_call() -> None:
    began = time.monotonic()
    with receiving(trickle(b"HTTP/1.1 500 Error\r\nX-Slow: ")) as url:
        assert send(url) == 500
    assert time.monotonic() - began < 15


def test_a_tls_handshake_that_trickles_ends_with_the_time_of_the_call() -> None:
    # The head of a handshake record of 16 KiB, whose content never comes whole.
    began = time.monotonic()
    with receiving(trickle(b"\x16\x03\x03\x40\x00")) as url, pytest.raises(RetryableError):
        send(url.replace("http:", "https:"))
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("answer", [trickle(HEAD), then_reset(HEAD)])
def test_a_good_status_counts_whatever_becomes_of_the_body(answer: Answer) -> None:
    with receiving(answer) as url:
        assert send(url) == 200


def test_a_204_that_is_followed_by_a_reset_is_a_success() -> None:
    with receiving(then_reset(b"HTTP/1.1 204 No Content\r\n\r\n")) as url:
        assert send(url) == 204


def test_a_call_whose_time_ends_spares_a_connection_that_is_in_the_pool_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_back = HTTPConnectionPool._put_conn

    def then_its_time_ends(pool: HTTPConnectionPool, connection: Any) -> None:
        put_back(pool, connection)
        sender._under_way.call.end()

    monkeypatch.setattr(HTTPConnectionPool, "_put_conn", then_its_time_ends)
    calling = Sender(private=True)
    with receiver() as server:
        for _ in range(2):
            assert calling.post(server.url, {}, b"{}", Deadline(60.0)) == 204
    assert len({call.port for call in server.calls}) == 1

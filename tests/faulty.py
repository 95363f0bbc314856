"""A proxy in front of a server that loses requests and answers at random, for servers that cannot
do so themselves."""

import collections
import http.client
import random
import socket
import socketserver
import struct
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

_HOP: tuple[str, ...] = ("connection", "transfer-encoding", "keep-alive", "content-length", "host")


@dataclass(frozen=True)
class Chances:
    """Probability of each fault, for each request."""

    refused: float = 0.0  # 503, nothing is done
    reset: float = 0.0  # the connection breaks before anything is done
    lost: float = 0.0  # it is done, but the answer is lost
    cut: float = 0.0  # the answer's body breaks off


@dataclass
class Seen:
    """What went through: requests by method and status of the server, and faults by name."""

    answers: collections.Counter[tuple[str, str, int]] = field(default_factory=collections.Counter)
    faults: collections.Counter[str] = field(default_factory=collections.Counter)


class FaultyProxy(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Forwards to `server`, or to what `upstream` is set to; faults are drawn from one seeded
    generator."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, server: str, chances: Chances, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urllib.parse.urlsplit(server).netloc
        self.chances, self.seen = chances, Seen()
        self.lose = list[
            bytes
        ]()  # each makes the answer to the next request that has it in its body be lost
        self._random, self._lock = random.Random(seed), threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self, body: bytes) -> str:
        """The fault of one request, or nothing."""
        with self._lock:
            if found := next((text for text in self.lose if text in body), b""):
                self.lose.remove(found)
                return "lost"
            drawn = self._random.random()
            for name in ("refused", "reset", "lost", "cut"):
                drawn -= getattr(self.chances, name)
                if drawn < 0:
                    self.seen.faults[name] += 1
                    return name
        return ""

    def note(self, method: str, path: str, status: int) -> None:
        """Count what the server answered."""
        with self._lock:
            self.seen.answers[method, path, status] += 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that were killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)

    def finish(self) -> None:
        self._upstream.close()
        with suppress(OSError):
            super().finish()

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.draw(body)
        if fault == "reset":
            self._reset()
            return
        if fault == "refused":
            self._answer(503, {}, b"")
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        self._upstream.request(self.command, self.path, body, headers)
        answer = self._upstream.getresponse()
        data = answer.read()
        self.server.note(
            self.command, self.path.partition("?")[0] + self._object_of(body), answer.status
        )
        if fault == "lost":
            self._reset()
            return
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        self._answer(answer.status, kept, data, cut=fault == "cut")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _forward

    def _object_of(self, body: bytes) -> str:
        """The name of the object that an upload in one request makes."""
        head, mark, rest = body[:4096].partition(b'"name": "')
        del head
        return " " + rest.partition(b'"')[0].decode() if mark and self.command == "POST" else ""

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut and body else body)
        self.wfile.flush()
        if cut and body:
            self.close_connection = True

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@contextmanager
def faulty(server: str, chances: Chances, seed: int = 1) -> Iterator[FaultyProxy]:
    """A proxy within the `with` block."""
    proxy = FaultyProxy(server, chances, seed)
    threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()

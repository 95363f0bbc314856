"""A receiver of webhooks: a server that keeps what it is sent and answers as told."""

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float  # when it came, in seconds since 1970
    port: int  # the caller's, one for each connection


class Receiver(http.server.ThreadingHTTPServer):
    """The server.

    `statuses` are those of the next answers; after them it answers 204.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"
        self.calls: list[Call] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}  # of every answer
        self.body = b""  # of every answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that is killed is no news here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # the caller was killed
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.path, headers, body, time.time(), self.client_address[1])
        self.server.calls.append(call)
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    """A receiver for the length of a `with`."""
    server = Receiver(port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

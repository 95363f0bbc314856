"""A real HTTP server that answers by a plan: what the transport must survive, kept as data."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """What to do with one request.

    Args:
        status: of the answer; 0: close the connection without one (a reset).
        headers: besides Content-Length.
        body: of the answer.
        announce: bytes announced by Content-Length; None: as many as are sent. More than that is a
            cut answer.
        delay_s: seconds before the answer.
        early: answer before the request's body is read, and close.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    announce: int | None = None
    delay_s: float = 0
    early: bool = False


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class PlannedServer:
    """Answers request after request by the plan; the last answer is repeated."""

    def __init__(self, plan: list[Answer]) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self._plan = plan
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() does not
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # A client may disconnect at any time; this is tested.
        with suppress(OSError), connection, connection.makefile("rwb") as stream:
            while line := stream.readline():
                method, target, _ = line.decode("latin-1").split(" ", 2)
                headers = {}
                while (header := stream.readline().decode("latin-1").strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                answer = self._plan[min(len(self.seen), len(self._plan) - 1)]
                body = b"" if answer.early else _read_body(stream, headers)
                self.seen.append(Seen(method, target, headers, body))
                if not _send(stream, answer, self._stop):
                    return


def _read_body(stream: io.BufferedRWPair, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while line := stream.readline():
            size = int(line, 16)
            if size == 0:
                stream.readline()
                return body
            body += stream.read(size)
            stream.readline()
        raise ConnectionError("cut off")
    length = int(headers.get("content-length", "0"))
    return stream.read(length)


def _send(stream: io.BufferedRWPair, answer: Answer, stop: threading.Event) -> bool:
    """Whether the connection stays open."""
    if answer.delay_s:
        stop.wait(answer.delay_s)
    if answer.status == 0:
        return False
    length = len(answer.body) if answer.announce is None else answer.announce
    lines = [f"HTTP/1.1 {answer.status} Planned", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    stream.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
    stream.flush()
    return length == len(answer.body) and not answer.early


@contextmanager
def planned(*plan: Answer) -> Iterator[PlannedServer]:
    """A server with this plan, for the length of a `with`."""
    server = PlannedServer(list(plan))
    try:
        yield server
    finally:
        server.close()

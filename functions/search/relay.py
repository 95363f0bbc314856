"""One GET of the DICOM store, passed on as it comes: for people who wait, so nothing is retried in
their place.

This stands on the standard library and not on `requests`: with it the proxy answers twice as many
requests in a second, and starts faster (benchmarks/search.py).
"""

import collections
import http.client
import select
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import ECONNRESET
from typing import Final
from urllib.parse import urlsplit

from functions.common.clients.credentials import Credentials
from functions.common.errors import RetryableError
from functions.search.answers import RefusedError
from functions.search.rows import Urls

CHUNK_BYTES: Final = 256 * 1024
_VERSIONS: Final = ("/v1", "/v1beta1")
_CONNECT_TIMEOUT_S: Final = 10.0
_IDLE_CONNECTIONS: Final = 64
_DRAIN_BYTES: Final = 64 * 1024
_FETCH_BYTES: Final = 1024 * 1024
_FAILED: Final = (OSError, http.client.HTTPException)

_REFUSALS: Final = {
    400: "rejected",
    401: "unauthorized",
    403: "unauthorized",
    404: "not_found",
    406: "not_acceptable",
    409: "conflict",
    410: "gone",
    416: "range_not_satisfiable",
    429: "rate_limited",
    503: "overloaded",
    504: "deadline_exceeded",
}
_MESSAGES: Final = {
    "rejected": "the DICOM store refuses this request",
    "unauthorized": "the DICOM store refuses the service's own credentials; its operator has to look",
    "not_found": "the DICOM store has no such thing",
    "not_acceptable": "the DICOM store cannot make what Accept asks for",
    "rate_limited": "the DICOM store is asked too much; try again later",
    "overloaded": "the DICOM store is busy; try again later",
    "deadline_exceeded": "the DICOM store took too long",
    "unavailable": "the DICOM store gave no answer that makes sense",
}


_Idle = collections.deque[socket.socket]


class Upstream:
    """An answer of the DICOM store, its body unread. Close it, or read it to its end.

    Args:
        response: read from `connection`.
        idle: where the connection goes when it can be used again.
    """

    def __init__(
        self, response: http.client.HTTPResponse, connection: socket.socket, idle: _Idle
    ) -> None:
        self._response = response
        self._connection = connection
        self._idle = idle
        self._closed = False
        self.status = response.status
        self.headers = response.headers

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, as it was sent.

        Raises:
            ConnectionResetError: it broke off. Where the status has been sent already that is all
                there is left to do: the server closes the connection without a word in the log, and
                    the caller sees a cut answer.
        """
        try:
            while chunk := self._response.read(CHUNK_BYTES):
                yield chunk
            if self._response.length:
                raise ConnectionResetError(ECONNRESET, "the DICOM store's answer is cut")
        except _FAILED as error:
            raise ConnectionResetError(ECONNRESET, "the DICOM store's answer broke off") from error
        finally:
            self.close()

    def close(self) -> None:
        """Keep the connection for another request when the answer was read to its end, else close
        it."""
        if self._closed:
            return
        self._closed = True
        if (
            self._response.isclosed()
            and not self._response.length
            and not self._response.will_close
        ):
            self._idle.append(self._connection)
        else:
            self._response.close()
            self._connection.close()

    def drain(self) -> None:
        """Read the rest of a small body so that the connection can be used again."""
        with suppress(*_FAILED):
            self._response.read(_DRAIN_BYTES)
        self.close()


class _Host:
    """Kept-alive connections to one host; safe to share between threads."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._name = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._address = parts.netloc
        self._timeout_s = timeout_s
        self._trust: ssl.SSLContext | None = None
        self._idle: _Idle = collections.deque(maxlen=_IDLE_CONNECTIONS)

    def get(self, target: str, headers: dict[str, str]) -> Upstream:
        """Send one GET, over a kept connection where there is one that the other side did not close
        meanwhile."""
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {self._address}",
            *map(": ".join, headers.items()),
            "",
            "",
        ]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line break in a header")
        request = "\r\n".join(lines).encode("ascii")
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._send(self._opened(), request)
            if _is_dropped(connection):
                connection.close()
                continue
            with suppress(ConnectionError):  # closed by the other side just now
                return self._send(connection, request)

    def _send(self, connection: socket.socket, request: bytes) -> Upstream:
        try:
            connection.sendall(request)
            response = http.client.HTTPResponse(connection, method="GET")
            response.begin()
            return Upstream(response, connection, self._idle)
        except _FAILED:
            connection.close()
            raise

    def _opened(self) -> socket.socket:
        connection = socket.create_connection(
            (self._name, self._port), min(_CONNECT_TIMEOUT_S, self._timeout_s)
        )
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure:
                self._trust = self._trust or _authorities()
                connection = self._trust.wrap_socket(connection, server_hostname=self._name)
            connection.settimeout(self._timeout_s)
        except OSError:
            connection.close()
            raise
        return connection


def _is_dropped(connection: socket.socket) -> bool:
    """Whether an idle connection has something to read: that can only be its end."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


class Relay:
    """The DICOM store, for reading.

    Args:
        endpoint: base URL of the API with its version.
        store: `projects/…/dicomStores/…`.
        timeout_s: how long the store may take to begin an answer, and between two pieces of it.
    """

    def __init__(self, endpoint: str, store: str, timeout_s: float) -> None:
        url = urlsplit(endpoint)
        self._url = f"{url.scheme}://{url.netloc}"
        self._prefix = f"{url.path}/{store}/dicomWeb/"
        self._host = _Host(self._url, timeout_s)
        self._credentials = Credentials()
        # Either version may appear in an answer, below the endpoint's own path or without it.
        above = url.path.rpartition("/")[0]
        self.urls = Urls(
            sorted(
                {url.path, *(f"{root}{version}" for root in ("", above) for version in _VERSIONS)}
            ),
            store,
        )

    def get(self, path: str, query: str, headers: dict[str, str]) -> Upstream:
        """Send one GET.

        Args:
            path: below `dicomWeb`, of validated parts.
            query: encoded, or empty.
            headers: without credentials; those are added here.

        Raises:
            RefusedError: any status that is not 2xx or 304, and no answer at all.
        """
        target = f"{self._prefix}{path}?{query}" if query else self._prefix + path
        upstream = self._sent(target, headers)
        if upstream.status == 401:
            upstream.drain()
            self._credentials.refresh_needed()
            upstream = self._sent(target, headers)
        if upstream.status in (200, 204, 206, 304):
            return upstream
        upstream.drain()
        reason = _REFUSALS.get(upstream.status) or "unavailable"
        retry_after = _retry_after(upstream.headers.get("Retry-After", ""))
        raise RefusedError(reason, _MESSAGES.get(reason, ""), retry_after=retry_after)

    def _sent(self, target: str, headers: dict[str, str]) -> Upstream:
        headers = {"Accept-Encoding": "identity", "User-Agent": "dicom-functions", **headers}
        try:
            self._credentials.add_to(headers, self._url)
        except RetryableError as error:
            raise RefusedError("unauthorized", _MESSAGES["unauthorized"]) from error
        try:
            return self._host.get(target, headers)
        except TimeoutError as error:
            raise RefusedError("deadline_exceeded", _MESSAGES["deadline_exceeded"]) from error
        except _FAILED as error:
            raise RefusedError("unavailable", _MESSAGES["unavailable"]) from error


def fetch(url: str) -> bytes:
    """A small public document, such as the keys that Google signs with.

    Raises:
        RefusedError: unavailable.
    """
    parts = urlsplit(url)
    try:
        upstream = _Host(url, _CONNECT_TIMEOUT_S).get(parts.path or "/", {})
        body, _ = head(upstream.chunks(), _FETCH_BYTES)
        upstream.close()
    except _FAILED as error:
        raise RefusedError(
            "unavailable", "a document that is needed to answer cannot be had"
        ) from error
    if upstream.status != 200:
        raise RefusedError("unavailable", "a document that is needed to answer cannot be had")
    return body


def head(chunks: Iterator[bytes], size: int) -> tuple[bytes, bool]:
    """The beginning of a body, at least `size` bytes where it is that long, and whether that is all
    of it."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) >= size:
            return bytes(data), False
    return bytes(data), True


def chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    """What was read already, and the rest."""
    yield first
    yield from rest


def _retry_after(text: str) -> str:
    return text if len(text) <= 40 and text.isascii() and text.isprintable() else ""


def _authorities() -> ssl.SSLContext:
    import certifi

    return ssl.create_default_context(cafile=certifi.where())

"""HTTP for all clients: connections, credentials, time limits and retries.

It is used for the DICOM store and Cloud Storage. requests and google-auth provide proxies,
certificates and credentials; urllib3, which requests uses, sends the requests. A small GET takes
0.11 ms of CPU in this way, 0.22 ms with an adapter of requests, and 0.39 ms with its session.
"""

import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

import urllib3
import urllib3.exceptions
from urllib3.util import Retry, Timeout

from functions.common.clients import statuses
from functions.common.clients.credentials import Credentials, is_secure
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.common.log import log

CHUNK_BYTES: Final = 256 * 1024
_CONNECTIONS: Final = 64  # kept for each host: as many as threads may use at once
_CONNECT_TIMEOUT_S: Final = 10.0
_READ_TIMEOUT_S: Final = 60.0  # between two reads, not for the whole body
# The service stores a large body before it answers, which takes longer.
_COMMIT_BYTES_PER_S: Final = 8 * 1024 * 1024
_ATTEMPTS: Final = 4  # the first and three more; Pub/Sub does longer retries
_BACKOFF_S: Final = 0.5  # the waits are at most 2, 4 and 8 times as long
_INLINE_WAIT_MAX_S: Final = 20.0  # a longer wait, with Retry-After in it, is left to Pub/Sub
_DRAIN_BYTES: Final = 64 * 1024

# Retries are decided here, not in urllib3.
_NO_RETRIES: Final = Retry(total=False, redirect=False)
_WORTH_ANOTHER_TRY: Final = ("rate_limited", "unavailable")
_NETWORK_ERRORS: Final = (urllib3.exceptions.HTTPError, OSError)


T = TypeVar("T")
# A body with a length is sent with Content-Length, another one in HTTP chunks.
BodyFactory = Callable[[], bytes | Iterable[bytes]]


@dataclass(frozen=True)
class Request:
    """One request.

    Args:
        method: in capitals.
        url: built from validated parts only.
        params: query parameters.
        headers: without credentials; those are added here.
        body: bytes, or a function that makes a new body for each attempt (a stream can be sent
            only once).
        read_timeout_s: how long the server may pause, before the answer and in it.
    """

    method: str
    url: str
    params: Mapping[str, str] | list[tuple[str, str]] | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | BodyFactory | None = None
    read_timeout_s: float = _READ_TIMEOUT_S


@dataclass(frozen=True)
class Response:
    """An answer whose body is read as a stream. Close it, or use it in a `with`.

    Args:
        status_code: of HTTP.
        headers: looked up whatever their case.
        raw: urllib3's answer, for the functions below.
    """

    status_code: int
    headers: Mapping[str, str]
    raw: urllib3.BaseHTTPResponse

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Keep the connection for another request if the body was read to its end, else close
        it."""
        self.raw.close()
        self.raw.release_conn()


class Transport:
    """Sends requests over kept-alive connections; safe to share between threads.

    Proxies, CA bundles and client certificates come from the environment, as with requests and
    google-auth: HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE, GOOGLE_API_USE_CLIENT_CERTIFICATE. Plain
    http is only for emulators, without a proxy.
    """

    def __init__(self) -> None:
        self.credentials = Credentials()
        self._routes: dict[str, _Route] = {}
        self._lock = threading.Lock()

    def send(self, request: Request, deadline: Deadline) -> Response:
        """Send a request; retry if that can help and time is left.

        Returns:
            An answer whose body has not been read yet, with a status for the caller to handle
            (statuses.py). Close it, or use it in a `with`.

        Raises:
            RetryableError: rate_limited, unavailable, unauthorized or deadline_exceeded.
        """
        return retried(lambda: self._attempt_or_error(request, deadline), deadline, request.method)

    def send_once(self, request: Request, deadline: Deadline) -> Response:
        """Send a request; retry only with new credentials. The caller decides about other retries.

        Returns:
            An answer of any status, whose body has not been read yet.

        Raises:
            RetryableError: unavailable, unauthorized or deadline_exceeded.
        """
        response = self._attempt(request, deadline)
        if response.status_code == 401:
            drain(response)
            self.credentials.forget()
            response = self._attempt(request, deadline)
        return response

    def _attempt_or_error(self, request: Request, deadline: Deadline) -> Response:
        """One attempt; retryable statuses and 401 and 403 are raised."""
        response = self.send_once(request, deadline)
        error = statuses.error_of(response.status_code, response.headers)
        if error is None:
            return response
        drain(response)
        raise error

    def _attempt(self, request: Request, deadline: Deadline) -> Response:
        headers = {
            "Accept-Encoding": "identity",
            "User-Agent": "dicom-functions",
            **(request.headers or {}),
        }
        self.credentials.add_to(headers, request.url)
        body: Any = request.body() if callable(request.body) else request.body
        is_sized = hasattr(body, "__len__")
        size = len(body) if is_sized else 0
        if is_sized:
            headers["Content-Length"] = str(size)
        url = request.url
        if request.params:
            url += "?" + urlencode(request.params)
        # The total includes sending: the wait for the answer ends with the deadline, however long
        # sending took.
        timeout = Timeout(
            total=deadline.timeout_s(math.inf),
            connect=_CONNECT_TIMEOUT_S,
            read=request.read_timeout_s + size / _COMMIT_BYTES_PER_S,
        )
        route = self._route(url)
        try:
            answer = route.pool.urlopen(
                method=request.method,
                url=url.removeprefix(route.origin) or "/",
                body=body,
                headers=headers,
                timeout=timeout,
                chunked=body is not None and not is_sized,
                retries=_NO_RETRIES,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
        except _NETWORK_ERRORS as error:
            raise RetryableError("unavailable") from error
        return Response(answer.status, answer.headers, answer)

    def _route(self, url: str) -> "_Route":
        """The connections to a URL's host, looked up once for each host."""
        scheme, _, rest = url.partition("://")
        origin = f"{scheme}://{rest.partition('/')[0]}"
        found = self._routes.get(origin)
        if found is None:
            with self._lock:
                found = self._routes.setdefault(origin, self._new_route(origin))
        return found

    def _new_route(self, origin: str) -> "_Route":
        if not is_secure(origin):
            # An emulator: no proxy, no certificate, and no import of requests.
            pool = urllib3.connectionpool.connection_from_url(origin, maxsize=_CONNECTIONS)
            return _Route(origin, pool)
        import requests
        import requests.adapters

        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS, max_retries=0)
        session = self.credentials.session(adapter)
        options = session.merge_environment_settings(origin, {}, True, None, None)
        pool = session.get_adapter(origin).get_connection_with_tls_context(
            requests.Request("GET", origin).prepare(),
            verify=options["verify"],
            proxies=options["proxies"],
            cert=options["cert"],
        )
        return _Route(origin, pool)


@dataclass(frozen=True)
class _Route:
    """The connections to a host, with the proxy and the certificates from the environment."""

    origin: str
    pool: urllib3.HTTPConnectionPool


def retried(once: Callable[[], T], deadline: Deadline, method: str) -> T:
    """The retry loop of the clients: call until it succeeds, at most 4 times, while time is left.

    The waits are at most 1, 2 and 4 s, each plus the server's Retry-After. If Retry-After
    makes a wait longer than 20 s, the call fails at once, and Pub/Sub delivers the message later.

    It ends with the head of an answer; the caller handles a body that breaks off. What else is
    repeated within an invocation, and why not by this loop:

        Transport.send_once      once, after a 401, because only a new token helps
        store/seekable.py        a broken reading goes on at its next byte, and ends at the third
                                 failure without a byte in between
        export/fetch.py          what is missing in a broken answer is retrieved by instance
        export/object_slice.py   3 passes, each over the instances that are still missing
        export/plan.py           3 listings, while the pages of a search overlap: no call has failed
        delete/deletion.py       a failed operation is started up to 3 times, because its call did
                                 not fail; one that cannot start while others run waits for the next
                                 poll; a search that still finds deleted instances, up to 30 s
        store/stow.py            once, when what the store reported to exist is gone
        search/asking.py         once, without the attributes that the store has refused
        search/upstream.py       once, after a connection that broke before any answer, because a
                                 person waits

    Args:
        once: the call; it raises RetryableError.
        method: for the log.

    Raises:
        RetryableError: the last one.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return once()
        except RetryableError as error:
            hopeless = error.reason not in _WORTH_ANOTHER_TRY
            if hopeless or attempt == _ATTEMPTS or not _wait(error, attempt, deadline):
                raise
            log("WARNING", "retry", reason=error.reason, method=method, attempt=attempt)
    raise AssertionError("the last attempt returns or raises")


def chunks(
    response: Response, deadline: Deadline, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """The answer's body in chunks, as it arrives.

    Raises:
        RetryableError: unavailable when the connection breaks before the end that Content-Length or
            the chunking announced; deadline_exceeded.
    """
    try:
        for chunk in response.raw.stream(chunk_bytes, decode_content=False):
            deadline.check()
            yield chunk
    except _NETWORK_ERRORS as error:
        raise RetryableError("unavailable") from error


def read_all(response: Response, deadline: Deadline, limit_bytes: int) -> bytes:
    """The answer's whole body, for small ones.

    Raises:
        RetryableError: unavailable, when the connection breaks or the body is larger than
            `limit_bytes` (expected answers are never that large); deadline_exceeded.
    """
    data = bytearray()
    for chunk in chunks(response, deadline):
        data += chunk
        if len(data) > limit_bytes:
            raise RetryableError("unavailable")
    return bytes(data)


def drain(response: Response) -> None:
    """Read the rest of a small body, so that the connection can be used again; with a large one,
    close the connection."""
    try:
        if not response.raw.read(_DRAIN_BYTES + 1, decode_content=False)[_DRAIN_BYTES:]:
            # First, because `close` closes a connection that was not released.
            response.raw.release_conn()
    except _NETWORK_ERRORS:
        log("WARNING", "drain", reason="unavailable")
    response.close()


def _wait(error: RetryableError, attempt: int, deadline: Deadline) -> bool:
    """Full jitter up to an exponential limit, but at least the server's Retry-After."""
    ceiling_s = _BACKOFF_S * 2**attempt
    wait_s = random.uniform(0, ceiling_s) + (error.retry_after_s or 0)  # noqa: S311 (no secret)
    return wait_s <= _INLINE_WAIT_MAX_S and deadline.sleep(wait_s)

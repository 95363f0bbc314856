"""One way to speak HTTP: connections, credentials, time limits, retries, and what a status means.

It stands on requests and google-auth, and serves the DICOM store and Cloud Storage. Requests go
through the adapters of requests and not through a session: half the CPU for a small request.
"""

import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlencode

import requests
import requests.adapters
import urllib3
import urllib3.exceptions
from urllib3.util import Timeout

from functions.common.clients.credentials import Credentials, is_secure
from functions.common.deadline import Deadline, age_s
from functions.common.errors import RetryableError
from functions.common.log import log

CHUNK_BYTES: Final = 256 * 1024
_CONNECT_TIMEOUT_S: Final = 10.0
_READ_TIMEOUT_S: Final = 60.0  # between two reads, not for the whole body
# A large body is kept by the service before it answers: that takes longer.
_COMMIT_BYTES_PER_S: Final = 8 * 1024 * 1024
_ATTEMPTS: Final = 4  # the first and three more; what takes longer belongs to Pub/Sub
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 8.0
_INLINE_WAIT_MAX_S: Final = 20.0  # a longer Retry-After is handed to Pub/Sub
_DRAIN_BYTES: Final = 64 * 1024

# Fact sheet section 10: the statuses worth another try.
_RETRYABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NETWORK_ERRORS: Final = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class Body(Protocol):
    """A request body that knows its length, so that it is sent with Content-Length and not
    chunked."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __len__(self) -> int: ...


T = TypeVar("T")
BodyFactory = Callable[[], bytes | Iterable[bytes]]  # one without a length is sent in HTTP chunks


@dataclass(frozen=True)
class Request:
    """One request.

    Args:
        method: in capitals.
        url: built from validated parts only.
        params: query parameters.
        headers: without credentials; those are added here.
        body: bytes, or a function that makes the body anew for each attempt (a stream can be sent
            only once).
        resend: whether a request may be sent again when it is not known what became of the first.
        read_timeout_s: how long the server may pause, before the answer and in it.
    """

    method: str
    url: str
    params: Mapping[str, str] | list[tuple[str, str]] | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | BodyFactory | None = None
    resend: bool = True
    read_timeout_s: float = _READ_TIMEOUT_S


class Transport:
    """Sends requests over kept-alive connections; safe to share between threads.

    Proxies, CA bundles and client certificates are those that the environment names, as for
    requests and google-auth: HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE,
    GOOGLE_API_USE_CLIENT_CERTIFICATE.

    Args:
        connections: how many are kept for each host: as many as threads may use at once.
        credentials: others than the service's own, such as those of an account that is looked into.
    """

    def __init__(self, connections: int = 64, credentials: Credentials | None = None) -> None:
        self.credentials = credentials or Credentials()
        self._connections = connections
        self._routes: dict[str, _Route] = {}
        self._lock = threading.Lock()

    def send(self, request: Request, deadline: Deadline) -> requests.Response:
        """Send, and again where that can help, while the time allows.

        Returns:
            An answer whose body has not been read yet; any status that is not worth another try,
            4xx included, is the caller's to judge. Close it, or use it in a `with`.

        Raises:
            RetryableError: rate_limited, unavailable, unauthorized or deadline_exceeded.
        """
        return retried(
            lambda: self._judged(request, deadline),
            deadline,
            method=request.method,
            resend=request.resend,
        )

    def send_once(self, request: Request, deadline: Deadline) -> requests.Response:
        """Send, and again only with new credentials: for a caller who waits, and decides.

        Returns:
            An answer of any status, whose body has not been read yet.

        Raises:
            RetryableError: unavailable, unauthorized or deadline_exceeded.
        """
        response = self._attempt(request, deadline)
        if response.status_code == 401:
            drain(response)
            self.credentials.refresh_needed()
            response = self._attempt(request, deadline)
        return response

    def _judged(self, request: Request, deadline: Deadline) -> requests.Response:
        """One attempt; a status that is worth another, and a refusal, is an error."""
        response = self.send_once(request, deadline)
        if response.status_code not in _RETRYABLE and response.status_code not in (401, 403):
            return response
        error = _error_of(response)
        drain(response)
        raise error

    def _attempt(self, request: Request, deadline: Deadline) -> requests.Response:
        headers = {
            "Accept-Encoding": "identity",
            "User-Agent": "dicom-functions",
            **(request.headers or {}),
        }
        self.credentials.add_to(headers, request.url)
        body: Any = request.body() if callable(request.body) else request.body
        is_sized = isinstance(body, Sized)
        size = len(body) if is_sized else 0
        if is_sized:
            headers["Content-Length"] = str(size)
        url = request.url
        if request.params:
            url += "?" + urlencode(request.params)
        # Sending counts towards the total too: the wait for the answer ends with the deadline,
        # however long it took.
        timeout = Timeout(
            total=deadline.timeout_s(math.inf),
            connect=_CONNECT_TIMEOUT_S,
            read=request.read_timeout_s + size / _COMMIT_BYTES_PER_S,
        )
        route = self._route(url)
        try:
            answer = route.pool.urlopen(
                method=request.method,
                url=url if route.is_absolute else url.removeprefix(route.origin),
                body=body,
                headers=headers,
                timeout=timeout,
                chunked=body is not None and not is_sized,
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
        except _NETWORK_ERRORS as error:
            raise RetryableError("unavailable") from error
        return _response(request.method, url, answer)

    def _route(self, url: str) -> "_Route":
        """How a URL's host is reached, looked up once for each host."""
        scheme, _, rest = url.partition("://")
        origin = f"{scheme}://{rest.partition('/')[0]}"
        found = self._routes.get(origin)
        if found is None:
            with self._lock:
                found = self._routes.setdefault(origin, self._new_route(origin))
        return found

    def _new_route(self, origin: str) -> "_Route":
        adapter = requests.adapters.HTTPAdapter(
            pool_connections=4, pool_maxsize=self._connections, max_retries=0
        )
        session = self.credentials.session(adapter) if is_secure(origin) else requests.Session()
        session.mount("http://", adapter)
        options = session.merge_environment_settings(origin, {}, True, None, None)
        proxies = options["proxies"]
        connected: Any = session.get_adapter(origin)
        pool = connected.get_connection_with_tls_context(
            requests.Request("GET", origin).prepare(),
            verify=options["verify"],
            proxies=proxies,
            cert=options["cert"],
        )
        # A proxy is told the whole URL, unless it is a tunnel for https.
        has_proxy = requests.utils.select_proxy(origin, proxies) is not None
        return _Route(origin, pool, is_absolute=has_proxy and not is_secure(origin))


@dataclass(frozen=True)
class _Route:
    """The connections to a host, with the proxy and the certificates that the environment names.

    requests makes the pool, and urllib3 sends over it: a small request costs half of what it costs
    through an adapter, and a third of what it costs in a session.
    """

    origin: str
    pool: urllib3.HTTPConnectionPool
    is_absolute: bool


def _response(method: str, url: str, answer: urllib3.BaseHTTPResponse) -> requests.Response:
    """The answer as requests has it, its body unread."""
    response = requests.Response()
    response.status_code = answer.status
    response.headers = requests.structures.CaseInsensitiveDict(answer.headers)
    response.raw = answer
    response.request = requests.PreparedRequest()
    response.request.method = method
    response.request.url = url
    return response


def retried(once: Callable[[], T], deadline: Deadline, *, method: str, resend: bool = True) -> T:
    """The one retry loop: call until it goes well, at most _ATTEMPTS times and while the time
    allows.

    Args:
        once: raises RetryableError; rate_limited and unavailable are worth another try.
        method: for the log.
        resend: whether a second try is allowed.

    Raises:
        RetryableError: the last one.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return once()
        except RetryableError as error:
            hopeless = error.reason not in ("rate_limited", "unavailable")
            if (
                hopeless
                or not resend
                or attempt == _ATTEMPTS
                or not _wait(error, attempt, deadline)
            ):
                raise
            log("WARNING", "retry", reason=error.reason, method=method, attempt=attempt)
    raise AssertionError("the last attempt returns or raises")


def chunks(
    response: requests.Response, deadline: Deadline, chunk_bytes: int = CHUNK_BYTES
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


def read_all(response: requests.Response, deadline: Deadline, limit_bytes: int) -> bytes:
    """The answer's whole body, for small ones.

    Raises:
        RetryableError: unavailable, when the connection breaks or the body is larger than
            `limit_bytes` (an answer of ours is never that large); deadline_exceeded.
    """
    data = bytearray()
    for chunk in chunks(response, deadline):
        data += chunk
        if len(data) > limit_bytes:
            raise RetryableError("unavailable")
    return bytes(data)


def drain(response: requests.Response) -> None:
    """Read the rest of a small body so that the connection can be used again; drop the connection
    of a large one."""
    try:
        if not response.raw.read(_DRAIN_BYTES + 1, decode_content=False)[_DRAIN_BYTES:]:
            response.raw.release_conn()
    except _NETWORK_ERRORS:
        log("WARNING", "drain", reason="unavailable")
    response.close()


def _error_of(response: requests.Response) -> RetryableError:
    if response.status_code in (401, 403):
        return RetryableError("unauthorized")
    wait_s = retry_after_s(response.headers.get("Retry-After", ""))
    if response.status_code == 429 or wait_s is not None:
        return RetryableError("rate_limited", wait_s)
    return RetryableError("unavailable")


def retry_after_s(text: str) -> float | None:
    """Seconds from now, whichever way it is said: RFC 9110 section 10.2.3 allows a number and a
    date."""
    if text.isascii() and text.isdigit() and len(text) < 7:
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, -age_s(date if date.tzinfo else date.replace(tzinfo=UTC)))


def _wait(error: RetryableError, attempt: int, deadline: Deadline) -> bool:
    """Full jitter under an exponential ceiling, never less than the server asked for."""
    ceiling_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2**attempt)
    wait_s = random.uniform(0, ceiling_s) + (error.retry_after_s or 0)  # noqa: S311 (no secret)
    return wait_s <= _INLINE_WAIT_MAX_S and deadline.sleep(wait_s)

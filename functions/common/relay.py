"""One GET of the DICOM store, passed on as it comes: for people who wait, so nothing is retried in their place.

This stands on urllib3 itself and not on `requests`: with it the proxy answers half as many requests again in a second
(benchmarks/search.py), and starts faster.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from errno import ECONNRESET
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
import urllib3.exceptions

from functions.common.answers import RefusedError
from functions.common.credentials import Credentials
from functions.common.errors import RetryableError

CHUNK_BYTES: Final = 256 * 1024
_CONNECT_TIMEOUT_S: Final = 10.0
_CONNECTIONS: Final = 64
_DRAIN_BYTES: Final = 64 * 1024
_FETCH_BYTES: Final = 1024 * 1024
_FAILED: Final = (urllib3.exceptions.HTTPError, OSError)
_TIMEOUTS: Final = (urllib3.exceptions.TimeoutError, TimeoutError)

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


@dataclass(frozen=True)
class Upstream:
    """An answer of the DICOM store with a good status, its body unread. Close it, or read it to its end."""

    response: urllib3.BaseHTTPResponse

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, as it was sent.

        Raises:
            ConnectionResetError: it broke off. Where the status has been sent already that is all there is left to do:
                the server closes the connection without a word in the log, and the caller sees a cut answer.
        """
        try:
            yield from self.response.stream(CHUNK_BYTES, decode_content=False)
        except _FAILED as error:
            raise ConnectionResetError(ECONNRESET, "the DICOM store's answer broke off") from error
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection, unless the answer was read to its end and it went back to the others."""
        self.response.close()

    def drain(self) -> None:
        """Read the rest of a small body so that the connection can be used again."""
        try:
            if len(self.response.read(_DRAIN_BYTES + 1, decode_content=False)) <= _DRAIN_BYTES:
                self.response.release_conn()
        except _FAILED:
            pass  # it is closed below
        self.response.close()


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
        self._timeout = urllib3.Timeout(connect=min(_CONNECT_TIMEOUT_S, timeout_s), read=timeout_s)
        self._pool = urllib3.connection_from_url(self._url, maxsize=_CONNECTIONS, **_trust(self._url))
        self._credentials = Credentials()
        # How the store names its own URLs in what it answers; either version may appear.
        versions = {url.path, *(url.path.rpartition("/")[0] + version for version in ("/v1", "/v1beta1"))}
        self.prefixes = tuple(f"{self._url}{path}/{store}/dicomWeb/".encode() for path in sorted(versions))

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
        if upstream.response.status == 401:
            upstream.drain()
            self._credentials.refresh_needed()
            upstream = self._sent(target, headers)
        status = upstream.response.status
        if status in (200, 204, 206, 304):
            return upstream
        retry_after = _retry_after(upstream.response.headers.get("Retry-After", ""))
        upstream.drain()
        reason = _REFUSALS.get(status) or "unavailable"
        raise RefusedError(reason, _MESSAGES.get(reason, ""), retry_after=retry_after)

    def _sent(self, target: str, headers: dict[str, str]) -> Upstream:
        headers = {"Accept-Encoding": "identity", "User-Agent": "dicom-functions", **headers}
        try:
            self._credentials.add_to(headers, self._url)
        except RetryableError as error:
            raise RefusedError("unauthorized", _MESSAGES["unauthorized"]) from error
        try:
            try:
                return self._open(target, headers)
            except urllib3.exceptions.ProtocolError:
                return self._open(target, headers)  # a kept connection that the other side closed just now
        except _TIMEOUTS as error:
            raise RefusedError("deadline_exceeded", _MESSAGES["deadline_exceeded"]) from error
        except _FAILED as error:
            raise RefusedError("unavailable", _MESSAGES["unavailable"]) from error

    def _open(self, target: str, headers: dict[str, str]) -> Upstream:
        return Upstream(
            self._pool.urlopen(
                "GET",
                target,
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=self._timeout,
                preload_content=False,
                decode_content=False,
            )
        )


def head(chunks: Iterator[bytes], size: int) -> tuple[bytes, bool]:
    """The beginning of a body, at least `size` bytes where it is that long, and whether that is all of it."""
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


def fetch(url: str) -> bytes:
    """A small public document, such as the keys that Google signs with.

    Raises:
        RefusedError: unavailable.
    """
    try:
        with urllib3.PoolManager(timeout=_CONNECT_TIMEOUT_S, retries=2, **_trust(url)) as pool:
            response = pool.request("GET", url, preload_content=False, redirect=False)
            body = response.read(_FETCH_BYTES)
            response.close()
    except _FAILED as error:
        raise RefusedError("unavailable", "a document that is needed to answer cannot be had") from error
    if response.status != 200:
        raise RefusedError("unavailable", "a document that is needed to answer cannot be had")
    return body


def _trust(url: str) -> dict[str, Any]:
    if not url.startswith("https://"):
        return {}
    import certifi

    return {"ca_certs": certifi.where()}

"""Reading from the DICOM store: one GET, whose answer is passed on as it comes.

People wait for it, so only a connection that broke before any answer is retried.
"""

import math
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from functions.common.clients import statuses, transport
from functions.common.clients.transport import Request, Response, Transport
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.search.refusals import RefusedError
from functions.search.urls import StoreUrls

_VERSIONS: Final = ("/v1", "/v1beta1")
_PASSED: Final = (200, 204, 206, 304)
# For the event functions: common/clients/statuses.py.
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
    "unauthorized": "the DICOM store refuses the service's own credentials; tell its operator",
    "not_found": "the DICOM store has no such resource",
    "not_acceptable": "the DICOM store cannot produce a type in Accept",
    "conflict": "the DICOM store is changing this resource; try again later",
    "gone": "the DICOM store no longer has this resource",
    "range_not_satisfiable": "the resource has no bytes in this range",
    "rate_limited": "the DICOM store is receiving too many requests; try again later",
    "overloaded": "the DICOM store is busy; try again later",
    "deadline_exceeded": "the DICOM store took too long",
    "unavailable": "the DICOM store gave no answer, or a malformed one",
}


def refused_by_store(reason: str, retry_after_s: int | None = None) -> RefusedError:
    """The refusal for the caller when the DICOM store has refused a request, or failed."""
    return RefusedError(
        reason,
        _MESSAGES[reason],
        retry_after_s=retry_after_s,
    )


class Answer:
    """An answer of the DICOM store, whose body is not read yet. Close it, or read it to its end."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = response.headers

    @property
    def media_type(self) -> str:
        """The type of the body, in lower case and without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, not decoded.

        Raises:
            RetryableError: unavailable, when it breaks off or pauses for longer than the timeout.
        """
        # A retrieve may take any time; only its pauses are limited.
        return transport.chunks(self._response, Deadline(math.inf))

    def close(self) -> None:
        """Keep the connection for another request if the body was read to its end, else close
        it."""
        self._response.close()

    def drain(self) -> None:
        """Read the rest of a small body so that the connection can be used again."""
        transport.drain(self._response)


class Upstream:
    """The DICOM store.

    Args:
        transport: of the function.
        endpoint: base URL of the API with its version.
        store: `projects/…/dicomStores/…`.
        timeout_s: how long the store may take to begin an answer, and pause within it.
    """

    def __init__(self, transport: Transport, endpoint: str, store: str, timeout_s: float) -> None:
        self._transport = transport
        self._dicomweb = f"{endpoint}/{store}/dicomWeb/"
        self._timeout_s = timeout_s
        # Both versions may appear in an answer, with or without the endpoint's own path.
        path = urlsplit(endpoint).path
        above = path.rpartition("/")[0]
        roots = {path}
        for version in _VERSIONS:
            roots |= {version, above + version}
        self.urls = StoreUrls(roots, store)

    def get(self, path: str, query: str, headers: dict[str, str]) -> Answer:
        """Send one GET.

        Args:
            path: below `dicomWeb`, of validated parts.
            query: encoded, or empty.
            headers: without credentials.

        Raises:
            RefusedError: for any status other than 2xx or 304, and without an answer.
        """
        url = self._dicomweb + path
        if query:
            url += "?" + query
        request = Request(
            "GET",
            url,
            headers=headers,
            read_timeout_s=self._timeout_s,
        )
        answer = Answer(self._sent(request))
        if answer.status in _PASSED:
            return answer
        answer.drain()
        wait_s = statuses.retry_after_s(answer.headers)
        raise refused_by_store(
            _REFUSALS.get(answer.status, "unavailable"),
            None if wait_s is None else math.ceil(wait_s),
        )

    def _sent(self, request: Request) -> Response:
        deadline = Deadline(self._timeout_s)
        try:
            return self._transport.send_once(request, deadline)
        except RetryableError as error:
            if error.reason != "unavailable" or not deadline.remaining_s():
                raise self._refusal(error, deadline) from error
        # The other side may just have closed a kept connection.
        try:
            return self._transport.send_once(request, deadline)
        except RetryableError as error:
            raise self._refusal(error, deadline) from error

    def _refusal(self, error: RetryableError, deadline: Deadline) -> RefusedError:
        if error.reason == "unauthorized":
            return refused_by_store("unauthorized")
        if not deadline.remaining_s():
            return refused_by_store("deadline_exceeded")
        return refused_by_store("unavailable")

"""The client of the DICOM store: STOW-RS, QIDO-RS, WADO-RS, delete and operations of the Cloud
Healthcare API."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from functions.common import jsonvalues
from functions.common.clients.transport import (
    BodyFactory,
    Request,
    Response,
    Transport,
    drain,
    read_all,
)
from functions.common.deadline import Deadline
from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import INSTANCE_UID, SERIES_UID, STUDY_UID, DataSet
from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import DicomStoreName, Resource

_JSON_LIMIT_BYTES: Final = 64 * 1024 * 1024
# With `transfer-syntax=*` the answer has the stored bytes; without it the service transcodes (fact
# sheet section 5.1).
AS_STORED: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'

# Of google.rpc.Code.
CANCELLED: Final = 1
NOT_FOUND: Final = 5

_SEARCH_PAGE: Final = 1000
_OFFSET_MAX: Final = 1_000_000  # fact sheet section 4.3


@dataclass(frozen=True)
class Operation:
    """A long-running operation. `failures` counts its failures, which it can have even if it ended
    without an error.

    `error_code` is one of google.rpc.Code: 1 when it was cancelled.
    """

    name: str
    done: bool
    error_code: int = 0
    failures: int = 0


class DicomStore:
    """One DICOM store.

    Args:
        transport: shared with the other clients.
        endpoint: base URL of the API with its version, such as
            https://healthcare.googleapis.com/v1.
        store: the store's name.
    """

    def __init__(self, transport: Transport, endpoint: str, store: DicomStoreName) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self.name = store
        self._dicomweb = f"{endpoint}/{store.name}/dicomWeb"

    def of(self, store: DicomStoreName) -> "DicomStore":
        """Another store of the same service, over the same connections."""
        return DicomStore(self._transport, self._endpoint, store)

    def url(self, resource: Resource | None, *below: str) -> str:
        """The URL of a study, series or instance (None: of the store); `below` are more path
        segments."""
        parts = [self._dicomweb]
        if resource:
            parts.append(str(resource))
        return "/".join([*parts, *below])

    def store(
        self, body: BodyFactory, content_type: str, deadline: Deadline, storage_class: str = ""
    ) -> Response:
        """STOW-RS (PS3.18 section 10.5).

        Args:
            body: makes a new body for each attempt.
            storage_class: STANDARD, NEARLINE, COLDLINE or ARCHIVE; empty: the store's default.

        Returns:
            The answer, whose report is not read yet: 200 (all stored), 409 (at least one failed) or
                400 (refused).

        Raises:
            RetryableError: as Transport.send.
        """
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        if storage_class:
            headers["Storage-Class"] = storage_class
        # A retry is safe: identical bytes that are stored twice are one instance (fact sheet
        # section 3.4).
        return self._transport.send(
            Request("POST", self.url(None, "studies"), None, headers, body), deadline
        )

    def get(
        self,
        resource: Resource | None,
        below: tuple[str, ...],
        accept: str,
        deadline: Deadline,
        params: Mapping[str, str] | list[tuple[str, str]] | None = None,
    ) -> Response:
        """QIDO-RS or WADO-RS: a GET; the caller reads the answer, of any status, as a stream.

        Raises:
            RetryableError: as Transport.send.
        """
        request = Request("GET", self.url(resource, *below), params, {"Accept": accept})
        return self._transport.send(request, deadline)

    def search(
        self,
        resource: Resource | None,
        level: str,
        params: list[tuple[str, str]],
        deadline: Deadline,
    ) -> list[dict[str, Any]]:
        """One page of a search (PS3.18 section 10.6), of `studies`, `series` or `instances` below
        `resource`.

        Raises:
            PermanentError: rejected, when the store refuses the query.
            RetryableError: as Transport.send; unavailable when the answer is not a list of matches,
                so that no instance is thought to be deleted because of it.
        """
        response = self.get(resource, (level,), "application/dicom+json", deadline, params)
        answer = _json(response, deadline, nothing=(204, 404))
        if response.status_code == 404:
            self._check_store(deadline)
        if answer is None:
            return []
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise RetryableError("unavailable")
        return answer

    def _check_store(self, deadline: Deadline) -> None:
        """Check that the store exists. If the store itself answers 404, it was deleted, or the
        endpoint is wrong, and a 404 for a resource means nothing.

        Raises:
            RetryableError: unavailable, when the store does not answer a search.
        """
        params = [("limit", "1")]
        response = self.get(None, ("studies",), "application/dicom+json", deadline, params)
        drain(response)
        if response.status_code not in (200, 204):
            raise RetryableError("unavailable")

    def search_all(
        self,
        resource: Resource | None,
        level: str,
        params: list[tuple[str, str]],
        deadline: Deadline,
        start: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Every match from the one at `start` on, page by page until a page is empty: a short page
        may be due to a server's limit.

        Raises:
            PermanentError: as search; rejected also when there are more matches than a search can
                return.
            RetryableError: as Transport.send.
        """
        offset = start
        while True:
            if offset > _OFFSET_MAX:
                raise PermanentError("rejected", f"more than {_OFFSET_MAX} matches")
            paging = [("limit", str(_SEARCH_PAGE)), ("offset", str(offset))]
            page = self.search(resource, level, [*params, *paging], deadline)
            if not page:
                return
            yield from page
            offset += len(page)

    def is_there(self, resource: Resource, deadline: Deadline) -> bool:
        """Whether any of its instances is in the store; searches for instances, which does not lag.

        Raises:
            PermanentError, RetryableError: as search.
        """
        above, params = _instances_of(resource)
        return bool(self.search(above, "instances", [*params, ("limit", "1")], deadline))

    def instances(self, resource: Resource, deadline: Deadline) -> Iterator[Resource]:
        """Every instance of a resource. With several pages, one instance may come twice and another
        one be missing, because the order of a search is not documented. Their number is right.

        Raises:
            PermanentError, RetryableError: as search_all; unavailable also for a result without
                UIDs.
        """
        above, params = _instances_of(resource)
        params += [("includefield", STUDY_UID), ("includefield", SERIES_UID)]
        for item in self.search_all(above, "instances", params, deadline):
            series = resource.series or uid(item, SERIES_UID)
            yield Resource(resource.study, series, uid(item, INSTANCE_UID))

    def count(self, resource: Resource, limit: int, deadline: Deadline) -> int:
        """The number of instances of a resource, at most `limit`; by a search, which does not lag
        as the store's metrics do (fact sheet section 17).

        Raises:
            PermanentError, RetryableError: as instances.
        """
        return sum(1 for _ in islice(self.instances(resource, deadline), limit))

    def size_bytes(self, resource: Resource, deadline: Deadline) -> int:
        """The number of stored bytes according to the store's metrics, which lag (getStudyMetrics,
        getSeriesMetrics, getStorageInfo); 0 if they do not say.

        Raises:
            PermanentError, RetryableError: as search.
        """
        if resource.instance:
            info = self._info(resource, "getStorageInfo", deadline)
            parts = [_part(info, key) for key in ("blobStorageInfo", "structuredStorageInfo")]
            return sum(_number(part, "sizeBytes") for part in parts)
        method = "getSeriesMetrics" if resource.series else "getStudyMetrics"
        metrics = self._info(resource, method, deadline)
        blob = _number(metrics, "blobStorageSizeBytes")
        return blob + _number(metrics, "structuredStorageSizeBytes")

    def stored_at(self, instance: Resource, deadline: Deadline) -> str:
        """When an instance was stored, RFC 3339, or when its storage class was last changed (the
        service keeps one time for both); empty when the service does not say.

        Raises:
            PermanentError, RetryableError: as search.
        """
        info = self._info(instance, "getStorageInfo", deadline)
        return jsonvalues.text(_part(info, "blobStorageInfo").get("storageClassUpdateTime"))

    def _info(self, resource: Resource, method: str, deadline: Deadline) -> dict[str, Any]:
        """The answer of a method of the store; empty if it answers nothing."""
        request = Request("GET", f"{self.url(resource)}:{method}")
        answer = _json(self._transport.send(request, deadline), deadline, nothing=(404, 501))
        return answer if isinstance(answer, dict) else {}

    def delete(self, resource: Resource, deadline: Deadline) -> Operation | None:
        """Delete a resource: a study or series by a long-running operation, an instance at once.

        Returns:
            The operation; None when the target was deleted at once, or the answer is 404. That
                alone does not mean that it is gone: is_there also checks that the store exists.

        Raises:
            PermanentError: as search.
            RetryableError: as search; operation_pending when another operation works on the target
                (409).
        """
        response = self._transport.send(Request("DELETE", self.url(resource)), deadline)
        if response.status_code == 409:
            drain(response)
            raise RetryableError("operation_pending")
        answer = _json(response, deadline, nothing=(404,))
        if not isinstance(answer, dict) or not answer.get("name"):
            return None
        return _operation(answer)

    def operation(self, name: str, deadline: Deadline) -> Operation:
        """The state of an operation. One that the service no longer knows is done, with the code of
        "not found" (5).

        Raises:
            PermanentError: invalid_command for a name that is not of this store's dataset;
                rejected.
            RetryableError: as Transport.send.
        """
        if not self.name.owns_operation(name):
            raise PermanentError("invalid_command", "not an operation of this store's dataset")
        request = Request("GET", f"{self._endpoint}/{name}")
        answer = _json(self._transport.send(request, deadline), deadline, nothing=(404,))
        if answer is None:
            return Operation(name, done=True, error_code=NOT_FOUND)
        return _operation(answer)


def _instances_of(resource: Resource) -> tuple[Resource, list[tuple[str, str]]]:
    """The path and the parameters to search for the instances of a resource."""
    above = Resource(resource.study, resource.series)
    if not resource.instance:
        return above, []
    return above, [("SOPInstanceUID", resource.instance)]


def _operation(answer: Any) -> Operation:
    try:
        return Operation(
            answer["name"],
            bool(answer.get("done")),
            int(answer.get("error", {}).get("code", 0)),
            int(answer.get("metadata", {}).get("counter", {}).get("failure", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RetryableError("unavailable") from error


def _json(response: Response, deadline: Deadline, nothing: tuple[int, ...] = ()) -> Any:
    """The JSON of an answer of 200; None for the statuses in `nothing`.

    Raises:
        PermanentError: rejected, for any other status.
        RetryableError: unavailable, when it is not JSON; deadline_exceeded.
    """
    with response:
        if response.status_code in nothing:
            drain(response)
            return None
        if response.status_code != 200:
            drain(response)
            raise PermanentError("rejected", f"the DICOM store answered {response.status_code}")
        answer = jsonvalues.parsed(read_all(response, deadline, _JSON_LIMIT_BYTES))
    if answer is None:  # also null, which does not mean that there is nothing
        raise RetryableError("unavailable")
    return answer


def _part(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = answer.get(key)
    return part if isinstance(part, dict) else {}


def _number(answer: Mapping[str, Any], key: str) -> int:
    """0 also if it is missing (the service leaves out zeros) or not a number."""
    return jsonvalues.int64(answer.get(key)) or 0


def uid(item: DataSet, tag: str) -> str:
    """A UID of a search result in DICOM JSON.

    Raises:
        RetryableError: unavailable, when the result has none: it is not a search result.
    """
    found = dicomjson.uid(item, tag)
    if not found:
        raise RetryableError("unavailable")
    return found

"""The client of the DICOM store: STOW-RS, QIDO-RS, WADO-RS, delete and operations of the Cloud Healthcare API."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.http import BodyFactory, Request, Transport, drain, read_all
from functions.common.resources import DicomStoreName, Resource

_JSON_LIMIT_BYTES: Final = 64 * 1024 * 1024
# `transfer-syntax=*` gives the bytes as they were stored; without it the service transcodes (fact sheet section 5.1).
AS_STORED: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@dataclass(frozen=True)
class Operation:
    """A long-running operation. `failures` counts what it could not do, also where it ended without an error."""

    name: str
    done: bool
    error_code: int = 0
    failures: int = 0


class DicomStore:
    """One DICOM store.

    Args:
        transport: shared with the other clients.
        endpoint: base URL of the API with its version, such as https://healthcare.googleapis.com/v1.
        store: the store's name.
    """

    def __init__(self, transport: Transport, endpoint: str, store: DicomStoreName) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self.name = store
        self._dicomweb = f"{endpoint}/{store.name}/dicomWeb"

    def url(self, resource: Resource | None, *below: str) -> str:
        """The URL of a study, series or instance, or with None of the store; `below` are further path segments."""
        return "/".join([self._dicomweb, *([str(resource)] if resource else []), *below])

    def store(
        self, body: BodyFactory, content_type: str, deadline: Deadline, storage_class: str = ""
    ) -> requests.Response:
        """STOW-RS (PS3.18 section 10.5).

        Args:
            body: makes the body anew for each attempt.
            storage_class: STANDARD, NEARLINE, COLDLINE or ARCHIVE; empty: the store's default.

        Returns:
            The answer, its report unread: 200 (all stored), 409 (at least one was not) or 400 (refused).

        Raises:
            RetryableError: as Transport.send.
        """
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        if storage_class:
            headers["Storage-Class"] = storage_class
        # Sending again is safe: identical bytes stored twice are one instance (fact sheet section 3.4).
        return self._transport.send(Request("POST", self.url(None, "studies"), None, headers, body), deadline)

    def get(
        self,
        resource: Resource | None,
        below: tuple[str, ...],
        accept: str,
        deadline: Deadline,
        params: Mapping[str, str] | list[tuple[str, str]] | None = None,
    ) -> requests.Response:
        """QIDO-RS or WADO-RS: a GET whose answer, of any status, the caller reads as a stream.

        Raises:
            RetryableError: as Transport.send.
        """
        request = Request("GET", self.url(resource, *below), params, {"Accept": accept})
        return self._transport.send(request, deadline)

    def search(
        self, resource: Resource | None, level: str, params: list[tuple[str, str]], deadline: Deadline
    ) -> list[dict[str, Any]]:
        """One page of a search (PS3.18 section 10.6), of `studies`, `series` or `instances` below `resource`.

        Raises:
            PermanentError: rejected, when the store refuses the query.
            RetryableError: as Transport.send.
        """
        response = self.get(resource, (level,), "application/dicom+json", deadline, params)
        if response.status_code in (204, 404):
            drain(response)
            return []
        answer = self._json(response, deadline)
        return [item for item in answer if isinstance(item, dict)] if isinstance(answer, list) else []

    def delete(self, resource: Resource, deadline: Deadline) -> Operation | None:
        """Delete; a study or a series goes by a long-running operation, an instance at once.

        Returns:
            The operation; None when the target is gone already or was deleted at once.

        Raises:
            PermanentError, RetryableError: as search.
        """
        response = self._transport.send(Request("DELETE", self.url(resource)), deadline)
        if response.status_code == 404:
            drain(response)
            return None
        answer = self._json(response, deadline)
        name = answer.get("name", "") if isinstance(answer, dict) else ""
        return self._operation(answer) if name else None

    def operation(self, name: str, deadline: Deadline) -> Operation:
        """How an operation stands.

        Raises:
            PermanentError: invalid_command for a name that is not of this store's dataset; rejected.
            RetryableError: as Transport.send.
        """
        if not self.name.owns_operation(name):
            raise PermanentError("invalid_command", "not an operation of this store's dataset")
        response = self._transport.send(Request("GET", f"{self._endpoint}/{name}"), deadline)
        return self._operation(self._json(response, deadline))

    def _operation(self, answer: Any) -> Operation:
        try:
            return Operation(
                answer["name"],
                bool(answer.get("done")),
                int(answer.get("error", {}).get("code", 0)),
                int(answer.get("metadata", {}).get("counter", {}).get("failure", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RetryableError("unavailable") from error

    def _json(self, response: requests.Response, deadline: Deadline) -> Any:
        with response:
            if response.status_code != 200:
                drain(response)
                raise PermanentError("rejected", f"the DICOM store answered {response.status_code}")
            try:
                return json.loads(read_all(response, deadline, _JSON_LIMIT_BYTES))
            except ValueError as error:
                raise RetryableError("unavailable") from error

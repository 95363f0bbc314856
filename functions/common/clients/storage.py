"""The client of Cloud Storage: its JSON API over the shared transport.

The google-cloud-storage package would cost every cold start 0.3 s and an invocation its own retry
and time-out rules beside ours; the six calls that are needed are small.
"""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final
from urllib.parse import quote

import requests

from functions.common.checksum import crc32c_text
from functions.common.clients.transport import Request, Transport, drain, read_all
from functions.common.clients.upload import CHUNK_BYTES, Pieces, Resumable
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef

ENDPOINT: Final = "https://storage.googleapis.com"
ONE_SHOT_BYTES: Final = 8 * 1024 * 1024
_JSON_LIMIT_BYTES: Final = 16 * 1024 * 1024
_LIST_PAGE: Final = 1000
_COMPOSE_MAX: Final = 32  # sources of one compose call


class PreconditionFailedError(Exception):
    """The object is not at the generation that the call was made for (or exists, where it should
    not)."""


@dataclass(frozen=True)
class StoredObject:
    """What a listing or an upload says of an object; `crc32c` is base64 of the big-endian
    checksum."""

    ref: ObjectRef
    size: int
    crc32c: str
    updated: str = ""
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> "StoredObject":
        """From an object resource of the JSON API."""
        return cls(
            ObjectRef(resource["bucket"], resource["name"], int(resource["generation"])),
            int(resource.get("size", 0)),
            resource.get("crc32c", ""),
            resource.get("updated", ""),
            resource.get("contentType", ""),
            resource.get("metadata") or {},
        )


class Buckets:
    """Reads, writes, copies, lists and deletes objects.

    Args:
        transport: shared with the other clients.
        endpoint: base URL, another one for an emulator.
    """

    def __init__(self, transport: Transport, endpoint: str = "") -> None:
        self._transport = transport
        self._endpoint = endpoint or ENDPOINT

    def open(
        self, ref: ObjectRef, deadline: Deadline, start: int = 0, end: int | None = None
    ) -> requests.Response:
        """One streaming read, from byte `start` to `end` (exclusive; None: to the object's end).

        Raises:
            SupersededError: there is no object of this name at this generation any more.
            RetryableError: as Transport.send.
        """
        params = {"alt": "media"}
        if ref.generation:
            params["generation"] = str(ref.generation)
        headers = {}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
        response = self._transport.send(
            Request("GET", self._object_url(ref), params, headers), deadline
        )
        live = response.headers.get("x-goog-generation", "")
        if response.status_code == 404 or (ref.generation and live and live != str(ref.generation)):
            drain(response)
            raise SupersededError
        return self._good(response, 200, 206)

    def stat(self, ref: ObjectRef, deadline: Deadline) -> StoredObject | None:
        """What the object is, or None when there is none (at that generation)."""
        params = {"generation": str(ref.generation)} if ref.generation else {}
        response = self._transport.send(Request("GET", self._object_url(ref), params), deadline)
        if response.status_code == 404:
            drain(response)
            return None
        return StoredObject.of(self._json(self._good(response, 200), deadline))

    def create(
        self,
        bucket: str,
        name: str,
        data: bytes | Sequence[bytes],
        deadline: Deadline,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation_match: int | None = 0,
    ) -> StoredObject:
        """Write a small object in one request, checksum included.

        Args:
            data: whole, or in pieces that belong together.
            if_generation_match: 0: only when there is none; None: whatever is there.

        Raises:
            PreconditionFailedError: the object is not at that generation.
            PermanentError: not_found, when there is no such bucket.
            RetryableError: as Transport.send.
        """
        pieces = [data] if isinstance(data, bytes) else data
        checksum = crc32c_text(pieces)
        resource = {
            "name": name,
            "contentType": content_type,
            "crc32c": checksum,
            "metadata": dict(metadata or {}),
        }
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(resource)}"
            f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\r\n"
        )
        body = Pieces([head.encode(), *pieces, f"\r\n--{boundary}--\r\n".encode()])
        params = {"uploadType": "multipart", **_only_at(if_generation_match)}
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        request = Request("POST", self._upload_url(bucket), params, headers, lambda: body)
        response = self._transport.send(request, deadline)
        return self._verified(self._good(response, 200), checksum, deadline)

    def copy(
        self,
        source: ObjectRef,
        bucket: str,
        name: str,
        deadline: Deadline,
        if_generation_match: int | None = None,
    ) -> StoredObject:
        """Copy within Cloud Storage, metadata included, whatever the size.

        Args:
            if_generation_match: of the copy; 0: only when there is none; None: whatever is there
                already.

        Raises:
            PreconditionFailedError: what is there is not at that generation.
            SupersededError: the source is gone or was overwritten.
            PermanentError: not_found, when there is no such bucket.
            RetryableError: as Transport.send.
        """
        self._check_emulated(source, deadline)
        if (
            if_generation_match == 0
            and self._endpoint != ENDPOINT
            and self.stat(ObjectRef(bucket, name), deadline)
        ):
            raise PreconditionFailedError  # emulators ignore it on a copy
        url = f"{self._object_url(source)}/rewriteTo/b/{bucket}/o/{quote(name, safe='')}"
        params = {"sourceGeneration": str(source.generation)} if source.generation else {}
        params |= _only_at(if_generation_match)
        while True:
            headers = {"Content-Type": "application/json"}
            response = self._transport.send(Request("POST", url, params, headers, b""), deadline)
            if response.status_code == 404:
                drain(response)
                if self.stat(source, deadline) is None:
                    raise SupersededError
                raise PermanentError("not_found", "the bucket does not exist")
            answer = self._json(self._good(response, 200), deadline)
            if answer.get("done"):
                return StoredObject.of(answer["resource"])
            params["rewriteToken"] = answer["rewriteToken"]

    def delete(self, ref: ObjectRef, deadline: Deadline) -> None:
        """Delete the object if it is still at this generation; one that is gone is as good as
        deleted.

        Raises:
            RetryableError: as Transport.send.
        """
        try:
            self._check_emulated(ref, deadline)
        except SupersededError:
            return
        params = {"ifGenerationMatch": str(ref.generation)} if ref.generation else {}
        response = self._transport.send(Request("DELETE", self._object_url(ref), params), deadline)
        if response.status_code in (404, 412):
            drain(response)
            return
        drain(self._good(response, 200, 204))

    def list(
        self, bucket: str, prefix: str, deadline: Deadline, *, start: str = ""
    ) -> Iterator[StoredObject]:
        """Every object whose name begins with `prefix`, by name, from the name `start` on; a page
        at a time.

        Raises:
            PermanentError: not_found, when there is no such bucket.
            RetryableError: as Transport.send.
        """
        params = {"prefix": prefix, "maxResults": str(_LIST_PAGE)}
        if start:
            params["startOffset"] = start
        while True:
            request = Request("GET", f"{self._endpoint}/storage/v1/b/{bucket}/o", params)
            answer = self._json(self._good(self._transport.send(request, deadline), 200), deadline)
            for item in answer.get("items", ()):
                yield StoredObject.of(item)
            if not answer.get("nextPageToken"):
                return
            params["pageToken"] = answer["nextPageToken"]

    def write(
        self,
        bucket: str,
        name: str,
        data: Iterable[bytes],
        deadline: Deadline,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation_match: int | None = 0,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> StoredObject:
        """Write a stream of any length: one request when it is small, else resumable in chunks.

        Args:
            chunk_bytes: kept in memory; a multiple of 256 KiB.

        Raises:
            PreconditionFailedError, PermanentError, RetryableError: as create;
                RetryableError("unavailable") also when the checksum of what arrived is not that of
                what was sent.
        """
        head: list[bytes] = []
        stream, size = iter(data), 0
        for piece in stream:
            head.append(piece)
            size += len(piece)
            if size > ONE_SHOT_BYTES:
                break
        else:
            return self.create(
                bucket,
                name,
                head,
                deadline,
                content_type=content_type,
                metadata=metadata,
                if_generation_match=if_generation_match,
            )
        resource = {"name": name, "contentType": content_type, "metadata": dict(metadata or {})}
        url = self._begin_upload(bucket, resource, if_generation_match, deadline)
        upload = Resumable(self._transport, url, deadline, chunk_bytes)
        response = upload.send(chain(_taken(head), stream))
        return self._verified(self._good(response, 200, 201), upload.checksum.text, deadline)

    def compose(
        self,
        bucket: str,
        name: str,
        sources: Sequence[ObjectRef],
        deadline: Deadline,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> StoredObject:
        """Join up to 32 objects of a bucket, each at its generation, into one, whatever is there
        already.

        Raises:
            ValueError: more than 32 sources.
            SupersededError: a source is gone.
            RetryableError: as Transport.send.
        """
        if not 0 < len(sources) <= _COMPOSE_MAX:
            raise ValueError(f"composing takes 1 to {_COMPOSE_MAX} objects")
        parts = [
            {"name": s.name, **({"generation": str(s.generation)} if s.generation else {})}
            for s in sources
        ]
        destination = {"contentType": content_type, "metadata": dict(metadata or {})}
        body = json.dumps({"sourceObjects": parts, "destination": destination}).encode()
        url = f"{self._object_url(ObjectRef(bucket, name))}/compose"
        request = Request("POST", url, None, {"Content-Type": "application/json"}, body)
        response = self._transport.send(request, deadline)
        if response.status_code == 404:
            drain(response)
            raise SupersededError
        return StoredObject.of(self._json(self._good(response, 200), deadline))

    def _begin_upload(
        self,
        bucket: str,
        resource: Mapping[str, Any],
        if_generation_match: int | None,
        deadline: Deadline,
    ) -> str:
        params = {
            "uploadType": "resumable",
            "name": str(resource["name"]),
            **_only_at(if_generation_match),
        }
        headers = {
            "Content-Type": "application/json",
            "X-Upload-Content-Type": str(resource["contentType"]),
        }
        request = Request(
            "POST", self._upload_url(bucket), params, headers, json.dumps(resource).encode()
        )
        response = self._good(self._transport.send(request, deadline), 200, 201)
        drain(response)
        return response.headers["Location"]

    def _verified(
        self, response: requests.Response, checksum: str, deadline: Deadline
    ) -> StoredObject:
        """The object, if it holds what was sent; else it is deleted."""
        stored = StoredObject.of(self._json(response, deadline))
        if stored.crc32c != checksum:
            self.delete(stored.ref, deadline)
            raise RetryableError("unavailable")
        return stored

    def _check_emulated(self, ref: ObjectRef, deadline: Deadline) -> None:
        """Emulators ignore a generation on copy and delete, and would take a newer object for this
        one: ask first."""
        if self._endpoint != ENDPOINT and ref.generation and self.stat(ref, deadline) is None:
            raise SupersededError

    def _object_url(self, ref: ObjectRef) -> str:
        return f"{self._endpoint}/storage/v1/b/{ref.bucket}/o/{ref.quoted}"

    def _upload_url(self, bucket: str) -> str:
        return f"{self._endpoint}/upload/storage/v1/b/{bucket}/o"

    def _good(self, response: requests.Response, *expected: int) -> requests.Response:
        if response.status_code in expected:
            return response
        drain(response)
        if response.status_code == 412:
            raise PreconditionFailedError
        if response.status_code == 404:
            raise PermanentError("not_found", "the bucket does not exist")
        raise PermanentError("rejected", f"Cloud Storage answered {response.status_code}")

    def _json(self, response: requests.Response, deadline: Deadline) -> dict[str, Any]:
        with response:
            answer = json.loads(read_all(response, deadline, _JSON_LIMIT_BYTES))
        if not isinstance(answer, dict):
            raise RetryableError("unavailable")
        return answer


def _only_at(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"ifGenerationMatch": str(generation)}


def _taken(pieces: list[bytes]) -> Iterator[bytes]:
    """The pieces, each let go of once it is taken."""
    pieces.reverse()
    while pieces:
        yield pieces.pop()

"""The client of Cloud Storage: its JSON API over the shared transport.

The google-cloud-storage package would cost every cold start 0.3 s and an invocation its own retry and time-out
rules beside ours; the six calls that are needed are small.
"""

import base64
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import google_crc32c
import requests

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.http import Request, Transport, drain, read_all
from functions.common.resources import ObjectRef

ENDPOINT: Final = "https://storage.googleapis.com"
UPLOAD_CHUNK_BYTES: Final = 32 * 1024 * 1024  # a multiple of 256 KiB, as resumable uploads demand
ONE_SHOT_BYTES: Final = 8 * 1024 * 1024
_JSON_LIMIT_BYTES: Final = 16 * 1024 * 1024
_LIST_PAGE: Final = 1000


class PreconditionFailedError(Exception):
    """The object is not at the generation that the call was made for (or exists, where it should not)."""


@dataclass(frozen=True)
class StoredObject:
    """What a listing or an upload says of an object; `crc32c` is base64 of the big-endian checksum."""

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

    def open(self, ref: ObjectRef, deadline: Deadline, start: int = 0, end: int | None = None) -> requests.Response:
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
        response = self._transport.send(Request("GET", self._object_url(ref), params, headers), deadline)
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
        data: bytes,
        deadline: Deadline,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation_match: int | None = 0,
    ) -> StoredObject:
        """Write a small object in one request, checksum included.

        Args:
            if_generation_match: 0: only when there is none; None: whatever is there.

        Raises:
            PreconditionFailedError: the object is not at that generation.
            PermanentError: not_found, when there is no such bucket.
            RetryableError: as Transport.send.
        """
        resource = {
            "name": name,
            "contentType": content_type,
            "crc32c": crc32c_text(google_crc32c.value(data)),
            "metadata": dict(metadata or {}),
        }
        boundary = secrets.token_hex(16)
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(),
                json.dumps(resource).encode(),
                f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode(),
                data,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        params = {"uploadType": "multipart"}
        if if_generation_match is not None:
            params["ifGenerationMatch"] = str(if_generation_match)
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        request = Request("POST", self._upload_url(bucket), params, headers, body)
        response = self._transport.send(request, deadline)
        return StoredObject.of(self._json(self._good(response, 200), deadline))

    def copy(self, source: ObjectRef, bucket: str, name: str, deadline: Deadline) -> StoredObject:
        """Copy within Cloud Storage, metadata included, whatever the size and whatever is there already.

        Raises:
            SupersededError: the source is gone or was overwritten.
            RetryableError: as Transport.send.
        """
        url = f"{self._object_url(source)}/rewriteTo/b/{bucket}/o/{quote(name, safe='')}"
        params = {"sourceGeneration": str(source.generation)} if source.generation else {}
        while True:
            headers = {"Content-Type": "application/json"}
            response = self._transport.send(Request("POST", url, params, headers, b""), deadline)
            if response.status_code == 404:
                drain(response)
                raise SupersededError
            answer = self._json(self._good(response, 200), deadline)
            if answer.get("done"):
                return StoredObject.of(answer["resource"])
            params["rewriteToken"] = answer["rewriteToken"]

    def delete(self, ref: ObjectRef, deadline: Deadline) -> None:
        """Delete the object if it is still at this generation; one that is gone is as good as deleted.

        Raises:
            RetryableError: as Transport.send.
        """
        params = {"ifGenerationMatch": str(ref.generation)} if ref.generation else {}
        response = self._transport.send(Request("DELETE", self._object_url(ref), params), deadline)
        if response.status_code in (404, 412):
            drain(response)
            return
        drain(self._good(response, 200, 204))

    def list(self, bucket: str, prefix: str, deadline: Deadline, *, start: str = "") -> Iterator[StoredObject]:
        """Every object whose name begins with `prefix`, by name, from the name `start` on; a page at a time.

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
        if_generation_match: int | None = 0,
    ) -> StoredObject:
        """Write a stream of any length: one request when it is small, else resumable in chunks of 32 MiB.

        Raises:
            PreconditionFailedError, PermanentError, RetryableError: as create; RetryableError("unavailable") also
                when the checksum of what arrived is not that of what was sent.
        """
        buffer = bytearray()
        stream = iter(data)
        for chunk in stream:
            buffer += chunk
            if len(buffer) > ONE_SHOT_BYTES:
                break
        else:
            return self.create(
                bucket,
                name,
                bytes(buffer),
                deadline,
                content_type=content_type,
                if_generation_match=if_generation_match,
            )
        upload = self._begin_upload(bucket, name, content_type, if_generation_match, deadline)
        return self._send_chunks(upload, buffer, stream, deadline)

    def _begin_upload(
        self, bucket: str, name: str, content_type: str, if_generation_match: int | None, deadline: Deadline
    ) -> str:
        params = {"uploadType": "resumable", "name": name}
        if if_generation_match is not None:
            params["ifGenerationMatch"] = str(if_generation_match)
        headers = {"Content-Type": "application/json", "X-Upload-Content-Type": content_type}
        body = json.dumps({"name": name, "contentType": content_type}).encode()
        request = Request("POST", self._upload_url(bucket), params, headers, body)
        response = self._good(self._transport.send(request, deadline), 200, 201)
        drain(response)
        return response.headers["Location"]

    def _send_chunks(self, upload: str, buffer: bytearray, stream: Iterator[bytes], deadline: Deadline) -> StoredObject:
        checksum, sent, ended = 0, 0, False
        while True:
            while len(buffer) <= UPLOAD_CHUNK_BYTES and not ended:
                if (chunk := next(stream, None)) is None:
                    ended = True
                else:
                    buffer += chunk
            part = bytes(memoryview(buffer)[:UPLOAD_CHUNK_BYTES])
            del buffer[: len(part)]
            checksum = google_crc32c.extend(checksum, part)
            last = ended and not buffer
            total = str(sent + len(part)) if last else "*"
            headers = {"Content-Range": f"bytes {sent}-{sent + len(part) - 1}/{total}"}
            response = self._transport.send(Request("PUT", upload, None, headers, part, resend=False), deadline)
            sent += len(part)
            if last:
                stored = StoredObject.of(self._json(self._good(response, 200, 201), deadline))
                if stored.crc32c != crc32c_text(checksum):
                    self.delete(stored.ref, deadline)
                    raise RetryableError("unavailable")
                return stored
            drain(self._good(response, 308))

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


def crc32c_text(checksum: int) -> str:
    """A crc32c as Cloud Storage writes it: base64 of four big-endian bytes."""
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()

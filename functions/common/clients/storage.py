"""The client of Cloud Storage: google-cloud-storage over the shared transport.

The library builds the requests and reads the answers. The transport sends them: one pool of
connections, one retry loop that ends with the deadline, one way to turn a failure into a reason.
An object is read by one streamed GET, because the library cannot read as a stream.

The library is imported and its client made at the first call that needs them, in the worker.
Reading an object does not.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.checksum import crc32c_text
from functions.common.clients.storage_library import (
    MissingError,
    PreconditionFailedError,
    Stream,
    bucket_needed,
    call,
    new_client,
    rejected,
    translated,
    upload,
)
from functions.common.clients.transport import Request, Response, Transport, drain
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef

__all__ = ["Buckets", "PreconditionFailedError", "StoredObject"]

CHUNK_BYTES: Final = 32 * 1024 * 1024  # of a resumable upload; a multiple of 256 KiB
ONE_SHOT_BYTES: Final = 8 * 1024 * 1024  # the library sends up to this in one request
_LIST_PAGE: Final = 1000
_COMPOSE_MAX: Final = 32  # sources of one compose call
# A rewrite with a body takes the metadata only from the body, so everything to keep is named.
_KEPT_BY_COPY: Final = (
    "content_type",
    "content_encoding",
    "content_disposition",
    "content_language",
    "cache_control",
    "custom_time",
    "metadata",
)


@dataclass(frozen=True)
class StoredObject:
    """What a listing or an upload reports about an object.

    `crc32c` is base64 of the big-endian checksum; `created`, RFC 3339 or empty, is
    when these bytes were written: a change of the metadata does not change it.
    """

    ref: ObjectRef
    size: int
    crc32c: str
    created: str = ""
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class Buckets:
    """Reads, writes, copies, lists and deletes objects. Safe to share between threads.

    Args:
        transport: shared with the other clients.
        endpoint: base URL of Cloud Storage, or of an emulator (http).
    """

    def __init__(self, transport: Transport, endpoint: str) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._emulated = endpoint.startswith("http://")
        self._client: Any = None

    def open(self, ref: ObjectRef, deadline: Deadline, start: int = 0) -> Response:
        """Read an object as a stream, from byte `start` on.

        Raises:
            SupersededError: the object no longer exists at this generation.
            PermanentError: rejected, when Cloud Storage refuses the request.
            RetryableError: as Transport.send.
        """
        params = {"alt": "media"}
        if ref.generation:
            params["generation"] = str(ref.generation)
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
        url = f"{self._endpoint}/storage/v1/b/{ref.bucket}/o/{ref.quoted}"
        response = self._transport.send(Request("GET", url, params, headers), deadline)
        live = response.headers.get("x-goog-generation", "")
        # Emulators may ignore the generation.
        is_other = ref.generation and live and live != str(ref.generation)
        if response.status_code == 404 or is_other:
            drain(response)
            raise SupersededError
        if response.status_code not in (200, 206):
            drain(response)
            raise rejected(response.status_code)
        return response

    def stat(self, ref: ObjectRef, deadline: Deadline) -> StoredObject | None:
        """The object's properties; None if there is none (at that generation).

        Raises:
            PermanentError: rejected, when Cloud Storage refuses the request.
            RetryableError: as Transport.send.
        """
        blob = self._found(ref, deadline)
        if blob is None:
            return None
        return _stored(blob)

    def write_small(
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
        """Write a small object in one request, checksum included; by default only a new one.

        Args:
            data: in one piece or several; at most ONE_SHOT_BYTES.
            if_generation_match: 0: only when there is none; None: whatever is there.

        Raises:
            PreconditionFailedError: the object is not at that generation.
            PermanentError: not_found, when there is no such bucket; rejected.
            RetryableError: as Transport.send; unavailable also when the checksum of what arrived
                is not that of what was sent.
        """
        content = data if isinstance(data, bytes) else b"".join(data)
        blob = self._new_blob(bucket, name, content_type, metadata)
        checksum = crc32c_text([content])
        blob.crc32c = checksum  # the service checks it before it stores the object
        with bucket_needed():
            call(
                blob.upload_from_file,
                io.BytesIO(content),
                size=len(content),
                if_generation_match=if_generation_match,
                checksum=None,
                deadline=deadline,
            )
        return self._verified(blob, checksum, deadline)

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
        """Write a stream of any length: in one request if it is small, else as a resumable upload
        in chunks.

        Args:
            chunk_bytes: kept in memory; a multiple of 256 KiB.

        Raises:
            PreconditionFailedError, PermanentError, RetryableError: as write_small; unavailable
                also when the upload session is lost, because the stream cannot be read again.
        """
        stream = Stream(data)
        small = stream.whole_if_small(min(ONE_SHOT_BYTES, chunk_bytes))
        if small is not None:
            return self.write_small(
                bucket,
                name,
                small,
                deadline,
                content_type=content_type,
                metadata=metadata,
                if_generation_match=if_generation_match,
            )
        blob = self._new_blob(bucket, name, content_type, metadata)
        blob.chunk_size = chunk_bytes
        upload(blob, stream, if_generation_match, deadline)
        return self._verified(blob, stream.checksum.text, deadline)

    def begin_upload(
        self, bucket: str, name: str, size: int, origin: str, deadline: Deadline
    ) -> str:
        """Begin a resumable upload of a new object that somebody without credentials can continue.

        Args:
            size: in bytes; Cloud Storage takes no other.
            origin: whose pages may continue it, whatever CORS the bucket has; empty: no page.

        Returns:
            The session's URL, valid for a week: with it, the object can be written.

        Raises:
            PermanentError: not_found, when there is no such bucket; rejected.
            RetryableError: as Transport.send.
        """
        blob = self._blob(ObjectRef(bucket, name))
        with bucket_needed():
            url: str = call(
                blob.create_resumable_upload_session,
                content_type="application/octet-stream",
                size=size,
                origin=origin or None,
                if_generation_match=0,
                checksum=None,
                deadline=deadline,
            )
        return url

    def copy(
        self,
        source: ObjectRef,
        bucket: str,
        name: str,
        deadline: Deadline,
        if_generation_match: int | None = None,
    ) -> StoredObject:
        """Copy within Cloud Storage, with the metadata; objects of any size.

        Args:
            if_generation_match: of the copy; 0: only when there is none; None: whatever is there
                already.

        Raises:
            PreconditionFailedError: the existing object is not at that generation.
            SupersededError: the source is gone or was overwritten.
            PermanentError: not_found, when there is no such bucket; rejected.
            RetryableError: as Transport.send.
        """
        found = self._found(source, deadline)
        if found is None:
            raise SupersededError
        check_first = self._emulated and if_generation_match == 0  # emulators ignore it on a copy
        if check_first and self.stat(ObjectRef(bucket, name), deadline) is not None:
            raise PreconditionFailedError
        made = self._blob(ObjectRef(bucket, name))
        for attribute in _KEPT_BY_COPY:
            value = getattr(found, attribute)
            if value is not None:
                setattr(made, attribute, value)
        token = None
        while True:
            try:
                token, _, _ = call(
                    made.rewrite,
                    found,
                    token=token,
                    if_generation_match=if_generation_match,
                    deadline=deadline,
                )
            except MissingError:
                if self.stat(source, deadline) is None:
                    raise SupersededError from None
                raise PermanentError("not_found", "the bucket does not exist") from None
            if token is None:
                return _stored(made)

    def delete(self, ref: ObjectRef, deadline: Deadline) -> None:
        """Delete the object if it is still at this generation; it may already be gone.

        Raises:
            PermanentError: rejected, when Cloud Storage refuses the request.
            RetryableError: as Transport.send.
        """
        if self._emulated and ref.generation and self._found(ref, deadline) is None:
            return  # emulators ignore the precondition of a delete
        blob = self._blob(ObjectRef(ref.bucket, ref.name))
        with contextlib.suppress(MissingError, PreconditionFailedError):
            call(blob.delete, if_generation_match=ref.generation or None, deadline=deadline)

    def list(self, bucket: str, prefix: str, deadline: Deadline) -> Iterator[StoredObject]:
        """Every object whose name begins with `prefix`, in order of names; read page by page.

        Raises:
            PermanentError: not_found, when there is no such bucket; rejected.
            RetryableError: as Transport.send.
        """
        pages = call(
            self._library().list_blobs,
            bucket,
            prefix=prefix,
            page_size=_LIST_PAGE,
            deadline=deadline,
        ).pages
        while True:
            with bucket_needed(), translated():
                page = next(pages, None)
            if page is None:
                return
            yield from map(_stored, page)

    def compose(
        self,
        bucket: str,
        name: str,
        sources: Sequence[ObjectRef],
        deadline: Deadline,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation_match: int | None = None,
    ) -> StoredObject:
        """Join up to 32 objects of a bucket, each at its generation, into one.

        Args:
            if_generation_match: of an existing object, which is replaced; 0: only when there is
                none; None: whatever is there.

        Raises:
            ValueError: more than 32 sources.
            PreconditionFailedError: the existing object is not at that generation.
            SupersededError: a source is gone.
            PermanentError: rejected, when Cloud Storage refuses the request.
            RetryableError: as Transport.send.
        """
        if not 0 < len(sources) <= _COMPOSE_MAX:
            raise ValueError(f"composing takes 1 to {_COMPOSE_MAX} objects")
        if self._emulated and if_generation_match is not None:
            # Emulators ignore it on a compose.
            self._check_generation(bucket, name, if_generation_match, deadline)
        blob = self._new_blob(bucket, name, content_type, metadata)
        parts = [self._blob(source) for source in sources]
        try:
            call(
                blob.compose,
                parts,
                if_generation_match=if_generation_match,
                deadline=deadline,
            )
        except MissingError:
            raise SupersededError from None
        return _stored(blob)

    def _check_generation(
        self, bucket: str, name: str, generation: int, deadline: Deadline
    ) -> None:
        there = self.stat(ObjectRef(bucket, name), deadline)
        live = there.ref.generation if there else 0
        if live != generation:
            raise PreconditionFailedError

    def _found(self, ref: ObjectRef, deadline: Deadline) -> Any:
        """The library's blob with the service's properties; None if there is none."""
        blob = self._blob(ref)
        try:
            call(blob.reload, deadline=deadline)
        except MissingError:
            return None
        return blob

    def _verified(self, blob: Any, checksum: str, deadline: Deadline) -> StoredObject:
        """The object, if it has the bytes that were sent; else it is deleted."""
        stored = _stored(blob)
        if stored.crc32c != checksum:
            self.delete(stored.ref, deadline)
            raise RetryableError("unavailable")
        return stored

    def _blob(self, ref: ObjectRef) -> Any:
        bucket = self._library().bucket(ref.bucket)
        return bucket.blob(ref.name, generation=ref.generation or None)

    def _new_blob(
        self, bucket: str, name: str, content_type: str, metadata: Mapping[str, str] | None
    ) -> Any:
        blob = self._blob(ObjectRef(bucket, name))
        blob.content_type = content_type
        blob.metadata = dict(metadata or {})
        return blob

    def _library(self) -> Any:
        """The library's client. Two threads may each create one at the first call; both work."""
        if self._client is None:
            self._client = new_client(self._transport, self._endpoint)
        return self._client


def _stored(blob: Any) -> StoredObject:
    return StoredObject(
        ref=ObjectRef(blob.bucket.name, blob.name, blob.generation or 0),
        size=blob.size or 0,
        crc32c=blob.crc32c or "",
        created=blob.time_created.isoformat() if blob.time_created else "",
        content_type=blob.content_type or "",
        metadata=blob.metadata or {},
    )

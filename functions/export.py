"""Retrieve a study, a series or an instance and write it to a bucket."""

import json
from collections.abc import Iterator
from typing import Any, Final

from functions.common import http, multipart, part10
from functions.common.bucket import PreconditionFailedError, StoredObject
from functions.common.deadline import Deadline
from functions.common.dicomweb import AS_STORED
from functions.common.errors import PermanentError
from functions.common.events import Message
from functions.common.outcomes import Outcome, Outcomes
from functions.common.resources import GcsPrefix, Resource
from functions.common.runtime import Services, View, event_function, request_id
from functions.common.settings import EXPORT

_KEYS: Final = frozenset({"path", "destination", "request_id"})


def entry_point() -> View:
    """The function that is deployed."""
    return event_function(EXPORT, handle)


def handle(message: Message, services: Services, outcomes: Outcomes, deadline: Deadline) -> None:
    """Export what the command names.

    Raises:
        PermanentError: invalid_command, not_found or rejected.
        RetryableError: the DICOM store or the bucket is busy or away.
    """
    command = message.json()
    if unknown := command.keys() - _KEYS:
        raise PermanentError("invalid_command", f"{len(unknown)} unknown keys")
    name = request_id(message, command)
    resource = Resource.parse(str(command.get("path", "")))
    destination = GcsPrefix.parse(str(command.get("destination", "")))
    if not any(allowed.contains(destination) for allowed in services.settings.export_destinations):
        raise PermanentError("rejected", "the destination is not on the allow-list")
    written = list(_export(resource, destination, services, deadline))
    size_bytes = sum(item["bytes"] for item in written)
    manifest = {"path": str(resource), "count": len(written), "bytes": size_bytes, "objects": written}
    services.buckets.create(
        destination.bucket,
        f"{destination.prefix}/manifest.json".lstrip("/"),
        json.dumps(manifest).encode(),
        deadline,
        content_type="application/json",
        if_generation_match=None,
    )
    counts = {"exported": len(written)}
    outcomes.publish(Outcome("exported", request_id=name, resource=resource, size_bytes=size_bytes, counts=counts))


def _export(
    resource: Resource, destination: GcsPrefix, services: Services, deadline: Deadline
) -> Iterator[dict[str, Any]]:
    response = services.dicom_store.get(resource, (), AS_STORED, deadline)
    with response:
        if response.status_code == 404:
            raise PermanentError("not_found", "the DICOM store has no such resource")
        if response.status_code != 200:
            raise PermanentError("rejected", f"the DICOM store answered {response.status_code}")
        pieces = multipart.read(http.chunks(response, deadline), response.headers.get("Content-Type", ""))
        for piece in pieces:
            if isinstance(piece, multipart.PartStart):
                yield _write_part(pieces, destination, services, deadline)


def _write_part(
    pieces: Iterator[multipart.Piece], destination: GcsPrefix, services: Services, deadline: Deadline
) -> dict[str, Any]:
    head = bytearray()
    for piece in pieces:
        if not isinstance(piece, bytes):
            break
        head += piece
        if len(head) > part10.HEAD_BYTES:
            break
    instance = part10.identify(bytes(head))
    name = f"{destination.prefix}/{instance.study}/{instance.series}/{instance.instance}.dcm".lstrip("/")
    stored = _write(name, _part_bytes(bytes(head), pieces), destination, services, deadline)
    return {
        "name": name,
        "bytes": stored.size,
        "crc32c": stored.crc32c,
        "study": instance.study,
        "series": instance.series,
        "instance": instance.instance,
    }


def _part_bytes(head: bytes, pieces: Iterator[multipart.Piece]) -> Iterator[bytes]:
    yield head
    if len(head) > part10.HEAD_BYTES:
        for piece in pieces:
            if not isinstance(piece, bytes):
                return
            yield piece


def _write(
    name: str, data: Iterator[bytes], destination: GcsPrefix, services: Services, deadline: Deadline
) -> StoredObject:
    try:
        return services.buckets.write(destination.bucket, name, data, deadline, content_type="application/dicom")
    except PreconditionFailedError:
        raise PermanentError("conflict", "an object of that name is there already") from None

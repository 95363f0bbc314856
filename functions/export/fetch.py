"""Retrieving for an export: whole studies as streams of parts, and single instances, frames,
metadata, bulk data."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import requests

from functions.common.clients import transport
from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.transport import drain
from functions.common.deadline import Deadline
from functions.common.dicom import dicomjson, multipart, part10
from functions.common.dicom.dicomjson import DataSet
from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import Resource
from functions.export.request import RENDERED, ExportRequest, Piece

_JSON: Final = "application/dicom+json"
_BULKDATA: Final = "application/octet-stream; transfer-syntax=*"
_BULKDATA_PATH: Final = re.compile(
    r"/bulkdata/([0-9A-Fa-f]{8}(?:/[0-9]{1,6}/[0-9A-Fa-f]{8})*)(?:[?#]|$)", re.ASCII
)
_IMAGES: Final = {"jpeg": b"\xff\xd8", "png": b"\x89PNG"}  # how they begin
_METADATA_LIMIT: Final = 64 * 1024 * 1024  # characters of one instance


class Fetcher:
    """Retrieves what an export wants.

    Everywhere: PermanentError not_found or rejected, when the store has not got it or refuses;
    RetryableError as Transport.send, and when an answer breaks.
    """

    def __init__(self, store: DicomStore, request: ExportRequest, deadline: Deadline) -> None:
        self._store, self._request, self._deadline = store, request, deadline
        self._accept = f'multipart/related; type="application/dicom"; transfer-syntax={request.transfer_syntax}'

    def parts(self, resource: Resource) -> Iterator[multipart.Piece]:
        """The instances of a study, a series or one instance: for each PartStart, its bytes,
        PartEnd."""
        with self._good(self._store.get(resource, (), self._accept, self._deadline)) as response:
            yield from self._pieces(response)

    def instance(self, resource: Resource) -> Iterator[bytes]:
        """One instance's bytes; ends early only with an error."""
        return _having(b"DICM", 128, _first_part(self.parts(resource)))

    def rendered(self, piece: Piece) -> Iterator[bytes]:
        """One image."""
        below = ("frames", str(piece.frame), "rendered") if piece.frame else ("rendered",)
        body = self._body(piece.resource, below, RENDERED[self._request.format])
        return _having(_IMAGES[self._request.format], 0, body)

    def metadata(self, resource: Resource) -> Iterator[tuple[str, DataSet]]:
        """The DICOM JSON of each instance of a study, a series or one instance, one after the
        other: as text and as its value."""
        with self._good(
            self._store.get(resource, ("metadata",), _JSON, self._deadline)
        ) as response:
            yield from dicomjson.data_sets(
                transport.chunks(response, self._deadline), _METADATA_LIMIT
            )

    def bulkdata(self, resource: Resource) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Each bulk data of an instance: its path, such as 7FE00010 or 00400100/0/00100010, and its
        bytes.

        Raises:
            PermanentError: rejected, after the others, when it has one that is not named as
                expected.
        """
        for _, data_set in self.metadata(resource):
            paths = set(_bulkdata_paths(data_set))
            for path in sorted(paths - {""}):
                yield path, self._body(resource, ("bulkdata", *path.split("/")), _BULKDATA)
            if "" in paths:
                raise PermanentError("rejected", "a BulkDataURI of a form that is not known")

    def gives(self, piece: Piece) -> bool:
        """Whether the store answers when it is asked for this: only the beginning of an answer is
        read. A refusal is an answer."""
        stream: Iterator[object]
        if self._request.format in RENDERED:
            stream = self.rendered(piece)
        elif self._request.format in ("dicom", "zip"):
            stream = self.instance(piece.resource)
        else:
            stream = self.metadata(piece.resource)
        try:
            next(stream, b"")
        except PermanentError:
            return True
        except RetryableError:
            return False
        return True

    def _body(self, resource: Resource, below: tuple[str, ...], accept: str) -> Iterator[bytes]:
        with self._good(self._store.get(resource, below, accept, self._deadline)) as response:
            yield from _first_part(self._pieces(response))

    def _pieces(self, response: requests.Response) -> Iterator[multipart.Piece]:
        """The parts of an answer; one that is not multipart is one part."""
        content_type = response.headers.get("Content-Type", "")
        chunks = transport.chunks(response, self._deadline)
        if multipart.media_type(content_type)[0].startswith("multipart/"):
            yield from multipart.read(chunks, content_type)
            return
        yield multipart.PartStart({"content-type": content_type})
        yield from chunks
        yield multipart.PartEnd()

    def _good(self, response: requests.Response) -> requests.Response:
        if response.status_code == 200:
            return response
        drain(response)
        if response.status_code in (204, 404, 410):
            raise PermanentError("not_found", "the DICOM store has no such resource")
        raise PermanentError("rejected", f"the DICOM store answered {response.status_code}")


def _first_part(pieces: Iterator[multipart.Piece]) -> Iterator[bytes]:
    """The first part's bytes; the rest is read so that a cut answer is noticed.

    Raises:
        RetryableError: unavailable, when there is no part.
    """
    parts = 0
    for piece in pieces:
        if isinstance(piece, multipart.PartStart):
            parts += 1
        elif isinstance(piece, bytes) and parts == 1:
            yield piece
    if not parts:
        raise RetryableError("unavailable")


def _having(magic: bytes, at: int, stream: Iterator[bytes]) -> Iterator[bytes]:
    """The stream, if it has these bytes there: an answer of 200 may still be something else, such
    as a proxy's page.

    Raises:
        RetryableError: unavailable, when it has not.
    """
    head = b""
    for data in stream:
        head += data
        if len(head) >= at + len(magic):
            break
    if head[at : at + len(magic)] != magic:
        raise RetryableError("unavailable")
    yield head
    yield from stream


def by_instance_uid(pieces: list[Piece]) -> dict[str, Piece]:
    """The pieces by their SOP Instance UID, but for those that share one: they are retrieved by all
    three UIDs."""
    uses = Counter(piece.resource.instance for piece in pieces)
    return {
        piece.resource.instance: piece for piece in pieces if uses[piece.resource.instance] == 1
    }


def identified(data: list[bytes], wanted: Mapping[str, Piece]) -> Piece | None:
    """Which of the wanted pieces a file that came with others is; None also where that cannot be
    read: it is retrieved by its UIDs afterwards."""
    try:
        return wanted.get(part10.read_instance_uid(data, whole=False))
    except (PermanentError, part10.MoreNeededError):
        return None


def _bulkdata_paths(data_set: object) -> Iterator[str]:
    """The paths of all BulkDataURI, however deep; empty where one is not as expected. Of the
    server's URI only the checked path is used."""
    rest = [data_set]
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest.extend(value)
        elif isinstance(value, dict):
            rest.extend(value.values())
            if "BulkDataURI" in value:
                found = _BULKDATA_PATH.search(str(value["BulkDataURI"]))
                yield found[1] if found else ""

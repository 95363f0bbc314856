"""Retrieves for an export: whole studies and series in one answer, and single instances, frames,
metadata and bulk data."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from functions.common.clients import transport
from functions.common.clients.transport import drain
from functions.common.dicom import dicomjson, multipart, part10
from functions.common.dicom.dicomjson import DataSet
from functions.common.errors import DicomFunctionsError, PermanentError, RetryableError
from functions.common.log import log
from functions.common.resources import Resource
from functions.export.content import Content
from functions.export.job import Job
from functions.export.slices import Piece

_JSON: Final = "application/dicom+json"
_BULKDATA_PATH: Final = re.compile(
    r"/bulkdata/([0-9A-Fa-f]{8}(?:/[0-9]{1,6}/[0-9A-Fa-f]{8})*)(?:[?#]|$)", re.ASCII
)
# Bytes per read; half as many cost about 5 % more CPU.
_CHUNK_BYTES: Final = 512 * 1024
# Characters of one instance.
_METADATA_LIMIT: Final = 64 * 1024 * 1024
# PS3.19 section A.1.6.
_XML_ROOT: Final = b"<NativeDicomModel"
# The type of an answer must be recognisable within these; XML begins with a declaration.
_HEAD_BYTES: Final = 1024
# Of each object of a piece: its tag, which distinguishes it from the others (empty if it is the
# only one), and its bytes.
Streams = Iterator[tuple[str, Iterator[bytes]]]


@dataclass(frozen=True)
class Incoming:
    """An instance that came with others in one answer. Its content must be read before the next one
    is requested.

    Args:
        piece: the wanted piece; None when it is not wanted, or cannot be read: then it is retrieved
            by its UIDs later.
    """

    piece: Piece | None
    content: Content


class Fetcher:
    """Retrieves the instances of an export.

    All methods raise PermanentError not_found or rejected, when the store does not have it or
    refuses, and RetryableError as Transport.send, and when an answer breaks.
    """

    def __init__(self, job: Job) -> None:
        self._store = job.store
        self._format = job.request.format
        self._accept = job.request.accept
        self._deadline = job.work_deadline
        self._is_first = job.attempt.is_first

    @contextlib.contextmanager
    def one_answer(
        self,
        resource: Resource,
        wanted: Mapping[str, Piece],
    ) -> Iterator[Iterator[Incoming]]:
        """The instances of a study or series in one answer, for a format that is streamed. They are
        read within the `with` block; an answer that is refused or breaks only ends the block:
        missing instances are retrieved one by one.

        Args:
            wanted: pieces by their SOP Instance UID.

        Raises:
            RetryableError: deadline_exceeded; and at the first delivery, when nothing has arrived:
                the store seems to be down.
        """
        has_arrived = False

        def incoming() -> Iterator[Incoming]:
            nonlocal has_arrived
            for one in _RETRIEVE_MANY[self._format.retrieval](self, resource, wanted):
                has_arrived = True
                yield one

        try:
            yield incoming()
        except PermanentError as error:
            _log_end("stream_refused", error, resource)
        except RetryableError as error:
            _log_end("stream_broken", error, resource)
            self._deadline.check()
            if self._is_first and not has_arrived:
                raise

    def _incoming_files(
        self, resource: Resource, wanted: Mapping[str, Piece]
    ) -> Iterator[Incoming]:
        for part in self._parts(resource, (), self._accept):
            content = Content.of(part.chunks())
            piece = _identified(content.head, wanted)
            yield Incoming(piece, content)

    def _incoming_metadata(
        self, resource: Resource, wanted: Mapping[str, Piece]
    ) -> Iterator[Incoming]:
        for text, data_set in self._data_sets(resource):
            content = Content.of([text.encode()])
            yield Incoming(_described(data_set, wanted), content)

    def objects(self, piece: Piece) -> Streams:
        """The objects of one piece, by separate requests: what distinguishes them (empty if there
        is one), and the bytes of each."""
        return _RETRIEVE[self._format.retrieval](self, piece)

    def gives(self, piece: Piece) -> bool:
        """Whether the store answers a request for this; only the beginning of the answer is read. A
        refusal is an answer."""
        try:
            for _, stream in self.objects(piece):
                next(stream, b"")
                return True
        except PermanentError:
            return True
        except RetryableError:
            return False
        return True

    def _file(self, piece: Piece) -> Streams:
        def check(head: bytes) -> None:
            self._check_begin(head)
            _check_uids(head, piece)

        stream = self._body(piece.resource, (), self._accept)
        yield "", _checked(stream, part10.HEAD_BYTES, check)

    def _rendered(self, piece: Piece) -> Streams:
        below: tuple[str, ...] = ("rendered",)
        if piece.frame:
            below = ("frames", str(piece.frame), "rendered")
        stream = self._body(piece.resource, below, self._accept)
        yield "", _checked(stream, _HEAD_BYTES, self._check_begin)

    def _metadata(self, piece: Piece) -> Streams:
        yield "", self._metadata_of(piece.resource)

    def _metadata_of(self, instance: Resource) -> Iterator[bytes]:
        found = list(self._data_sets(instance))
        if [dicomjson.instance(data_set) for _, data_set in found] != [instance]:
            raise RetryableError("unavailable")
        for text, _ in found:
            yield text.encode()

    def _metadata_xml(self, piece: Piece) -> Streams:
        stream = self._body(piece.resource, ("metadata",), self._accept)
        yield "", _checked(stream, _HEAD_BYTES, _check_xml)

    def _bulkdata(self, piece: Piece) -> Streams:
        """Each bulk data of an instance by its path, such as 7FE00010 or 00400100/0/00100010.

        Raises:
            PermanentError: rejected, when one has an unexpected name.
        """
        for _, data_set in self._data_sets(piece.resource):
            paths = set(_bulkdata_paths(data_set))
            if "" in paths:
                raise PermanentError("rejected", "a BulkDataURI of an unknown form")
            for path in sorted(paths):
                below = ("bulkdata", *path.split("/"))
                yield path, self._body(piece.resource, below, self._accept)

    def _data_sets(self, resource: Resource) -> Iterator[tuple[str, DataSet]]:
        """The DICOM JSON of each instance of a study, a series or one instance, as text and as
        value."""
        response = self._get(resource, ("metadata",), _JSON)
        with response:
            chunks = transport.chunks(response, self._deadline)
            yield from dicomjson.data_sets(chunks, _METADATA_LIMIT)

    def _body(
        self,
        resource: Resource,
        below: tuple[str, ...],
        accept: str,
    ) -> Iterator[bytes]:
        """The first part's bytes.

        Raises:
            RetryableError: unavailable, when there is no part.
        """
        parts = self._parts(resource, below, accept)
        first = next(parts, None)
        if first is None:
            raise RetryableError("unavailable")
        yield from first.chunks()
        for _ in parts:
            pass  # the rest is read to notice a cut answer

    def _parts(
        self, resource: Resource, below: tuple[str, ...], accept: str
    ) -> Iterator[multipart.Part]:
        """The parts of an answer; one that is not multipart is one part."""
        response = self._get(resource, below, accept)
        with response:
            content_type = response.headers.get("Content-Type", "")
            chunks = transport.chunks(response, self._deadline, _CHUNK_BYTES)
            if multipart.media_type(content_type)[0].startswith("multipart/"):
                yield from multipart.parts(chunks, content_type)
            else:
                yield multipart.single(chunks, content_type)

    def _get(
        self,
        resource: Resource,
        below: tuple[str, ...],
        accept: str,
    ) -> transport.Response:
        response = self._store.get(resource, below, accept, self._deadline)
        if response.status_code == 200:
            return response
        drain(response)
        if response.status_code in (204, 404, 410):
            raise PermanentError("not_found", "the DICOM store has no such resource")
        raise PermanentError("rejected", f"the DICOM store answered {response.status_code}")

    def _check_begin(self, head: bytes) -> None:
        """Check that the answer begins as the format does."""
        begins = self._format.begins
        at = self._format.begins_at
        if head[at : at + len(begins)] != begins:
            raise RetryableError("unavailable")


_RETRIEVE: Final[dict[str, Callable[[Fetcher, Piece], Streams]]] = {
    "file": Fetcher._file,
    "rendered": Fetcher._rendered,
    "metadata": Fetcher._metadata,
    "metadata-xml": Fetcher._metadata_xml,
    "bulkdata": Fetcher._bulkdata,
}
# Of the formats that are streamed.
_RETRIEVE_MANY: Final[
    dict[str, Callable[[Fetcher, Resource, Mapping[str, Piece]], Iterator[Incoming]]]
] = {
    "file": Fetcher._incoming_files,
    "metadata": Fetcher._incoming_metadata,
}


def _log_end(event: str, error: DicomFunctionsError, resource: Resource) -> None:
    log(
        "WARNING",
        event,
        reason=error.reason,
        study=resource.study,
        series=resource.series,
    )


def _identified(data: list[bytes], wanted: Mapping[str, Piece]) -> Piece | None:
    """The wanted piece that a file is; None also if it cannot be read."""
    try:
        return wanted.get(part10.read_instance_uid(data, whole=False))
    except (PermanentError, part10.MoreNeededError):
        return None


def _described(data_set: DataSet, wanted: Mapping[str, Piece]) -> Piece | None:
    """The wanted piece of a data set."""
    found = dicomjson.instance(data_set)
    if found is None:
        return None
    piece = wanted.get(found.instance)
    if piece is None or piece.resource != found:
        return None
    return piece


def _checked(
    stream: Iterator[bytes],
    size: int,
    check: Callable[[bytes], None],
) -> Iterator[bytes]:
    """The stream, whose first bytes are checked: at least `size` if there are so many."""
    head = b""
    piece = b""
    for piece in stream:
        head += piece
        if len(head) >= size:
            break
    check(head)
    yield head
    del head, piece  # they need not be kept while the rest arrives
    yield from stream


def _check_uids(head: bytes, piece: Piece) -> None:
    """A file whose UIDs cannot be read counts as the requested one."""
    try:
        found = part10.read_header([head], whole=False).resource
    except (PermanentError, part10.MoreNeededError):
        return
    if found != piece.resource:
        raise PermanentError("rejected", "the DICOM store sent another instance")


def _check_xml(head: bytes) -> None:
    if _XML_ROOT not in head[:_HEAD_BYTES]:
        raise RetryableError("unavailable")


def _bulkdata_paths(data_set: object) -> Iterator[str]:
    """The paths of all BulkDataURI at any depth; empty if one is not as expected. Only the checked
    path of the server's URI is used."""
    rest = [data_set]
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest.extend(value)
        elif isinstance(value, dict):
            rest.extend(value.values())
            if "BulkDataURI" in value:
                yield _bulkdata_path(str(value["BulkDataURI"]))


def _bulkdata_path(uri: str) -> str:
    found = _BULKDATA_PATH.search(uri)
    if found is None:
        return ""
    return found[1]

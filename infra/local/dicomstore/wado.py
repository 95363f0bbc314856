"""Retrieve (WADO-RS): studies, series, instances, metadata and bulk data, streamed from files
(sheet section 5)."""

import mmap
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from infra.local.dicomstore import choices, frames, model, nativexml, slices
from infra.local.dicomstore.index import Index
from infra.local.dicomstore.media import ApiError, Media, MissingError
from infra.local.dicomstore.rows import Instance
from infra.local.dicomstore.scan import BITS_ALLOCATED, PIECE, PIXEL_DATA, Element, File, scan
from infra.local.dicomstore.server import CutError

ELE = choices.DEFAULT_INSTANCE_SYNTAX
_JPEG = ("50", "51", "57", "70", "80", "81", "90", "91", "110", "111", "112", "201", "202", "203")
SYNTAXES = (
    ELE,
    "*",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    *(f"1.2.840.10008.1.2.4.{number}" for number in _JPEG),
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.8.1",
)
MULTIPART = tuple(Media("multipart/related", "application/dicom", syntax) for syntax in SYNTAXES)
SINGLE = tuple(Media("application/dicom", "", syntax) for syntax in SYNTAXES)
METADATA = (Media("application/dicom+json"), Media("multipart/related", "application/dicom+xml"))
BULKDATA = (
    Media("multipart/related", "application/octet-stream", "*"),
    Media("application/octet-stream", "", "*"),
)


def missing(what: str) -> MissingError:
    """The 404 of a missing resource: a bare JSON string (fact sheet 5.8)."""
    return MissingError(choices.MISSING, f"DICOM {what} does not exist.", "string")


def opened(path: Path) -> IO[bytes]:
    """A stored file, to be read in large pieces. Raises MissingError: it has just been deleted."""
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise missing("instance") from None


def file_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """An open file in pieces; closed when the last is taken."""
    with file:
        while piece := file.read(PIECE):
            yield piece


class Part(NamedTuple):
    """A part of a multipart answer."""

    kind: str  # its Content-Type
    pieces: Iterable[bytes]
    location: str = ""  # its own URL
    size: int | None = None  # bytes, when they are known

    @property
    def head(self) -> bytes:
        """Its header lines."""
        lines = f"Content-Type: {self.kind}\r\n"
        if self.location and choices.PART_LOCATIONS:
            lines += f"Content-Location: {self.location}\r\n"
        return lines.encode()


def multipart(parts: Iterable[Part], kind: str, syntax: str = "") -> tuple[str, Iterator[bytes]]:
    """A multipart/related answer: its Content-Type and its body.

    Each boundary with its part header is one piece. The boundary is lower case, unquoted and not
    the last parameter: dcmweb needs all three. If a part fails, the body breaks off: it is too late
    for a status, and the missing closing boundary shows the failure.
    """
    boundary = secrets.token_hex(24)
    extra = f"transfer-syntax={syntax}; " if syntax else ""
    header = f'multipart/related; {extra}boundary={boundary}; type="{kind}"'

    def body() -> Iterator[bytes]:
        line = f"--{boundary}".encode()
        try:
            for part in parts:
                yield line + b"\r\n" + part.head + b"\r\n"
                yield from part.pieces
                line = f"\r\n--{boundary}".encode()
        except ApiError as error:
            raise CutError(error.message) from error
        yield line + b"--\r\n" if line.startswith(b"\r") else b""

    return header, body()


def metadata_json(index: Index, instances: list[Instance], base: str) -> Iterator[bytes]:
    """The metadata of instances as a JSON array."""
    return slices.gathered(_json_pieces(index, instances, base))


def _json_pieces(index: Index, instances: list[Instance], base: str) -> Iterator[bytes]:
    before = "["
    for instance in instances:
        lines = index.metadata(instance.id)
        if lines:
            yield (before + model.join(lines, f"{base}/{instance.uids.path}")).encode()
            before = ","
    if before == "[":
        yield b"["
    yield b"]"


def metadata_xml(index: Index, instances: list[Instance], base: str) -> Iterator[Part]:
    """The metadata of instances as parts of XML."""
    for instance in instances:
        if lines := index.metadata(instance.id):
            url = f"{base}/{instance.uids.path}"
            yield Part("application/dicom+xml", nativexml.document(lines, url))


@contextmanager
def scanned(path: Path) -> Iterator[File]:
    """A stored file, scanned; its data is mapped, not read. Raises MissingError."""
    with opened(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield scan(data, path.parent)


def bulk_element(file: File, path: str) -> tuple[Element, int]:
    """The element at a bulkdata path such as `7FE00010` or `00540016/0/00189999`, and the size of
    its big endian words.

    The size is in bytes; 0 in little endian files.
    Raises ApiError 400: no such path can be; 404: metadata has no BulkDataURI with it.
    """
    steps = path.split("/")
    elements = model.elements(file)
    shown = True
    try:
        for tag, item in zip(steps[:-1:2], steps[1::2], strict=True):
            sequence = elements[int(tag, 16)]
            shown = shown and sequence.length <= model.SEQUENCE_MAX
            elements = dict(enumerate(sequence.items or (), choices.BULK_ITEM_BASE))[int(item)]
        element = elements[int(steps[-1], 16)]
    except ValueError as error:
        raise ApiError(400, "a bulkdata path is TAG or SEQUENCE/INDEX/TAG", "array") from error
    except KeyError as error:
        raise missing("bulkdata") from error
    if not (shown and model.is_bulk(element)):
        raise missing("bulkdata")
    word = model.word_bytes(element.tag, element.vr, file.number(BITS_ALLOCATED, elements))
    return element, file.big_endian * word


def bulk_pieces(file: File, found: tuple[Element, int]) -> Iterator[bytes]:
    """The bytes that `bulk_element` found, in little endian; for encapsulated pixels all fragments
    in order."""
    element, word = found
    if element.tag == PIXEL_DATA and element.encapsulated:
        _, *parts = frames.fragments(file, element)
        yield from slices.pieces(file.data, parts)
    elif word > 1:
        yield model.little_endian(file.raw(element), word)
    else:
        yield from slices.pieces(file.data, [(element.start, element.length)])

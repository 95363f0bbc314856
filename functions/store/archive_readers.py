"""Reads one zip, tar or tar.gz file by file, without reading archives inside it.

Each reader raises PermanentError: unsupported_input, if the archive is damaged.

The places of files, where a later reading can begin, are numbers: in a zip the file's number, in a
tar the byte where its header begins.
"""

import contextlib
import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from functions.common.errors import NothingToStoreError
from functions.store import filetype
from functions.store.archive_limits import Budget, HeaderLimit
from functions.store.refusals import unsupported
from functions.store.source import READ_BYTES

# What the libraries raise for damaged archives.
_ERRORS: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)
_TAR_BLOCK: Final = 512
# The others unpack any amount at once, whatever size the zip states.
_UNPACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED_FLAG: Final = 1
_DAMAGED_ARCHIVE: Final = "the archive is damaged or truncated"
_DAMAGED_FILE: Final = "the file in the archive is damaged"


@contextlib.contextmanager
def _damage(detail: str) -> Iterator[None]:
    """Errors of the libraries as PermanentError("unsupported_input") with this detail. Only their
    calls belong in this block: an error of this code is not damage. (What a caller raises at a
    `yield` does not arrive here.)"""
    try:
        yield
    except _ERRORS as error:
        raise unsupported(detail) from error


@dataclass(frozen=True)
class Entry:
    """One file of an archive; folders are left out.

    Args:
        name: as in the archive, with its folders.
        size: unpacked, as stated in the archive.
        place: where it is.
        following: the place of the next file.
        open: opens it as a seekable file, however slow; raises PermanentError if it is damaged or
            must not be opened.
    """

    name: str
    size: int
    place: int
    following: int
    open: Callable[[], BinaryIO]

    def read(self) -> Iterator[bytes]:
        """Its bytes.

        Raises:
            PermanentError: unsupported_input, when it is damaged or must not be opened.
        """
        with _damage(_DAMAGED_FILE), self.open() as file:
            while piece := file.read(READ_BYTES):
                yield piece


class Zip:
    """A zip; its files in their order in it."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._budget = budget
        with _damage(_DAMAGED_ARCHIVE):
            budget.check_directory(file)
            self._zip = zipfile.ZipFile(file)
        files = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        self._files = sorted(files, key=lambda info: info.header_offset)
        # The place of each file by its name with the ending in lower case.
        self._place_of: dict[str, int] = {}

    def entries(self, begin: int) -> Iterator[Entry]:
        """The files from this one on."""
        self._budget.check_members(self._files[begin:])
        for number in range(begin, len(self._files)):
            yield self._entry(number)

    def find(self, stem: str, endings: tuple[str, ...]) -> Entry | None:
        """The first file whose name is this stem and one of these endings, in any case."""
        if not self._place_of:
            for number, info in enumerate(self._files):
                name, dot, ending = _shown(info.filename).rpartition(".")
                self._place_of.setdefault(name + dot + ending.lower(), number)
        names = [stem + ending for ending in endings]
        found = [self._place_of[name] for name in names if name in self._place_of]
        if not found:
            return None
        return self._entry(min(found))

    def _entry(self, number: int) -> Entry:
        info = self._files[number]
        return Entry(
            name=_shown(info.filename),
            size=info.file_size,
            place=number,
            following=number + 1,
            open=lambda: self._open(info),
        )

    def _open(self, info: zipfile.ZipInfo) -> BinaryIO:
        if info.flag_bits & _ENCRYPTED_FLAG:
            raise unsupported("an encrypted file")
        if info.compress_type not in _UNPACKED:
            raise unsupported("compressed in another way than deflate")
        with _damage(_DAMAGED_FILE):
            return cast("BinaryIO", self._zip.open(info))


def tar_entries(file: BinaryIO, begin: int) -> Iterator[Entry]:
    """The files of a tar, from the header at this byte on."""
    limited = HeaderLimit(file)
    with _damage(_DAMAGED_ARCHIVE):
        file.seek(begin)
        # It reads the first header at once, also within the limit.
        opened = tarfile.TarFile(fileobj=cast("BinaryIO", limited), mode="r")
    with opened as tar:
        while info := _next_header(tar, limited):
            if not info.isdir():
                yield _tar_entry(tar, info)
        _check_end(limited.last_read)


def _next_header(tar: tarfile.TarFile, limited: HeaderLimit) -> tarfile.TarInfo | None:
    """The header of the next file or folder; None where tarfile finds no other."""
    with limited.in_headers(), _damage(_DAMAGED_ARCHIVE):
        info = tar.next()
    # tarfile keeps every header, which would fill the memory. A header for all following files
    # (pax) is forgotten too: a walk that begins after it does not know it either.
    tar.members = []  # type: ignore[attr-defined]
    tar.pax_headers = {}
    # The walk would go back, and the bytes in all would become fewer.
    if info is not None and info.size < 0:
        raise unsupported(_DAMAGED_ARCHIVE)
    return info


def _check_end(block: bytes) -> None:
    """Check that the tar ends at the block where tarfile stopped. It also stops, without an error,
    at a damaged header; at the end there are zeros."""
    if not block or any(block):
        raise unsupported(_DAMAGED_ARCHIVE)


def _read(file: BinaryIO, size: int) -> bytes:
    with _damage(_DAMAGED_ARCHIVE):
        return file.read(size)


def _tar_entry(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Entry:
    def open_() -> BinaryIO:
        if not info.isreg():
            raise NothingToStoreError("a link or a device")
        with _damage(_DAMAGED_FILE):
            return cast("BinaryIO", tar.extractfile(info))

    return Entry(
        name=_shown(info.name),
        size=info.size,
        place=info.offset,
        following=tar.offset,
        open=open_,
    )


def gzip_entries(file: BinaryIO, begin: int, budget: Budget) -> Iterator[Entry]:
    """The files of a tar.gz, from the header at this byte of the tar on."""
    with gzip.GzipFile(fileobj=file) as opened:
        unpacked = cast("BinaryIO", opened)
        _check_tar(_read(unpacked, _TAR_BLOCK))
        yield from tar_entries(unpacked, begin)
        _read_to_end(unpacked, budget)


def _check_tar(head: bytes) -> None:
    kind = filetype.sniff(head)
    if kind == "dicom":
        raise unsupported("a gzipped DICOM file: upload it uncompressed")
    if kind != "tar":
        raise NothingToStoreError("gzip without a tar inside")


def _read_to_end(unpacked: BinaryIO, budget: Budget) -> None:
    """Read what follows the tar: only at the end, gzip compares its checksum."""
    size = 0
    while piece := _read(unpacked, READ_BYTES):
        size += len(piece)
        budget.check_rest(size)


def _shown(name: str) -> str:
    """The name without bytes that cannot be decoded, so that it can be written as JSON."""
    return name.encode(errors="surrogateescape").decode(errors="replace")

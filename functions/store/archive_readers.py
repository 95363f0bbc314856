"""Reads one zip, tar or tar.gz entry by entry; archives inside it are not looked into."""

import contextlib
import gzip
import itertools
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol, cast

from functions.common.errors import NothingToStoreError, PermanentError
from functions.store import filetype
from functions.store.archive_limits import Budget
from functions.store.filetype import Kind
from functions.store.refusals import unsafe, unsupported
from functions.store.source import READ_BYTES

DAMAGED_MEMBER: Final = "the file in the archive is damaged"

# What the libraries raise for damaged archives.
_DAMAGED: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_BLOCK: Final = 512  # of a tar
_HEADERS_BYTES: Final = 64 * 1024  # of one member of a tar: its name and attributes
# The others unpack as much at once as they like, whatever size the zip states.
_UNPACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED: Final = 1  # a bit of a zip's flags


@contextlib.contextmanager
def damage(detail: str) -> Iterator[None]:
    """Errors of the libraries as PermanentError("unsupported_input") with this detail."""
    try:
        yield
    except _DAMAGED as error:
        raise unsupported(detail) from error


@dataclass(frozen=True)
class Entry:
    """One file of an archive.

    Args:
        name: as the archive has it, folders included.
        size: unpacked, as the archive states it.
        place: where it lies.
        following: the place of what comes after it.
        open: as a file that can be sought in, however long that takes.
        problem: why it must not be opened.
    """

    name: str
    size: int
    place: int
    following: int
    open: Callable[[], BinaryIO]
    problem: PermanentError | None = None

    def read(self) -> Iterator[bytes]:
        """Its bytes.

        Raises:
            PermanentError: unsupported_input, when it is damaged.
        """
        with damage(DAMAGED_MEMBER), self.open() as file:
            while piece := file.read(READ_BYTES):
                yield piece


class Reader(Protocol):
    """An archive that is open."""

    def next(self) -> Entry | None:
        """The next file; folders are left out. None at the end.

        Raises:
            PermanentError: unsafe_archive.
            Exception: one of those that damage() turns into unsupported_input.
        """

    def close(self) -> None:
        """Nothing more is read."""


def open_reader(file: BinaryIO, kind: Kind, start: int, name: str, budget: Budget) -> Reader:
    """The reader of a kind of archive.

    Args:
        file: the archive.
        kind: zip, tar or gzip.
        start: the place of the first entry that is wanted.
        name: in front of the names of its files, when they are checked.
        budget: what the archive may still hold.

    Raises:
        PermanentError: unsafe_archive; unsupported_input where it is no archive of this kind.
        Exception: as Reader.next.
    """
    if kind == "zip":
        return ZipReader(file, start, name, budget)
    if kind == "tar":
        return TarReader(file, start)
    return GzipReader(file, start, budget)


class ZipReader:
    """A zip; its files in the order in which they lie in it."""

    def __init__(self, file: BinaryIO, start: int, name: str, budget: Budget) -> None:
        self._budget = budget
        self._listed_bytes = budget.take_directory(file)
        self._zip = zipfile.ZipFile(file)
        self._infos = sorted(self._zip.infolist(), key=lambda info: info.header_offset)
        self._next = start
        self._numbers: dict[str, int] | None = None
        self._check(start, name)

    def _check(self, start: int, name: str) -> None:
        """Check all files before one is opened."""
        self._budget.check_bytes(sum(info.file_size for info in self._infos[start:]))
        for info in self._infos:
            self._budget.check_file(name + _shown(info.filename), info.file_size)
        for info, following in itertools.pairwise(self._infos):
            if info.header_offset + info.compress_size > following.header_offset:
                raise unsafe("members that share bytes")

    def next(self) -> Entry | None:
        """The next file."""
        while self._next < len(self._infos):
            number = self._next
            self._next += 1
            if not self._infos[number].is_dir():
                return self._entry(number)
        return None

    def find(self, stem: str, endings: tuple[str, ...]) -> Entry | None:
        """The first file whose name is this stem and one of these endings, in capitals or not."""
        if self._numbers is None:
            self._numbers = {}
            for number, info in enumerate(self._infos):
                at = info.filename.rfind(".")
                key = _shown(info.filename[:at]) + info.filename[at:].lower()
                self._numbers.setdefault(key, number)
        numbers = [self._numbers.get(stem + ending) for ending in endings]
        found = [number for number in numbers if number is not None]
        if not found:
            return None
        return self._entry(min(found))

    def close(self) -> None:
        """Nothing more is read."""
        self._budget.give_back(self._listed_bytes)
        self._zip.close()

    def _entry(self, number: int) -> Entry:
        info = self._infos[number]
        return Entry(
            name=_shown(info.filename),
            size=info.file_size,
            place=number,
            following=number + 1,
            open=lambda: cast("BinaryIO", self._zip.open(info)),
            problem=_zip_problem(info),
        )


class TarReader:
    """A tar, from the header at byte `start` on."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        file.seek(start)
        self._file = file
        self._headers = _Headers(file)
        self._tar = tarfile.TarFile(fileobj=cast("BinaryIO", self._headers), mode="r")

    def next(self) -> Entry | None:
        """The next file."""
        while True:
            self._headers.left = _HEADERS_BYTES
            info = self._tar.next()
            self._headers.left = math.inf
            if info is None:
                self._check_end()
                return None
            # tarfile would keep all of them. What a header says for all members that follow (pax)
            # does not matter here, and is not known to a walk that begins later.
            self._tar.members = []  # type: ignore[attr-defined]
            self._tar.pax_headers = {}
            if not info.isdir():
                return self._entry(info)

    def close(self) -> None:
        """Nothing more is read."""
        self._tar.close()

    def _entry(self, info: tarfile.TarInfo) -> Entry:
        problem = None
        if not info.isreg():
            problem = NothingToStoreError("a link or a device")
        return Entry(
            name=_shown(info.name),
            size=info.size,
            place=info.offset,
            following=self._tar.offset,
            open=lambda: cast("BinaryIO", self._tar.extractfile(info)),
            problem=problem,
        )

    def _check_end(self) -> None:
        """tarfile also stops, without an error, at a header that is damaged."""
        self._file.seek(self._tar.offset)
        block = self._file.read(_BLOCK)
        if not block or any(block):
            raise tarfile.ReadError


class GzipReader:
    """A tar.gz."""

    def __init__(self, file: BinaryIO, start: int, budget: Budget) -> None:
        self._budget = budget
        self._unpacked = gzip.GzipFile(fileobj=file)
        kind = filetype.sniff(self._unpacked.read(_BLOCK))
        if kind == "dicom":
            raise unsupported("a scan inside gzip: upload it unpacked")
        if kind != "tar":
            raise NothingToStoreError("gzip, and no tar inside it")
        self._tar = TarReader(cast("BinaryIO", self._unpacked), start)

    def next(self) -> Entry | None:
        """The next file."""
        entry = self._tar.next()
        if entry is None:
            self._read_on()
        return entry

    def close(self) -> None:
        """Nothing more is read."""
        self._tar.close()
        self._unpacked.close()

    def _read_on(self) -> None:
        """To the end, where gzip compares the checksum."""
        left = self._budget.left_bytes()
        while piece := self._unpacked.read(READ_BYTES):
            left -= len(piece)
            if left < 0:
                raise unsafe("more bytes than the limit, unpacked")


class _Headers:
    """A file of which little is given for the headers of one member of a tar: tarfile reads them
    whole into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable
        self.left: float = _HEADERS_BYTES
        self._read = file.read

    def read(self, size: int = -1) -> bytes:
        """As a file."""
        self.left -= size
        if size < 0 or self.left < 0:
            raise unsafe("headers larger than the limit")
        return self._read(size)


def _shown(name: str) -> str:
    """The name without the bytes that no character set explains, so that it can be written as
    JSON."""
    if name.isascii():
        return name
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _zip_problem(info: zipfile.ZipInfo) -> PermanentError | None:
    """Why a file is not opened; it may well be a scan."""
    if info.flag_bits & _ENCRYPTED:
        return unsupported("an encrypted file")
    if info.compress_type not in _UNPACKED:
        return unsupported("compressed in another way than deflate")
    return None

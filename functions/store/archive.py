"""Goes through a zip, a tar or a tar.gz member by member, over a file that can be sought in, and
trusts none of it.

Nothing is unpacked: a member is a source that reads from the archive while it is sent. Members come
in the order in which they lie in the archive, so that a walk is one long read, and each says where
a later walk can go on after it.
"""

import contextlib
import functools
import gzip
import itertools
import math
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final, cast

from functions.common.errors import NothingToStoreError, PermanentError
from functions.store import content
from functions.store.content import Kind
from functions.store.sources import READ_BYTES, Source

Cursor = tuple[
    int, ...
]  # a place at each level: in a zip the member's number, in a tar the byte of its header

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
_HEADERS_BYTES: Final = 64 * 1024  # of one member of a tar: its name and attributes
_ENTRY: Final = struct.Struct(
    "<4s24xHHH12x"
)  # of a zip's directory: mark, lengths of name, extra field, comment
_LISTED_BYTES: Final = 400  # what zipfile takes for an entry besides its texts
_LISTED_MAX_BYTES: Final = 1024  # on average
_HARMLESS_LIST_BYTES: Final = 1024 * 1024
_BLOCK: Final = 512
_HARMLESS_BYTES: Final = 16 * 1024 * 1024  # unpacked: no ratio is held against a small archive
_ZIP64_END: Final = b"PK\x06\x06"
_ZIP64_END_BYTES: Final = 76  # from there to the last record
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Limits:
    """What an archive may have at most, archives inside it included.

    Args:
        members: files in all.
        total_bytes: of all files, unpacked.
        member_bytes: of one file, unpacked.
        ratio: how many times larger than the archive all files may be.
        nesting: levels of archives inside the archive.
        name_bytes: of one name, folders included.
    """

    members: int
    total_bytes: int
    member_bytes: int
    ratio: int
    nesting: int
    name_bytes: int


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Args:
        name: its path in the archive, those of inner archives before it.
        source: its bytes; raises PermanentError("unsupported_input") while it is read, when it is
            damaged.
        before, after: from where to walk again so that it comes first, or that what follows it
            does.
        problem: why it cannot be opened at all.
    """

    name: str
    source: Source
    before: Cursor
    after: Cursor
    problem: PermanentError | None = None

    @property
    def size(self) -> int:
        """Its bytes, unpacked, as the archive says."""
        return self.source.size or 0


class Walk:
    """One walk.

    Args:
        size: of the archive in bytes.
        limits: what to stop at.
        members: how many files earlier walks went past.
        total_bytes: what those have, unpacked.
    """

    def __init__(self, size: int, limits: Limits, members: int = 0, total_bytes: int = 0) -> None:
        self._most_bytes = min(limits.total_bytes, max(size * limits.ratio, _HARMLESS_BYTES))
        self._limits = limits
        self.members = members
        self.total_bytes = total_bytes
        self._listed_bytes = 0  # of memory, for the zips that are open: one inside another

    def members_of(self, file: BinaryIO, kind: Kind, cursor: Cursor = ()) -> Iterator[Member]:
        """The files from a cursor on; a member's source is good until the next one is asked for and
        after.

        Raises:
            PermanentError: unsafe_archive, at the first breach of a limit; unsupported_input, where
                the archive is damaged.
        """
        yield from self._archive(file, kind, cursor, "", 0)

    def _archive(
        self, file: BinaryIO, kind: Kind, cursor: Cursor, path: str, depth: int
    ) -> Iterator[Member]:
        if depth > self._limits.nesting:
            raise _unsafe("archives inside the archive lie too deep")
        with _damage("the archive is damaged or cut"):
            if kind == "zip":
                yield from self._zip(file, cursor, path, depth)
            elif kind == "tar":
                yield from self._tar(file, cursor, path, depth)
            else:
                yield from self._gzip(file, cursor, path, depth)

    def _zip(self, file: BinaryIO, cursor: Cursor, path: str, depth: int) -> Iterator[Member]:
        with self._directory_counted(file), zipfile.ZipFile(file) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
            if (
                self.total_bytes + sum(info.file_size for info in infos[_first(cursor) :])
                > self._most_bytes
            ):
                raise _unsafe("more bytes than the limit, unpacked")
            for info in infos:  # before anything is sent
                self._check(path + _shown(info.filename), info.file_size)
            for info, following in itertools.pairwise(infos):
                if info.header_offset + info.compress_size > following.header_offset:
                    raise _unsafe("members that share bytes")
            for number in range(_first(cursor), len(infos)):
                info, inner = infos[number], cursor[1:] if number == _first(cursor) else ()
                if not info.is_dir():
                    source = Source(_reads_zip(archive, info), info.file_size)
                    name, problem = path + _shown(info.filename), _zip_problem(info)
                    member = Member(name, source, (number,), (number + 1,), problem)
                    yield from self._member(
                        member, inner, depth, functools.partial(archive.open, info)
                    )

    def _tar(self, file: BinaryIO, cursor: Cursor, path: str, depth: int) -> Iterator[Member]:
        file.seek(_first(cursor))
        inner = cursor[1:]
        headers = _Headers(file)
        with tarfile.TarFile(fileobj=cast("BinaryIO", headers), mode="r") as archive:
            while (info := archive.next()) is not None:
                headers.left = math.inf
                # It would keep them all. What is said for all members that follow (pax) does not
                # matter here, and is not known to a walk that begins later.
                archive.members, archive.pax_headers = [], {}  # type: ignore[attr-defined]
                after = archive.offset
                if not info.isdir():
                    problem = None if info.isreg() else NothingToStoreError("a link or a device")
                    source = Source(_reads_tar(archive, info), info.size)
                    member = Member(
                        path + _shown(info.name), source, (info.offset,), (after,), problem
                    )
                    yield from self._member(
                        member, inner, depth, functools.partial(archive.extractfile, info)
                    )
                inner, headers.left = (), _HEADERS_BYTES
            # It also stops, without a word, at a header that is damaged.
            file.seek(archive.offset)
            if any(file.read(_BLOCK) or b"cut"):
                raise tarfile.ReadError

    def _gzip(self, file: BinaryIO, cursor: Cursor, path: str, depth: int) -> Iterator[Member]:
        with gzip.GzipFile(fileobj=file) as unpacked:
            kind = content.sniff(unpacked.read(_BLOCK))
            if kind == "dicom":
                raise PermanentError("unsupported_input", "a scan inside gzip: upload it unpacked")
            if kind != "tar":
                raise NothingToStoreError("gzip, and no tar inside it")
            yield from self._tar(cast("BinaryIO", unpacked), cursor, path, depth)
            left = max(self._most_bytes - self.total_bytes, _HARMLESS_BYTES)
            while piece := unpacked.read(
                READ_BYTES
            ):  # to its end, where gzip compares the checksum
                left -= len(piece)
                if left < 0:
                    raise _unsafe("more bytes than the limit, unpacked")

    def _member(
        self, member: Member, inner: Cursor, depth: int, open_: Callable[[], Any]
    ) -> Iterator[Member]:
        """The member, or, where it is an archive itself, its members."""
        self._check(member.name, member.size)
        if member.problem is None:
            kind = _kind_of(member.source)
            if kind in content.ARCHIVES:
                member.source.close()
                try:
                    yield from self._inner(member, kind, inner, depth, open_)
                except PermanentError as error:
                    if error.reason == "unsafe_archive":
                        raise
                    member = replace(member, problem=error)
                else:
                    return
        self.members += 1
        self.total_bytes += member.size
        if self.members > self._limits.members:
            raise _unsafe("more members than the limit")
        yield member

    def _inner(
        self, member: Member, kind: Kind, cursor: Cursor, depth: int, open_: Callable[[], Any]
    ) -> Iterator[Member]:
        with contextlib.closing(cast("BinaryIO", open_())) as file:
            for one in self._archive(file, kind, cursor, f"{member.name}/", depth + 1):
                yield replace(
                    one, before=member.before + one.before, after=member.before + one.after
                )

    def _check(self, name: str, size: int) -> None:
        if size > self._limits.member_bytes:
            raise _unsafe("a member larger than the limit, unpacked")
        if self.total_bytes + size > self._most_bytes:
            raise _unsafe("more bytes than the limit, unpacked")
        if len(name.encode()) > self._limits.name_bytes:
            raise _unsafe("a name longer than the limit")
        parts = name.replace("\\", "/").split("/")
        if _CONTROL.search(name) or ".." in parts or not parts[0] or parts[0].endswith(":"):
            raise _unsafe("a name that leads out of the archive, or with control characters")

    @contextlib.contextmanager
    def _directory_counted(self, file: BinaryIO) -> Iterator[None]:
        """Count a zip's entries before zipfile takes them all into memory; the count that a zip
        states may lie."""
        at, size = _directory(file)
        count, end, before = 0, at + size, self._listed_bytes
        while at < end:
            file.seek(at)
            mark, name, extra, comment = _ENTRY.unpack(file.read(_ENTRY.size))
            length = _ENTRY.size + name + extra + comment
            at += length
            count += 1
            # The directory as it is, all of it once more entry by entry, and up to four bytes for a
            # character.
            self._listed_bytes += (
                _LISTED_BYTES + 2 * length + (0 if file.read(name).isascii() else 3 * name)
            )
            if mark != b"PK\x01\x02":
                raise zipfile.BadZipFile
            if self.members + count > self._limits.members:
                raise _unsafe("more members than the limit")
            if self._listed_bytes > max(
                self._limits.members * _LISTED_MAX_BYTES, _HARMLESS_LIST_BYTES
            ):
                raise _unsafe("a list of members larger than the limit on their number allows for")
        yield
        self._listed_bytes = before


class _Headers:
    """A file of which little is given for the headers of one member of a tar; tarfile takes them
    whole, into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable, self._read = (
            file.seek,
            file.tell,
            file.seekable,
            file.read,
        )
        self.left: float = _HEADERS_BYTES

    def read(self, size: int = -1) -> bytes:
        """As a file."""
        self.left -= size
        if size < 0 or self.left < 0:
            raise _unsafe("headers larger than the limit")
        return self._read(size)


def _first(cursor: Cursor) -> int:
    return cursor[0] if cursor else 0


def _shown(name: str) -> str:
    """The name without the bytes that no character set explains, so that it can be written as
    JSON."""
    return (
        name if name.isascii() else name.encode(errors="surrogateescape").decode(errors="replace")
    )


def _unsafe(detail: str) -> PermanentError:
    return PermanentError("unsafe_archive", detail)


@contextlib.contextmanager
def _damage(detail: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise PermanentError("unsupported_input", detail) from error


def _kind_of(source: Source) -> Kind:
    try:
        return content.sniff(source.head)
    except PermanentError:
        return "other"  # damaged: whoever reads it finds out


def _zip_problem(info: zipfile.ZipInfo) -> PermanentError | None:
    """Why a member is not opened; it may well be a scan."""
    if info.flag_bits & 1:
        return PermanentError("unsupported_input", "an encrypted file")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others unpack as much at once as they like, whatever size the zip states.
        return PermanentError("unsupported_input", "compressed in another way than deflate")
    return None


def _reads_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], Iterator[bytes]]:
    def read() -> Iterator[bytes]:
        with _damage("the file in the archive is damaged"), archive.open(info) as file:
            while piece := file.read(READ_BYTES):
                yield piece

    return read


def _reads_tar(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], Iterator[bytes]]:
    def read() -> Iterator[bytes]:
        with _damage("the file in the archive is damaged"):
            file = archive.extractfile(info)
            while file is not None and (piece := file.read(READ_BYTES)):
                yield piece

    return read


def _directory(file: BinaryIO) -> tuple[int, int]:
    """Where a zip's directory begins, and its size in bytes; zipfile finds the same."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if not end:
        raise zipfile.BadZipFile
    mark, size, location = end[0], int(end[5]), int(end[9])
    file.seek(location)
    # Of a large zip, older versions give the place of the last record, and newer ones that of the
    # one with this mark.
    later = mark == _ZIP64_END and file.read(len(mark)) != mark
    return location - size - (_ZIP64_END_BYTES if later else 0), size

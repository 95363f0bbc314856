"""What an archive may hold at most, and how much of that is used up."""

import re
import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO, Final

from functions.store.refusals import unsafe

_HARMLESS_BYTES: Final = 16 * 1024 * 1024  # unpacked: no ratio is held against a small archive
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

# An entry of a zip's directory: its mark, and the lengths of name, extra field and comment.
_ENTRY: Final = struct.Struct("<4s24xHHH12x")
_ENTRY_MARK: Final = b"PK\x01\x02"
_LISTED_BYTES: Final = 400  # what zipfile keeps for an entry besides its texts
_LISTED_MAX_BYTES: Final = 1024  # for an entry, on average
_HARMLESS_LIST_BYTES: Final = 1024 * 1024
_ZIP64_END: Final = b"PK\x06\x06"
_ZIP64_END_BYTES: Final = 76  # from there to the last record


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most, archives inside it included.

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


class Budget:
    """What is left of the limits of one archive.

    Args:
        limits: as the settings have them.
        size: of the archive in bytes.
        members: how many files were counted earlier.
        total_bytes: what those hold, unpacked.
    """

    def __init__(
        self, limits: Limits, size: int, *, members: int = 0, total_bytes: int = 0
    ) -> None:
        self.limits = limits
        self.members = members
        self.total_bytes = total_bytes
        by_ratio = max(size * limits.ratio, _HARMLESS_BYTES)
        self._most_bytes = min(limits.total_bytes, by_ratio)
        # Memory for the directories of the zips that are open, one inside another.
        self._listed_bytes = 0

    def count(self, size: int) -> None:
        """One more file.

        Raises:
            PermanentError: unsafe_archive, when there are too many.
        """
        self.members += 1
        self.total_bytes += size
        if self.members > self.limits.members:
            raise unsafe("more members than the limit")

    def check_bytes(self, size: int) -> None:
        """Raises PermanentError: unsafe_archive, when so many more bytes are too many."""
        if self.total_bytes + size > self._most_bytes:
            raise unsafe("more bytes than the limit, unpacked")

    def left_bytes(self) -> int:
        """How many bytes may follow the last file of a tar.gz: a harmless number at least."""
        return max(self._most_bytes - self.total_bytes, _HARMLESS_BYTES)

    def check_file(self, name: str, size: int) -> None:
        """Check a file before it is opened.

        Raises:
            PermanentError: unsafe_archive, when it is too large, or its name is too long, leads out
                of the archive or holds control characters.
        """
        if size > self.limits.member_bytes:
            raise unsafe("a member larger than the limit, unpacked")
        self.check_bytes(size)
        if len(name.encode()) > self.limits.name_bytes:
            raise unsafe("a name longer than the limit")
        parts = name.replace("\\", "/").split("/")
        is_absolute = not parts[0] or parts[0].endswith(":")
        if is_absolute or ".." in parts or _CONTROL.search(name):
            raise unsafe("a name that leads out of the archive, or with control characters")

    def take_directory(self, file: BinaryIO) -> int:
        """Count the entries of a zip's directory before zipfile reads them all into memory; the
        count that a zip states may be wrong.

        Returns:
            The bytes of memory that it takes, for give_back.

        Raises:
            PermanentError: unsafe_archive, when there are too many entries or their texts are too
                long.
            zipfile.BadZipFile, struct.error: it cannot be read.
        """
        at, size = directory_of(file)
        end = at + size
        before = self._listed_bytes
        count = 0
        while at < end:
            file.seek(at)
            mark, name, extra, comment = _ENTRY.unpack(file.read(_ENTRY.size))
            if mark != _ENTRY_MARK:
                raise zipfile.BadZipFile
            length = _ENTRY.size + name + extra + comment
            at += length
            count += 1
            if self.members + count > self.limits.members:
                raise unsafe("more members than the limit")
            # The directory is kept as it is, and once more entry by entry.
            self._listed_bytes += _LISTED_BYTES + 2 * length
            if not file.read(name).isascii():
                self._listed_bytes += 3 * name  # up to four bytes for a character
            self._check_listed()
        return self._listed_bytes - before

    def give_back(self, listed_bytes: int) -> None:
        """A zip is closed, and its directory no longer in memory."""
        self._listed_bytes -= listed_bytes

    def _check_listed(self) -> None:
        most = max(self.limits.members * _LISTED_MAX_BYTES, _HARMLESS_LIST_BYTES)
        if self._listed_bytes > most:
            raise unsafe("a list of members larger than the limit on their number allows for")


def directory_of(file: BinaryIO) -> tuple[int, int]:
    """Where a zip's directory begins, and its size in bytes; zipfile finds the same.

    Raises:
        zipfile.BadZipFile: there is none.
    """
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if not end:
        raise zipfile.BadZipFile
    mark = end[0]
    size = int(end[5])
    location = int(end[9])
    if mark == _ZIP64_END:
        file.seek(location)
        # Older versions of Python give the place of the last record, newer ones that of the record
        # with this mark.
        if file.read(len(mark)) != mark:
            location -= _ZIP64_END_BYTES
    return location - size, size

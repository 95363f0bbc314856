"""Every limit of an archive with its check. Each raises PermanentError("unsafe_archive"), which
ends the archive where it is, except for the two at the end of this list. Members that were stored
before stay stored, and keep their outcomes. The archive goes to quarantine: as `partial` if there
are such members, else as `rejected` (verdicts.py).

    Budget               what the archive has used of each of the settings ARCHIVE_MAX_...
      count              members in all
      check_file         of one file: size, name; and all bytes so far, also by the ratio
      check_nesting      archives inside archives
      check_directory    of a zip: its list of members, before that is read
      check_members      of a zip: number and bytes, before one is opened; two that share bytes
      check_rest         of a tar.gz: the bytes after its last member
    HeaderLimit          of a tar: the headers of one member
    check_readings       of a zip inside an archive: how often it is read

Two limits are not about danger, and end only one member:

    check_inner_zip      a zip inside a compressed archive
    WAITING_BYTES        what waits for the other half of a pair: archive_pairs makes room for it

The numbers are in settings.py. What cannot be read at all (an encrypted member, an unknown
compression) is refused in archive_readers.
"""

import contextlib
import itertools
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from functions.common.settings import Settings
from functions.store.refusals import unsafe, unsupported

# Of a zip inside a compressed archive.
INNER_ZIP_BYTES: Final = 8 * 1024 * 1024
WAITING_BYTES: Final = 16 * 1024 * 1024

# Unpacked bytes up to which the ratio is not checked.
_HARMLESS_BYTES: Final = 16 * 1024 * 1024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# The index of the directory's size in what zipfile reads of the end of a zip.
_DIRECTORY_SIZE: Final = 5
# In a zip's directory, for each member: 46 bytes, and its name with its folders.
_LISTED_BYTES: Final = 300
_HARMLESS_LIST_BYTES: Final = 64 * 1024
# The headers of one member of a tar: its name and attributes.
_HEADERS_BYTES: Final = 64 * 1024
# Each new attempt to send a large member is one more reading. A zip with overlapping members would
# need one for each of them.
_READINGS_MAX: Final = 10
_TOO_MANY: Final = "more members than the limit"


class Budget:
    """The use of the limits of one archive.

    Args:
        settings: ARCHIVE_MAX_..., which include archives inside the archive.
        size: of the archive in bytes.
    """

    def __init__(self, settings: Settings, size: int) -> None:
        self._settings = settings
        self.members = 0
        self.total_bytes = 0
        by_ratio = max(size * settings.archive_max_ratio, _HARMLESS_BYTES)
        self._most_bytes = min(settings.archive_max_bytes, by_ratio)

    def restore(self, members: int, total_bytes: int) -> None:
        """Continue after files that an earlier invocation counted, and their bytes."""
        self.members = members
        self.total_bytes = total_bytes

    def count(self, size: int) -> None:
        """Count one more file."""
        self._check_bytes(size)
        self.members += 1
        self.total_bytes += size
        if self.members > self._settings.archive_max_members:
            raise unsafe(_TOO_MANY)

    def check_file(self, name: str, size: int) -> None:
        """Check a file before it is opened."""
        if size > self._settings.archive_max_member_bytes:
            raise unsafe("a member larger than the limit, unpacked")
        self._check_bytes(size)
        if len(name.encode()) > self._settings.archive_max_name_bytes:
            raise unsafe("a name longer than the limit")
        parts = name.replace("\\", "/").split("/")
        is_absolute = not parts[0] or parts[0].endswith(":")
        if is_absolute or ".." in parts or _CONTROL.search(name):
            raise unsafe("a name that leads out of the archive, or with control characters")

    def check_nesting(self, levels: int) -> None:
        """Check an archive that is inside so many others, before it is opened."""
        if levels > self._settings.archive_max_nesting:
            raise unsafe("archives inside the archive are nested too deeply")

    def check_directory(self, file: BinaryIO) -> None:
        """Check a zip before zipfile reads its whole directory into memory.

        With a limit of 20,000 members, the directory takes at most 45 MiB (measured).

        Raises:
            zipfile.BadZipFile: it has no directory.
        """
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if not end:
            raise zipfile.BadZipFile
        most = max(self._settings.archive_max_members * _LISTED_BYTES, _HARMLESS_LIST_BYTES)
        if end[_DIRECTORY_SIZE] > most:
            raise unsafe("the list of members is too large for ARCHIVE_MAX_MEMBERS")

    def check_members(self, members: Sequence[zipfile.ZipInfo]) -> None:
        """Check the members of a zip, in their order in the file, before one is opened."""
        if self.members + len(members) > self._settings.archive_max_members:
            raise unsafe(_TOO_MANY)
        self._check_bytes(sum(member.file_size for member in members))
        for member, following in itertools.pairwise(members):
            if member.header_offset + member.compress_size > following.header_offset:
                raise unsafe("members that share bytes")

    def check_rest(self, size: int) -> None:
        """Check how many bytes follow the last file of a tar.gz, as far as it was unpacked."""
        if size > _HARMLESS_BYTES:
            self._check_bytes(size)

    def _check_bytes(self, size: int) -> None:
        """Check that so many more bytes are allowed."""
        if self.total_bytes + size > self._most_bytes:
            raise unsafe("more bytes than the limit, unpacked")


class HeaderLimit:
    """The file from which tarfile reads a tar. It limits the headers of a member, because tarfile
    reads all of them into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable
        self._read = file.read
        # TarFile reads the first header at once.
        self._left: float = _HEADERS_BYTES
        # What tarfile read last: after the last member, the block where it stopped.
        self.last_read = b""

    @contextlib.contextmanager
    def in_headers(self) -> Iterator[None]:
        """Limits the bytes while the headers of one member are read."""
        self._left = _HEADERS_BYTES
        yield
        self._left = math.inf

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise unsafe("headers larger than the limit")
        self.last_read = self._read(size)
        return self.last_read


def check_readings(size: int, read_bytes: int) -> None:
    """Check how much of a zip inside an archive was read, with repeated readings."""
    if read_bytes > _READINGS_MAX * max(size, INNER_ZIP_BYTES):
        raise unsafe("an archive inside the archive that cannot be read in order")


def check_inner_zip(size: int, *, can_reread: bool) -> None:
    """Check a zip inside an archive: if a second reading would unpack the archive again, the whole
    zip must fit into memory.

    Raises:
        PermanentError: unsupported_input.
    """
    if size > INNER_ZIP_BYTES and not can_reread:
        detail = f"a zip of more than {INNER_ZIP_BYTES} bytes inside a compressed archive"
        raise unsupported(f"{detail}: upload it separately")

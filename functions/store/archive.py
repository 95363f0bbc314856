"""Goes through a zip, a tar or a tar.gz member by member, and trusts none of it.

Nothing is unpacked to disk: a member is a source that reads from the archive while it is sent.
Members come in the order in which they lie in the archive, so that a walk is one long read. Each
says where a later walk can go on.

Archives inside the archive are gone through in their place. A walk keeps a stack of the archives
that are open, each of which is read by archive_readers.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, Self, cast

from functions.common.errors import PermanentError
from functions.store import filetype
from functions.store.archive_limits import Budget
from functions.store.archive_readers import Entry, Zip, damage, gzip_entries, tar_entries
from functions.store.filetype import Kind
from functions.store.refusals import unsupported
from functions.store.seekable import KEPT_BYTES, InnerZip
from functions.store.source import Source

# A place at each level: in a zip the number of a member, in a tar the byte where its header begins.
Place = tuple[int, ...]

_BUFFER_BYTES: Final = 64 * 1024
_DAMAGED: Final = "the archive is damaged or cut"


def text_of(place: Place) -> str:
    """A place as text, for records."""
    return "#" + ".".join(str(number) for number in place)


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Args:
        name: its path in the archive, those of inner archives in front of it.
        source: its bytes; raises PermanentError("unsupported_input") while it is read, when it is
            damaged. Good until the next member is asked for.
        kind: what it is; other also where that cannot be read.
        place: from where to walk again so that this member comes first.
        following: from where to walk again so that what follows it does.
        problem: why it cannot be stored.
    """

    name: str
    source: Source
    kind: Kind
    place: Place
    following: Place
    problem: PermanentError | None = None

    @property
    def size(self) -> int:
        """Its bytes, unpacked, as the archive states them."""
        return self.source.size or 0

    def failed(self, error: PermanentError) -> "Member":
        """The same member, with why it cannot be stored.

        Raises:
            PermanentError: unsafe_archive, where it is this: a limit ends the whole archive.
        """
        if error.reason == "unsafe_archive":
            raise error
        # A traceback would keep what was read in memory.
        return replace(self, problem=error.with_traceback(None))

    def kept(self) -> "Member":
        """The same member with its bytes in memory, so that the archive can be read on; failed
        where it cannot be read."""
        try:
            data = b"".join(self.source.chunks())
        except PermanentError as error:
            return self.failed(error)
        return replace(self, source=Source.of(data))


@dataclass
class _Level:
    """An archive that is open.

    Args:
        file: its bytes.
        entries: its files, from where the walk begins.
        within: where to begin inside the first of them, if that is an archive.
        zip: its directory, if it is a zip.
        member: what it is in the archive around it; None for the outermost.
    """

    file: BinaryIO
    entries: Iterator[Entry]
    within: Place
    zip: Zip | None
    member: Member | None


class Walk:
    """One walk through an archive; use it in a `with`.

    Args:
        file: the archive, in which seeking costs little.
        kind: what it is.
        budget: what it may still hold. Members are counted by who goes through them.
        place: where to begin.

    Raises:
        PermanentError: unsafe_archive, at the first limit that is exceeded; unsupported_input,
            where the archive is damaged.
    """

    def __init__(self, file: BinaryIO, kind: Kind, budget: Budget, *, place: Place = ()) -> None:
        self._budget = budget
        self._kind = kind
        self._levels: list[_Level] = []
        with damage(_DAMAGED):
            self._open(file, kind, place, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._levels:
            self._close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Member:
        """The next file that is no archive, or an archive that cannot be opened."""
        while self._levels:
            level = self._levels[-1]
            try:
                with damage(_DAMAGED):
                    entry = next(level.entries, None)
            except PermanentError as error:
                return self._given_up(error)
            if entry is None:
                self._close()
                continue
            member = self._member_of(entry, level)
            within = level.within
            level.within = ()
            if member.kind in filetype.ARCHIVES:
                try:
                    self._open_inner(member, entry, within)
                    continue
                except PermanentError as error:
                    member = member.failed(error)
            return member
        raise StopIteration

    @property
    def directory(self) -> Zip | None:
        """Where any member can be looked up: in a zip, but not in one inside another archive, where
        going back means unpacking it again."""
        if len(self._levels) > 1:
            return None
        return self._levels[0].zip

    def look_into(self, entry: Entry) -> Member:
        """A file that was looked up, as a member."""
        return self._member_of(entry, self._levels[0])

    def _member_of(self, entry: Entry, level: _Level) -> Member:
        name = entry.name
        around: Place = ()
        if level.member is not None:
            name = f"{level.member.name}/{name}"
            around = level.member.place
        self._budget.check_file(name, entry.size)
        source = Source(entry.read, entry.size, again=self._can_go_back())
        member = Member(
            name=name,
            source=source,
            kind="other",
            place=(*around, entry.place),
            following=(*around, entry.following),
        )
        try:
            return replace(member, kind=filetype.sniff(source.head))
        except PermanentError as error:
            return member.failed(error)

    def _can_go_back(self) -> bool:
        """Whether reading a member again costs no more than the first time."""
        return len(self._levels) == 1 and self._kind != "gzip"

    def _open_inner(self, member: Member, entry: Entry, within: Place) -> None:
        self._budget.check_nesting(len(self._levels))
        member.source.close()
        with damage(_DAMAGED):
            self._open(self._inner_file(member, entry), member.kind, within, member)

    def _inner_file(self, member: Member, entry: Entry) -> BinaryIO:
        """A tar is only read forwards; for a zip one has to seek, without unpacking the whole again
        and again."""
        if member.kind != "zip":
            return entry.open()
        if member.size > KEPT_BYTES and not self._can_go_back():
            detail = f"a zip of more than {KEPT_BYTES} bytes inside a compressed archive"
            raise unsupported(f"{detail}: upload it by itself")
        inner = io.BufferedReader(InnerZip(member.source, member.size), _BUFFER_BYTES)
        return cast("BinaryIO", inner)

    def _open(self, file: BinaryIO, kind: Kind, place: Place, member: Member | None) -> None:
        start, *within = place or (0,)
        directory = None
        if kind == "zip":
            directory = Zip(file, self._budget)
            entries = directory.entries(start)
        elif kind == "tar":
            entries = tar_entries(file, start)
        else:
            entries = gzip_entries(file, start, self._budget)
        self._levels.append(_Level(file, entries, tuple(within), directory, member))

    def _close(self) -> _Level:
        """Leave the innermost archive."""
        level = self._levels.pop()
        if level.member is not None:
            level.file.close()
        return level

    def _given_up(self, error: PermanentError) -> Member:
        """The archive that cannot be read further, as a member of the one around it."""
        level = self._close()
        if level.member is None:
            raise error
        return level.member.failed(error)

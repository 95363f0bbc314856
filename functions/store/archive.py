"""Goes through a zip, a tar or a tar.gz member by member, and trusts none of it.

Nothing is unpacked to disk: a member is a source that reads from the archive while it is sent.
Members come in the order in which they lie in the archive, so that a walk is one long read. Each
says where a later walk can go on.

Archives inside the archive are gone through in their place. A walk keeps a stack of the archives
that are open, each with a reader of its kind (archive_readers).
"""

import io
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, Self, cast

from functions.common.errors import PermanentError
from functions.store import filetype
from functions.store.archive_limits import Budget
from functions.store.archive_readers import (
    Entry,
    GzipReader,
    Reader,
    TarReader,
    ZipReader,
    damage,
    open_reader,
)
from functions.store.filetype import Kind
from functions.store.inner_zip import KEPT_BYTES, InnerZip
from functions.store.refusals import unsafe, unsupported
from functions.store.source import Source

# A place at each level: in a zip the number of a member, in a tar the byte where its header begins.
Place = tuple[int, ...]

_BUFFER_BYTES: Final = 64 * 1024
_DAMAGED: Final = "the archive is damaged or cut"


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
        problem: why it cannot be opened at all.
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


class _Level:
    """An archive that is open.

    Args:
        file: its bytes.
        within: where to begin inside its first member, if that is an archive.
    """

    reader: Reader

    def __init__(self, file: BinaryIO, within: Place) -> None:
        self.file = file
        self.within = within
        # Of an archive inside another one: what it is there, its name and its place.
        self.member: Member | None = None
        self.name = ""
        self.place: Place = ()


class Walk:
    """One walk through an archive; use it in a `with`.

    Args:
        file: the archive, in which seeking costs little.
        kind: what it is.
        budget: what it may still hold.
        place: where to begin.
        counted_from: members in front of this place were counted earlier.

    Raises:
        PermanentError: unsafe_archive, at the first limit that is exceeded; unsupported_input,
            where the archive is damaged.
    """

    def __init__(
        self,
        file: BinaryIO,
        kind: Kind,
        budget: Budget,
        *,
        place: Place = (),
        counted_from: Place = (),
    ) -> None:
        self.budget = budget
        self._counted_from = counted_from
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
                    entry = level.reader.next()
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
                    member = _with_problem(member, error)
            return self._counted(member)
        raise StopIteration

    @property
    def has_directory(self) -> bool:
        """Whether any member can be looked up: in a zip, but not in one inside another archive,
        where going back means unpacking it again."""
        return len(self._levels) == 1 and isinstance(self._levels[0].reader, ZipReader)

    def find(self, stem: str, endings: tuple[str, ...]) -> Entry | None:
        """The first file of the zip whose name is this stem and one of the endings, in capitals or
        not."""
        reader = self._levels[0].reader
        assert isinstance(reader, ZipReader)
        return reader.find(stem, endings)

    def look_into(self, entry: Entry) -> Member:
        """A file of the zip that was looked up, as a member."""
        return self._member_of(entry, self._levels[0])

    def _member_of(self, entry: Entry, level: _Level) -> Member:
        name = level.name + entry.name
        self.budget.check_file(name, entry.size)
        source = Source(entry.read, entry.size, again=self._can_go_back())
        member = Member(
            name=name,
            source=source,
            kind="other",
            place=(*level.place, entry.place),
            following=(*level.place, entry.following),
            problem=entry.problem,
        )
        if entry.problem is not None:
            return member
        try:
            return replace(member, kind=filetype.sniff(source.head))
        except PermanentError as error:
            return _with_problem(member, error)

    def _can_go_back(self) -> bool:
        """Whether reading a member again costs no more than the first time."""
        return len(self._levels) == 1 and not isinstance(self._levels[0].reader, GzipReader)

    def _counted(self, member: Member) -> Member:
        if member.place >= self._counted_from:
            self.budget.count(member.size)
        return member

    def _open_inner(self, member: Member, entry: Entry, within: Place) -> None:
        if len(self._levels) > self.budget.limits.nesting:
            raise unsafe("archives inside the archive lie too deep")
        member.source.close()
        with damage(_DAMAGED):
            self._open(self._inner_file(member, entry), member.kind, within, member)

    def _inner_file(self, member: Member, entry: Entry) -> BinaryIO:
        """A file in which a reader of this kind can seek without unpacking the whole again and
        again; a tar is only read forwards."""
        in_plain_tar = type(self._levels[-1].reader) is TarReader and self._can_go_back()
        if member.kind != "zip" or in_plain_tar:
            return entry.open()
        if member.size > KEPT_BYTES and not self._can_go_back():
            detail = f"a zip of more than {KEPT_BYTES} bytes inside a compressed archive"
            raise unsupported(f"{detail}: upload it by itself")
        inner = io.BufferedReader(InnerZip(member.source, member.size), _BUFFER_BYTES)
        return cast("BinaryIO", inner)

    def _open(self, file: BinaryIO, kind: Kind, place: Place, member: Member | None) -> None:
        start = 0
        if place:
            start = place[0]
        level = _Level(file=file, within=place[1:])
        if member is not None:
            level.member = member
            level.name = f"{member.name}/"
            level.place = member.place
        level.reader = open_reader(file, kind, start, level.name, self.budget)
        self._levels.append(level)

    def _close(self) -> _Level:
        """Leave the innermost archive."""
        level = self._levels.pop()
        level.reader.close()
        if level.member is not None:
            level.file.close()
        return level

    def _given_up(self, error: PermanentError) -> Member:
        """The archive that cannot be read further, as a member of the one around it."""
        level = self._close()
        if level.member is None:
            raise error
        return self._counted(_with_problem(level.member, error))


def _with_problem(member: Member, error: PermanentError) -> Member:
    """A file that cannot be read; a limit that is exceeded ends the whole archive."""
    if error.reason == "unsafe_archive":
        raise error
    return replace(member, problem=error)

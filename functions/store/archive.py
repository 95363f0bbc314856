"""Reads a zip, a tar or a tar.gz member by member, without trusting it.

Nothing is unpacked to disk: a member is a source that reads from the archive while it is sent.
Members come in their order in the archive, so that a walk is one long read. Each knows where a
later walk can continue.

Archives inside the archive are read in their place. Each archive is read by one of archive_readers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from functions.common.errors import PermanentError
from functions.store import filetype
from functions.store.archive_limits import Budget, check_inner_zip
from functions.store.archive_readers import Entry, Zip, damage, gzip_entries, tar_entries
from functions.store.filetype import Kind
from functions.store.seekable import open_inner
from functions.store.source import Source

# A place at each level: in a zip the number of a member, in a tar the byte where its header begins.
Place = tuple[int, ...]

_DAMAGED: Final = "the archive is damaged or cut"


def text_of(place: Place) -> str:
    """A place as text, for records."""
    return "#" + ".".join(str(number) for number in place)


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Args:
        name: its path in the archive, after the paths of inner archives.
        source: its bytes; raises PermanentError("unsupported_input") while it is read, when it is
            damaged. Valid until the next member is requested.
        kind: its kind; other also if it cannot be read.
        place: from where to walk again so that this member comes first.
        following: from where to walk again so that the next member comes first.
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
        """Its unpacked size in bytes, as stated in the archive."""
        return self.source.size or 0

    def failed(self, error: PermanentError) -> "Member":
        """The same member, with why it cannot be stored.

        Raises:
            PermanentError: unsafe_archive, if this is the problem: a limit ends the whole archive.
        """
        if error.reason == "unsafe_archive":
            raise error
        # A traceback would keep the bytes in memory.
        return replace(self, problem=error.with_traceback(None))

    def kept(self) -> "Member":
        """The same member with its bytes in memory, so that reading can continue; failed if it
        cannot be read."""
        if self.problem is not None:
            return self
        try:
            data = b"".join(self.source.chunks())
        except PermanentError as error:
            return self.failed(error)
        return replace(self, source=Source.of(data))


class Walk:
    """One walk through an archive.

    Args:
        file: the archive, with fast seeking.
        kind: what it is.
        budget: what it may still contain. The caller counts the members.
        place: where to begin.
    """

    def __init__(self, file: BinaryIO, kind: Kind, budget: Budget, place: Place = ()) -> None:
        self._file = file
        self._kind = kind
        self._budget = budget
        self._place = place
        self._directory: Zip | None = None

    def __iter__(self) -> Iterator[Member]:
        """The files that are not archives, and inner archives that cannot be read.

        Raises:
            PermanentError: unsafe_archive, at the first limit that is exceeded; unsupported_input,
                if the archive is damaged.
        """
        with damage(_DAMAGED):
            yield from self._members(self._file, self._kind, self._place, None)

    def directory_of(self, member: Member) -> Zip | None:
        """The reader for looking up other members, if this is a zip whose members can be read
        again."""
        if not member.source.can_reread:
            return None
        return self._directory

    def _members(
        self, file: BinaryIO, kind: Kind, place: Place, around: Member | None
    ) -> Iterator[Member]:
        """The members of one archive, from a place on.

        Args:
            file: its bytes.
            kind: what it is.
            place: where to begin: in this archive, then in the inner archive at that place, and so
                on.
            around: the member that it is in the outer archive; None for the outermost.
        """
        # The first number is a place in this archive; the others are a place in the archive there.
        start, *inside = place or (0,)
        for entry in self._entries(file, kind, start, around):
            member = self.member_of(entry, around)
            if member.kind in filetype.ARCHIVES:
                yield from self._inner(member, entry, tuple(inside))
            else:
                yield member
            inside = []  # later ones are read from their beginning

    def _inner(self, member: Member, entry: Entry, place: Place) -> Iterator[Member]:
        """The members of an inner archive, or the archive itself if it cannot be read."""
        member.source.close()
        try:
            self._budget.check_nesting(len(member.place))
            with damage(_DAMAGED), self._inner_file(member, entry) as file:
                yield from self._members(file, member.kind, place, member)
        except PermanentError as error:
            yield member.failed(error)

    def _entries(
        self, file: BinaryIO, kind: Kind, start: int, around: Member | None
    ) -> Iterator[Entry]:
        if kind == "tar":
            return tar_entries(file, start)
        if kind == "gzip":
            return gzip_entries(file, start, self._budget)
        directory = Zip(file, self._budget)
        if around is None:
            self._directory = directory
        return directory.entries(start)

    def member_of(self, entry: Entry, around: Member | None = None) -> Member:
        """A file as a member; `around` as in _members."""
        name = entry.name
        outer: Place = ()
        if around is not None:
            name = f"{around.name}/{name}"
            outer = around.place
        self._budget.check_file(name, entry.size)
        # For an archive inside another one, or inside gzip, everything before it is unpacked again.
        can_reread = around is None and self._kind != "gzip"
        source = Source(entry.read, entry.size, can_reread=can_reread)
        member = Member(
            name=name,
            source=source,
            kind="other",
            place=(*outer, entry.place),
            following=(*outer, entry.following),
        )
        try:
            return replace(member, kind=filetype.sniff(source.head))
        except PermanentError as error:
            return member.failed(error)

    def _inner_file(self, member: Member, entry: Entry) -> BinaryIO:
        """A tar is only read forwards; a zip needs seeking, without unpacking everything again and
        again."""
        if member.kind != "zip":
            return entry.open()
        check_inner_zip(member.size, can_reread=member.source.can_reread)
        return open_inner(member.source, member.size)

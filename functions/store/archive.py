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
from functions.store.archive_readers import Entry, Zip, gzip_entries, tar_entries
from functions.store.filetype import Kind
from functions.store.seekable import open_inner
from functions.store.source import Source

# Where a member is: its place in the archive (archive_readers); if that is an archive too, then its
# place in there, and so on. Places are ordered as the walk comes to them, with one exception: an
# inner archive that proves to be damaged comes after its members: (5,) after (5, 0) and (5, 512).
# What follows (5, 0) is at (5, 512); what follows the damaged archive (5,) is at (6,).
Place = tuple[int, ...]

# Where every archive begins.
BEGINNING: Final[Place] = (0,)


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
        kind: its kind; `other` if it is unknown, or cannot be read.
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
    """A walk through one archive: the object in the bucket, or one inside another.

    Args:
        file: the archive, with fast seeking.
        kind: what it is.
        budget: what it may still contain. The caller counts the members.
        around: what it is in the archive around it; None for the object in the bucket.
    """

    def __init__(
        self, file: BinaryIO, kind: Kind, budget: Budget, around: Member | None = None
    ) -> None:
        self._file = file
        self._kind = kind
        self._budget = budget
        self._prefix = ""
        self._outer: Place = ()
        if around is not None:
            self._prefix = f"{around.name}/"
            self._outer = around.place
        # In gzip, or in another archive, everything before a member is unpacked again.
        self._can_reread = around is None and kind != "gzip"
        self._directory: Zip | None = None

    def members(self, begin: Place = BEGINNING) -> Iterator[Member]:
        """The files that are not archives, and inner archives that cannot be read.

        Args:
            begin: the place in this archive where to begin; it may be inside inner archives.

        Raises:
            PermanentError: unsafe_archive, at the first limit that is exceeded; unsupported_input,
                if the archive is damaged.
        """
        for entry in self._entries(begin[0]):
            member = self.member_of(entry)
            if member.kind in filetype.ARCHIVES:
                begin_inside = _inside(entry, begin)
                yield from self._inner(member, entry, begin_inside)
            else:
                yield member

    def directory_of(self, member: Member) -> Zip | None:
        """The reader for looking up other members, if this is a zip whose members can be read
        again. Those of an inner archive never can, so the zip is that of this walk."""
        if not member.source.can_reread:
            return None
        return self._directory

    def member_of(self, entry: Entry) -> Member:
        """A file of this archive."""
        name = self._prefix + entry.name
        self._budget.check_file(name, entry.size)
        source = Source(entry.read, entry.size, can_reread=self._can_reread)
        member = Member(
            name=name,
            source=source,
            kind="other",
            place=(*self._outer, entry.place),
            following=(*self._outer, entry.following),
        )
        try:
            return replace(member, kind=filetype.sniff(source.head))
        except PermanentError as error:
            return member.failed(error)

    def _entries(self, begin: int) -> Iterator[Entry]:
        if self._kind == "tar":
            return tar_entries(self._file, begin)
        if self._kind == "gzip":
            return gzip_entries(self._file, begin, self._budget)
        self._directory = Zip(self._file, self._budget)
        return self._directory.entries(begin)

    def _inner(self, member: Member, entry: Entry, begin: Place) -> Iterator[Member]:
        """The members of an inner archive, or the archive itself if it cannot be read."""
        member.source.close()
        try:
            self._budget.check_nesting(len(member.place))
            with self._inner_file(member, entry) as file:
                yield from Walk(file, member.kind, self._budget, member).members(begin)
        except PermanentError as error:
            yield member.failed(error)

    def _inner_file(self, member: Member, entry: Entry) -> BinaryIO:
        """A tar is only read forwards; a zip needs seeking, without unpacking everything again and
        again."""
        if member.kind != "zip":
            return entry.open()
        check_inner_zip(member.size, can_reread=self._can_reread)
        return open_inner(member.source, member.size)


def _inside(entry: Entry, place: Place) -> Place:
    """The part of a place that leads on inside this file; if it does not lead there, the file's
    beginning."""
    if place[0] == entry.place and len(place) > 1:
        return place[1:]
    return BEGINNING

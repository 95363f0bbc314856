"""The members of one archive, each to its outcome; what takes too long goes on later.

Small members are read into memory and sent by several threads, since most of the time is the DICOM
store's; large ones are sent while they are read. A follow-up message can go on only behind members
in front of which none is left, so progress is noted in the order of the archive.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, Protocol

from functions.common.errors import NothingToStoreError, PermanentError, RetryableError
from functions.common.events.outcomes import Word
from functions.store import metadata, multipart_file, source, verdict
from functions.store.archive import Member, Place, Walk
from functions.store.archive_limits import Budget, Limits
from functions.store.archive_pairs import Alone, Lookup, Ready, Together, Window, half_of
from functions.store.archive_progress import Progress
from functions.store.filetype import Kind
from functions.store.instances import DicomFile, Instance, JpegInstance
from functions.store.source import Source
from functions.store.verdict import Verdict

_WORKERS: Final = 8
_SMALL_BYTES: Final = 1024 * 1024


class _File(Protocol):
    """A member, or half a pair."""

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> Place: ...

    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class Told:
    """The outcome of one member, which was published."""

    verdict: Verdict
    name: str


@dataclass(frozen=True)
class _Job:
    """One member, or a pair of two, to its outcome.

    Args:
        run: stores it and publishes; may be done by another thread.
        reads: whether it reads from the archive, so that the archive must be left alone meanwhile.
    """

    run: Callable[[], list[Told]]
    reads: bool = False


@dataclass(frozen=True)
class _Step:
    """A member that the walk has gone past.

    Args:
        futures: of its jobs.
        place, members, total_bytes, waiting: the progress once they are done.
    """

    futures: list[Future[list[Told]]]
    place: Place
    members: int
    total_bytes: int
    waiting: list[Place]


@dataclass
class ArchiveSlice:
    """The part of one archive that one invocation goes through.

    Args:
        open_file: opens the archive as a file that can be sought in.
        kind: what it is.
        size: in bytes.
        limits: as the settings have them.
        store: stores an instance; the text tells its place in the archive.
        publish: publishes the verdict on a member: of this name, place and size.
        time_left: whether another member can be begun.
        progress: where to go on; is kept up to date.
        window: where halves of pairs wait for the other one.
    """

    open_file: Callable[[], BinaryIO]
    kind: Kind
    size: int
    limits: Limits
    store: Callable[[Instance, str], Word]
    publish: Callable[[Verdict, str, str, int], None]
    time_left: Callable[[], bool]
    progress: Progress
    window: Window = field(default_factory=Window)
    _steps: deque[_Step] = field(default_factory=deque)

    def run(self) -> bool:
        """Go through the members until all are done, the time is up, or something does not work for
        now.

        Returns:
            Whether all are done; False: go on later from `progress`.

        Raises:
            PermanentError: as Walk; the members in front of that are done.
            SupersededError: the archive is gone.
            RetryableError: not even the first member could be done.
        """
        began_at = self.progress.reached
        try:
            return self._run()
        except RetryableError:
            if self.progress.reached == began_at:
                raise
            return False

    def _run(self) -> bool:
        error: PermanentError | None = None
        try:
            if not self._walk():
                return False
        except PermanentError as caught:
            error = caught
        self._report_waiting()
        if error is not None:
            raise error
        return True

    def _walk(self) -> bool:
        """Go through the members; whether the end was reached."""
        progress = self.progress
        budget = Budget(
            self.limits,
            self.size,
            members=progress.members,
            total_bytes=progress.total_bytes,
        )
        # What waits for its other half is read once more, into the memory of this process.
        begin = min([*progress.waiting, progress.place])
        with (
            ThreadPoolExecutor(_WORKERS) as pool,
            self.open_file() as file,
            Walk(file, self.kind, budget, place=begin, counted_from=progress.place) as walk,
        ):
            try:
                return self._go_through(walk, pool)
            finally:
                self._settle(0)

    def _go_through(self, walk: Walk, pool: ThreadPoolExecutor) -> bool:
        begin = self.progress.place
        waiting = set(self.progress.waiting)
        for member in walk:
            if member.place < begin:
                if member.place in waiting:
                    self.window.take(half_of(member), member)
                continue
            futures = [self._start(job, pool) for job in self._jobs(member, walk)]
            step = _Step(
                futures=futures,
                place=member.following,
                members=walk.budget.members,
                total_bytes=walk.budget.total_bytes,
                waiting=self.window.places,
            )
            self._steps.append(step)
            if not self.time_left():
                return False
        return True

    def _start(self, job: _Job, pool: ThreadPoolExecutor) -> Future[list[Told]]:
        """Begin with a job; earlier ones are waited for as far as room is needed."""
        if not job.reads:
            self._settle(_WORKERS - 1)
            return pool.submit(job.run)
        self._settle(0)
        future = pool.submit(job.run)
        future.exception()  # waits: it reads where the walk would go on reading
        return future

    def _settle(self, leave: int) -> None:
        """Wait for the oldest members and count them, until no more than so many are left.

        Raises:
            RetryableError: one cannot be done now. Later ones may be done, but are not counted:
                they are done again.
        """
        while len(self._steps) > leave:
            step = self._steps.popleft()
            try:
                told = [one for future in step.futures for one in future.result()]
            except RetryableError:
                self._steps.clear()
                raise
            self._count(told)
            self.progress.place = step.place
            self.progress.members = step.members
            self.progress.total_bytes = step.total_bytes
            self.progress.waiting = step.waiting

    def _count(self, told: Iterable[Told]) -> None:
        for one in told:
            self.progress.count(one.verdict, one.name)

    def _report_waiting(self) -> None:
        """What waits when the archive ends stays alone."""
        for half in list(self.window):
            self.window.remove(half)
            self._count([self._fail(self.window.left_alone(half), half)])
            self.progress.waiting = self.window.places

    # What there is to do for a member

    def _jobs(self, member: Member, walk: Walk) -> list[_Job]:
        """What can be brought to its outcome now that the walk has come to this member."""
        try:
            if member.problem is not None:
                raise member.problem
            if member.kind in ("json", "jpeg"):
                return [self._pair_job(ready) for ready in self._ready(member, walk)]
            if member.kind in ("dicom", "multipart"):
                return [self._instance_job(member)]
            raise NothingToStoreError("neither DICOM, nor metadata with a JPEG")
        except PermanentError as error:
            found = error
        return [_Job(lambda: [self._fail(found, member)])]

    def _instance_job(self, member: Member) -> _Job:
        """Raises PermanentError: it is small and cannot be read."""
        if member.size > _SMALL_BYTES:
            return _Job(lambda: [self._store_instance(member)], reads=True)
        kept = replace(member, source=source.in_memory(member.source))
        return _Job(lambda: [self._store_instance(kept)])

    def _ready(self, member: Member, walk: Walk) -> list[Ready]:
        half = half_of(member)
        if walk.has_directory:
            return Lookup(walk).take(half, member)
        return self.window.take(half, member)

    def _pair_job(self, ready: Ready) -> _Job:
        if isinstance(ready, Alone):
            return _Job(lambda: [self._fail(ready.error, ready.half)])
        if ready.pictured.size > _SMALL_BYTES:
            return _Job(lambda: self._store_pair(ready, ready.picture), reads=True)
        try:
            kept = source.in_memory(ready.picture)
        except PermanentError as error:
            found = error
            return _Job(lambda: [self._fail(found, half) for half in ready.halves])
        return _Job(lambda: self._store_pair(ready, kept))

    # Jobs

    def _store_instance(self, member: Member) -> Told:
        try:
            instance: Instance
            if member.kind == "multipart":
                instance = multipart_file.instance_of(member.source)
            else:
                header = source.header_of(member.source)
                instance = DicomFile(header.resource, member.source)
            word = self.store(instance, _text_of(member.place))
        except PermanentError as error:
            return self._fail(error, member)
        return self._tell(verdict.of_word(word, instance.resource), member)

    def _store_pair(self, pair: Together, picture: Source) -> list[Told]:
        try:
            instance = JpegInstance(metadata.parse(pair.text), picture)
            word = self.store(instance, _text_of(pair.described.place))
        except PermanentError as error:
            return [self._fail(error, half) for half in pair.halves]
        found = verdict.of_word(word, instance.resource)
        return [self._tell(found, half) for half in pair.halves]

    def _fail(self, error: PermanentError, file: _File) -> Told:
        if error.reason == "unsafe_archive":
            raise error
        return self._tell(verdict.of_member_error(error), file)

    def _tell(self, found: Verdict, file: _File) -> Told:
        self.publish(found, file.name, _text_of(file.place), file.size)
        return Told(found, file.name)


def _text_of(place: Place) -> str:
    return "#" + ".".join(str(number) for number in place)

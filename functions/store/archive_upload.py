"""An archive in the landing bucket: each member gets an outcome, and then the archive.

One invocation has time for a slice of it. Then a follow-up message passes the progress
(archive_progress) to the next invocation, whose walk begins at its mark.

Small members are read into memory and stored by several threads, because most of the time is spent
waiting for the DICOM store. Large ones are stored while they are read.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.outcomes import Word
from functions.store import archive_progress, metadata, multipart_file, verdicts
from functions.store.archive import Member, Walk, text_of
from functions.store.archive_limits import Budget
from functions.store.archive_pairs import Group, Window, ready_groups
from functions.store.archive_progress import Done, Mark, Progress
from functions.store.delivery import Delivery
from functions.store.filetype import Kind
from functions.store.instances import DicomFile, Instance, JpegInstance
from functions.store.seekable import open_ranged
from functions.store.source import whole
from functions.store.stow import Stow
from functions.store.verdicts import Verdict

_WORKERS: Final = 8
_SMALL_BYTES: Final = 1024 * 1024
# Parts of an invocation's time: the reserve for the follow-up message and the end, and what must be
# left before another member is begun.
_RESERVE_PART: Final = 0.1
_MEMBER_PART: Final = 0.2


def store_archive(delivery: Delivery, kind: Kind, progress: Progress) -> Verdict | None:
    """Store members until all are done or the time is over.

    Args:
        delivery: of its event, or of a follow-up message.
        kind: what it is.
        progress: where to begin; is kept up to date.

    Returns:
        The verdict on the archive; None when a follow-up message continues it.

    Raises:
        SupersededError: the archive is gone.
        RetryableError: not even the first member could be done.
    """
    try:
        if _slice_of(delivery, kind, progress).run():
            return progress.verdict()
    except PermanentError as error:
        return progress.verdict(error)
    archive_progress.publish(delivery, progress)
    return None


def _slice_of(delivery: Delivery, kind: Kind, progress: Progress) -> "ArchiveSlice":
    """The slice for which this invocation has time. Its deadline comes before the reserve, in which
    nothing more is stored, but what was stored is still published."""
    archive = delivery.object
    budget_s = delivery.deadline.budget_s
    deadline = Deadline((1 - _RESERVE_PART) * budget_s, delivery.deadline.started_s)
    within = replace(delivery, deadline=deadline)

    def store(instance: Instance, place: str) -> Word:
        return Stow(within, instance, [archive], place).run()

    def publish(verdict: Verdict, member: Member) -> None:
        outcome = replace(
            verdict.outcome,
            source=archive.ref,
            member=member.name,
            place=text_of(member.place),
            size_bytes=member.size,
        )
        delivery.outcomes.publish(outcome)

    return ArchiveSlice(
        open_file=lambda: open_ranged(archive, delivery.buckets, deadline),
        kind=kind,
        budget=Budget(delivery.settings, archive.size),
        store=store,
        publish=publish,
        time_left=lambda: deadline.remaining_s() > _MEMBER_PART * budget_s,
        progress=progress,
    )


@dataclass
class ArchiveSlice:
    """The part of one archive that one invocation processes.

    Args:
        open_file: opens the archive as a seekable file.
        kind: what it is.
        budget: what it may still hold.
        store: stores an instance; the text is its place in the archive.
        publish: publishes the verdict on a member.
        time_left: whether another member can be begun.
        progress: where to continue; is kept up to date.
        window: halves of pairs that wait for the other one.
    """

    open_file: Callable[[], BinaryIO]
    kind: Kind
    budget: Budget
    store: Callable[[Instance, str], Word]
    publish: Callable[[Verdict, Member], None]
    time_left: Callable[[], bool]
    progress: Progress
    window: Window = field(default_factory=Window)

    def run(self) -> bool:
        """Process the members until all are done, the time is over, or a temporary failure.

        Returns:
            Whether all are done; False: continue later from `progress`.

        Raises:
            PermanentError: as Walk; the members before it are done.
            SupersededError: the archive is gone.
            RetryableError: not even the first member could be done.
        """
        begin = self.progress.mark
        try:
            return self._store_members()
        except RetryableError:
            if self.progress.mark == begin:
                raise
            return False

    def _store_members(self) -> bool:
        try:
            is_at_end = self._walk()
        except PermanentError:
            self._fail_waiting()
            raise
        if is_at_end:
            self._fail_waiting()
        return is_at_end

    def _walk(self) -> bool:
        """Store each member that is ready; returns whether the walk came to the end."""
        with ThreadPoolExecutor(_WORKERS) as pool, self.open_file() as file:
            walk = Walk(file, self.kind, self.budget)
            uploads = _Uploads(pool, self._store_groups, self.progress)
            try:
                for member in self._new_members(walk):
                    groups = ready_groups(member, walk, self.window)
                    uploads.add(groups, self._mark_after(member))
                    if not self.time_left():
                        return False
                return True
            finally:
                # An upload that cannot be stored now raises, even if something else ended the walk,
                # because its member must be processed again.
                uploads.finish()

    def _new_members(self, walk: Walk) -> Iterator[Member]:
        """The members that no earlier invocation counted. The walk begins at the first half that
        waits, if there is one: on the way to new members, these halves are kept in memory again.

        A member was counted if the mark is at what follows it, or beyond. Its own place does not
        tell: an inner archive that proves to be damaged after its members lies before them.
        """
        reached = self.progress.mark
        waiting = set(reached.waiting)
        # The first new member restores the counts of earlier invocations. Restored earlier, they
        # would include members that the walk comes to once more and checks against the limits.
        is_restored = False
        for member in walk.members(reached.begin):
            if member.following > reached.place:
                if not is_restored:
                    self.budget.restore(reached.members, reached.total_bytes)
                    is_restored = True
                self.budget.count(member.size)
                yield member
            elif member.place in waiting:
                # It keeps waiting: its other half lies after the mark, if anywhere. The window has
                # room, because all of these were in it at once before.
                self.window.take(member)

    def _mark_after(self, member: Member) -> Mark:
        return Mark(
            place=member.following,
            members=self.budget.members,
            total_bytes=self.budget.total_bytes,
            waiting=self.window.places,
        )

    def _fail_waiting(self) -> None:
        """Halves still waiting at the end of the archive have no partner and fail."""
        while not self.window.is_empty:
            # It comes with its problem, so nothing is stored.
            half = self.window.take_oldest()
            done = self._store_groups([(half,)])
            mark = replace(self.progress.mark, waiting=self.window.places)
            self.progress.reach(mark, done)

    def _store_groups(self, groups: list[Group]) -> list[Done]:
        """Store each group, and publish the verdict on each of its members."""
        done = []
        for group in groups:
            verdict = self._verdict(group)
            for member in group:
                self.publish(verdict, member)
                done.append(Done(verdict, member.name))
        return done

    def _verdict(self, group: Group) -> Verdict:
        for member in group:
            if member.problem is not None:
                return verdicts.of_member_error(member.problem)
        try:
            instance = _instance(group)
            word = self.store(instance, text_of(group[0].place))
        except PermanentError as error:
            if error.reason == "unsafe_archive":
                raise
            return verdicts.of_member_error(error)
        return verdicts.of_word(word, instance.resource)


def _instance(group: Group) -> Instance:
    """The instance of a group without problems.

    Raises:
        PermanentError: it cannot be read, or is not an instance.
    """
    first = group[0]
    if first.kind == "json":
        _, jpeg = group
        text = whole(first.source, metadata.LIMIT_BYTES)
        return JpegInstance(metadata.parse(text), jpeg.source)
    if first.kind == "multipart":
        return multipart_file.instance_of(first.source)
    return DicomFile(first.source)


def _kept(group: Group) -> Group:
    return tuple(member.kept() for member in group)


def _has_large_member(group: Group) -> bool:
    """Whether a member is to be stored, and too large to be kept in memory."""
    return any(member.problem is None and member.size > _SMALL_BYTES for member in group)


@dataclass
class _Uploads:
    """The running uploads, the oldest first.

    Progress is counted in the order of the archive, whichever upload ends first: a follow-up
    message can only continue where everything before is done.

    Args:
        pool: of threads.
        store: stores groups and publishes their outcomes.
        progress: is kept up to date.
    """

    pool: Executor
    store: Callable[[list[Group]], list[Done]]
    progress: Progress
    _under_way: deque[tuple[Future[list[Done]], Mark]] = field(default_factory=deque)

    def add(self, groups: list[Group], mark: Mark) -> None:
        """Store groups; the mark is reached then.

        Raises:
            RetryableError: these or earlier ones cannot be stored now.
        """
        if any(map(_has_large_member, groups)):
            # It is streamed directly from the archive, so the walk must wait until it is sent.
            self.finish()
            self.progress.reach(mark, self.store(groups))
            return
        in_memory = [_kept(group) for group in groups]
        if len(self._under_way) == _WORKERS:
            self._wait_for_oldest()
        upload = self.pool.submit(self.store, in_memory)
        self._under_way.append((upload, mark))

    def finish(self) -> None:
        """Wait for all.

        Raises:
            RetryableError: one cannot be stored now.
        """
        while self._under_way:
            self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        upload, mark = self._under_way.popleft()
        if upload.exception() is not None:
            # These members must come again, so later uploads are not counted, even if they are
            # done.
            self._under_way.clear()
        self.progress.reach(mark, upload.result())

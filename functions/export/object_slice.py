"""Does one slice of an export in which each instance or frame becomes an object: retrieves those
whose objects are missing, writes them, and reports the result of each.

An export that is run again writes only what is missing. An object that is there already, of the
same kind of export, is left as it is in two cases:

    it was written by this run;
    it was written after the DICOM store received the instance.

Otherwise it is compared with the instance, which is retrieved for that: the same bytes are left as
they are, and others are a `conflict` (writer.py). Two renderings of one instance may differ; but if
the store does not say that the object is newer, a jpeg or png with other bytes is a conflict too,
because nobody knows of which instance it was made. An object of another kind is a `conflict` too. A
zip is made again, unless the same request has completed it, with as many instances as the store has
now (compose.py); metadata.ndjson is always made again.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import Resource
from functions.export.batches import Batches
from functions.export.content import Content
from functions.export.fetch import Fetcher, Incoming
from functions.export.giving_up import GivingUp, Known
from functions.export.job import Job
from functions.export.result import Result
from functions.export.slices import Piece, Slice, by_instance_uid, path_of, streams_of
from functions.export.tally import Tally, WrittenObjects
from functions.export.writer import NotComparedError, ObjectWriter, Present

THREADS: Final = 8
# Attempts for missing instances: a cut answer is requested again.
_PASSES: Final = 3
_FAILED_IN_A_ROW_MAX: Final = 2 * THREADS


class ObjectSlice:
    """The work on one slice within one invocation.

    Args:
        run: of the plan.
        known: finds a piece that a finished slice has exported.
    """

    def __init__(self, job: Job, run: str, known: Known) -> None:
        self._job = job
        self._request = job.request
        self._tally = Tally(job.work_deadline)
        self._fetcher = Fetcher(job)
        self._writer = ObjectWriter(job, run)
        self._giving_up = GivingUp(job, known)
        self._store_is_away = False
        # The objects that are in the destination already, by name.
        self._existing: dict[str, Present] = {}
        # When the store received an instance.
        self._times: dict[Resource, str] = {}

    def run(self, task: Slice) -> Result:
        """Do it all, or what there is time for: the rest becomes another slice.

        Returns:
            The result, in the slice's order.

        Raises:
            RetryableError: something failed that another delivery may do, or there was time for
                nothing; finished objects are in the bucket.
        """
        try:
            self._settle(task)
        except RetryableError as error:
            if error.reason != "deadline_exceeded" or not self._has_progress():
                raise
        return self._tally.result(task)

    def _has_progress(self) -> bool:
        # An instance with much bulk data makes progress with each object.
        return bool(self._tally.settled()) or self._writer.has_written

    def _settle(self, task: Slice) -> None:
        """First existing objects, then whole studies and series, then what is missing."""
        with ThreadPoolExecutor(THREADS) as pool:
            self._existing = self._listed(task.pieces, pool)
            existing = [one for one in task.pieces if self._name(one) in self._existing]
            list(pool.map(self._settle_existing, existing))
            # A stream that uses up the time would leave none for its instances: then none of them
            # would ever be given up.
            if self._request.format.streamed and not self._job.attempt.may_give_up:
                self._take_streams(task, pool)
            missing = self._missing(task.pieces)
            for _ in range(_PASSES):
                list(pool.map(self._fetch, missing))
                missing = self._missing(missing)
        if missing:
            self._give_up_or_raise(missing)

    def _missing(self, pieces: list[Piece]) -> list[Piece]:
        return [one for one in pieces if not self._tally.is_settled(one)]

    def _give_up_or_raise(self, missing: list[Piece]) -> None:
        """Give up what was tried, or leave it all to another delivery.

        When the time is over, what was not tried yet is the rest of the slice. If there was time
        for something else, nothing is given up, and all that is missing is the rest.
        """
        is_late = self._job.work_deadline.remaining_s() <= 0
        if is_late and self._has_progress():
            return
        tried = self._tally.tried(missing)
        is_enough = is_late or len(tried) == len(missing)
        if tried and is_enough and self._may_give_up():
            self._tally.give_up(tried)
            return
        self._job.work_deadline.check()
        raise self._tally.why(missing)

    def _may_give_up(self) -> bool:
        return self._giving_up.is_due(self._tally.done())

    def _name(self, piece: Piece, tag: str = "") -> str:
        return self._request.below(path_of(piece, tag)) + self._request.format.extension

    # Existing objects

    def _listed(self, pieces: list[Piece], pool: ThreadPoolExecutor) -> dict[str, Present]:
        """The existing objects of these pieces, by name."""
        names = None
        # Which bulk data an instance has is not known yet.
        if self._request.format.retrieval != "bulkdata":
            names = {self._name(one) for one in pieces}
        folders = sorted({_folder(one) for one in pieces})
        found: dict[str, Present] = {}
        for existing in pool.map(partial(self._writer.existing, names=names), folders):
            found |= existing
        return found

    def _settle_existing(self, piece: Piece) -> None:
        """A piece whose existing object is current is done."""
        current = self._current(self._name(piece), piece.resource)
        if current:
            self._tally.note(piece, [("", current)])

    def _current(self, name: str, instance: Resource) -> Present | None:
        """The existing object of this name if it is known to contain what the store has now."""
        existing = self._existing.get(name)
        if existing is None:
            return None
        if existing.by_this_export:
            return existing
        if existing.newer_than(self._stored_at(instance)):
            return existing
        return None

    def _write(self, name: str, content: Content) -> Present:
        """Write an object; one that exists, and is not current, is compared."""
        if name in self._existing:
            return self._writer.compare(name, content)
        try:
            return self._writer.write(name, content)
        except NotComparedError as error:
            # The next attempt treats it as one that was listed.
            self._existing[name] = error.present
            raise

    def _stored_at(self, instance: Resource) -> str:
        """Remembered for all frames or bulk data of an instance."""
        time = self._times.get(instance)
        if time is None:
            time = self._asked_time(instance)
            self._times[instance] = time
        return time

    def _asked_time(self, instance: Resource) -> str:
        """Empty when the store does not say: then the object is compared with the instance. If the
        store fails now, an early delivery leaves the question to a later one."""
        try:
            return self._job.store.stored_at(instance, self._job.work_deadline)
        except PermanentError:
            return ""
        except RetryableError as error:
            is_late = error.reason == "deadline_exceeded"
            if is_late or not self._job.attempt.may_give_up:
                raise
            return ""

    # Many in one answer

    def _take_streams(self, task: Slice, pool: ThreadPoolExecutor) -> None:
        """Retrieve each study or series without existing objects in one answer."""
        wanted = by_instance_uid(task.pieces)
        batches = Batches(self._put, pool, self._job.work_deadline)
        begun = streams_of(piece.resource for piece in self._tally.done())
        try:
            for resource in task.streams:
                # Most of it is there already: the rest is cheaper one by one.
                if resource in begun:
                    continue
                with self._fetcher.one_answer(resource, wanted) as answer:
                    for incoming in answer:
                        self._take(incoming, batches)
        finally:
            batches.finish()

    def _take(self, incoming: Incoming, batches: Batches) -> None:
        piece = incoming.piece
        content = incoming.content
        if piece is None or self._tally.is_settled(piece):
            return
        if content.is_small:
            batches.add(piece, content)
        else:
            self._put(piece, content)

    def _put(self, piece: Piece, content: Content) -> None:
        name = self._name(piece)

        def write() -> WrittenObjects:
            return [("", self._write(name, content))]

        self._tally.attempt(piece, write)

    # One by one

    def _fetch(self, piece: Piece) -> None:
        """Retrieve and write one piece by separate requests, unless the store or the bucket seems
        to be down: then the rest is left to another delivery."""
        if self._store_is_away or self._job.work_deadline.remaining_s() <= 0:
            return
        self._tally.attempt(piece, lambda: self._fetched(piece))
        if self._tally.failed_in_a_row < _FAILED_IN_A_ROW_MAX:
            return
        # Many bad instances in a row look like a store that is down. `_may_give_up` asks it for a
        # known instance: if it returns that, it is not down, and the count begins at 0 again.
        self._tally.end_row()
        if not self._may_give_up():
            self._store_is_away = True

    def _fetched(self, piece: Piece) -> WrittenObjects:
        written: WrittenObjects = []
        for tag, stream in self._fetcher.objects(piece):
            name = self._name(piece, tag)
            one = self._current(name, piece.resource)
            if one is None:
                one = self._write(name, Content.of(stream))
            written.append((tag, one))
        return written


def _folder(piece: Piece) -> str:
    """The folder that is listed for a piece: of its series, or of its instance if it is a frame. A
    series may have many more frames than a slice."""
    uids = piece.resource
    folder = f"{uids.study}/{uids.series}/"
    if piece.frame:
        folder += f"{uids.instance}/"
    return folder

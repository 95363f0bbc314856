"""Metadata and a JPEG in the landing bucket as two objects, each with its own event.

Each event publishes only the outcome of its own object, so that an outcome has one owner. Both
events may be processed at the same time: the one that claims the pair stores it and writes the
outcomes of both (pair_state); the other one waits, finds its outcome, and publishes it. An object
with a written outcome is finished: a new upload of its other half gets an outcome of its own, and
does not change the first one's.

A half whose other half does not come within PAIR_WAIT_S is delivered again and again, and then goes
to quarantine: `unsupported_input`, with the names that the two must have.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from functions.common.clients.storage import StoredObject
from functions.common.deadline import age_s, parsed_rfc3339
from functions.common.errors import (
    NothingToStoreError,
    PermanentError,
    RetryableError,
    SupersededError,
)
from functions.store import filetype, metadata, verdicts
from functions.store.delivery import Delivery
from functions.store.instances import JpegInstance
from functions.store.metadata import Metadata
from functions.store.pair_names import OTHER, beginnings, stem_of
from functions.store.pair_state import PairState, claim_name, id_of
from functions.store.refusals import unsupported
from functions.store.source import Source, whole
from functions.store.stow import Stow
from functions.store.verdicts import Verdict

_WHAT_TO_DO: Final = (
    "metadata NAME.json and its JPEG NAME.jpg or NAME.jpeg belong together by their common name, in"
    " one folder; or combine the two into one multipart-request.file"
)
_NO_OTHER: Final = {
    "json": (
        f"no JPEG of this name arrived, or it already belongs to another instance: {_WHAT_TO_DO}"
    ),
    "jpeg": f"no usable metadata of this name arrived: {_WHAT_TO_DO}",
}


class HalfUpload:
    """One half of a pair, from its event to its verdict.

    Args:
        delivery: of its event.
        kind: its kind, by its content: json or jpeg.
        source: its bytes, of which the head was read.
    """

    def __init__(self, delivery: Delivery, kind: str, source: Source) -> None:
        self._delivery = delivery
        self._kind = kind
        self._source = source
        self._mine = delivery.object
        self._state = PairState(delivery)

    def run(self) -> Verdict:
        """Store the pair, unless the other event does or did so.

        Raises:
            PermanentError: its name is not that of a half.
            SupersededError: the object is gone.
            RetryableError: operation_pending, while its other half is missing or the other event
                works on the pair; all errors of storing.
        """
        stem = stem_of(self._mine.ref.name, self._kind)
        if not stem:
            raise NothingToStoreError(f"its name does not say what it belongs to: {_WHAT_TO_DO}")
        finished = self._state.resume()
        if finished is not None:
            return finished
        described = None
        if self._kind == "json":
            try:
                described = _metadata_in(self._source)
            except PermanentError as error:
                return self._state.finish(verdicts.of_error(error))
        # Its bytes are read again when the pair is sent.
        self._source.close()
        for other in self._named_alike(stem):
            verdict = self._paired_with(other, described)
            if verdict is not None:
                return verdict
        return self._without_other()

    def _named_alike(self, stem: str) -> Iterator[StoredObject]:
        """The objects that can be the other half, by their names."""
        buckets, deadline = self._delivery.buckets, self._delivery.deadline
        for beginning in beginnings(stem):
            for one in buckets.list(self._mine.ref.bucket, beginning, deadline):
                if stem_of(one.ref.name, OTHER[self._kind]) == stem:
                    yield one

    def _paired_with(self, other: StoredObject, described: Metadata | None) -> Verdict | None:
        """The verdict on this half with that object; None if that is not its other half.

        Args:
            other: the object.
            described: this half, if it is the metadata.
        """
        with contextlib.closing(self._delivery.source_of(other)) as source:
            instance = self._joined(described, source)
            if instance is None:
                return None
            return self._settle(other, instance)

    def _joined(self, described: Metadata | None, other: Source) -> JpegInstance | None:
        """The instance of the two; None if the other one is not the other half, by its content."""
        try:
            if filetype.sniff(other.head) != OTHER[self._kind]:
                return None
            if described is not None:
                return JpegInstance(described, other)
            return JpegInstance(_metadata_in(other), self._source)
        except PermanentError:
            # Its own event reports why.
            return None
        except SupersededError:
            # It was replaced: check again.
            raise RetryableError("unavailable") from None

    def _settle(self, other: StoredObject, instance: JpegInstance) -> Verdict | None:
        """The verdict on this half of an instance; None if the other half belongs to another one.

        The other half decides what happens:

            open                            the two are stored; both get this verdict
            finished by the same claim      it was stored with this one: its verdict is repeated
            finished as bad                 it belongs to another upload
            finished, of another instance   it belongs to another upload
            finished, of this instance      it was stored with an earlier upload of this half: the
                                            two are stored, and only this half gets the verdict
        """
        claim = claim_name(self._mine.ref, other.ref)
        other_id = id_of(other.ref)
        theirs = self._state.finished(other_id)
        if theirs is None:
            verdict = self._store(other, instance, claim)
            return self._state.finish(verdict, claim, other_id)
        if theirs.claim == claim:
            return self._state.finish(theirs.verdict, claim)
        if theirs.verdict.is_bad or theirs.verdict.outcome.resource != instance.resource:
            return None
        verdict = self._store(other, instance, claim)
        return self._state.finish(verdict, claim)

    def _store(self, other: StoredObject, instance: JpegInstance, claim: str) -> Verdict:
        """Store the two; only this invocation does so."""
        try:
            with self._state.claimed(claim):
                word = Stow(self._delivery, instance, [self._mine, other]).run()
        except PermanentError as error:
            return verdicts.of_error(error)
        except SupersededError:
            # One of the two changed: check again.
            raise RetryableError("unavailable") from None
        return verdicts.of_word(word, instance.resource)

    def _without_other(self) -> Verdict:
        """The other half is missing, at least until now."""
        written = parsed_rfc3339(self._mine.created)
        wait_s = self._delivery.settings.pair_wait_s
        if written is not None and age_s(written) < wait_s:
            raise RetryableError("operation_pending")
        return self._state.finish(verdicts.of_error(unsupported(_NO_OTHER[self._kind])))


def _metadata_in(source: Source) -> Metadata:
    return metadata.parse(whole(source, metadata.LIMIT_BYTES))

"""Metadata and a JPEG that lie in the landing bucket as two objects, each with an event of its own.

Each event publishes the outcome of its own object and of no other, so that an outcome has one
owner. Both events may be handled at the same time: the one that claims the pair stores it and
writes down the outcome of both (pair_state); the other one waits, finds its outcome, and publishes
it. An object whose outcome is written down is finished. A new upload of its other half has an
outcome of its own, and changes nothing about it.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from functions.common.clients.storage import StoredObject
from functions.common.deadline import age_s, timestamp
from functions.common.errors import (
    NothingToStoreError,
    PermanentError,
    RetryableError,
    SupersededError,
)
from functions.store import filetype, metadata, stow, verdict
from functions.store.delivery import Delivery
from functions.store.instances import JpegInstance
from functions.store.metadata import Metadata
from functions.store.pair_names import OTHER, stem_of
from functions.store.pair_state import Finished, PairState, claim_name
from functions.store.refusals import unsupported
from functions.store.source import Source, whole
from functions.store.verdict import Verdict

_WHAT_TO_DO: Final = (
    "metadata NAME.json and its JPEG NAME.jpg or NAME.jpeg belong together by their common name, in"
    " one folder; or make one multipart-request.file of the two"
)
_NO_OTHER: Final = {
    "json": f"no JPEG of the same name came that is not part of another instance: {_WHAT_TO_DO}",
    "jpeg": f"no metadata of the same name came: {_WHAT_TO_DO}",
}


def finished_verdict(delivery: Delivery) -> Verdict | None:
    """What is written down for the object of a delivery; None when nothing is.

    Raises:
        RetryableError: as PairState.finished.
    """
    state = _state_of(delivery)
    finished = state.finished(delivery.event.ref)
    if finished is None:
        return None
    state.complete(finished)
    return finished.verdict


def _state_of(delivery: Delivery) -> PairState:
    services = delivery.services
    return PairState(services.buckets, services.settings.state_bucket, delivery.deadline)


@dataclass(frozen=True)
class Partner:
    """An object that is the other half by name and by content.

    Args:
        object: the object.
        source: its bytes.
        described: the metadata in it; None where it is the JPEG.
    """

    object: StoredObject
    source: Source
    described: Metadata | None = None


class HalfUpload:
    """One half of a pair, from its event to its verdict.

    Args:
        delivery: of its event.
        kind: what it is, by its content.
        source: its bytes, of which the head was read.
    """

    def __init__(self, delivery: Delivery, kind: str, source: Source) -> None:
        self._delivery = delivery
        self._kind = kind
        self._source = source
        self._mine = delivery.input
        self._state = _state_of(delivery)

    def run(self) -> Verdict:
        """Store the pair, unless the other event does or did.

        Raises:
            PermanentError: its name cannot be that of a half.
            SupersededError: the object is gone.
            RetryableError: operation_pending, while its other half did not come or the other event
                works on the pair; whatever storing raises.
        """
        stem = stem_of(self._mine.ref.name, self._kind)
        if not stem:
            raise NothingToStoreError(f"its name does not say what it belongs to: {_WHAT_TO_DO}")
        finished = finished_verdict(self._delivery)
        if finished is not None:
            return finished
        described = None
        if self._kind == "json":
            try:
                described = metadata.parse(whole(self._source, metadata.LIMIT_BYTES))
            except PermanentError as error:
                return self._finish(verdict.of_error(error))
        self._source.close()
        for partner in self._partners(stem):
            with contextlib.closing(partner.source):
                found = self._with(partner, described or partner.described)
            if found is not None:
                return found
        return self._alone()

    def _partners(self, stem: str) -> Iterator[Partner]:
        """The objects that can be the other half."""
        kind = OTHER[self._kind]
        buckets = self._delivery.services.buckets
        bucket = self._mine.ref.bucket
        for one in buckets.list(bucket, f"{stem}.", self._delivery.deadline):
            if stem_of(one.ref.name, kind) == stem:
                partner = self._look_into(one, kind)
                if partner is not None:
                    yield partner

    def _look_into(self, one: StoredObject, kind: str) -> Partner | None:
        """The partner that an object is; None where it is none after all, by its content."""
        source = self._delivery.source_of(one)
        try:
            if filetype.sniff(source.head) == kind:
                described = None
                if kind == "json":
                    described = metadata.parse(whole(source, metadata.LIMIT_BYTES))
                return Partner(one, source, described)
        except PermanentError:
            pass  # its own event tells why
        except SupersededError:
            raise RetryableError("unavailable") from None  # it was replaced: look again
        source.close()
        return None

    def _with(self, partner: Partner, described: Metadata | None) -> Verdict | None:
        """Store the two; None where the other one is finished and part of another instance."""
        assert described is not None, "one of the two is metadata"
        other = partner.object
        claim = claim_name(self._mine.ref, other.ref)
        theirs = self._state.finished(other.ref)
        if theirs is not None and theirs.claim == claim:
            # An earlier delivery was killed after it had written this down.
            return self._finish(theirs.verdict, claim)
        if theirs is not None and theirs.stored != described.resource:
            return None
        found = self._work(partner, described, claim)
        if theirs is not None:
            return self._finish(found, claim)
        return self._state.finish_both(self._mine.ref, other.ref, found, claim).verdict

    def _work(self, partner: Partner, described: Metadata, claim: str) -> Verdict:
        """Store the two, as the only invocation that does."""
        delivery = self._delivery
        claimed = self._state.claim(
            claim,
            self._mine.ref,
            delivery.message.attempt,
            delivery.services.settings.budget_s,
        )
        picture = self._source
        if self._kind == "json":
            picture = partner.source
        instance = JpegInstance(described, picture)
        try:
            word = stow.store(delivery, instance, [self._mine, partner.object])
        except PermanentError as error:
            return verdict.of_error(error)
        except SupersededError:
            self._state.give_back(claimed)
            raise RetryableError("unavailable") from None  # one of the two changed: look again
        except RetryableError:
            self._state.give_back(claimed)
            raise
        return verdict.of_word(word, instance.resource)

    def _alone(self) -> Verdict:
        """The other half did not come, or not yet."""
        written = timestamp(self._delivery.event.created)
        wait_s = self._delivery.services.settings.pair_wait_s
        if written is not None and age_s(written) < wait_s:
            raise RetryableError("operation_pending")
        error = unsupported(_NO_OTHER[self._kind])
        return self._finish(verdict.of_error(error))

    def _finish(self, found: Verdict, claim: str = "") -> Verdict:
        """Write down the verdict on this object; the one that counts is the one that was written
        first."""
        return self._state.finish(self._mine.ref, Finished(found, claim)).verdict

"""What becomes of an input or of a member of an archive, before it is published."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from functions.common.errors import NothingToStoreError, PermanentError
from functions.common.events.outcomes import Outcome, Word
from functions.common.resources import Resource
from functions.store.stow import OtherInstanceError

# What an archive is called in which nothing failed: the first of these that a member is.
_GOOD: Final[tuple[Word, ...]] = ("stored", "conflict", "duplicate")
_KEPT: Final = "the DICOM store keeps other bytes under the same UIDs"


@dataclass(frozen=True)
class Verdict:
    """An outcome, and what follows from it for the object.

    Args:
        outcome: without the object that it is about.
        is_bad: whether the object goes to quarantine.
    """

    outcome: Outcome
    is_bad: bool = False

    @property
    def is_safe(self) -> bool:
        """Whether the DICOM store has everything, so that the object may be deleted or moved."""
        outcome = self.outcome
        return outcome.outcome in ("stored", "duplicate") and not outcome.counts.get("conflict")


def of_word(word: Word, resource: Resource | None) -> Verdict:
    """The verdict on an instance that was stored, or that the store has other bytes of which are to
    stay."""
    if word == "conflict":
        return Verdict(Outcome(word, "conflict", resource=resource, detail=_KEPT))
    return Verdict(Outcome(word, resource=resource))


def of_error(error: PermanentError) -> Verdict:
    """The verdict on what cannot be stored."""
    word: Word = "rejected"
    if error.reason == "conflict":
        word = "conflict"
    resource = None
    if isinstance(error, OtherInstanceError):
        resource = error.resource
    outcome = Outcome(word, error.reason, resource=resource, detail=error.detail)
    return Verdict(outcome, is_bad=True)


def of_member_error(error: PermanentError) -> Verdict:
    """The same for a member of an archive, which is not the worse for holding other files too."""
    if isinstance(error, NothingToStoreError):
        return Verdict(Outcome("skipped", error.reason, detail=error.detail))
    return of_error(error)


def of_archive(counts: Counter[str], reason: str, error: PermanentError | None) -> Verdict:
    """The verdict on an archive whose members have theirs.

    Args:
        counts: how many members ended in which word.
        reason: of the first that failed; empty when none did.
        error: what ended the archive too early.
    """
    detail = "some members could not be stored"
    if error is None and not reason:
        for word in _GOOD:
            if counts[word]:
                found = of_word(word, None)
                return Verdict(replace(found.outcome, counts=counts))
        error = NothingToStoreError("nothing in it to store")
    if error is not None:
        reason = error.reason
        detail = error.detail
    bad: Word = "rejected"
    if counts["stored"] or counts["duplicate"]:
        bad = "partial"
    return Verdict(Outcome(bad, reason, counts=counts, detail=detail), is_bad=True)

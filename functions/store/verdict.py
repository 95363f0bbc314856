"""What becomes of an input or of a member of an archive, before it is published."""

from dataclasses import dataclass
from typing import Final

from functions.common.errors import NothingToStoreError, PermanentError
from functions.common.events.outcomes import Outcome, Word
from functions.common.resources import Resource
from functions.store.stow import OtherInstanceError

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

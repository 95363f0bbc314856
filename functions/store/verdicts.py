"""The outcome of an input or of a member of an archive, and whether the object goes to quarantine.
Only this file decides that, except for an object that is gone (superseded) and a folder's
placeholder (skipped), which handler sees:

    cannot be stored (PermanentError)    rejected or conflict; the object goes to quarantine
    a member that is nothing to store    skipped
    an archive with a member that cannot be stored, that cannot be read to its end, or that holds
        nothing to store                 rejected or partial; the archive goes to quarantine
    conflict, if CONFLICT_POLICY keeps   the object stays where it is
        the stored instance
    stored, duplicate                    SOURCE_DISPOSITION decides

The sidecar of an object in quarantine has the outcome's reason and detail, and the failed members
with their reasons (sidecar.py). disposition.py carries the verdict out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from functions.common.errors import NothingToStoreError, PermanentError
from functions.common.events.outcomes import Outcome, Word
from functions.common.resources import Resource
from functions.store.stow import OtherInstanceError

_KEPT: Final = "the DICOM store keeps other bytes under the same UIDs"
# The outcome of an archive without failures: the first of these that one of its members has.
_GOOD: Final[tuple[Word, ...]] = ("stored", "conflict", "duplicate")


@dataclass(frozen=True)
class Verdict:
    """An outcome, and its consequence for the object.

    Args:
        outcome: without its object.
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
    """The verdict on an instance that was stored, or for which the store keeps its own, different
    bytes."""
    if word == "conflict":
        return Verdict(Outcome(word, "conflict", resource=resource, detail=_KEPT))
    return Verdict(Outcome(word, resource=resource))


def of_error(error: PermanentError) -> Verdict:
    """The verdict on an input that cannot be stored."""
    word: Word = "rejected"
    if error.reason == "conflict":
        word = "conflict"
    resource = None
    if isinstance(error, OtherInstanceError):
        resource = error.resource
    outcome = Outcome(word, error.reason, resource=resource, detail=error.detail)
    return Verdict(outcome, is_bad=True)


def of_member_error(error: PermanentError) -> Verdict:
    """The same for a member of an archive, which may also contain other files."""
    if isinstance(error, NothingToStoreError):
        return Verdict(Outcome("skipped", error.reason, detail=error.detail))
    return of_error(error)


def of_archive(
    counts: Mapping[str, int], failed: Sequence[tuple[str, str]], error: PermanentError | None
) -> Verdict:
    """The verdict on an archive, after those of its members.

    Args:
        counts: the number of members by outcome, and `members` in all.
        failed: names and reasons of the failed members.
        error: why it could not be read to its end.
    """
    if error is None and failed:
        _, reason = failed[0]
        return _of_bad_archive(counts, reason, "some members could not be stored")
    if error is None:
        for word in _GOOD:
            if counts.get(word):
                return Verdict(replace(of_word(word, None).outcome, counts=counts))
        error = NothingToStoreError("it contains nothing to store")
    return _of_bad_archive(counts, error.reason, error.detail)


def _of_bad_archive(counts: Mapping[str, int], reason: str, detail: str) -> Verdict:
    word: Word = "rejected"
    if counts.get("stored") or counts.get("duplicate"):
        word = "partial"
    return Verdict(Outcome(word, reason, counts=counts, detail=detail), is_bad=True)

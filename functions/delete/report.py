"""The outcomes of a delete: of each target, of a whole query, and of a dry run."""

from dataclasses import dataclass, replace
from typing import Final

from functions.common.events.outcomes import Outcome, Word
from functions.common.resources import Resource
from functions.delete.deletion import Settled
from functions.delete.followup import Work

_PERHAPS_DELETED: Final = "nothing was there; an earlier delivery may have deleted it"


@dataclass
class Found:
    """What a dry run found: counts by search, bytes by the store's metrics, which lag."""

    studies: int = 0
    series: int = 0
    instances: int = 0
    size_bytes: int = 0


def of_dry_run(request_id: str, resource: Resource | None, found: Found) -> Outcome:
    """What would be deleted.

    Args:
        resource: None for a query.
    """
    outcome = Outcome("dry_run", request_id=request_id, resource=resource)
    counts = {
        "studies": found.studies,
        "series": found.series,
        "instances": found.instances,
    }
    outcome = replace(outcome, counts=counts, size_bytes=found.size_bytes)
    if not found.instances:
        return replace(outcome, reason="not_found")
    return outcome


def of_target(request_id: str, settled: Settled, work: Work) -> Outcome:
    """The outcome of one resource."""
    target = settled.target
    outcome = Outcome(
        settled.word,
        settled.reason,
        request_id=request_id,
        resource=target.resource,
        detail=settled.detail,
    )
    if work.by_query:
        outcome = replace(outcome, member=str(target.resource))
    if settled.instances:
        outcome = replace(outcome, counts={"instances": settled.instances})
    if settled.was_deleted:
        return replace(outcome, size_bytes=target.size_bytes)
    return _explained(outcome, work)


def of_query(request_id: str, work: Work) -> Outcome:
    """The outcome of a whole query, after those of its studies."""
    counts = dict(work.counts)
    size_bytes = counts.pop("bytes")
    word, reason = _of_counts(counts)
    outcome = Outcome(
        word,
        reason,
        request_id=request_id,
        size_bytes=size_bytes,
        counts=counts,
    )
    return _explained(outcome, work)


def _explained(outcome: Outcome, work: Work) -> Outcome:
    """The outcome; if nothing was there, with what may have happened before."""
    if outcome.reason == "not_found" and work.late:
        return replace(outcome, detail=_PERHAPS_DELETED)
    return outcome


def _of_counts(counts: dict[str, int]) -> tuple[Word, str]:
    if counts["failed"] and counts["instances"]:
        return "partial", "operation_failed"
    if counts["failed"]:
        return "rejected", "operation_failed"
    if counts["deleted"]:
        return "deleted", ""
    return "deleted", "not_found"


def count(work: Work, settled: Settled) -> None:
    """Add a target that has ended to the counts of the request."""
    counts = work.counts
    counts["instances"] += settled.instances
    if settled.was_deleted:
        counts["deleted"] += 1
        counts["bytes"] += settled.target.size_bytes
    elif settled.word == "deleted":
        counts["not_found"] += 1
    else:
        counts["failed"] += 1

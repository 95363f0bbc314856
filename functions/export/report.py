"""The outcomes of an export."""

from functions.api.requests import ExportRequest
from functions.common.errors import PermanentError
from functions.common.events.outcomes import Outcome, Word


def of_totals(request: ExportRequest, totals: dict[str, int], reason: str = "") -> Outcome:
    """Of an export that came to its end.

    Args:
        totals: the numbers of all slices.
        reason: that most of the failures have; empty when there are none.
    """
    word, detail = _word(totals), ""
    if totals["failures"]:
        detail = "manifest.json has each failure with its reason"
    counts = dict(totals)
    size_bytes = counts.pop("bytes")
    return Outcome(
        word,
        reason,
        request_id=request.name,
        resource=request.resource,
        size_bytes=size_bytes,
        counts=counts,
        detail=detail,
    )


def of_refusal(request: ExportRequest, error: PermanentError) -> Outcome:
    """Of an export that can never come to its end."""
    return Outcome(
        "rejected",
        error.reason,
        request_id=request.name,
        resource=request.resource,
        detail=error.detail,
    )


def _word(totals: dict[str, int]) -> Word:
    if not totals["failures"]:
        return "exported"
    if totals["objects"]:
        return "partial"
    return "rejected"

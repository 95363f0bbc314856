"""What a status of the DICOM store or of Cloud Storage means; decided here for every function.

    status                      reason         an event function              search answers
    401, 403                    unauthorized   answers 503                    502 unauthorized
    429, or any status of the   rate_limited   tries again, then answers 503  429 for 429, else as
        next row that has                                                     in the next row
        Retry-After
    408 425 500 502 503 504     unavailable    tries again, then answers 503  502, 503, 504
    others                      (none)         the caller of the client judges

401 and 403 are mistakes of the operator (credentials, IAM) that can be corrected, so they never put
an input into quarantine. After a 401, a new token is tried once. Then Pub/Sub delivers the message
again, until it becomes a dead letter. `Transport.send` does the retries, `events/runtime.py` the
answers; the reasons of search are in `search/upstream.py`, and what `search` and `commands` answer
when a bucket or a topic fails is in `api/refusals.py`. One 403 may mean something else: that of a
comparison with an instance that the DICOM store may not have (`store/stow.py`, fact sheet section
5.8).
"""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from functions.common.deadline import age_s
from functions.common.errors import RetryableError

_UNAUTHORIZED: Final = (401, 403)
# Fact sheet section 10: the statuses to retry.
_RETRYABLE: Final = (408, 425, 429, 500, 502, 503, 504)


def error_of(status: int, headers: Mapping[str, str]) -> RetryableError | None:
    """The error this status stands for; None if the caller of the client decides.

    Args:
        headers: looked up in any case.
    """
    if status in _UNAUTHORIZED:
        return RetryableError("unauthorized")
    if status not in _RETRYABLE:
        return None
    wait_s = retry_after_s(headers)
    if status == 429 or wait_s is not None:
        return RetryableError("rate_limited", wait_s)
    return RetryableError("unavailable")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait according to an answer: RFC 9110 section 10.2.3 allows a number and a
    date."""
    text = headers.get("Retry-After", "")
    if text.isascii() and text.isdigit() and len(text) < 7:
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, -age_s(date if date.tzinfo else date.replace(tzinfo=UTC)))

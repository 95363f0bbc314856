"""The errors, one for each way to react.

    DicomFunctionsError(reason)
    ├─ PermanentError                  a retry cannot help: record the outcome, acknowledge
    │  └─ NothingToStoreError          the same; in an archive, the member is skipped
    ├─ RetryableError(retry_after_s)   a retry may help: answer 503, and Pub/Sub delivers again
    └─ SupersededError                 nothing is left to do; every handler catches it
    UnpublishableError                 a bug; the input is recorded as `rejected`
    SettingsError                      the function does not start

str() of the first four is the reason code, never a server's text, which may hold patient data.

Anything else that is raised is a bug: it is logged with its type and place, and answered like a
RetryableError. Missing credentials and permissions are retryable on purpose: an operator corrects
them, and until then they must not send a night of scans to quarantine. Which status becomes which
error: clients/statuses.py.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

PermanentReason = Literal[
    "invalid_event",  # the message is not an event of this function
    "invalid_command",  # a command with a missing, malformed or unknown key
    "unsupported_input",  # neither DICOM, nor metadata with a JPEG, nor an archive of these
    "rejected",  # the DICOM store refused it, or a guard rail refused it
    "conflict",  # the store has other bytes under the same UIDs
    "unsafe_archive",  # an archive over a limit, or with a member that must not be opened
    "not_found",  # what a command names does not exist
    "operation_failed",  # a long-running operation ended in an error or with failures
]
RetryableReason = Literal[
    "rate_limited",  # 429, or another retryable status with Retry-After (clients/statuses.py)
    "unavailable",  # no answer, one that breaks off, or a server error
    "unauthorized",  # 401 or 403: credentials or IAM
    "deadline_exceeded",  # this invocation's time is used up
    "operation_pending",  # an operation or another delivery of this input is at work
]


class DicomFunctionsError(Exception):
    """A failure with a reason code; its `str()` is only that code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PermanentError(DicomFunctionsError):
    """A retry cannot help.

    `detail` is one line for a person, never a server's text, a name or a patient's attribute.
    """

    def __init__(self, reason: PermanentReason, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


class NothingToStoreError(PermanentError):
    """unsupported_input, for a file that is clearly not an image: a DICOMDIR, a text, a viewer.

    In an archive it is skipped, and is not counted as a failure.
    """

    def __init__(self, detail: str) -> None:
        super().__init__("unsupported_input", detail)


class RetryableError(DicomFunctionsError):
    """A retry may help, after `retry_after_s` seconds if the server named them."""

    def __init__(self, reason: RetryableReason, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class UnpublishableError(Exception):
    """Pub/Sub always refuses this message, because it is too large or malformed: a bug of this
    project.

    Delivering the input again cannot help. The runtime logs the bug once, and records the input as
    `rejected`.
    """


class SupersededError(DicomFunctionsError):
    """The object of an event is gone or was overwritten: there is nothing to do for this event."""

    def __init__(self) -> None:
        super().__init__("superseded")


class SettingsError(Exception):
    """A setting is missing or malformed; the message names the variable and its allowed values."""


@contextlib.contextmanager
def correctable() -> Iterator[None]:
    """For the service's own buckets, and for the store that `watch_studies` counts in: an operator
    can correct one that is missing or refuses, so a PermanentError in this block becomes
    RetryableError: unavailable."""
    try:
        yield
    except PermanentError as error:
        raise RetryableError("unavailable") from error

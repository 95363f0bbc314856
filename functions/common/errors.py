"""The two kinds of failure, because there are two things to do about one.

    DicomFunctionsError(reason)
    ├─ PermanentError                  cannot help to try again: record the outcome, acknowledge
    └─ RetryableError(retry_after_s)   may help: answer 503, and Pub/Sub delivers again later

str() of both is the reason code, never a server's text, which may hold patient data.

Anything else that is raised is a bug: it is logged with its type and place, and answered like a
RetryableError. Missing credentials and permissions are retryable on purpose: an operator corrects
them, and until then they must not send a night of scans to quarantine. Which status becomes which
error: clients/statuses.py.
"""

from typing import Literal

PermanentReason = Literal[
    "invalid_event",  # the message is no event this function knows
    "invalid_command",  # a command with a missing, malformed or unknown key
    "unsupported_input",  # neither DICOM, nor metadata with a JPEG, nor an archive of these
    "rejected",  # the DICOM store refused it, or a guard rail did
    "conflict",  # the store holds other bytes under the same UIDs
    "unsafe_archive",  # an archive over a limit, or with a member that must not be opened
    "not_found",  # what a command names does not exist
    "operation_failed",  # a long-running operation ended in an error or with failures
]
RetryableReason = Literal[
    "rate_limited",  # 429, or 503 with Retry-After
    "unavailable",  # no answer, a cut answer, or a server error
    "unauthorized",  # 401 or 403: credentials or IAM
    "deadline_exceeded",  # this invocation's budget is spent
    "operation_pending",  # a long-running operation, or another delivery of the same input, goes on
]


class DicomFunctionsError(Exception):
    """A failure that has a reason code; `str()` of it is that code and nothing else."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PermanentError(DicomFunctionsError):
    """Trying again cannot help.

    `detail` is one line of our own words for a person (never a server's text, a name or a patient's
    attribute).
    """

    def __init__(self, reason: PermanentReason, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


class NothingToStoreError(PermanentError):
    """unsupported_input, of a file that claims to be no image: a DICOMDIR, a text, a viewer.

    In an archive it is skipped, and counts as no failure.
    """

    def __init__(self, detail: str) -> None:
        super().__init__("unsupported_input", detail)


class RetryableError(DicomFunctionsError):
    """Trying again may help, not before `retry_after_s` seconds where the server named them."""

    def __init__(self, reason: RetryableReason, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class UnpublishableError(Exception):
    """Pub/Sub never takes this message, since it is too large or malformed: a bug of this project.

    Delivering the input again cannot help. The runtime logs the bug once, and records the input as
    `rejected`.
    """


class SupersededError(DicomFunctionsError):
    """The object of an event is gone or was overwritten: nothing is left to do for this event."""

    def __init__(self) -> None:
        super().__init__("superseded")


class SettingsError(Exception):
    """A setting is missing or malformed; the message names the variable and says what it takes."""

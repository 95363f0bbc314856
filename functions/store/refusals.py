"""The errors that end an input for good; the detail is one line of our own words for a person."""

from functions.common.errors import PermanentError


def unsupported(detail: str) -> PermanentError:
    """It is nothing that is known here, or cannot be read."""
    return PermanentError("unsupported_input", detail)


def rejected(detail: str) -> PermanentError:
    """It can be read, and must not be stored."""
    return PermanentError("rejected", detail)


def conflict(detail: str) -> PermanentError:
    """The DICOM store has other bytes under the same UIDs."""
    return PermanentError("conflict", detail)


def unsafe(detail: str) -> PermanentError:
    """An archive exceeds a limit, which ends it where it is."""
    return PermanentError("unsafe_archive", detail)

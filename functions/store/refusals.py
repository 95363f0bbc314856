"""The errors that end an input permanently; the detail is one line for a person."""

from functions.common.errors import PermanentError


def unsupported(detail: str) -> PermanentError:
    """It is of an unknown kind, or cannot be read."""
    return PermanentError("unsupported_input", detail)


def rejected(detail: str) -> PermanentError:
    """It can be read, but must not be stored."""
    return PermanentError("rejected", detail)


def conflict(detail: str) -> PermanentError:
    """The DICOM store has other bytes under the same UIDs."""
    return PermanentError("conflict", detail)


def unsafe(detail: str) -> PermanentError:
    """An archive exceeds a limit, and ends there."""
    return PermanentError("unsafe_archive", detail)

"""The errors that end a command."""

from typing import Final

_INSTALL: Final = (
    "python3 -m venv .venv && .venv/bin/pip install -r requirements-local.txt && "
    ".venv/bin/pip install --no-deps --no-build-isolation -e ."
)


def not_installed(error: ModuleNotFoundError) -> str:
    """How to install a missing library."""
    return f"{error.name} is not installed; to install it: {_INSTALL}"


def exit_status(good: bool) -> int:
    """0 for success, else 1."""
    return 0 if good else 1


class CliError(Exception):
    """One line for a person: what is wrong, and what to do about it.

    Args:
        message: may hold data; it is printed with its control characters shown.
        status: exit status of the command.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class NoSystemError(CliError):
    """There is no such system. Exit status 2, as for a command line that is not understood."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=2)


class NotUploadedError(CliError):
    """One file could not be uploaded; others can."""


class StoppedError(CliError):
    """Ctrl-C while work continues elsewhere: the message says which, and how to see its result."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=130)

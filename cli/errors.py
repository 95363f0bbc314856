"""What a command ends with when it cannot do what it was asked."""

from typing import Final

_INSTALL: Final = (
    "python3 -m venv .venv && .venv/bin/pip install -r requirements-local.txt && "
    ".venv/bin/pip install --no-deps --no-build-isolation -e ."
)


def not_installed(error: ModuleNotFoundError) -> str:
    """What to do about a library that is missing."""
    return f"{error.name} is not installed here: {_INSTALL}"


def exit_status(good: bool) -> int:
    """0 when all is well, else 1."""
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


class StoppedError(CliError):
    """Ctrl-C while something goes on elsewhere: the message says what, and how to look at it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=130)

"""Options that several commands share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.clients import Clients
from cli.numbers import Seconds
from cli.output import Format, Item
from cli.system import System
from cli.watch import Outcome, details, subject

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
OUTCOME_COLUMNS: Final = ("time", "outcome", "input", "function", "bytes", "details")


def system_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--system`; the command gets it as `clients`."""

    @wraps(command)
    def call(*args: Any, system: Path | None, **options: Any) -> Any:
        return command(*args, clients=Clients(System.find(system)), **options)

    return click.option(
        "--system",
        type=click.Path(path_type=Path),
        envvar="DICOM_FUNCTIONS_SYSTEM",
        metavar="FILE|FOLDER",
        help="The system's file, or its folder. "
        "Without it: the system on this machine, else the one deployed from this folder.",
    )(call)


def dry_run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dry-run`."""
    return click.option("--dry-run", is_flag=True, help="Only count what would be done.")(command)


def wait_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--no-wait` and `--timeout`."""
    timed = click.option(
        "--timeout",
        type=Seconds(min=0, min_open=True),
        default=600.0,
        show_default=True,
        metavar="S",
        help="Seconds to wait for outcomes.",
    )(command)
    return click.option("--no-wait", is_flag=True, help="Do not wait for outcomes.")(timed)


def outcome_item(outcome: Outcome) -> Item:
    """An outcome, ready to print."""
    return Item.of(outcome, input=subject(outcome), details=details(outcome))


@contextmanager
def progress(output: Format) -> Iterator[Progress]:
    """A progress bar on standard error, only for a table on a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    shown = output.for_people and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        yield bar

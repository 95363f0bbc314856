"""`dicom-functions conformance DATASET`: ask the service what no public source answers."""

import re
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import click

from cli.conformance.run import ENDPOINT, Options, run
from cli.text import shown

_DATASET = re.compile(r"projects/[\w.:-]+/locations/[\w-]+/datasets/[\w.-]+")


class DatasetType(click.ParamType[str]):
    """`projects/P/locations/L/datasets/D`."""

    name = "DATASET"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name."""
        if not _DATASET.fullmatch(str(value)):
            self.fail(f"{shown(value)} is not projects/P/locations/L/datasets/D", param, ctx)
        return str(value)


@click.command()
@click.argument("dataset", type=DatasetType())
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table."
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report as JSON to this file.",
)
@click.option(
    "--only", multiple=True, metavar="QUESTION", help="Ask only this question; can be repeated."
)
@click.option(
    "--endpoint",
    default=ENDPOINT,
    show_default=True,
    metavar="URL",
    help="Root URL of the API.",
)
@click.option(
    "--api-version",
    type=click.Choice(("v1", "v1beta1")),
    default="v1",
    show_default=True,
    help="Version of the API.",
)
@click.option(
    "--token",
    default="",
    metavar="TOKEN",
    help="A bearer token, for a local store. Without it: Application Default Credentials.",
)
def conformance(
    dataset: str,
    yes: bool,
    as_json: bool,
    report: Path | None,
    only: tuple[str, ...],
    endpoint: str,
    api_version: str,
    token: str,
) -> int:
    """Test how a real DICOM store behaves where no public source says it.

    DATASET is projects/P/locations/L/datasets/D. The command creates a new DICOM store in it,
    stores synthetic instances there, compares each answer with the assumed one, and deletes the
    store.
    """
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        # An exception that is raised while the interpreter cleans up is lost.
        stopped.set()
        raise KeyboardInterrupt

    # A signal must not leave the store behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    return run(
        Options(
            dataset=dataset,
            endpoint=endpoint,
            version=api_version,
            token=token,
            yes=yes,
            as_json=as_json,
            report=report,
            only=only,
        ),
        stopped.is_set,
    )

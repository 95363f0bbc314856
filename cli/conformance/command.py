"""`dicom-functions conformance DATASET`: ask the service what no public source says."""

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
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option("--json", "as_json", is_flag=True, help="The report in place of the table.")
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="Write the report there."
)
@click.option("--only", multiple=True, metavar="QUESTION", help="Only this one; can be repeated.")
@click.option("--endpoint", default=ENDPOINT, show_default=True, help="The API's root.")
@click.option("--api-version", type=click.Choice(("v1", "v1beta1")), default="v1")
@click.option(
    "--token",
    default="",
    help="A bearer token, for a local store; without it: Application Default Credentials.",
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
    """Ask a real DICOM store what no public source says of it.

    DATASET is projects/P/locations/L/datasets/D: a DICOM store is created in it, and deleted.
    """
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        # Where the interpreter is cleaning up, what is raised is lost.
        stopped.set()
        raise KeyboardInterrupt

    # What stops the program must leave no store behind.
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

"""`python -m cli.conformance DATASET`: ask the service what no public source says."""

import argparse
import re
import signal
import sys
from pathlib import Path
from types import FrameType

from cli.conformance.run import ENDPOINT, Options, run

_DATASET = re.compile(r"projects/[\w.:-]+/locations/[\w-]+/datasets/[\w.-]+")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cli.conformance", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    # What stops the program must leave no store behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    return run(options_of(arguments))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command, for a parser of its own or a subcommand's."""
    parser.add_argument(
        "dataset",
        type=_dataset,
        metavar="DATASET",
        help="projects/P/locations/L/datasets/D: a DICOM store is made in it, and deleted",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask first")
    parser.add_argument("--json", action="store_true", help="the report in place of the table")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--only", action="append", default=[], metavar="QUESTION", help="this one; may be repeated"
    )
    parser.add_argument("--endpoint", default=ENDPOINT, help="the API's root (%(default)s)")
    parser.add_argument(
        "--api-version",
        choices=("v1", "v1beta1"),
        default="v1",
        help="of the API (%(default)s)",
    )
    parser.add_argument(
        "--token",
        default="",
        help="a bearer token, for a local store; default: Application Default Credentials",
    )


def options_of(arguments: argparse.Namespace) -> Options:
    """What the parsed arguments ask for."""
    return Options(
        dataset=arguments.dataset,
        endpoint=arguments.endpoint,
        version=arguments.api_version,
        token=arguments.token,
        yes=arguments.yes,
        as_json=arguments.json,
        report=arguments.report,
        only=tuple(arguments.only),
    )


def _dataset(text: str) -> str:
    if not _DATASET.fullmatch(text):
        raise argparse.ArgumentTypeError("a dataset is projects/P/locations/L/datasets/D")
    return text


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

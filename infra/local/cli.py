"""The command line: run, demo, and the helper commands."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from infra.local.console import fail
from infra.local.ports import BASE, SERVICES
from infra.local.running import DEFAULT_DATA

_Command = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says and return the exit status: 0 done, 1 failed, 2 not
    understood."""
    options = _parser().parse_args(argv)
    command: _Command = options.command
    try:
        return command(options)
    except ModuleNotFoundError as error:
        fail(
            f"{error.name} is not installed; run: pip install --require-hashes -r requirements-dev.txt"
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local",
        description="The whole system on this machine, and commands to use it.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_demo(commands)
    _add_upload(commands)
    _add_delete(commands)
    _add_export(commands)
    _add_search(commands)
    _add_outcomes(commands)
    _add_env(commands)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    command: _Command,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=command)
    return parser


def _add_helper(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    parser = _add(commands, name, text, _help_command(name))
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="the running stack's folder (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="JSON for programs, one object a line")
    return parser


def _help_command(name: str) -> _Command:
    def call(options: argparse.Namespace) -> int:
        from infra.local import commands
        from infra.local.clients import ClientError
        from infra.local.running import Running

        try:
            return int(getattr(commands, name)(Running.find(options.data), options))
        except ClientError as error:
            fail(str(error))
            return 1
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            sys.stderr.close()  # the reader has seen enough
            return 0

    return call


def _run(options: argparse.Namespace) -> int:
    from infra.local import serve

    return serve.run(options)


def _demo(options: argparse.Namespace) -> int:
    from infra.local import serve

    return serve.demo(options)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number from 1 up")
    return int(text)


def _named_port(text: str) -> tuple[str, int]:
    name, _, port = text.partition("=")
    if name not in SERVICES or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"NAME=PORT, where NAME is one of {', '.join(SERVICES)}")
    return name, int(port)


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands, "run", "start everything, show the main job on real scans, stay up", _run
    )
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder for all that is kept (%(default)s)"
    )
    parser.add_argument("--fresh", action="store_true", help="wipe that folder first")
    parser.add_argument(
        "--no-demo", dest="demo", action="store_false", help="do not show the main job"
    )
    text = f"first port of {len(SERVICES)} in a row: {', '.join(SERVICES)} (%(default)s)"
    parser.add_argument("--port-base", type=int, default=BASE, metavar="N", help=text)
    parser.add_argument(
        "--port",
        action="append",
        default=[],
        type=_named_port,
        metavar="NAME=N",
        help="one service's port",
    )
    parser.add_argument("--free-ports", action="store_true", help="any free ports")
    parser.add_argument(
        "--minimum-backoff",
        type=float,
        metavar="S",
        help="seconds before a failed delivery is repeated, first",
    )


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands, "demo", "start apart from whatever runs, show the main job, stop", _demo
    )
    parser.set_defaults(demo=True, fresh=False, minimum_backoff=None)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-wait", dest="wait", action="store_false", help="do not wait for the outcome"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds to wait for outcomes (%(default).0f)",
    )


def _add_upload(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_helper(
        commands, "upload", "write files to the landing bucket and show what becomes of each"
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE|FOLDER")
    parser.add_argument(
        "--prefix", default="", help="beginning of the objects' names, such as night/"
    )
    parser.add_argument(
        "--storage-class", metavar="CLASS", help="STANDARD, NEARLINE, COLDLINE or ARCHIVE"
    )
    _add_wait(parser)


def _add_delete(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_helper(
        commands, "delete", "delete a study, a series or an instance from the DICOM store"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "path", nargs="?", metavar="PATH", help="studies/UID[/series/UID[/instances/UID]]"
    )
    what.add_argument(
        "--query", help="studies to delete, as a search: PatientID=4MR1; needs --max-studies"
    )
    parser.add_argument(
        "--max-studies", type=_count, metavar="N", help="delete nothing if the query finds more"
    )
    parser.add_argument(
        "--stored-before", metavar="TIME", help="refuse if anything is newer: 2026-01-31T00:00:00Z"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    _add_wait(parser)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_helper(commands, "export", "write a study, a series or an instance to a bucket")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "path", nargs="?", metavar="PATH", help="studies/UID[/series/UID[/instances/UID]]"
    )
    what.add_argument("--query", help="studies to export, as a search: PatientID=4MR1")
    parser.add_argument("--to", required=True, metavar="gs://BUCKET/PREFIX", help="where to")
    parser.add_argument("--format", choices=("dicom", "jpeg", "png", "metadata", "bulkdata", "zip"))
    parser.add_argument(
        "--transfer-syntax", metavar="UID", help="transcode to this; * keeps what was stored"
    )
    _add_wait(parser)


def _add_search(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_helper(commands, "search", "search the DICOM store through the search function")
    parser.add_argument(
        "parameters", nargs="*", metavar="KEY=VALUE", help="such as PatientID=4MR1, limit=10"
    )
    parser.add_argument("--level", choices=("studies", "series", "instances"), default="studies")
    parser.add_argument(
        "--in",
        dest="scope",
        default="",
        metavar="PATH",
        help="only within studies/UID[/series/UID]",
    )


def _add_outcomes(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_helper(
        commands, "outcomes", "show what became of the inputs: the ledger's latest, or new ones"
    )
    parser.add_argument(
        "--follow", action="store_true", help="show each new outcome as it comes, until Ctrl-C"
    )
    parser.add_argument(
        "--limit",
        type=_count,
        default=50,
        metavar="N",
        help="of the ledger, the last N (%(default)s)",
    )


def _add_env(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _add_helper(commands, "env", "print the environment of the functions as export lines")

"""`run` and `demo`: the whole system on this machine, with a demo.

`run` keeps running and prints one line for each outcome; the output of the processes is in their
log files.
"""

import contextlib
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click

from cli.clients import Clients
from cli.demo import Demo, DemoError
from cli.errors import CliError, exit_status
from cli.numbers import Seconds, Whole
from cli.options import OUTCOME_COLUMNS, outcome_item
from cli.output import Format, Stream, note, say
from cli.system import LOCAL_FILE, System, is_running
from cli.text import shown
from cli.watch import Watch
from infra.local import ports

if TYPE_CHECKING:
    from infra.local.stack import Stack

LEDGER_S: Final = 5.0  # small ledger objects are no problem here, and outcomes are listed soon
QUIET_S: Final = "5"  # after which a study is complete: there is no slow scanner here
# A workflow for one patient of the demo.
ORDER: Final = {
    "name": "demo",
    "match": {"PatientID": "98890234"},
    "export": {"destination": "gs://dicom-export/complete", "format": "metadata"},
}
_LOOK_S: Final = 1.0
_USAGE: Final = """
The system is running. Ctrl-C stops it; its data stay in {data} (run --fresh deletes them).

  search page     {search}/            as DICOMweb: {search}/studies
  DICOM store     {dicomweb}
  bucket          gs://{landing}  at {gcs}   (STORAGE_EMULATOR_HOST)
  Pub/Sub         {pubsub}   (PUBSUB_EMULATOR_HOST)
  commands        {commands}            POST /exports, POST /deletes

In another terminal{preparation}:

  dicom-functions upload FILE|FOLDER …         store scans
  dicom-functions search PatientID=4MR1        find them
  dicom-functions export studies/UID           write a study to gs://{export}
  dicom-functions delete studies/UID           delete a study
  dicom-functions outcomes --follow            show each new outcome
  dicom-functions listen                       receive webhooks
  eval "$(dicom-functions env)"                the environment for gcloud and client libraries

New outcomes:
"""
_COLUMNS: Final = tuple(name for name in OUTCOME_COLUMNS if name not in ("function", "bytes"))


class SignalledError(Exception):
    """SIGINT, SIGTERM or SIGHUP came."""


@dataclass(frozen=True)
class Options:
    """How to start.

    Args:
        data: folder for all data.
        fresh: delete its contents first.
        demo: run the demo.
        stay: keep running afterwards.
        port_base: the first of consecutive ports; None: any free ports.
        chosen_ports: by service.
        minimum_backoff_s: before the first repetition of a failed delivery; None: as deployed.
    """

    data: Path
    fresh: bool = False
    demo: bool = True
    stay: bool = True
    port_base: int | None = None
    chosen_ports: dict[str, int] = field(default_factory=dict)
    minimum_backoff_s: float | None = None


class PortType(click.ParamType[tuple[str, int]]):
    """`NAME=PORT`."""

    name = "NAME=PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """The service and its port."""
        name, _, port = str(value).partition("=")
        if name not in ports.SERVICES:
            self.fail(f"{shown(name)} is not one of {', '.join(ports.SERVICES)}", param, ctx)
        if not port.isdecimal():
            self.fail(f"{shown(port)} is not a port number", param, ctx)
        return name, int(port)


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=LOCAL_FILE.parent,
    metavar="FOLDER",
    help="Folder for all data. Without it: .local in the project.",
)
@click.option("--fresh", is_flag=True, help="Delete the data of earlier runs first.")
@click.option("--no-demo", is_flag=True, help="Do not run the demo.")
@click.option(
    "--port-base",
    type=Whole(1, 65535 - len(ports.SERVICES)),
    default=ports.BASE,
    show_default=True,
    metavar="N",
    help=f"First of {len(ports.SERVICES)} consecutive ports: {', '.join(ports.SERVICES)}.",
)
@click.option("--port", "chosen", type=PortType(), multiple=True, help="The port of one service.")
@click.option("--free-ports", is_flag=True, help="Use any free ports.")
@click.option(
    "--minimum-backoff",
    type=Seconds(min=0),
    metavar="S",
    help="Seconds before the first repetition of a failed delivery.",
)
def run(
    data: Path,
    fresh: bool,
    no_demo: bool,
    port_base: int,
    chosen: tuple[tuple[str, int], ...],
    free_ports: bool,
    minimum_backoff: float | None,
) -> int:
    """Start the whole system on this machine, run the demo on real scans, and keep running."""
    if free_ports and chosen:
        raise CliError("--port cannot be used with --free-ports", status=2)
    running = data / LOCAL_FILE.name
    if running.exists() and is_running(running):
        return _already(running, fresh)
    return serve(
        Options(
            data=data,
            fresh=fresh,
            demo=not no_demo,
            port_base=None if free_ports else port_base,
            chosen_ports=dict(chosen),
            minimum_backoff_s=minimum_backoff,
        )
    )


@click.command()
def demo() -> int:
    """Start a separate system on free ports, run the demo, and stop.

    The exit status is 0 if the result of every step was right.
    """
    with tempfile.TemporaryDirectory(prefix="dicom-functions-") as folder:
        return serve(Options(data=Path(folder), stay=False))


def _already(file: Path, fresh: bool) -> int:
    system = System.find(file)
    if fresh:
        raise CliError(f"a system is running on {file.parent}; stop it before run --fresh")
    say(f"already running: {system.search_url}/  (Ctrl-C in its terminal stops it)")
    return 0


def serve(options: Options) -> int:
    """Start the system, run the demo, keep running until it is stopped; returns the exit status.

    Raises:
        CliError: it cannot start, or a process has ended.
    """
    from infra.local.clients import ClientError
    from infra.local.stack import StackError

    try:
        with _until_signalled():
            return _serve(options)
    except SignalledError:
        return exit_status(options.stay)
    except (StackError, ports.PortError, ClientError) as error:
        raise CliError(str(error)) from error


def _serve(options: Options) -> int:
    from infra.local.stack import Stack
    from infra.local.topology import Overrides

    overrides = Overrides(
        minimum_backoff_s=options.minimum_backoff_s, ledger_max_duration_s=LEDGER_S
    )
    stack = Stack(
        options.data,
        ports=_ports(options),
        overrides=overrides,
        fresh=options.fresh,
        env={"STUDY_QUIET_S": QUIET_S, "ON_STUDY_COMPLETE": json.dumps([ORDER])},
    )
    status = 0
    with stack:
        say(f"Running: {', '.join(stack.services)}; logs in {options.data}/logs")
        clients = Clients(System.find(options.data))
        if options.demo:
            try:
                Demo(clients, stack.check).run()
            except DemoError as error:
                status = 1
                note(f"error: the demo failed: {error}")
        if options.stay:
            _stay(clients, stack)
    return status


def _ports(options: Options) -> Any:
    if options.port_base is None:
        return "free"
    return ports.fixed(options.port_base, options.chosen_ports)


def _stay(clients: Clients, stack: "Stack") -> None:
    """Print each new outcome until the system is stopped or a process ends."""
    system = clients.system
    text = _USAGE.format(
        data=shown(str(system.file.parent)),
        search=system.search_url,
        commands=system.function_urls["commands"],
        dicomweb=f"{system.endpoints.healthcare}/{system.store.name}/dicomWeb",
        gcs=system.endpoints.storage,
        pubsub=system.endpoints.pubsub.removeprefix("http://"),
        landing=system.buckets["landing"],
        export=system.buckets["export"],
        preparation=_preparation(system.file.parent),
    )
    stream = Stream(Format(), _COLUMNS)
    try:
        with Watch(clients) as watch:
            say(text)
            while True:
                stack.check()
                for outcome in watch.take(wait_s=_LOOK_S):
                    stream.add(outcome_item(outcome))
    except SignalledError:
        say("stopping")


def _preparation(data: Path) -> str:
    """What another terminal needs to use the command with this system."""
    commands = []
    if sys.prefix != sys.base_prefix:
        commands.append(f"source {shown(str(Path(sys.prefix) / 'bin' / 'activate'))}")
    if data.resolve() != LOCAL_FILE.parent:
        commands.append(f"export DICOM_FUNCTIONS_SYSTEM={shown(shlex.quote(str(data.resolve())))}")
    if not commands:
        return ""
    return f" ({'; '.join(commands)})"


@contextlib.contextmanager
def _until_signalled() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into SignalledError; ignore further ones while
    stopping."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, lambda *_: None)
        raise SignalledError

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A signal that nohup made the process ignore stays ignored.
    numbers = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

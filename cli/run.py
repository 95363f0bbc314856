"""`run` and `demo`: the whole system on this machine, shown at work.

`run` stays up and prints one line for each outcome; what the processes say is in their logs.
"""

import contextlib
import json
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
from cli.options import OUTCOME_COLUMNS, outcome_item
from cli.output import Format, Stream, note, say
from cli.system import LOCAL_FILE, System, is_running
from cli.text import shown
from cli.watch import Watch
from infra.local import ports

if TYPE_CHECKING:
    from infra.local.stack import Stack

LEDGER_S: Final = 5.0  # on one machine nobody minds small objects, and everybody wants to see them
QUIET_S: Final = "5"  # after which a study is complete: nobody waits for a scanner here
# A workflow for one patient of the demo.
ORDER: Final = {
    "name": "demo",
    "match": {"PatientID": "98890234"},
    "export": {"destination": "gs://dicom-export/complete", "format": "metadata"},
}
_LOOK_S: Final = 1.0
_USAGE: Final = """
The system is up. Ctrl-C stops it; what it stored stays in {data} (--fresh wipes it).

  search page     {search}/            as DICOMweb: {search}/studies
  DICOM store     {dicomweb}
  bucket          gs://{landing}  at {gcs}   (STORAGE_EMULATOR_HOST)
  Pub/Sub         {pubsub}   (PUBSUB_EMULATOR_HOST)
  commands        {commands}           POST /exports, POST /deletes

In another terminal{activate}:

  dicom-functions upload FILE|FOLDER …         store scans
  dicom-functions search PatientID=4MR1        find them
  dicom-functions export studies/UID           write a study to gs://{export}
  dicom-functions delete studies/UID
  dicom-functions outcomes --follow            what becomes of every input
  dicom-functions listen                       receive webhooks
  eval "$(dicom-functions env)"                the environment for gcloud and client libraries

Each input's outcome, as it comes:
"""
_COLUMNS: Final = tuple(name for name in OUTCOME_COLUMNS if name not in ("function", "bytes"))


class SignalledError(Exception):
    """SIGINT, SIGTERM or SIGHUP came."""


@dataclass(frozen=True)
class Options:
    """How to start.

    Args:
        data: folder for everything that is kept.
        fresh: wipe it first.
        demo: show the main job.
        stay: stay up afterwards.
        port_base: first port of a row; None: any free ports.
        chosen_ports: by service.
        minimum_backoff_s: before a failed delivery is repeated the first time; None: as deployed.
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
            self.fail(f"{shown(name)} is none of {', '.join(ports.SERVICES)}", param, ctx)
        if not port.isdecimal():
            self.fail(f"{shown(port)} is no port: NAME=PORT", param, ctx)
        return name, int(port)


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=LOCAL_FILE.parent,
    metavar="FOLDER",
    help="Folder for everything that is kept; without it: .local in the project.",
)
@click.option("--fresh", is_flag=True, help="Wipe that folder first.")
@click.option("--no-demo", is_flag=True, help="Do not show the main job.")
@click.option(
    "--port-base",
    type=click.IntRange(1, 65535 - len(ports.SERVICES)),
    default=ports.BASE,
    show_default=True,
    metavar="N",
    help=f"First port of {len(ports.SERVICES)} in a row: {', '.join(ports.SERVICES)}.",
)
@click.option("--port", "chosen", type=PortType(), multiple=True, help="The port of one service.")
@click.option("--free-ports", is_flag=True, help="Any free ports.")
@click.option(
    "--minimum-backoff",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds before a failed delivery is repeated the first time.",
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
    """Start the whole system on this machine, show it at work on real scans, and stay up."""
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
    """Start the system apart from whatever runs, show it at work, stop.

    The exit status says whether every step was right.
    """
    with tempfile.TemporaryDirectory(prefix="dicom-functions-") as folder:
        return serve(Options(data=Path(folder), stay=False))


def _already(file: Path, fresh: bool) -> int:
    system = System.find(file)
    if fresh:
        raise CliError(f"a system is running on {file.parent}: stop it before --fresh wipes it")
    say(f"already running: {system.search_url}/  (Ctrl-C in its terminal stops it)")
    return 0


def serve(options: Options) -> int:
    """Start, show, stay up until told to stop; the exit status.

    Raises:
        CliError: it cannot start or go on.
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
        say(f"DICOM Functions: {', '.join(stack.services)} are up; logs in {options.data}/logs")
        clients = Clients(System.find(options.data))
        if options.demo:
            try:
                Demo(clients, stack.check).run()
            except DemoError as error:
                status = 1
                note(f"error: the demo went wrong: {error}")
        if options.stay:
            _stay(clients, stack)
    return status


def _ports(options: Options) -> Any:
    if options.port_base is None:
        return "free"
    return ports.fixed(options.port_base, options.chosen_ports)


def _stay(clients: Clients, stack: "Stack") -> None:
    """Print what becomes of every input, until told to stop or until a process ends."""
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
        activate=_activation(),
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


def _activation() -> str:
    """How another terminal gets the command, where it is in an environment of its own."""
    folder = Path(sys.prefix)
    if sys.prefix == sys.base_prefix:
        return ""
    return f" (source {shown(str(folder / 'bin' / 'activate'))})"


@contextlib.contextmanager
def _until_signalled() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into SignalledError; further ones do not disturb the
    stopping."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, lambda *_: None)
        raise SignalledError

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What nohup told the process to ignore stays ignored.
    numbers = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

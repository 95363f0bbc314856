"""run and demo: start the stack, show the main job, stay up, stop cleanly."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import rich.console

from infra.local import ports, views
from infra.local.clients import ClientError
from infra.local.console import fail
from infra.local.demo import Demo, DemoError
from infra.local.running import Running
from infra.local.stack import Stack, StackError
from infra.local.topology import Overrides

LEDGER_S = 5.0  # on one machine nobody minds small objects, and everybody wants to see them
_USAGE = """
[bold]The system is up.[/bold] Ctrl-C stops it; what it stored stays in {data} (--fresh wipes).

  search page     {search}/            as DICOMweb: {search}/studies
  DICOM store     {dicomweb}
  bucket          gs://{landing}  at {gcs}   (STORAGE_EMULATOR_HOST)
  Pub/Sub         {pubsub}   (PUBSUB_EMULATOR_HOST)

In another terminal:

  {python} -m infra.local upload FILE|FOLDER …         store scans
  {python} -m infra.local search PatientID=4MR1        find them
  {python} -m infra.local export studies/UID --to gs://{export}/somewhere
  {python} -m infra.local delete studies/UID
  {python} -m infra.local outcomes --follow            what becomes of every input
  eval "$({python} -m infra.local env)"                the environment, for programs
"""


class StoppedError(Exception):
    """SIGINT, SIGTERM or SIGHUP came."""


@contextlib.contextmanager
def _until_signalled() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into StoppedError; further ones do not disturb the
    stopping."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, lambda *_: None)
        raise StoppedError

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [
        number for number in signals if signal.getsignal(number) is not signal.SIG_IGN
    ]  # nohup stays nohup
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(options: argparse.Namespace) -> int:
    """Start, show the main job unless told not to, stay up until told to stop."""
    return _guarded(options, stay=True)


def demo(options: argparse.Namespace) -> int:
    """Start beside whatever runs, in a folder of its own, show the main job, stop."""
    with tempfile.TemporaryDirectory(prefix="dicom-functions-") as folder:
        options.data, options.free_ports = Path(folder), True
        return _guarded(options, stay=False)


def _guarded(options: argparse.Namespace, stay: bool) -> int:
    """Serve; every foreseen failure becomes one line and status 1."""
    try:
        with _until_signalled():
            return _serve(options, stay)
    except StoppedError:
        return 0 if stay else 1
    except (StackError, ports.PortError, ClientError, DemoError) as error:
        fail(str(error))
        return 1


def _serve(options: argparse.Namespace, stay: bool) -> int:
    console = views.wide_console()
    chosen = "free" if options.free_ports else ports.fixed(options.port_base, dict(options.port))
    overrides = Overrides(minimum_backoff_s=options.minimum_backoff, ledger_max_duration_s=LEDGER_S)
    stack = Stack(
        options.data, ports=chosen, overrides=overrides, log_stream=sys.stdout, fresh=options.fresh
    )
    status = 0
    with stack:
        console.print(
            f"[bold]DICOM Functions[/bold]: {', '.join(stack.services)} are up; logs in {options.data}/logs"
        )
        if options.demo:
            try:
                Demo(Running(stack.state()), console, stack.check).run()
            except DemoError as error:
                status = 1
                fail(f"the demo went wrong: {error}")
        if stay:
            _explain(console, stack)
            stack.show_logs()
            try:
                stack.wait()
            except StoppedError:
                console.print("stopping")
    return status


def _explain(console: rich.console.Console, stack: Stack) -> None:
    state = stack.state()
    text = _USAGE.format(
        data=stack.data,
        python=os.path.relpath(sys.executable),
        search=state["endpoints"]["functions"]["search"],
        **{name: state["endpoints"][name] for name in ("dicomweb", "gcs", "pubsub")},
        **{role: state["buckets"][role] for role in ("landing", "export")},
    )
    console.print(text, soft_wrap=True)

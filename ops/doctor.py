"""`python -m ops doctor`: check a system, and say in one line for each thing that is wrong how to
mend it."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ops.checks import LOOKING, Finding
from ops.probe import Probe
from ops.system import Client, NoSystemError, System

_MARKS = {"ok": "ok", "failed": "FAILED", "skipped": "-"}


def main(arguments: list[str]) -> int:
    """Check, and print a table or JSON.

    Returns:
        0 all is well, 1 something is not, 2 there is no system to check.
    """
    options = _parser().parse_args(arguments)
    try:
        system = System.find(options.system)
    except NoSystemError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 2
    print(f"doctor: {system.where}", file=sys.stderr)
    findings = []
    for finding in _quietly(_examine(system, options.timeout if options.probe else None)):
        findings.append(finding)
        if not options.json:
            _print(finding)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        _sum_up(system, findings)
    return 1 if any(finding.status == "failed" for finding in findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops doctor",
        description="Check a system from its buckets to a scan's way through it.",
    )
    parser.add_argument(
        "--system",
        type=Path,
        metavar="FILE",
        help="the system's file (default: .local/stack.json of the running local stack, else .deploy/system.json)",
    )
    parser.add_argument("--json", action="store_true", help="JSON for programs")
    parser.add_argument(
        "--no-probe", dest="probe", action="store_false", help="only look: store and delete nothing"
    )
    parser.add_argument(
        "--timeout", type=float, default=300, metavar="S", help="for each outcome of the probe"
    )
    return parser


def _examine(system: System, probe_limit_s: float | None) -> Iterator[Finding]:
    client = Client()
    for check in LOOKING:
        yield from check(system, client)
    if probe_limit_s is not None:
        yield from Probe(system, client, probe_limit_s).run()


def _quietly(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Log lines of the clients go to standard error: standard output is the report's."""
    while True:
        with contextlib.redirect_stdout(sys.stderr):
            finding = next(findings, None)
        if finding is None:
            return
        yield finding


def _print(finding: Finding) -> None:
    print(
        f"{_MARKS[finding.status]:<7} {finding.check:<13} {finding.subject:<46} {finding.detail}".rstrip(),
        flush=True,
    )


def _sum_up(system: System, findings: Iterable[Finding]) -> None:
    findings = list(findings)
    for finding in findings:
        if finding.mend:
            print(f"\n{finding.check} {finding.subject}: {finding.detail}\n  mend: {finding.mend}")
    failed, skipped = (
        sum(1 for f in findings if f.status == status) for status in ("failed", "skipped")
    )
    print(
        f"\n{system.where}: {len(findings) - failed - skipped} ok, {failed} failed, {skipped} skipped"
    )

"""`doctor`: check a system, send a synthetic scan through it, and say how to fix each problem."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import click
from rich.text import Text

from cli.checks import LOOKING
from cli.clients import Clients
from cli.errors import exit_status
from cli.findings import Finding
from cli.numbers import Seconds
from cli.options import system_option
from cli.output import Format, Item, Listing, format_option, note, say
from cli.probe import Probe
from cli.rights import RIGHTS
from cli.text import shown

_COLUMNS: Final = ("status", "check", "subject", "detail", "fix")


@click.command()
@click.option("--no-probe", is_flag=True, help="Do not send a synthetic scan: change nothing.")
@click.option(
    "--timeout",
    type=Seconds(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait for each outcome of the probe.",
)
@format_option
@system_option
def doctor(clients: Clients, no_probe: bool, timeout: float, output: Format) -> int:
    """Check a system, and say how to fix each problem.

    Checks buckets, topics, subscriptions, functions and rights, and then stores, finds and deletes
    a synthetic scan. The exit status is 0 when nothing failed.
    """
    note(f"doctor: {clients.system.where}")
    if not clients.system.local:
        # Without credentials every check would fail in the same way: report that once.
        clients.credentials_for(clients.system.endpoints.storage)
    findings: list[Finding] = []
    for finding in _examine(clients, not no_probe, timeout):
        findings.append(finding)
        if output.for_people:
            _print(finding)
    if output.for_people:
        _sum_up(clients, findings)
    else:
        items = [Item.of(dataclasses.asdict(finding)) for finding in findings]
        Listing(output).print(items, _COLUMNS)
    failed = [finding for finding in findings if finding.status == "failed"]
    return exit_status(not failed)


def _examine(clients: Clients, probe: bool, limit_s: float) -> Iterator[Finding]:
    for check in (*LOOKING, *RIGHTS):
        yield from check(clients)
    if probe:
        yield from Probe(clients, limit_s).run()


def _print(finding: Finding) -> None:
    style = {"ok": "green", "failed": "bold red", "skipped": "dim"}[finding.status]
    line = Text(f"{finding.status:<8}", style=style)
    line.append(f"{finding.check:<13} {shown(finding.subject):<46} {shown(finding.detail)}")
    line.rstrip()
    say(line)


def _sum_up(clients: Clients, findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.fix:
            say("")
            say(f"{finding.check} {shown(finding.subject)}: {shown(finding.detail)}")
            say(f"  fix: {shown(finding.fix)}")
    counts = Counter(finding.status for finding in findings)
    say("")
    say(
        f"{clients.system.where}: {counts['ok']} ok, {counts['failed']} failed,"
        f" {counts['skipped']} skipped"
    )

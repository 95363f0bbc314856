"""Runs the benchmarks, or the tests under faults, and writes their output into the documents.

    python -m benchmarks.record bench [--short] [--python FILE]    docs/benchmarks.md, its pictures
    python -m benchmarks.record chaos [--short]                    docs/reliability.md

Each output is in the document as it was printed, below a line with the machine and its load.
`--short` measures fewer rounds and smaller inputs. A command that fails (a benchmark whose peer is
not installed, a broken promise) leaves its old output in the document, and the exit status is 1.
`--python` is the interpreter of an environment with only requirements.txt, as deployed.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import plots

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """One command whose output is kept.

    Args:
        name: of its place in the document.
        module: what is run.
        short: arguments that make it short.
        figures: whether it takes `--json FILE`, for the pictures.
        deployed: whether it takes `--python FILE`, the interpreter of what is deployed.
    """

    name: str
    module: str
    short: Sequence[str]
    figures: bool = False
    deployed: bool = False


BENCH: Final = (
    Run(
        name="store",
        module="benchmarks.store",
        short=("--rounds", "1", "--instances", "100", "--big-mib", "256", "--zip-mib", "256"),
        figures=True,
        deployed=True,
    ),
    Run(
        name="export",
        module="benchmarks.export",
        short=("--rounds", "1", "--instances", "100", "--large-mib", "256"),
        figures=True,
    ),
    Run(
        name="search",
        module="benchmarks.search",
        short=("--rounds", "3", "--seconds", "1"),
        figures=True,
        deployed=True,
    ),
    Run(
        name="webhooks",
        module="benchmarks.webhooks",
        short=("--rounds", "3", "--commands", "50", "--outcomes", "30", "--burst", "300"),
        deployed=True,
    ),
    Run(
        name="dicomstore",
        module="benchmarks.dicomstore",
        short=("--rounds", "1", "--instances", "100", "--large", "0"),
    ),
)
CHAOS: Final = (
    Run(name="uploads", module="benchmarks.chaos", short=("--uploads", "300")),
    Run(
        name="exports and deletes",
        module="tests.chaos",
        short=("--instances", "500", "--joined", "60", "--studies", "10"),
    ),
    Run(
        name="workflows",
        module="tests.workflows",
        short=("--studies", "30", "--records", "10", "--uploads", "5", "--requests", "5"),
    ),
    Run(
        name="ledger",
        module="tests.ledger",
        short=("--pairs", "40", "--archives", "10", "--others", "40"),
    ),
)


def with_output(page: str, name: str, text: str) -> str:
    """The page with this text in the place of that name.

    Raises:
        ValueError: the page has no such place.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the document has no place named {name}")
    return f"{before}{begin}{text}{end}{after}"


def machine() -> str:
    """The machine and its load, in one line."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"{today}, {os.cpu_count()} CPUs ({_processor()}), {_memory_gib():.0f} GiB of memory,"
        f" {platform.system()}, Python {platform.python_version()},"
        f" load average before it began {load}"
    )


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory_gib() -> float:
    found = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) / 1024**2 if found else 0.0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def record(run: Run, document: Path, arguments: Sequence[str]) -> bool:
    """Run it and keep its output; returns whether it succeeded."""
    on = machine()
    command = [sys.executable, "-m", run.module, *arguments]
    shown = " ".join(["python", *command[1:]])
    print(f"\n$ {shown}", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode:
        print(f"{run.module} ended with status {done.returncode}: its old output stays")
        return False
    shown = re.sub(r" --(json|python) \S+", "", shown)
    text = f"{on}:\n\n```\n$ {shown}\n{done.stdout.strip()}\n```\n"
    document.write_text(with_output(document.read_text(), run.name, text))
    return True


def bench(runs: Sequence[Run], python: str, short: bool) -> bool:
    """The benchmarks, and the pictures of their figures."""
    figures: dict[str, Any] = {}
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            arguments = list(run.short) if short else []
            file = Path(folder) / f"{run.name}.json"
            if run.figures:
                arguments += ["--json", str(file)]
            if run.deployed:
                arguments += ["--python", python]
            good &= record(run, ROOT / "docs/benchmarks.md", arguments)
            if file.exists():
                figures[run.name] = json.loads(file.read_text())
    plots.draw(figures, ROOT / "docs/images")
    return good


def chaos(runs: Sequence[Run], short: bool) -> bool:
    """The tests under faults."""
    good = True
    for run in runs:
        arguments = list(run.short) if short else []
        good &= record(run, ROOT / "docs/reliability.md", arguments)
    return good


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("bench", "chaos"))
    parser.add_argument("--short", action="store_true", help="fewer rounds, smaller inputs")
    parser.add_argument("--python", default=sys.executable, help="what the functions run with")
    parser.add_argument("--only", action="append", help="one of them, by its name; repeatable")
    flags = parser.parse_args()
    everything = BENCH if flags.what == "bench" else CHAOS
    runs = [run for run in everything if not flags.only or run.name in flags.only]
    if flags.what == "bench":
        return 0 if bench(runs, flags.python, flags.short) else 1
    return 0 if chaos(runs, flags.short) else 1


if __name__ == "__main__":
    sys.exit(main())

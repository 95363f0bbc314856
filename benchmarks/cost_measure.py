"""CPU and memory of one stored instance: this project's function and the naive one, in the local
system.

    python -m benchmarks.cost_measure [--instances 300] [--large-mib 512] [--rounds 3] --json FILE

Each gets the same CT instances (526 KB) and then one large one, through bucket, Pub/Sub and DICOM
store on this machine. CPU is that of the function's processes, divided by the instances; memory is
their peak. A round measures both functions.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.dicomstore import ct
from infra.local.clients import Http
from infra.local.stack import Stack

REPOSITORY = Path(__file__).parents[1]
NAIVE = REPOSITORY / "benchmarks" / "naive_store.py"
MIB = 1024 * 1024
WAIT_S = 300.0


class Meter:
    """CPU seconds and peak memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self.peak_bytes = 0
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def family(self) -> list[psutil.Process]:
        """The process, and its children."""
        return [self._process, *self._process.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system time so far."""
        return sum(p.cpu_times().user + p.cpu_times().system for p in self.family())

    def __enter__(self) -> "Meter":
        self._before_s = self.cpu_s()
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.used_s = self.cpu_s() - self._before_s
        self._ended.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, max(p.memory_info().rss for p in self.family()))


def stored(stack: Stack) -> int:
    """The number of instances in the store."""
    answer = Http(stack.addresses.healthcare_endpoint).send(
        "GET",
        stack.addresses.dicomweb_url.removeprefix(stack.addresses.healthcare_endpoint)
        + "/instances?limit=50000",
    )
    if not answer.content:
        return 0
    return len(answer.json())


def until_stored(stack: Stack, count: int) -> None:
    """Wait.

    Raises:
        AssertionError: they were not stored in time.
    """
    end = time.monotonic() + WAIT_S
    while stored(stack) < count:
        assert time.monotonic() < end, f"{stored(stack)} of {count} are stored"
        time.sleep(0.2)


def measure(naive: bool, files: list[bytes], large: bytes, folder: Path) -> dict[str, float]:
    """One run of one function."""
    threads, source = {"THREADS": "8"}, REPOSITORY / "main.py"
    if naive:
        threads, source = {"THREADS": "1"}, NAIVE
    with Stack(folder, functions=["store_upload"], env=threads, source=source) as stack:
        stack.buckets.upload(
            "dicom-landing", "warm.dcm", ct(99, 1, 1, 64, np.random.default_rng(0))
        )
        until_stored(stack, 1)
        with Meter(stack.pid("store_upload")) as meter:
            idle = max(p.memory_info().rss for p in meter.family())
            began = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                names = [f"ct/{number}.dcm" for number in range(len(files))]
                list(pool.map(stack.buckets.upload, ["dicom-landing"] * len(files), names, files))
            until_stored(stack, 1 + len(files))
            took_s = time.monotonic() - began
        with Meter(stack.pid("store_upload")) as big:
            stack.buckets.upload("dicom-landing", "large.dcm", large)
            until_stored(stack, 2 + len(files))
    return {
        "cpu_s": meter.used_s / len(files),
        "took_s": took_s,
        "idle_mib": idle / MIB,
        "peak_mib": meter.peak_bytes / MIB,
        "large_cpu_s": big.used_s,
        "large_peak_mib": big.peak_bytes / MIB,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure both, in turns, and print the medians."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost_measure", description="CPU and memory an instance."
    )
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--large-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    noise = np.random.default_rng(1)
    files = [ct(1 + n // 100, 1 + n % 100 // 50, n, 512, noise) for n in range(options.instances)]
    side = int((options.large_mib * MIB / 2) ** 0.5)
    large = ct(500, 1, 1, side, noise)
    rounds: dict[str, list[dict[str, float]]] = {"ours": [], "naive": []}
    for _ in range(options.rounds):
        for name, found in rounds.items():
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(name == "naive", files, large, Path(folder)))
    result: dict[str, Any] = {
        name: {key: round(statistics.median(one[key] for one in found), 5) for key in found[0]}
        for name, found in rounds.items()
    }
    result |= {"instance_bytes": len(files[0]), "large_bytes": len(large), "rounds": options.rounds}
    result["cpus"] = os.cpu_count()
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

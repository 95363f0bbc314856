"""The store function compared with a bare `requests` loop, the naive function, a function written
as in the libraries' documentation, and one that does nothing, in one run.

    python -m benchmarks.store [--rounds 3] [--instances 300] [--flat 10000] [--big-mib 1024]
    [--zip-mib 2048] [--python INTERPRETER] [--json FILE]

Events are pushed to the function by 8 connections that are kept; bucket, topic and DICOM store are
those of the local stack. CPU seconds are the function's own (all its processes); ratios are of
medians. `--rounds 0`, `--flat 0`, `--big-mib 0` and `--zip-mib 0` leave those parts out. `--python`
is the interpreter of an environment with only requirements.txt, as deployed: with numpy installed,
pydicom takes longer to import.
"""

import argparse
import base64
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import psutil

from benchmarks.dicomstore import ct
from infra.local.ports import answers
from infra.local.stack import Stack
from infra.local.topology import ROOT
from tests import scans

THREADS: Final = 8
PEERS: Final = Path(__file__).parent / "peers"
MIB: Final = 1024 * 1024
Object = dict[str, Any]
# Name, target and source of the functions that are compared.
COMPARED: Final = (
    ("store_upload", "store_upload", ROOT / "main.py"),
    ("naive function", "naive", PEERS / "main.py"),
    ("function by the documentation", "documented", PEERS / "documented.py"),
)


class Function:
    """One functions-framework process, started like in the stack."""

    interpreter: ClassVar[str] = sys.executable

    def __init__(self, stack: Stack, target: str, source: Path, log: Path) -> None:
        self.port = _free_port()
        command = [
            self.interpreter,
            "-m",
            "functions_framework",
            "--target",
            target,
            "--source",
            str(source),
        ]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self.began = time.perf_counter()
        self._log = log.open("ab")
        environment = {**os.environ, **stack.env, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, cwd=ROOT
        )

    def wait(self) -> None:
        """Wait until it answers."""
        while not answers(self.port):
            if self._process.poll() is not None:
                raise SystemExit(f"the function ended: see {self._log.name}")
            time.sleep(0.002)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _all(self) -> list[psutil.Process]:
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        times = [process.cpu_times() for process in self._all()]
        return float(sum(t.user + t.system for t in times))

    def rss_mib(self) -> float:
        """Resident memory of the worker."""
        return float(max(process.memory_info().rss for process in self._all())) / MIB

    def peak_mib(self) -> float:
        """The peak of resident memory of one of its processes."""
        status = [Path(f"/proc/{process.pid}/status").read_text() for process in self._all()]
        found = [re.search(r"^VmHWM:\s*(\d+) kB", text, re.MULTILINE) for text in status]
        return max(int(match[1]) for match in found if match) / 1024

    def since_began(self) -> tuple[float, float]:
        """Seconds and CPU seconds since the process was started."""
        return time.perf_counter() - self.began, self.cpu_s()

    def get(self, path: str) -> None:
        """A GET whose answer must be good."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"GET {path} was answered {answer.status}")

    def push(self, objects: Sequence[Object], threads: int = THREADS) -> float:
        """Deliver the events of these objects; seconds until the last is acknowledged."""
        left, lock = iter(objects), threading.Lock()

        def work(_: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            while True:
                with lock:
                    one = next(left, None)
                if one is None:
                    return
                connection.request("POST", "/", event(one), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status not in (200, 204):
                    raise SystemExit(f"a delivery was refused: {answer.status}")

        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        return time.perf_counter() - began


@contextmanager
def function(
    stack: Stack, target: str = "store_upload", source: Path = ROOT / "main.py"
) -> Iterator[Function]:
    """A running function, until the `with` block ends."""
    running = Function(stack, target, source, stack.data / f"{target}.log")
    try:
        running.wait()
        yield running
    finally:
        running.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def event(one: Object) -> bytes:
    """A push of the object's notification."""
    data = base64.b64encode(json.dumps(one).encode()).decode()
    message = {"data": data, "attributes": {"eventType": "OBJECT_FINALIZE"}, "messageId": "1"}
    return json.dumps({"message": message, "subscription": "s", "deliveryAttempt": 1}).encode()


def upload(stack: Stack, name: str, data: bytes) -> Object:
    """Write an object and return the values for its notification."""
    bucket = stack.topology.buckets["landing"]
    stack.buckets.upload(bucket, name, data)
    (found,) = [item for item in stack.buckets.objects(bucket, name) if item["name"] == name]
    return found


def empty(stack: Stack) -> None:
    """A DICOM store without anything in it."""
    stack.kill("dicomstore")
    shutil.rmtree(stack.data / "dicomstore")
    stack.launch("dicomstore")


def speed(stack: Stack, objects: Sequence[Object], rounds: int) -> dict[str, dict[str, float]]:
    """CPU, throughput and peak memory, compared with the loop and the other functions."""
    names = stack.data / "names.json"
    names.write_text(json.dumps([one["name"] for one in objects]))
    bucket = f"http://{stack.addresses.gcs}/storage/v1/b/{objects[0]['bucket']}"
    loop = [
        sys.executable,
        str(PEERS / "loop.py"),
        bucket,
        f"{stack.addresses.dicomweb_url}/studies",
        str(names),
    ]
    took: dict[str, list[tuple[float, float, float]]] = {"requests loop": []}
    took.update({name: [] for name, _, _ in COMPARED})
    for _ in range(rounds):
        empty(stack)
        done = subprocess.run([*loop, str(THREADS)], capture_output=True, text=True, check=True)
        wall_s, cpu_s, peak_mib = json.loads(done.stdout)
        took["requests loop"].append((wall_s, cpu_s, peak_mib))
        for name, target, source in COMPARED:
            empty(stack)
            with function(stack, target, source) as running:
                running.push(objects[:1])
                before = running.cpu_s()
                wall_s = running.push(objects[1:])
                took[name].append((wall_s, running.cpu_s() - before, running.peak_mib()))
    size = sum(int(one["size"]) for one in objects) / 1e6
    base_wall, base_cpu, _ = _medians(took["requests loop"])
    print(
        f"\n{len(objects)} CT, {size:.0f} MB, {THREADS} at a time      MB/s   CPU s   CPU ratio  "
        " throughput ratio   peak MiB"
    )
    figures = {}
    for name, values in took.items():
        wall_s, cpu_s, peak_mib = _medians(values)
        measured = f"{name:30}{size / wall_s:8.0f}{cpu_s:8.2f}"
        ratios = f"{cpu_s / base_cpu:12.2f}{base_wall / wall_s:19.2f}"
        print(f"{measured}{ratios}{peak_mib:11.0f}")
        figures[name] = {"mb_per_s": size / wall_s, "cpu_s": cpu_s, "peak_mib": peak_mib}
    return figures


def _medians(rounds: Sequence[tuple[float, ...]]) -> list[float]:
    """The median of each column."""
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def cold_start(stack: Stack, objects: Sequence[Object], rounds: int) -> None:
    """From the start of the process to its first answer, and to the first stored scan whose outcome
    is published."""
    nothing, search = "a function that does nothing", "search, first answer"
    names = [nothing, search, *(f"{name}, first scan" for name, _, _ in COMPARED)]
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds * 2):
        with function(stack, "nothing", PEERS / "main.py") as running:
            running.push(objects[:1])
            took[nothing].append(running.since_began())
        with function(stack, "search") as running:
            running.get("/studies?limit=1")
            took[search].append(running.since_began())
        for name, target, source in COMPARED:
            with function(stack, target, source) as running:
                running.push([objects[number % len(objects)]])
                took[f"{name}, first scan"].append(running.since_began())
    base = statistics.median(wall_s for wall_s, _ in took[nothing])
    print("\ncold start                                       s   CPU s   ratio")
    for name, values in took.items():
        wall_s, cpu_s = _medians(values)
        print(f"{name:44}{wall_s:6.2f}{cpu_s:8.2f}{wall_s / base:8.2f}")


def memory(stack: Stack, label: str, one: Object, warm: Object) -> float:
    """Peak of resident memory over idle, in MiB, while one object is stored."""
    empty(stack)
    with function(stack) as running:
        running.push([warm])
        idle, peak, done = running.rss_mib(), 0.0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.01):
                peak = max(peak, running.rss_mib())

        watcher = threading.Thread(target=watch)
        watcher.start()
        wall_s = running.push([one])
        done.set()
        watcher.join()
    size = int(one["size"]) / MIB
    print(
        f"{label:32}{wall_s:6.1f} s{size / wall_s:7.0f} MiB/s   idle {idle:.0f} MiB, peak"
        f" +{peak - idle:.0f} MiB"
    )
    return peak - idle


def planted(stack: Stack, name: str, file: Path) -> Object:
    """A large object, written directly to the bucket server's disk: an upload would take several
    times its size in memory."""
    one = upload(stack, name, b"small")
    place = stack.data / "gcs" / one["bucket"] / name
    with file.open("rb") as source, place.open("r+b") as target:
        shutil.copyfileobj(source, target, MIB)
    file.unlink()
    return {**one, "size": str(place.stat().st_size), "crc32c": ""}


def big_instance(folder: Path, mib: int) -> Path:
    """One multi-frame instance."""
    path = folder / "big.dcm"
    head = scans.dicom(("1.2", "1.2.9", "1.2.9.1"), b"")
    with path.open("wb") as file:
        file.write(head[:-4] + struct.pack("<I", mib * MIB))
        for number in range(mib):
            file.write(scans.noise(number % 8, MIB))
    return path


def big_zip(folder: Path, mib: int, noise: np.random.Generator) -> Path:
    """A zip of CT instances of 526 KB."""
    path = folder / "big.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(mib * 2):
            archive.writestr(
                f"study/{number // 100}/{number}", ct(900 + number // 500, 1, number, 512, noise)
            )
    return path


def flat(stack: Stack, count: int) -> list[dict[str, float]]:
    """Time and memory from the first thousand uploads to the last."""
    figures = []
    print(f"\n{count} uploads of 4 KB: ms each and worker's MiB, by thousand")
    empty(stack)
    folder = stack.data / "gcs" / stack.topology.buckets["landing"]
    with function(stack) as running:
        for start in range(0, count, 1000):
            objects = []
            for number in range(start, min(count, start + 1000)):
                data = scans.dicom(
                    ("1.2.7", f"1.2.7.{number // 500}", f"1.2.7.1.{number}"),
                    scans.noise(number, 4000),
                )
                objects.append((f"flat/{number // 1000}-{number}", data))
            made = [upload(stack, name, data) for name, data in objects]
            wall_s = running.push(made)
            each_ms, rss_mib = wall_s / len(made) * 1000, running.rss_mib()
            print(f"  {start + 1000:6}  {each_ms:6.2f} ms  {rss_mib:6.1f} MiB", flush=True)
            figures.append({"from": start, "ms": each_ms, "mib": rss_mib})
            for one in made:
                (folder / one["name"]).unlink()
    return figures


def main() -> None:
    """Run the parts in the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--flat", type=int, default=10_000)
    parser.add_argument("--big-mib", type=int, default=1024)
    parser.add_argument("--zip-mib", type=int, default=2048)
    parser.add_argument("--python", default=sys.executable, help="what the functions run with")
    parser.add_argument("--data", type=Path, help="where to work; else a temporary folder")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    Function.interpreter = flags.python
    figures: dict[str, Any] = {}
    noise = np.random.default_rng(1)
    with (
        tempfile.TemporaryDirectory(dir=flags.data) as folder,
        Stack(Path(folder), functions=[]) as stack,
    ):
        objects = [
            upload(stack, f"ct/{n:04}.dcm", ct(n // 50, n // 25, n, 512, noise))
            for n in range(1, flags.instances + 1)
        ]
        if flags.rounds:
            figures["speed"] = speed(stack, objects, flags.rounds)
            cold_start(stack, objects, flags.rounds)
        print()
        if flags.big_mib:
            one = planted(stack, "big.dcm", big_instance(Path(folder), flags.big_mib))
            memory(stack, f"one instance of {flags.big_mib} MiB", one, objects[0])
        if flags.zip_mib:
            one = planted(stack, "big.zip", big_zip(Path(folder), flags.zip_mib, noise))
            memory(stack, f"a zip of about {flags.zip_mib} MiB", one, objects[0])
        if flags.flat:
            figures["by_thousand"] = flat(stack, flags.flat)
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

"""Retrieving a study like this project's export, compared with other clients; and the export
function's time and memory.

    python -m benchmarks.export [--instances 300] [--rounds 5] [--large-mib 1024] [--many 10000]
    [--json FILE]

Every client is a separate process, gets the same study from the same server and writes the same
files; a round runs them one after the other, first with the local DICOM store, then with Orthanc if
Debian's packages orthanc and orthanc-dicomweb are installed. Ratios are of the medians. The second
part runs the deployed function against the bucket server and samples the resident memory of its
worker.
"""

import argparse
import base64
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import requests

from benchmarks.dicomstore import PLUGIN, orthanc
from functions.api.requests import ExportRequest
from functions.common.checksum import Checksum
from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.storage import Buckets, StoredObject
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.resources import DicomStoreName, GcsPrefix, ObjectRef, Resource
from functions.export.job import Attempt, Job
from functions.export.object_slice import ObjectSlice
from functions.export.plan import Planner
from functions.export.slices import Item, Slice
from tests.contract.function_process import FunctionProcess, function_process
from tests.contract.world import BUCKET, STORE_NAME, World, bucket_server, instance, world

MIB = 1024 * 1024
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
STUDY = "1.2.826.0.1.3680043.10.1462.5.1"
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None
HEADERS = {"Accept": AS_STORED, "Accept-Encoding": "identity"}


# ruff: noqa: ARG002 (arguments that a folder does not need)
class FileBuckets(Buckets):
    """A bucket that is a folder, so that only retrieving is compared."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(
        self, bucket: str, name: str, data: Any, deadline: Deadline, **_: Any
    ) -> StoredObject:
        return self.write(bucket, name, [data] if isinstance(data, bytes) else data, deadline)

    def write(
        self, bucket: str, name: str, data: Iterable[bytes], deadline: Deadline, **_: Any
    ) -> StoredObject:
        path, checksum, size = self._folder / name.rpartition("/")[2], Checksum(), 0
        with path.open("wb") as file:
            for piece in data:
                checksum.add(piece)
                size += file.write(piece)
        return StoredObject(ObjectRef(bucket, name, 1), size, checksum.text)

    def list(
        self, bucket: str, prefix: str, deadline: Deadline, *, start: str = ""
    ) -> Iterator[StoredObject]:
        return iter(())


class StoreAt(DicomStore):
    """A DICOM store whose DICOMweb service is at any URL."""

    def __init__(self, base: str) -> None:
        super().__init__(Transport(), base, DicomStoreName(STORE_NAME))
        self._dicomweb = base


def ours(base: str, folder: Path, *, plan_first: bool = False) -> None:
    """The export's own retrieving, splitting, naming and checksums; the search for instances only
    if requested."""
    store, deadline = StoreAt(base), Deadline(600)
    request = ExportRequest("benchmark", Resource(STUDY), None, GcsPrefix(BUCKET))
    job = Job(request, store, FileBuckets(folder), Attempt(1, 5), deadline, deadline)
    if plan_first:
        planner = Planner(job, 1000)
        parts = [*planner.slices(Resource(STUDY)), *planner.rest()]
    else:
        parts = [Slice.parse(json.loads((folder.parent / f"{folder.name}.plan").read_text()))]
    for part in parts:
        result = ObjectSlice(job, "run", lambda: None).run(part)
        assert not result.failures


def planned(instances: int) -> str:
    """The plan for the study, as the function keeps it."""
    items = [
        Item(Resource(STUDY, f"{STUDY}.{n % 6}", f"{STUDY}.{n % 6}.{n}")) for n in range(instances)
    ]
    return json.dumps(Slice([Resource(STUDY)], items).to_json())


def bare_loop(base: str, folder: Path) -> None:
    """A bare loop over the study's multipart answer, split into files."""
    answer = requests.get(f"{base}/studies/{STUDY}", headers=HEADERS, stream=True, timeout=60)
    mark = (
        b"\r\n--"
        + answer.headers["Content-Type"].partition("boundary=")[2].split(";")[0].strip('"').encode()
    )
    buffer, file, count = b"\r\n", None, 0
    for chunk in answer.iter_content(256 * 1024):
        buffer += chunk
        while (at := buffer.find(mark)) >= 0 and (
            end := buffer.find(b"\r\n\r\n", at + len(mark))
        ) >= 0:
            if file:
                file.write(buffer[:at])
                file.close()
            file, count = (folder / f"{count}.dcm").open("wb"), count + 1
            buffer = buffer[end + 4 :]
        keep = len(buffer) if buffer.find(mark) >= 0 else len(mark)
        if file and len(buffer) > keep:
            file.write(buffer[: len(buffer) - keep])
            buffer = buffer[len(buffer) - keep :]
    assert file
    file.write(buffer[: buffer.find(mark)])
    file.close()


def each(get: Callable[..., requests.Response], threads: int) -> Callable[[str, Path], None]:
    """A request for each instance."""

    def client(base: str, folder: Path) -> None:
        found = requests.get(
            f"{base}/studies/{STUDY}/instances?limit=50000&includefield=0020000E",
            headers={"Accept": "application/dicom+json"},
            timeout=60,
        ).json()
        paths = [(item["0020000E"]["Value"][0], item["00080018"]["Value"][0]) for item in found]

        def fetch(path: tuple[str, str]) -> None:
            series, uid = path
            target = f"{base}/studies/{STUDY}/series/{series}/instances/{uid}"
            body = get(target, headers=HEADERS, timeout=60).content
            (folder / f"{uid}.dcm").write_bytes(
                body[body.find(b"\r\n\r\n") + 4 : body.rfind(b"\r\n--")]
            )

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fetch, paths))

    return client


def dicomweb_client(base: str, folder: Path) -> None:
    """dicomweb-client's iter_study."""
    from dicomweb_client.api import DICOMwebClient

    for n, dataset in enumerate(
        DICOMwebClient(base).iter_study(STUDY, media_types=("application/dicom",))
    ):
        dataset.save_as(folder / f"{n}.dcm")


CLIENTS: dict[str, Callable[[str, Path], None]] = {
    "this project": ours,
    "this project, with its search": partial(ours, plan_first=True),
    "bare requests loop over the study": bare_loop,
    "one request each, 8 threads, kept alive": each(requests.Session().get, 8),
    "one request each, kept alive": each(requests.Session().get, 1),
    "one request each, a connection for each": each(requests.get, 1),
    "dicomweb-client iter_study": dicomweb_client,
}


def run_client(name: str, base: str, folder: Path) -> None:
    """The process of a client: do the work, then print its figures."""
    # Imported before the clock starts, like everything else.
    if name == "dicomweb-client iter_study":
        import dicomweb_client.api  # noqa: F401
    import pydicom.filereader  # noqa: F401

    began, cpu = time.perf_counter(), time.process_time()
    CLIENTS[name](base, folder)
    taken = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"s": taken, "cpu_s": time.process_time() - cpu, "peak_mib": peak}))


def compare(base: str, rounds: int, hashes: list[str]) -> dict[str, dict[str, float]]:
    """The medians of all clients."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    names = list(CLIENTS)
    for _ in range(rounds):
        # The work of one client may still occupy the server when the next one begins.
        names.append(names.pop(0))
        for name in names:
            with tempfile.TemporaryDirectory(dir=SHM) as folder:
                (Path(folder).parent / f"{Path(folder).name}.plan").write_text(planned(len(hashes)))
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.export",
                    "--client",
                    name,
                    "--url",
                    base,
                    "--to",
                    folder,
                ]
                taken[name].append(
                    json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                )
                files = sorted(
                    hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()
                )
                (Path(folder).parent / f"{Path(folder).name}.plan").unlink()
                taken[name][-1]["right"] = len([h for h in files if h in set(hashes)])
    keys = ("s", "cpu_s", "peak_mib", "right")
    return {
        name: {key: statistics.median(one[key] for one in runs) for key in keys}
        for name, runs in taken.items()
    }


def export(function: FunctionProcess, store: World, study: str, to: str) -> float:
    """One export, with all messages that it publishes; returns seconds."""
    began = time.perf_counter()
    command = {"path": f"studies/{study}", "destination": f"gs://{BUCKET}/{to}", "request_id": to}
    assert function.push(command) == 204
    while store.follow_ups:
        data = base64.b64decode(store.follow_ups.pop(0)["data"])
        assert function.push(data, follow_up=True) == 204
    assert store.outcomes[-1]["outcome"] == "exported", store.outcomes[-1]
    return time.perf_counter() - began


def measured(function: FunctionProcess, store: World, study: str, to: str) -> dict[str, float]:
    """The figures of one export; memory is the worker's peak over its idle memory."""
    idle, cpu_s = function.rss_bytes(), function.cpu_s()
    with function.peak() as samples:
        taken_s = export(function, store, study, to)
    return {
        "s": taken_s,
        "cpu_s": function.cpu_s() - cpu_s,
        "peak_mib": (max(samples) - idle) / MIB,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large-mib", type=int, default=1024)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.client:
        run_client(flags.client, flags.url, flags.to)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        bucket_server(folder=Path(folder) / "buckets") as buckets,
        world("export_resource", Path(folder) / "store", buckets_url=buckets) as store,
    ):
        figures = {
            "retrieve": _retrieve(store, flags.instances, flags.rounds),
            "function": _function(store, flags),
        }
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2))


def _retrieve(store: World, instances: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    files = [
        instance(STUDY, f"{STUDY}.{n % 6}", f"{STUDY}.{n % 6}.{n}", pixels=725)
        for n in range(instances)
    ]
    hashes = [hashlib.sha256(data).hexdigest() for data in files]
    store.put(*files)
    base = f"{store.store_url}/v1/{STORE_NAME}/dicomWeb"
    figures = {
        "local": _shown("the local DICOM store", compare(base, rounds, hashes), instances, rounds)
    }
    if shutil.which("Orthanc") and PLUGIN.exists():
        with (
            tempfile.TemporaryDirectory(dir=SHM) as folder,
            orthanc(Path(folder) / "orthanc") as target,
        ):
            for data in files:
                requests.post(
                    f"http://127.0.0.1:{target.port}/instances", data, timeout=60
                ).raise_for_status()
            found = compare(f"http://127.0.0.1:{target.port}{target.base}", rounds, hashes)
        figures["orthanc"] = _shown("Orthanc", found, instances, rounds)
    return figures


def _shown(
    server: str, found: dict[str, dict[str, float]], instances: int, rounds: int
) -> dict[str, dict[str, float]]:
    megabytes = instances * 526 / 1000
    us, bare = found["this project"]["s"], found["bare requests loop over the study"]["s"]
    single = found["one request each, a connection for each"]["s"]
    print(f"Retrieve {instances} instances of 526 KB from {server} into files, medians of {rounds}")
    print(
        f"{'client':42} {'MB/s':>6} {'CPU s':>6} {'peak MiB':>9} {'right':>6}  time / this"
        " project's"
    )
    for name, one in found.items():
        line = f"{name:42} {megabytes / one['s']:6.0f} {one['cpu_s']:6.2f} {one['peak_mib']:9.0f}"
        print(f"{line} {one['right']:6.0f}  {one['s'] / us:5.2f}")
    print(
        f"target: at least 4.00 of one request each with a connection for each: {single / us:.2f}"
    )
    print(f"target: at least 0.90 of the bare loop: {bare / us:.2f}\n", flush=True)
    return found


def _function(store: World, flags: argparse.Namespace) -> dict[str, Any]:
    large = f"{STUDY}.91"
    store.put(instance(f"{STUDY}.90", "1.1", "1.1.1"))
    store.put(instance(large, "1.2", "1.2.1", pixels=1024, frames=flags.large_mib))
    figures: dict[str, Any] = {}
    with function_process("export_resource", store.environ) as function:
        export(function, store, f"{STUDY}.90", "warm")
        print("The function, into the bucket server (peak is resident memory over the idle one's)")
        for name, study, limit in (("study", STUDY, 32), ("large", large, 64)):
            taken = measured(function, store, study, name)
            figures[name] = taken
            text = f"{name:8} {taken['s']:7.1f} s  peak {taken['peak_mib']:5.1f} MiB"
            print(f"{text}  target: at most {limit}", flush=True)
    figures["many"] = [_many(store, count) for count in (100, 1000, 10_000) if count <= flags.many]
    return figures


def _many(store: World, count: int) -> dict[str, float]:
    """An export of so many small instances by a new worker; time and memory must not grow with
    their number."""
    study = f"{STUDY}.92.{count}"
    for n in range(count):
        series = f"{study}.{n * 10 // count}"
        store.put(instance(study, series, f"{series}.{n}", pixels=64))
    with function_process("export_resource", store.environ) as function:
        export(function, store, f"{STUDY}.90", f"warm-{count}")
        taken = measured(function, store, study, f"many-{count}")
    wall_ms, cpu_ms = (1000 * taken[key] / count for key in ("s", "cpu_s"))
    print(
        f"{count:6} instances  {wall_ms:6.2f} ms, {cpu_ms:5.2f} ms of CPU each"
        f"  peak {taken['peak_mib']:5.1f} MiB  target: flat, at most 32",
        flush=True,
    )
    return {"count": count, "ms": wall_ms, **taken}


if __name__ == "__main__":
    main()

"""The local DICOM store compared with Orthanc and its DICOMweb plugin: same files, same client,
same disk, one run.

    python -m benchmarks.dicomstore [--rounds 5] [--instances 300] [--large 100000] [--json FILE]

Both servers get the same bytes over keep-alive connections; a round runs both, one after the other.
Ratios are of the medians: above 1 the local store is faster. Needs Debian's packages orthanc and
orthanc-dicomweb.
"""

import argparse
import http.client
import io
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.10.1462.9"
CT = "1.2.840.10008.5.1.4.1.1.2"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
BOUNDARY = "benchmark5f1d7c9e2b8a4c60boundary"
STORE = "/v1/projects/local/locations/local/datasets/local/dicomStores/local/dicomWeb"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class Target(NamedTuple):
    """A running server."""

    name: str
    port: int
    base: str


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ct(study: int, series: int, number: int, side: int, noise: np.random.Generator) -> bytes:
    """A CT instance; side 512 makes it 526 KB."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet, ds.ImageType = "ISO_IR 192", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CT, f"{ROOT}.{study}.{series}.{number}"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = (
        f"2024{study % 12 + 1:02d}{study % 28 + 1:02d}"
    )
    ds.StudyTime, ds.AccessionNumber, ds.Modality = "101112", f"ACC{study:06d}", "CT"
    ds.Manufacturer, ds.InstitutionName, ds.ReferringPhysicianName = (
        "Bench",
        "Loopback General",
        "Referrer^Ann",
    )
    ds.StudyDescription, ds.SeriesDescription = f"Study {study}", f"Series {series}"
    ds.PatientName, ds.PatientID = f"Doe{study}^Jane", f"PAT{study:05d}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19700101", "F", "054Y"
    ds.SliceThickness, ds.KVP, ds.ExposureTime = "1.25", "120", "500"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}.{study}", f"{ROOT}.{study}.{series}"
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = str(study), series, number
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.Rows, ds.Columns = (
        1,
        "MONOCHROME2",
        side,
        side,
    )
    ds.PixelSpacing, ds.BitsAllocated, ds.BitsStored, ds.HighBit = [0.7, 0.7], 16, 16, 15
    ds.PixelRepresentation, ds.WindowCenter, ds.WindowWidth = 1, 40, 400
    ds.RescaleIntercept, ds.RescaleSlope = -1024, 1
    ds.PixelData = noise.integers(-1000, 2000, side * side, dtype=np.int16).tobytes()
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def body_of(files: list[bytes]) -> bytes:
    """Files as a multipart store body."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def local_store(directory: Path) -> Iterator[Target]:
    """The local store on a new folder."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "infra.local.dicomstore",
        "--port",
        str(port),
        "--data",
        str(directory),
    ]
    with _running(command, Target("local", port, STORE), "/healthz"):
        yield Target("local", port, STORE)


@contextmanager
def orthanc(directory: Path) -> Iterator[Target]:
    """Orthanc on a new folder; compression off, keep-alive on."""
    directory.mkdir(parents=True)
    port = free_port()
    config = {
        "StorageDirectory": str(directory / "storage"),
        "IndexDirectory": str(directory / "index"),
        "StorageCompression": False,
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": True,
        "KeepAlive": True,
        "TcpNoDelay": True,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = directory / "orthanc.json"
    path.write_text(json.dumps(config))
    with _running(["Orthanc", str(path)], Target("orthanc", port, "/dicom-web"), "/system"):
        yield Target("orthanc", port, "/dicom-web")


@contextmanager
def _running(command: list[str], target: Target, health: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                if (
                    call(http.client.HTTPConnection("127.0.0.1", target.port), "GET", health)[0]
                    == 200
                ):
                    break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def call(
    connection: http.client.HTTPConnection, verb: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, int]:
    """One request; the status and the bytes of the answer, which are read and dropped."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(verb, path, body or None, named)
    response = connection.getresponse()
    buffer, total = bytearray(1 << 20), 0
    while count := response.readinto(buffer):
        total += count
    return response.status, total


def store_all(target: Target, bodies: list[bytes], connections: int) -> float:
    """Seconds to store every body, one request each, over this many connections."""
    failures: list[int] = []

    def work(part: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", target.port)
        for body in part:
            headers = {"Content_Type": MULTIPART, "Accept": "application/dicom+json"}
            status, _ = call(connection, "POST", f"{target.base}/studies", body, **headers)
            if status != 200:
                failures.append(status)

    threads = [
        threading.Thread(target=work, args=(bodies[i::connections],)) for i in range(connections)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    if failures:
        raise SystemExit(f"{target.name}: store answered {failures[:5]}")
    return elapsed


def retrieve_all(target: Target, studies: int) -> float:
    """Seconds to retrieve the studies, one multipart answer each, as stored."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port)
    start = time.perf_counter()
    for study in range(studies):
        status, _ = call(
            connection, "GET", f"{target.base}/studies/{ROOT}.{study}", Accept=AS_STORED
        )
        if status != 200:
            raise SystemExit(f"{target.name}: retrieve answered {status}")
    return time.perf_counter() - start


def search(target: Target, path: str, times: int) -> float:
    """Median seconds of a search."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port)
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        status, _ = call(connection, "GET", target.base + path, Accept="application/dicom+json")
        taken.append(time.perf_counter() - start)
        if status != 200:
            raise SystemExit(f"{target.name}: search answered {status}")
    return statistics.median(taken)


def measure(
    target: Target, sizes: argparse.Namespace, files: list[bytes], small: list[bytes]
) -> dict[str, float]:
    """Every figure of one server in one round; bytes/s or seconds."""
    total = sum(map(len, files))
    half = len(files) // 2
    bodies = [body_of([file]) for file in files]
    found = {"store 1 connection": total / 2 / store_all(target, bodies[:half], 1)}
    found["store 8 connections"] = total / 2 / store_all(target, bodies[half:], 8)
    found["retrieve study"] = total / retrieve_all(target, sizes.studies)
    store_all(target, [body_of(small[i : i + 100]) for i in range(0, len(small), 100)], 1)
    found["/instances?limit=1000"] = search(target, "/instances?limit=1000", 7)
    found["/studies?PatientName="] = search(target, "/studies?PatientName=Doe1%5EJane", 40)
    return found


def large(directory: Path, count: int, noise: np.random.Generator) -> dict[str, float]:
    """The searches of the local store at `count` instances, 500 to a study and 100 to a series."""
    template = ct(1_000_000, 2_000_000, 3_000_000, 4, noise)
    with local_store(directory) as target:
        for study in range(count // 500):
            named = template.replace(b"1000000", b"%d" % (1_000_000 + study))
            files = [
                named.replace(b"2000000", b"%d" % (2_000_000 + n // 100)).replace(
                    b"3000000", b"%d" % (3_000_000 + n)
                )
                for n in range(500)
            ]
            store_all(target, [body_of(files)], 1)
        return {
            "/instances?limit=1000": search(target, "/instances?limit=1000", 15),
            "/studies?PatientName=": search(target, "/studies?PatientName=Doe1000001%5EJane", 40),
        }


def show(name: str, values: dict[str, list[float]]) -> dict[str, float]:
    """Print one line of the table; returns its medians."""
    unit, scale, form = ("MB/s", 1e-6, "8.0f") if not name.startswith("/") else ("ms", 1e3, "8.2f")
    medians = {server: statistics.median(seen) for server, seen in values.items()}
    ratio = (
        medians["local"] / medians["orthanc"]
        if unit == "MB/s"
        else medians["orthanc"] / medians["local"]
    )
    figures = "  ".join(
        f"{server} {medians[server] * scale:{form}} {unit}" for server in ("local", "orthanc")
    )
    print(f"{name:24} {figures}   ratio {ratio:5.2f}", flush=True)
    return {**medians, "ratio": ratio}


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--large", type=int, default=100_000, help="0: leave it out")
    parser.add_argument("--json", type=Path)
    sizes = parser.parse_args()
    if not PLUGIN.exists() or not shutil.which("Orthanc"):
        raise SystemExit("Orthanc is missing: apt-get install orthanc orthanc-dicomweb")
    noise = np.random.default_rng(1)
    files = [ct(n % sizes.studies, n % 2, n, 512, noise) for n in range(sizes.instances)]
    small = [ct(100 + n // 100, n // 50 % 2, n, 4, noise) for n in range(1200)]
    servers: tuple[Callable[[Path], Any], ...] = (local_store, orthanc)
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(sizes.rounds):
            for server in servers:
                with server(Path(scratch) / f"{server.__name__}{number}") as target:
                    for name, value in measure(target, sizes, files, small).items():
                        figures.setdefault(name, {}).setdefault(target.name, []).append(value)
                shutil.rmtree(Path(scratch) / f"{server.__name__}{number}", ignore_errors=True)
        table = {name: show(name, values) for name, values in figures.items()}
        if sizes.large:
            for name, seconds in large(Path(scratch) / "large", sizes.large, noise).items():
                ratio = seconds / table[name]["local"]
                print(
                    f"{name:24} local {seconds * 1e3:8.2f} ms at {sizes.large} instances,"
                    f" {ratio:.2f} times"
                )
                table[name]["large"] = seconds
    if sizes.json:
        sizes.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()

"""Shared by the tests of the DICOM store: synthetic DICOM files, a client, a server in a separate
process."""

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pydicom.data
import requests
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
SC = "1.2.840.10008.5.1.4.1.1.7"
ELE = "1.2.840.10008.1.2.1"
STORE = "projects/local/locations/local/datasets/local/dicomStores/local"
# The path of the instance that `dicom()` makes, and what a client accepts of it.
ONE = "studies/1.2/series/1.2.3/instances/1.2.3.4"
SINGLE = "application/dicom; transfer-syntax=*"
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
OCTETS = 'multipart/related; type="application/octet-stream"; transfer-syntax='
BUNDLED = Path(pydicom.data.__file__).parent / "test_files"


def dataset(
    study: str = "1.2", series: str = "1.2.3", instance: str = "1.2.3.4", **attributes: Any
) -> Dataset:
    """A small data set with its file meta information."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CT
    ds.SOPInstanceUID = instance
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = series
    ds.Modality = "CT"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "P1"
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def part10(ds: Dataset, **options: Any) -> bytes:
    """A data set as a Part 10 file."""
    file = io.BytesIO()
    ds.save_as(file, **{"enforce_file_format": True, **options})
    return file.getvalue()


def dicom(
    study: str = "1.2", series: str = "1.2.3", instance: str = "1.2.3.4", **attributes: Any
) -> bytes:
    """A small Part 10 file."""
    return part10(dataset(study, series, instance, **attributes))


def image(array: Any, **attributes: Any) -> Dataset:
    """A data set with these pixels: (rows, columns), or (frames, rows, columns), of uint8, uint16
    or int16."""
    frames = {"NumberOfFrames": array.shape[0]} if array.ndim == 3 else {}
    bits = array.dtype.itemsize * 8
    about = {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": array.shape[-2],
        "Columns": array.shape[-1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(array.dtype.kind == "i"),
        **frames,
    }
    ds = dataset(**{**about, **attributes})
    ds.PixelData = array.tobytes()
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds


def gradient(rows: int = 16, columns: int = 24, dtype: Any = np.uint8) -> Any:
    """Every pixel has another value, within the type's range."""
    return np.arange(rows * columns, dtype=np.int64).reshape(rows, columns).astype(dtype)


def stack(frames: int = 3, dtype: Any = np.uint16) -> Any:
    """Frames that differ."""
    return np.stack([gradient(64, 64, dtype) + dtype(n) for n in range(frames)])


def multipart(
    parts: list[tuple[dict[str, str], bytes]], boundary: str = "testboundary0c1d2e3f"
) -> bytes:
    """Parts with their headers as a multipart body."""
    out = []
    for headers, body in parts:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        out.append(f"--{boundary}\r\n{lines}\r\n".encode() + body + b"\r\n")
    return b"".join(out) + f"--{boundary}--\r\n".encode()


def parts_of(response: requests.Response) -> list[tuple[str, bytes]]:
    """A multipart answer as (Content-Type, body); fails when it is not whole."""
    boundary = response.headers["Content-Type"].split("boundary=")[1].split(";")[0].strip('"')
    pieces = (b"\r\n" + response.content).split(f"\r\n--{boundary}".encode())
    assert pieces[0] == b"", "not a whole multipart body"
    assert pieces[-1] == b"--\r\n", "not a whole multipart body"
    found = []
    for piece in pieces[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        found.append((head.decode().strip().partition(": ")[2], body))
    return found


class Client:
    """Requests to one store; paths are relative to its dicomWeb URL."""

    def __init__(self, url: str, store: str = STORE, version: str = "v1") -> None:
        self.url = url
        self.name = store
        self.root = f"{url}/{version}"
        self.store_url = f"{self.root}/{store}"
        self.dataset_url = self.store_url.partition("/dicomStores/")[0]
        self.web = f"{self.store_url}/dicomWeb"
        self.http = requests.Session()
        self.http.headers["Accept-Encoding"] = "identity"

    def get(self, path: str, accept: str = "*/*", **params: Any) -> requests.Response:
        """GET below dicomWeb."""
        url = path if path.startswith("http") else f"{self.web}/{path}"
        return self.http.get(url, params=params or None, headers={"Accept": accept}, timeout=60)

    def post(
        self, body: Any, kind: str = "application/dicom", path: str = "studies", **headers: str
    ) -> requests.Response:
        """Store."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(
            f"{self.web}/{path}", data=body, headers={"Content-Type": kind, **named}, timeout=120
        )

    def post_parts(
        self, files: list[bytes], path: str = "studies", **headers: str
    ) -> requests.Response:
        """Store several files in one request."""
        body = multipart([({"Content-Type": "application/dicom"}, file) for file in files])
        kind = 'multipart/related; type="application/dicom"; boundary=testboundary0c1d2e3f'
        return self.post(body, kind, path, **headers)

    def stored(self, *files: bytes) -> None:
        """Store files; each must be new and good."""
        for file in files:
            response = self.post(file)
            assert response.status_code == 200, response.text

    def delete(self, path: str) -> requests.Response:
        """DELETE below dicomWeb."""
        return self.http.delete(f"{self.web}/{path}", timeout=60)

    def found(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """A search's matches; an empty list for 204."""
        response = self.get(path, **params)
        assert response.status_code in (200, 204), response.text
        return list(response.json()) if response.content else []

    def operation(self, name: str) -> dict[str, Any]:
        """An operation by the name a delete answered."""
        return dict(self.http.get(f"{self.root}/{name}", timeout=30).json())

    def fault(self, **rule: Any) -> None:
        """Add a fault rule."""
        assert self.http.post(f"{self.url}/_faults", json=rule, timeout=30).status_code == 200


def bundled(store: Client, name: str) -> tuple[str, Dataset]:
    """Store one of pydicom's files; its URL and data set."""
    file = (BUNDLED / name).read_bytes()
    store.stored(file)
    ds = pydicom.dcmread(io.BytesIO(file))
    return (
        f"studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}",
        ds,
    )


def values(item: dict[str, Any], tag: str) -> list[Any]:
    """The values of an attribute of a DICOM JSON object."""
    return list(item[tag].get("Value", []))


def uids(found: list[dict[str, Any]], tag: str = "0020000D") -> list[str]:
    """One UID of each match."""
    return [item[tag]["Value"][0] for item in found]


def failures(response: requests.Response) -> list[tuple[str, str]]:
    """FailureReason and FailureDetail of each failed instance, from either form of a store
    answer."""
    if response.headers["Content-Type"] == "application/dicom+json":
        items = response.json().get("00081198", {}).get("Value", [])
        return [(str(item["00081197"]["Value"][0]), item["00091097"]["Value"][0]) for item in items]
    root = ElementTree.fromstring(response.text)
    out = []
    for item in root.findall("./DicomAttribute[@tag='00081198']/Item"):
        texts = {a.get("tag"): a.findtext("Value") for a in item.findall("DicomAttribute")}
        out.append((str(texts["00081197"]), str(texts["00090097"])))
    return out


def start_command(data: Path) -> list[str]:
    """How the server is started with this folder, on a free port."""
    module = [sys.executable, "-m", "infra.local.dicomstore"]
    return [*module, "--port", "0", "--data", str(data)]


@contextlib.contextmanager
def process(
    data: Path, *flags: str, stderr: int | None = None
) -> Iterator[tuple[Client, "subprocess.Popen[str]"]]:
    """The server as its users start it, on a free port."""
    command = [*start_command(data), *flags]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert running.stdout
        line = running.stdout.readline()
        assert line.startswith("listening on http://"), line
        yield Client(line.split()[-1]), running
    finally:
        running.kill()
        running.wait()


def eventually(check: Any, timeout_s: float = 60) -> Any:
    """The first true value of check(), polled."""
    deadline = time.monotonic() + timeout_s
    while not (value := check()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
    return value


def as_json(value: Any) -> bytes:
    """A value as JSON bytes."""
    return json.dumps(value).encode()

"""Many clients, big bodies, full disks and killed processes."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from tests.dicomstore.kit import (
    ONE,
    SINGLE,
    Client,
    dataset,
    dicom,
    eventually,
    part10,
    process,
)

MIB = 1 << 20


def test_fifty_clients_at_once(store: Client) -> None:
    def work(n: int) -> bool:
        client = Client(store.url, store.name)
        file = dicom(
            f"5.{n % 7}", f"5.{n % 7}.{n}", f"5.{n}.1", EncapsulatedDocument=bytes(200_000)
        )
        client.stored(file)
        path = f"studies/5.{n % 7}/series/5.{n % 7}.{n}/instances/5.{n}.1"
        found = client.found(f"studies/5.{n % 7}/series", limit=100)
        return client.get(path, SINGLE).content == file and len(found) >= 1

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(work, range(150)))
    assert len(store.found("instances")) == 150
    assert len(store.found("studies")) == 7


def test_stores_and_deletes_of_one_instance_at_once_end_in_one_state(store: Client) -> None:
    def work(n: int) -> int:
        client = Client(store.url, store.name)
        return client.post(dicom()).status_code if n % 2 else client.delete(ONE).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(work, range(160))) <= {200, 404}
    store.stored(dicom())
    assert store.get(ONE, SINGLE).content == dicom()


def test_one_instance_stored_by_twenty_clients_at_once_is_stored_once(store: Client) -> None:
    with ThreadPoolExecutor(20) as pool:
        same = list(
            pool.map(lambda _: Client(store.url, store.name).post(dicom()).status_code, range(20))
        )
        other = list(
            pool.map(
                lambda n: (
                    Client(store.url, store.name)
                    .post(dicom(instance="7", PatientID=str(n)))
                    .status_code
                ),
                range(20),
            )
        )
    assert same == [200] * 20
    assert sorted(other) == [200] + [409] * 19
    assert len(store.found("instances")) == 2


def test_a_killed_server_has_everything_it_acknowledged_and_nothing_else(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for round_number in range(4):
        with process(tmp_path) as (client, running):
            threads = [
                threading.Thread(
                    target=_store_until_killed,
                    args=(client.url, f"{round_number}{n}", acknowledged),
                )
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            goal = len(acknowledged) + 30
            eventually(lambda: len(acknowledged) >= goal)  # noqa: B023
            running.kill()
            for thread in threads:
                thread.join()
    with process(tmp_path) as (client, _):
        found = {item["00080018"]["Value"][0] for item in client.found("instances", limit=50_000)}
        assert set(acknowledged) <= found
        for uid in found:
            study = f"studies/8.{uid.split('.')[1]}"
            got = client.get(f"{study}/series/{study[8:]}.1/instances/{uid}", SINGLE)
            assert got.content == _numbered(uid)
        files = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
        assert len(files) == len(found), "nothing half stored is left"


def _numbered(uid: str) -> bytes:
    study = f"8.{uid.split('.')[1]}"
    return dicom(study, f"{study}.1", uid, EncapsulatedDocument=bytes(100_000))


def _store_until_killed(url: str, worker: str, acknowledged: list[str]) -> None:
    client = Client(url)
    for n in range(10_000):
        uid = f"9.1{worker}.{n}"
        try:
            if client.post(_numbered(uid)).status_code == 200:
                acknowledged.append(uid)
        except requests.RequestException:
            return


def _fill(client: Client, start: int) -> tuple[int, requests.Response]:
    for n in range(start, start + 400):
        answer = client.post(
            dicom("6.1", "6.1.1", f"6.1.1.{n}", EncapsulatedDocument=bytes(500_000))
        )
        if answer.status_code != 200:
            return n, answer
    raise AssertionError("the disk never filled")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    target = tmp_path / "small"
    target.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(target)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield target
    subprocess.run(["umount", "-l", str(target)], check=True)


def test_a_full_disk_is_an_error_and_service_continues_when_there_is_space(
    small_disk: Path,
) -> None:
    with process(small_disk) as (client, _):
        count, answer = _fill(client, 0)
        assert answer.status_code == 503
        assert answer.json()
        assert len(client.found("instances")) == count, "what was stored before is there"
        assert client.get("studies/6.1/series/6.1.1/instances/6.1.1.0", SINGLE).status_code == 200
        for n in range(10):
            assert client.delete(f"studies/6.1/series/6.1.1/instances/6.1.1.{n}").status_code == 200
        assert (
            client.post(
                dicom("6.2", "6.2.1", "6.2.1.1", EncapsulatedDocument=bytes(500_000))
            ).status_code
            == 200
        )
        files = [path for path in (small_disk / "files").rglob("*") if path.is_file()]
        assert len(files) == len(client.found("instances")), "no remains of what did not fit"


def test_a_file_over_the_process_limit_is_503_too(tmp_path: Path) -> None:
    code = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21));"
    code += f"sys.argv = ['x', '--port', '0', '--data', {str(tmp_path)!r}];"
    code += "runpy.run_module('infra.local.dicomstore', run_name='__main__')"
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout
        client = Client(running.stdout.readline().split()[-1])
        for size in (
            2 * MIB - 900,
            2 * MIB,
            3 * MIB,
        ):  # at the limit a write is cut short without an error
            for post in (client.post, lambda file: client.post_parts([file])):
                answer = post(dicom(EncapsulatedDocument=bytes(size)))
                if answer.status_code == 200:
                    assert client.get(ONE, SINGLE).content == dicom(
                        EncapsulatedDocument=bytes(size)
                    )
                    client.delete(ONE)
                assert answer.status_code == (200 if size < 2 * MIB else 503)
        assert client.post(dicom()).status_code == 200
    finally:
        running.kill()
        running.wait()


def _big(frames: int) -> tuple[bytes, int]:
    """The head of a multi-frame file whose pixels are `frames` MiB of 512x1024 16 bit frames, and
    its whole size."""
    ds = dataset(
        NumberOfFrames=frames,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=512,
        Columns=1024,
    )
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    head = part10(ds) + b"\xe0\x7f\x10\x00OW\0\0" + (frames * MIB).to_bytes(4, "little")
    return head, len(head) + frames * MIB


def _pieces(head: bytes, frames: int) -> Iterator[bytes]:
    yield head
    for n in range(frames):
        yield n.to_bytes(2, "little") * (MIB // 2)


@pytest.mark.serial
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
def test_a_body_of_2_gib_costs_no_more_memory_than_one_of_1_mib(
    tmp_path: Path, chunked: bool
) -> None:
    if shutil.disk_usage(tmp_path).free < 5 << 30:
        pytest.skip("needs 5 GiB of disk")
    with process(tmp_path) as (client, running):
        client.stored(dicom(instance="7", EncapsulatedDocument=bytes(MIB)))
        before = _peak_mib(running.pid)
        head, size = _big(2047)
        body = _Pieces(_pieces(head, 2047), size)
        answer = client.post(_pieces(head, 2047) if chunked else body)
        assert answer.status_code == 200, answer.text
        with client.http.get(
            f"{client.web}/{ONE}", headers={"Accept": SINGLE}, stream=True, timeout=120
        ) as got:
            assert sum(len(piece) for piece in got.iter_content(MIB)) == size
        frame = client.get(f"{ONE}/frames/1500")
        assert (1499).to_bytes(2, "little") * (MIB // 2) in frame.content
        assert client.get(f"{ONE}/frames/1500/rendered", "image/png").status_code == 200
        assert client.get(f"{ONE}/metadata").json()[0]["00280008"]["Value"] == [2047]
        assert _peak_mib(running.pid) - before < 60


class _Pieces:
    """A body of known length that `requests` reads as a file."""

    def __init__(self, pieces: Iterator[bytes], size: int) -> None:
        self.pieces, self.len, self.rest = pieces, size, b""

    def read(self, size: int = -1) -> bytes:
        while len(self.rest) < size:
            piece = next(self.pieces, b"")
            if not piece:
                break
            self.rest += piece
        out, self.rest = self.rest[:size], self.rest[size:]
        return out


def _peak_mib(pid: int) -> float:
    """The most memory the process has ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


@pytest.mark.serial
def test_memory_stays_flat_over_many_requests(tmp_path: Path) -> None:
    with process(tmp_path) as (client, running):
        file = dicom(EncapsulatedDocument=bytes(500_000))
        for n in range(20):
            client.stored(dicom(instance=f"7.{n}", EncapsulatedDocument=bytes(500_000)))
        before = psutil.Process(running.pid).memory_info().rss
        for _ in range(100):
            assert client.post(file).status_code == 200
            client.get(
                "studies/1.2", 'multipart/related; type="application/dicom"; transfer-syntax=*'
            )
            client.delete(ONE)
        assert psutil.Process(running.pid).memory_info().rss - before < 40 * MIB

"""Hard cases: cut files, killed processes, full disks, many clients, big bodies."""

import contextlib
import functools
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pydicom
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from infra.local.dicomstore.index import instance_of
from infra.local.dicomstore.scan import NotDicomError, scan
from tests.dicomstore.kit import (
    BUNDLED,
    CT,
    Client,
    dataset,
    dicom,
    eventually,
    gradient,
    image,
    part10,
    process,
)

ONE = "studies/1.2/series/1.2.3/instances/1.2.3.4"
SINGLE = "application/dicom; transfer-syntax=*"
MIB = 1 << 20


def nested() -> bytes:
    """A file with everything that is hard to cut: sequences of both kinds, private tags, pixels in
    fragments."""
    ds = pydicom.dcmread(BUNDLED / "MR_small_RLE.dcm")
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.9"
    outer = Dataset()
    outer.ReferencedImageSequence = Sequence([item])
    ds.ReferencedStudySequence = Sequence([outer, Dataset()])
    ds["ReferencedStudySequence"].is_undefined_length = True
    ds.add_new(0x00091001, "OB", b"private!")
    return part10(ds)


@pytest.mark.parametrize(
    "file", [nested(), part10(image(gradient())), dicom()], ids=["nested", "image", "text"]
)
def test_a_file_cut_anywhere_is_refused_or_is_what_was_sent(store: Client, file: bytes) -> None:
    """A cut between two elements leaves a shorter data set that nothing tells from a whole one."""
    for length in sorted(
        {*range(0, len(file), 211), *range(0, 400, 3), *range(len(file) - 40, len(file))}
    ):
        answer = store.post(file[:length])
        assert answer.status_code in (200, 409), (length, answer.text)
        if answer.status_code == 200:
            (found,) = store.found("instances", includefield=["0020000D", "0020000E"])
            path = f"studies/{found['0020000D']['Value'][0]}"
            got = store.get(
                path, 'multipart/related; type="application/dicom"; transfer-syntax=*'
            ).content
            assert file[:length] in got
            store.delete(path)


@functools.cache
def _originals() -> list[bytes]:
    names = (
        "rtplan.dcm",
        "reportsi.dcm",
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "MR_small_implicit.dcm",
    )
    japanese = dicom(
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"
    )
    return [nested(), japanese, *((BUNDLED / name).read_bytes()[:20_000] for name in names)]


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_bytes_make_the_scanner_fail_in_another_way(data: st.DataObject) -> None:
    file = bytearray(data.draw(st.sampled_from(_originals())))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(file) - 1))
        file[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotDicomError):
        found = instance_of(scan(bytes(file[: data.draw(st.integers(0, len(file)))])))
        json.loads("{" + found.metadata.replace("\n", ",") + "}")


def test_no_query_and_no_accept_header_is_ever_a_500(store: Client) -> None:
    store.stored(part10(image(gradient())))
    names = st.sampled_from(
        [
            "PatientName",
            "00100010",
            "StudyDate",
            "limit",
            "offset",
            "includefield",
            "fuzzymatching",
            "x",
        ]
    )
    texts = st.text(max_size=12) | st.sampled_from(
        ["all", "-", "1-2", "true", "7FE00010", "all,PatientName", "FFFFFFFF"]
    )
    paths = st.sampled_from(
        [
            "studies",
            "series",
            "studies/1.2/instances",
            "instances",
            ONE,
            f"{ONE}/frames/1",
            "studies/1.2",
        ]
    )
    accepts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(
        str.strip
    )

    @settings(max_examples=200)
    @given(paths, st.lists(st.tuples(names, texts), max_size=3), accepts | st.just("*/*"))
    def ask(path: str, query: list[tuple[str, str]], accept: str) -> None:
        answer = store.http.get(
            f"{store.web}/{path}", params=query, headers={"Accept": accept}, timeout=30
        )
        assert answer.status_code in (200, 204, 400, 406), answer.text

    ask()


def test_files_with_unusual_encodings(store: Client) -> None:
    for n, name in enumerate(
        ["no_meta_group_length.dcm", "priv_SQ.dcm", "UN_sequence.dcm", "reportsi.dcm", "rtplan.dcm"]
    ):
        ds = pydicom.dcmread(BUNDLED / name, force=True)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = (
            f"1.{n}",
            f"1.{n}.1",
            f"1.{n}.1.1",
        )
        ds.SOPClassUID = CT
        file = part10(ds)
        store.stored(file)
        path = f"studies/1.{n}/series/1.{n}.1/instances/1.{n}.1.1"
        assert (
            store.get(path, SINGLE).content == file
            and store.get(f"{path}/metadata").status_code == 200
        )


def test_group_lengths_and_files_without_preamble(store: Client) -> None:
    ds = dataset()
    ds.add_new(0x00080000, "UL", 120)
    ds.add_new(0x00200000, "UL", 60)
    whole = part10(ds)
    store.stored(whole[132:])  # starts with group 0002
    (item,) = store.get(ONE + "/metadata").json()
    assert "00080000" not in item and item["00020010"]
    assert store.get(ONE, SINGLE).content == whole[132:]


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
    assert len(store.found("instances")) == 150 and len(store.found("studies")) == 7


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
    assert same == [200] * 20 and sorted(other) == [200] + [409] * 19
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


def test_a_full_disk_is_an_error_and_service_goes_on_when_there_is_room(small_disk: Path) -> None:
    with process(small_disk) as (client, _):
        count, answer = _fill(client, 0)
        assert answer.status_code == 503 and answer.json()
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


def test_nothing_of_a_patient_reaches_the_terminal(tmp_path: Path) -> None:
    with process(tmp_path, stderr=subprocess.STDOUT) as (client, running):
        bad = dicom(
            PatientName="Planted^Name",
            PatientID="PLANTED",
            StudyDate="PLANTED",
            PatientAge="PLANTED",
        )
        client.post(bad)
        client.post(bad[:-7])
        client.get("studies", PatientName="Planted^Name")
        client.get("studies", Planted="x")
        client.get(ONE)
        client.get(f"{ONE}/rendered")
        running.terminate()
        assert running.stdout and "planted" not in running.stdout.read().lower()
        assert running.wait(20) == 0


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


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(
    start: Callable[..., Client], tmp_path: Path
) -> None:
    store = start()
    host, port = store.url.removeprefix("http://").split(":")
    path = store.web.removeprefix(store.url)
    with socket.create_connection((host, int(port))) as raw:
        head = f"POST {path}/studies HTTP/1.1\r\nContent-Type: application/dicom\r\nContent-Length: 5000000\r\n\r\n"
        raw.sendall(head.encode() + dicom(EncapsulatedDocument=bytes(2_000_000)))
        eventually(lambda: any(one.is_file() for one in (tmp_path / "data0" / "files").rglob("*")))
    eventually(
        lambda: not [one for one in (tmp_path / "data0" / "files").rglob("*") if one.is_file()]
    )
    assert store.found("instances") == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400(store: Client, request_bytes: bytes) -> None:
    host, port = store.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(request_bytes)
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")


def _expecting(store: Client, body: bytes) -> bytes:
    """What comes back to a store request that waits for 100 Continue before it sends its body."""
    host, port = store.url.removeprefix("http://").split(":")
    head = f"POST {store.web.removeprefix(store.url)}/studies HTTP/1.1\r\nContent-Type: application/dicom\r\n"
    head += f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(head.encode())
        answer = raw.recv(1000)
        if answer.startswith(b"HTTP/1.1 100 "):
            raw.sendall(body)
            answer += raw.recv(10_000)
        else:
            answer += b"".join(iter(lambda: raw.recv(10_000), b""))
        return answer


def test_100_continue_is_sent_before_a_body_is_read_and_never_after_an_answer(
    start: Callable[..., Client],
) -> None:
    client = start()
    assert b"HTTP/1.1 200 OK" in _expecting(client, dicom())
    client.fault(kind="status", status=503, count=1)
    refused = _expecting(client, dicom(instance="9"))
    assert refused.startswith(b"HTTP/1.1 503 ") and b"100 Continue" not in refused


def test_a_bug_is_a_500_for_its_request_and_the_server_goes_on(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("infra.local.dicomstore.search.run", None)
        answer = store.get("studies")
    assert answer.status_code == 500 and answer.json()["error"]["status"] == "INTERNAL"
    assert store.get("studies").status_code == 204


def test_a_bug_is_logged_by_its_place_without_its_text(
    store: Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("Planted^Name")

    with monkeypatch.context() as patch:
        patch.setattr("infra.local.dicomstore.search.run", broken)
        assert store.get("studies").status_code == 500
    logged = capfd.readouterr().err
    assert logged.startswith("KeyError in\n")
    assert "app.py" in logged
    assert "Planted" not in logged


def test_http_10_and_keep_alive_and_head(store: Client) -> None:
    store.stored(dicom())
    assert store.http.head(f"{store.web}/{ONE}", headers={"Accept": SINGLE}).headers[
        "Content-Length"
    ] == str(len(dicom()))
    if shutil.which("curl"):
        command = ["curl", "-s", "--http1.0", f"{store.web}/studies", f"{store.web}/studies"]
        assert subprocess.run(command, capture_output=True, check=True).stdout.count(b"1.2") >= 2


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

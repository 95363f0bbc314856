"""HTTP as it comes over the socket: odd requests, clients that go away, bugs."""

import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dicomstore.kit import (
    ONE,
    SINGLE,
    Client,
    dicom,
    eventually,
    gradient,
    image,
    part10,
    process,
)


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
        assert running.stdout
        assert "planted" not in running.stdout.read().lower()
        assert running.wait(20) == 0


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(
    start: Callable[..., Client], tmp_path: Path
) -> None:
    store = start()
    host, port = store.url.removeprefix("http://").split(":")
    path = store.web.removeprefix(store.url)
    head = f"POST {path}/studies HTTP/1.1\r\n"
    head += "Content-Type: application/dicom\r\n"
    head += "Content-Length: 5000000\r\n\r\n"
    part = dicom(EncapsulatedDocument=bytes(2_000_000))

    def files() -> list[Path]:
        entries = (tmp_path / "data0" / "files").rglob("*")
        return [entry for entry in entries if entry.is_file()]

    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(head.encode() + part)
        eventually(lambda: files() != [])
    eventually(lambda: files() == [])
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
    head = f"POST {store.web.removeprefix(store.url)}/studies HTTP/1.1\r\n"
    head += "Content-Type: application/dicom\r\n"
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
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"100 Continue" not in refused


def test_a_bug_is_a_500_for_its_request_and_the_server_continues(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("infra.local.dicomstore.search.run", None)
        answer = store.get("studies")
    assert answer.status_code == 500
    assert answer.json()["error"]["status"] == "INTERNAL"
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

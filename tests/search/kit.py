"""The search function as a separate process, and a DICOM store that answers as planned by a
test."""

import contextlib
import hashlib
import http.client
import http.server
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infra.local.dicomstore.app import Store, serve
from infra.local.dicomstore.choices import Options
from tests.contract.strictbucket import StrictBuckets
from tests.dicomstore.kit import image, part10
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
STORE = "projects/local/locations/local/datasets/local/dicomStores/local"
PREFIX = f"/v1/{STORE}/dicomWeb/"


@dataclass(frozen=True)
class Answer:
    """What the store says. `body` in pieces is sent chunked; `cut` closes the connection instead of
    ending it."""

    status: int = 200
    body: bytes | list[bytes] | Iterator[bytes] = b"[]"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    delay_s: float = 0


@dataclass(frozen=True)
class Received:
    """A request that reached the store."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""


class FakeStore(http.server.ThreadingHTTPServer):
    """Answers by `plan`, a function of the request, and keeps what it received."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.received: list[Received] = []
        self.plan: Callable[[Received], Answer] = lambda _: Answer()
        self.released = threading.Event()

    def answers(self, *answers: Answer) -> list[Received]:
        """Forget earlier requests, and send these answers in order, the last one forever."""
        self.received = []
        queue = list(answers)

        def plan(_: Received) -> Answer:
            if len(queue) > 1:
                return queue.pop(0)
            return queue[0]

        self.plan = plan
        return self.received


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    server: FakeStore

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length", "0"))
        request = Received(
            method=self.command,
            path=path.removeprefix(PREFIX),
            query=query,
            headers=dict(self.headers.items()),
            body=self.rfile.read(length),
        )
        self.server.received.append(request)
        answer = self.server.plan(request)
        self.server.released.wait(answer.delay_s)
        with contextlib.suppress(ConnectionError):
            self._send(answer)

    do_POST = do_GET

    def _send(self, answer: Answer) -> None:
        if answer.status == 0:
            self.close_connection = True
            return
        if answer.cut:
            self.close_connection = True
        if isinstance(answer.body, bytes):
            self._send_whole(answer, answer.body)
        else:
            self._send_chunks(answer, answer.body)

    def _send_whole(self, answer: Answer, body: bytes) -> None:
        length = len(body)
        if answer.cut:
            length += 10  # more than ever comes
        self._send_head(answer, {"Content-Length": str(length)})
        self.wfile.write(body)

    def _send_chunks(self, answer: Answer, pieces: Iterable[bytes]) -> None:
        self._send_head(answer, {"Transfer-Encoding": "chunked"})
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if not answer.cut:
            self.wfile.write(b"0\r\n\r\n")

    def _send_head(self, answer: Answer, framing: Mapping[str, str]) -> None:
        headers = {
            **framing,
            "Content-Type": "application/dicom+json; charset=utf-8",
            **answer.headers,
        }
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def finish(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has read enough and disconnected
            super().finish()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def fake_store(tls: ssl.SSLContext | None = None) -> Iterator[FakeStore]:
    """A store for the length of a `with`."""
    server = FakeStore()
    if tls:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.url = server.url.replace("http:", "https:")
    often = {"poll_interval": 0.05}  # `shutdown` waits for the next poll
    threading.Thread(target=server.serve_forever, kwargs=often, daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class Reply:
    """What the function answered; names of headers are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason code of an error."""
        return str(self.json()["error"]["reason"])

    @property
    def parameter(self) -> str:
        """The parameter that an error blames."""
        return str(self.json()["error"].get("parameter", ""))


@dataclass(frozen=True)
class Function:
    """A running HTTP function."""

    port: int
    pid: int
    log_file: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        """Its output."""
        return self.log_file.read_text()

    def send(
        self,
        target: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """One request with a raw target."""
        sent = headers or {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(
                method, target, skip_host="Host" in sent, skip_accept_encoding=True
            )
            for name, value in sent.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, got, response.read())

    def query(self, path: str, parameters: object, **headers: str) -> Reply:
        """A query by POST with a JSON body."""
        body = json.dumps(parameters).encode()
        sent = {"Content-Type": "application/json", **headers}
        return self.send(path, "POST", sent, body)


@contextlib.contextmanager
def function(
    endpoint: str, folder: Path, python: str = sys.executable, **environment: str
) -> Iterator[Function]:
    """The search function in front of the store at `endpoint`.

    Args:
        python: the interpreter of the environment that it runs in.
    """
    settings = {
        "DICOM_STORE": STORE,
        "HEALTHCARE_ENDPOINT": f"{endpoint}/v1",
        "SEARCH_RETRIEVE": "true",
        **environment,
    }
    with running_function("search", folder, settings, python) as running:
        yield running


@contextlib.contextmanager
def running_function(
    target: str, folder: Path, environment: Mapping[str, str], python: str = sys.executable
) -> Iterator[Function]:
    """An HTTP function under functions-framework, as it is deployed."""
    with free_port() as port:
        log_file = folder / f"{target}-{port}.log"
        settings = {"PATH": os.environ["PATH"], **environment}
        command = [python, "-m", "functions_framework"]
        command += ["--target", target]
        command += ["--source", "main.py"]
        command += ["--host", "127.0.0.1"]
        command += ["--port", str(port)]
        with log_file.open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=settings,
                stdout=log,
                stderr=log,
            )
        try:
            _wait(process, port, log_file)
            yield Function(port, process.pid, log_file)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)  # longer than gunicorn's grace
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"the function did not start: {log_file.read_text()}")


def kept(buckets: StrictBuckets, bucket: str, request_id: str, **record: Any) -> None:
    """What `notify` keeps for a finished request: its outcome record."""
    value = {
        "request_id": request_id,
        "state": "done",
        "time": "2025-01-31T12:00:00Z",
        "command_sha256": "",
        "caller_sha256": "",
        "outcome": {"request_id": request_id, "study": "1.2.1", **record},
    }
    name = hashlib.sha256(request_id.encode()).hexdigest()
    buckets.put(bucket, f"requests/{name}.json", json.dumps(value).encode())


def row(**values: object) -> dict[str, Any]:
    """A row of a search answer, by tag: t0020000D="1.2"."""
    return {tag[1:]: {"vr": "UI", "Value": [value]} for tag, value in values.items()}


@contextlib.contextmanager
def real_store(folder: Path, files: Iterable[bytes]) -> Iterator[str]:
    """The local DICOM store with these instances; gives the endpoint without its version."""
    store = Store(folder, Options())
    server = serve(store, "127.0.0.1", 0)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        for data in files:
            headers = {"Content-Type": "application/dicom"}
            connection.request("POST", f"{PREFIX}studies", data, headers)
            response = connection.getresponse()
            answer = response.read()
            assert response.status == 200, answer
        yield server.url
    finally:
        connection.close()
        server.shutdown()


def study(
    number: int = 1, modality: str = "CT", series: int = 2, instances: int = 3, **attributes: Any
) -> list[bytes]:
    """A small study with images that are not all of one colour: UIDs 1.2.NUMBER, .SERIES and
    .INSTANCE below."""
    uid = f"1.2.{number}"
    diagonals = np.indices((64, 64)).sum(axis=0)
    about = {
        "PatientName": "Doe^Jane",
        "PatientID": f"P{number}",
        "StudyDate": "20240131",
        "AccessionNumber": f"A{number}",
        "StudyDescription": "Chest",
        "Modality": modality,
        "StudyInstanceUID": uid,
    }
    files: list[bytes] = []
    for series_number, instance_number in itertools.product(
        range(1, series + 1), range(1, instances + 1)
    ):
        series_uid = f"{uid}.{series_number}"
        own = {
            "SeriesDescription": f"Axial {series_number}",
            "SeriesNumber": series_number,
            "InstanceNumber": instance_number,
            "SeriesInstanceUID": series_uid,
            "SOPInstanceUID": f"{series_uid}.{instance_number}",
        }
        steepness = 2 + len(files)  # no two images look alike
        pixels = (diagonals * steepness).astype(np.uint8)
        files.append(part10(image(pixels, **{**about, **own, **attributes})))
    return files

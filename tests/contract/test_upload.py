"""Uploads against a server that keeps to Cloud Storage's resumable protocol, which the local bucket
server does not: it may take less of a chunk than was sent, lose answers, and is asked how much it
has."""

import base64
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import google_crc32c
import pytest

from functions.common.clients import upload
from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import ObjectRef
from tests.contract.world import BUCKET, bucket_server

KIB = 1024
CHUNK = 512 * KIB


class Server(http.server.ThreadingHTTPServer):
    """One bucket. `plan` names what happens to each PUT, in turn; when it is spent they go well.

    lose: take it, but break the connection instead of answering    drop: the same, but take nothing
    half: take 256 KiB of it    none: take nothing    503: say so    forget: lose all that was sent
    before spoil: take other bytes than were sent
    """

    daemon_threads = True

    def __init__(self, *plan: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = list(plan)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.ranges: list[str] = []
        self.deleted: list[str] = []
        self.match_at_end = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def resource(self, name: str) -> bytes:
        data = self.objects[name]
        crc32c = base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
        return json.dumps(
            {
                "bucket": BUCKET,
                "name": name,
                "generation": "7",
                "size": str(len(data)),
                "crc32c": crc32c,
            }
        ).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "uploadType=resumable" in self.path:
            name = json.loads(body)["name"]
            self.server.uploads[name] = bytearray()
            self.answer(200, {"Location": f"{self.server.url}/session/{name}"})
        else:
            self.answer(400)

    def do_PUT(self) -> None:
        name, data = (
            self.path.rpartition("/")[2],
            self.rfile.read(int(self.headers["Content-Length"])),
        )
        have, content_range = self.server.uploads[name], self.headers["Content-Range"]
        self.server.ranges.append(content_range)
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", content_range)
        assert found
        act = self.server.plan.pop(0) if self.server.plan else ""
        if act == "503":
            self.answer(503)
            return
        if act == "forget":
            have.clear()
        elif found[1] is not None and act not in ("drop", "none"):
            assert int(found[1]) == len(have), "a gap, or bytes sent twice"
            assert int(found[2]) - int(found[1]) + 1 == len(data)
            have += (
                data[: 256 * KIB] if act == "half" else bytes(len(data)) if act == "spoil" else data
            )
        if act in ("lose", "drop"):
            self.close_connection = True
            self.connection.close()
            return
        if found[3] == str(len(have)):
            if not self.server.match_at_end:
                self.answer(412)
                return
            self.server.objects[name] = bytes(have)
            self.answer(200, body=self.server.resource(name))
        else:
            self.answer(308, {"Range": f"bytes=0-{len(have) - 1}"} if have else {})

    def do_GET(self) -> None:
        self.answer(200, body=self.server.resource(self.path.partition("?")[0].rpartition("/")[2]))

    def do_DELETE(self) -> None:
        self.server.deleted.append(self.path.partition("?")[0].rpartition("/")[2])
        self.answer(204)

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(upload, "_BACKOFF_S", 0.01)
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def pieces(size: int) -> Iterator[bytes]:
    data = bytes(range(256)) * (size // 256 + 1)
    for at in range(0, size, 100_000):
        yield data[at : min(at + 100_000, size)]


def write(server: Server, size: int) -> bytes:
    buckets = Buckets(Transport(), server.url)
    stored = buckets.write(BUCKET, "large", pieces(size), Deadline(60), chunk_bytes=CHUNK)
    assert stored.size == size
    return server.objects["large"]


SIZE = 9 * 1024 * KIB + 12_345


@pytest.mark.parametrize("size", [SIZE, 18 * CHUNK, 18 * CHUNK + 1, 18 * CHUNK - 1])
def test_a_stream_arrives_whole(server: Server, size: int) -> None:
    assert write(server, size) == b"".join(pieces(size))
    assert server.ranges[0] == f"bytes 0-{CHUNK - 1}/*"
    assert server.ranges[-1].endswith(f"/{size}")


@pytest.mark.parametrize(
    "plan",
    [
        ["lose"],
        ["drop"],
        ["503"],
        ["half", "half"],
        ["none"],
        ["", "lose", "half", "drop", "503", "lose"],
        [*[""] * 18, "lose"],
        [*[""] * 18, "drop"],
        ["lose", "503", "lose"],
    ],
)
def test_what_was_lost_is_found_out_and_sent_again(server: Server, plan: list[str]) -> None:
    server.plan = plan
    assert write(server, SIZE) == b"".join(pieces(SIZE))


@pytest.mark.parametrize(
    "plan", [["", "lose", "forget"], ["none"] * 9, ["drop", "503", "503", "503", "503", "503"]]
)
def test_what_cannot_be_continued_is_another_delivery_s_work(
    server: Server, plan: list[str]
) -> None:
    server.plan = plan
    with pytest.raises(RetryableError):
        write(server, SIZE)
    assert not server.objects


def test_another_object_may_have_come_first(server: Server) -> None:
    server.match_at_end = False
    with pytest.raises(PreconditionFailedError):
        write(server, SIZE)


def test_other_bytes_than_were_sent_are_deleted(server: Server) -> None:
    server.plan = ["spoil"]
    with pytest.raises(RetryableError):
        write(server, SIZE)
    assert server.deleted == ["large"]


def test_a_source_that_breaks_leaves_no_object(server: Server) -> None:
    def broken() -> Iterator[bytes]:
        yield from pieces(9 * 1024 * KIB)
        raise RetryableError("unavailable")

    with pytest.raises(RetryableError):
        Buckets(Transport(), server.url).write(
            BUCKET, "large", broken(), Deadline(60), chunk_bytes=CHUNK
        )
    assert not server.objects


@pytest.fixture(scope="module")
def buckets() -> Iterator[Buckets]:
    with bucket_server() as url:
        yield Buckets(Transport(), url)


def test_the_local_bucket_server_takes_both_ways(buckets: Buckets) -> None:
    for size in (0, 1, 8 * 1024 * KIB, SIZE):
        stored = buckets.write(
            BUCKET, f"s{size}", pieces(size), Deadline(60), metadata={"k": "v"}, chunk_bytes=CHUNK
        )
        assert (stored.size, stored.metadata) == (size, {"k": "v"})
        with buckets.open(ObjectRef(BUCKET, f"s{size}"), Deadline(60)) as response:
            assert response.raw.read() == b"".join(pieces(size))


def test_an_object_is_created_once_and_in_pieces(buckets: Buckets) -> None:
    stored = buckets.create(BUCKET, "once", [b"a", b"", b"bc"], Deadline(60))
    assert stored.size == 3
    with pytest.raises(PreconditionFailedError):
        buckets.create(BUCKET, "once", b"other", Deadline(60))
    assert (
        buckets.create(BUCKET, "once", b"other", Deadline(60), if_generation_match=None).size == 5
    )


def test_joining(buckets: Buckets) -> None:
    parts = [
        buckets.create(BUCKET, f"part{n}", bytes([n]) * n, Deadline(60)).ref for n in range(1, 33)
    ]
    joined = buckets.compose(
        BUCKET, "joined", parts, Deadline(60), content_type="text/plain", metadata={"k": "v"}
    )
    assert (joined.size, joined.metadata) == (sum(range(33)), {"k": "v"})
    with pytest.raises(ValueError, match="1 to 32"):
        buckets.compose(BUCKET, "joined", [*parts, parts[0]], Deadline(60))


def test_a_bucket_that_is_not_there(buckets: Buckets) -> None:
    for act in (
        lambda: buckets.create("no-such-bucket", "x", b"", Deadline(60)),
        lambda: buckets.write("no-such-bucket", "x", pieces(SIZE), Deadline(60)),
        lambda: list(buckets.list("no-such-bucket", "", Deadline(60))),
    ):
        with pytest.raises(PermanentError) as caught:
            act()
        assert (caught.value.reason, caught.value.detail) == (
            "not_found",
            "the bucket does not exist",
        )

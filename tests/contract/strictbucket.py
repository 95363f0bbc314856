"""A bucket server in memory that checks every precondition, counts requests, and breaks off on
demand.

The emulator of the local stack ignores generations on reads, copies and deletes; code that depends
on them is tested with this server.
"""

import base64
import http.server
import json
import re
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

from functions.common.deadline import utc_now
from tests.contract.uploads import Upload, Uploads


@dataclass(frozen=True)
class Blob:
    """One object."""

    bucket: str
    name: str
    data: bytes
    generation: int
    metadata: dict[str, str] = field(default_factory=dict)
    created: str = "2026-01-01T00:00:00Z"
    more: dict[str, str] = field(default_factory=dict)  # contentType and other writable fields

    @property
    def resource(self) -> dict[str, Any]:
        """In the form of the JSON API."""
        checksum = base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()
        return {
            "bucket": self.bucket,
            "name": self.name,
            "generation": str(self.generation),
            "size": str(len(self.data)),
            "crc32c": checksum,
            "metadata": self.metadata,
            "timeCreated": self.created,
            "updated": self.created,
            **self.more,
        }


class StrictBuckets(http.server.ThreadingHTTPServer):
    """The server and its objects."""

    daemon_threads = True

    def __init__(self, *buckets: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.buckets = {bucket: dict[str, Blob]() for bucket in buckets}
        self.requests: Counter[str] = Counter()
        self.cuts: list[int] = []  # each makes the next read break off after so many bytes
        self.extra: dict[str, str] = {}  # headers of every read
        self.ranges = True  # whether a read of a part is answered with the part
        # Each is the status of the next request; None: it is answered as usual.
        self.failures: list[int | None] = []
        self.retry_after = ""  # header of those answers
        self.lost: list[str] = []  # kinds of requests: the next one is done and not answered
        self.busy_copies = 0  # so many of the next copies are not done, and answered 503
        self.listed = 0  # objects in all listings
        self.once: list[str] = []  # names of objects that are deleted after the next read
        self.uploads = Uploads()
        self.lock = threading.RLock()
        self._generation = 1000

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""

    def put(self, bucket: str, name: str, data: bytes, **more: Any) -> Blob:
        """Write an object; `more`: metadata, created."""
        with self.lock:
            self._generation += 1
            blob = Blob(bucket, name, data, self._generation, **more)
            self.buckets[bucket][name] = blob
            return blob

    def names(self, bucket: str) -> list[str]:
        """The objects of the bucket."""
        return sorted(self.buckets[bucket])

    def read(self, bucket: str, name: str) -> bytes:
        """An object's bytes."""
        return self.buckets[bucket][name].data


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StrictBuckets

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """Media, metadata, listing."""
        path, query = self._split()
        if found := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            return self._list(found[1], query)
        blob = self._blob(path)
        if blob is None or query.get("generation", str(blob.generation)) != str(blob.generation):
            return self._answer(404, b"{}", "missing")
        if query.get("alt") != "media":
            return self._answer(200, json.dumps(blob.resource).encode(), "stat")
        return self._media(blob)

    def do_POST(self) -> None:
        """Create (multipart), begin a resumable upload, rewrite, compose."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path, query = self._split()
        if "/rewriteTo/" in path:
            return self._rewrite(path, query, json.loads(body))
        if path.endswith("/compose"):
            return self._compose(path, query, json.loads(body))
        bucket = path.split("/")[-2]
        if query["uploadType"] == "resumable":
            origin = self.headers.get("Origin", "")
            size = int(self.headers.get("X-Upload-Content-Length", "0"))
            upload = Upload(bucket, json.loads(body), query, origin, size)
            session = self.server.uploads.begin(upload)
            status = 200 if bucket in self.server.buckets else 404
            place = f"{self.server.url}{path}"
            location = f"{place}?uploadType=resumable&upload_id={session}"
            return self._answer(status, b"", "begin", {"Location": location})
        boundary = self.headers["Content-Type"].split("boundary=")[1].strip('"').encode()
        _, head, data, _ = body.split(b"--" + boundary)
        resource = json.loads(head.partition(b"\r\n\r\n")[2])
        content = data.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return self._create(bucket, resource, content, query, "create")

    def do_OPTIONS(self) -> None:
        """A browser's preflight before it sends a chunk."""
        methods = {"Access-Control-Allow-Methods": "PUT"}
        headers = {"Access-Control-Allow-Headers": "content-range"}
        self._answer(200, b"", "preflight", {**methods, **headers})

    def end_headers(self) -> None:
        """The pages that may read the answer: of a session, those of the origin that began it."""
        if "&upload_id=" in self.path:
            upload = self.server.uploads.sessions[int(self.path.rpartition("=")[2])]
            if upload.origin:
                self.send_header("Access-Control-Allow-Origin", upload.origin)
                self.send_header("Access-Control-Expose-Headers", "Range")
        super().end_headers()

    def do_PUT(self) -> None:
        """A chunk of a resumable upload."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        session = self.path.rpartition("=")[2]
        reply = self.server.uploads.take(session, self.headers.get("Content-Range", ""), body)
        if reply.status == 0:
            self.server.requests["chunk"] += 1
            self.close_connection = True
            self.connection.close()
        elif reply.status == 200:
            upload = reply.upload
            self._create(upload.bucket, upload.resource, bytes(upload.data), upload.query, "chunk")
        else:
            self._answer(reply.status, b"", "chunk", reply.headers)

    def _create(
        self,
        bucket: str,
        resource: dict[str, Any],
        content: bytes,
        query: dict[str, str],
        kind: str,
    ) -> None:
        with self.server.lock:
            if bucket not in self.server.buckets:
                return self._answer(404, b"{}", kind)
            if not self._is_expected(bucket, resource["name"], query):
                return self._answer(412, b"{}", kind)
            metadata = resource.get("metadata", {})
            made = self.server.put(
                bucket,
                resource["name"],
                content,
                metadata=metadata,
                more=_editable(resource),
                created=utc_now(),
            )
            if resource.get("crc32c", made.resource["crc32c"]) != made.resource["crc32c"]:
                del self.server.buckets[bucket][resource["name"]]
                return self._answer(400, b"{}", kind)
        return self._answer(200, json.dumps(made.resource).encode(), kind)

    def _rewrite(self, path: str, query: dict[str, str], resource: dict[str, Any]) -> None:
        if self.server.busy_copies:
            self.server.busy_copies -= 1
            return self._answer(503, b"{}", "copy")
        pattern = r"(/storage/v1/b/[^/]+/o/[^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)"
        found = re.fullmatch(pattern, path)
        assert found
        source = self._blob(found[1])
        bucket = found[2]
        name = urllib.parse.unquote(found[3])
        wanted = query.get("sourceGeneration")
        is_other = source is not None and wanted not in (None, str(source.generation))
        if source is None or is_other or bucket not in self.server.buckets:
            return self._answer(404, b"{}", "copy")
        if not self._is_expected(bucket, name, query):
            return self._answer(412, b"{}", "copy")
        # The copy has only the metadata that the request names.
        metadata = resource.get("metadata", {})
        made = self.server.put(
            bucket, name, source.data, metadata=metadata, more=_editable(resource)
        )
        size = str(len(source.data))
        answer = {"done": True, "totalBytesRewritten": size, "objectSize": size}
        answer["resource"] = made.resource
        return self._answer(200, json.dumps(answer).encode(), "copy")

    def _compose(self, path: str, query: dict[str, str], request: dict[str, Any]) -> None:
        _, _, _, _, bucket, _, quoted, _ = path.split("/")
        name = urllib.parse.unquote(quoted)
        if not self._is_expected(bucket, name, query):
            return self._answer(412, b"{}", "compose")
        data = b""
        for source in request["sourceObjects"]:
            blob = self.server.buckets[bucket].get(source["name"])
            wanted = source.get("generation")
            if blob is None or wanted not in (None, blob.generation):
                return self._answer(404, b"{}", "compose")
            data += blob.data
        resource = request["destination"]
        made = self.server.put(bucket, name, data, metadata=resource.get("metadata", {}))
        return self._answer(200, json.dumps(made.resource).encode(), "compose")

    def do_DELETE(self) -> None:
        """Delete, under its precondition."""
        path, query = self._split()
        with self.server.lock:
            blob = self._blob(path)
            if blob is None:
                return self._answer(404, b"{}", "delete")
            if query.get("ifGenerationMatch", str(blob.generation)) != str(blob.generation):
                return self._answer(412, b"{}", "delete")
            del self.server.buckets[blob.bucket][blob.name]
        return self._answer(204, b"", "delete")

    def _split(self) -> tuple[str, dict[str, str]]:
        url = urllib.parse.urlsplit(self.path)
        return url.path, dict(urllib.parse.parse_qsl(url.query))

    def _blob(self, path: str) -> Blob | None:
        *_, bucket, _, name = path.split("/")
        return self.server.buckets.get(bucket, {}).get(urllib.parse.unquote(name))

    def _is_expected(self, bucket: str, name: str, query: dict[str, str]) -> bool:
        """Whether the object has the generation of the precondition; 0: there is none."""
        generation = 0
        there = self.server.buckets[bucket].get(name)
        if there is not None:
            generation = there.generation
        return query.get("ifGenerationMatch") in (None, str(generation))

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        if bucket not in self.server.buckets:
            return self._answer(404, b"{}", "list")
        prefix = query.get("prefix", "")
        names = [name for name in self.server.names(bucket) if name.startswith(prefix)]
        items = [self.server.buckets[bucket][name].resource for name in names]
        self.server.listed += len(items)
        return self._answer(200, json.dumps({"items": items}).encode(), "list")

    def _media(self, blob: Blob) -> None:
        data = blob.data
        if blob.name in self.server.once:
            del self.server.buckets[blob.bucket][blob.name]
        status = 200
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found and self.server.ranges:
            data = data[int(found[1]) : int(found[2]) + 1 if found[2] else None]
            status = 206
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self._answer(
            status,
            data,
            "read",
            {"x-goog-generation": str(blob.generation), **self.server.extra},
            cut,
        )

    def _answer(
        self,
        status: int,
        body: bytes,
        kind: str,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.server.requests[kind] += 1
        if kind in self.server.lost:
            self.server.lost.remove(kind)
            self.close_connection = True
            return
        failure = self.server.failures.pop(0) if self.server.failures else None
        if failure is not None:
            status = failure
            body = b"{}"
            headers = {"Retry-After": self.server.retry_after} if self.server.retry_after else {}
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


def _editable(resource: dict[str, Any]) -> dict[str, str]:
    """The fields that a client may write, but for the metadata."""
    names = ("contentType", "contentEncoding", "contentDisposition", "contentLanguage")
    return {name: resource[name] for name in (*names, "cacheControl") if name in resource}


@contextmanager
def strict_buckets(*buckets: str) -> Iterator[StrictBuckets]:
    """A server with these buckets, for the length of a `with`."""
    server = StrictBuckets(*buckets)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()

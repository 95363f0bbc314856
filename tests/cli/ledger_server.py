"""A bucket server that invents a ledger of any length while it is read, in a separate process:
`python -m tests.cli.ledger_server RECORDS` prints its port.

Of the landing bucket's objects all but LOST have an outcome, in the ledger's last file.
"""

import http.server
import json
import re
import sys
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from functions.common.events.outcomes import outcome_id
from functions.common.resources import ObjectRef
from functions.common.settings import STORE

LANDING = "dicom-landing"
LEDGER = "dicom-ledger"
OBJECTS = 3000
LOST = 7
IN_A_FILE = 25_000
_PAGE = 1000
_SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835  # ids come in no order, as hashes do
_RECORD = (
    '{{"id": "{:032x}", "time": "2026-01-31T08:00:00.000000Z", "outcome": "stored", '
    '"function": "store_upload", "bucket": "dicom-landing", "name": "night/{}.dcm", '
    '"generation": "17", "study": "1.2.3", "series": "1.2.3.4", "instance": "1.2.3.4.{}", '
    '"bytes": 526336, "attempt": 1, "duration_ms": 41}}\n'
)


class Server(http.server.ThreadingHTTPServer):
    """Serves that many records."""

    daemon_threads = True

    def __init__(self, records: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = records // IN_A_FILE

    def ledger_file(self, number: int) -> bytes:
        """The text of a file of the ledger."""
        if number == self.files:
            return b"".join(_known(index) for index in range(OBJECTS - LOST))
        start = number * IN_A_FILE
        lines = (_line(index) for index in range(start, start + IN_A_FILE))
        return "".join(lines).encode()


def _line(index: int) -> str:
    return _RECORD.format(index * _SPREAD % 2**128, index, index)


def _known(index: int) -> bytes:
    found = outcome_id(STORE, ObjectRef(LANDING, f"object-{index}", 17))
    record = {
        "id": found,
        "function": STORE,
        "generation": "17",
        "outcome": "stored",
    }
    return json.dumps(record).encode() + b"\n"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if found := re.search(r"/b/([^/]+)/o$", url.path):
            self._answer(json.dumps(self._listed(found[1], query)).encode())
        else:
            number = re.search(r"_(\d+)\.ndjson", unquote(url.path))
            assert number
            self._media(self.server.ledger_file(int(number[1])))

    def _listed(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        if bucket == LEDGER:
            names = [
                f"outcomes/2026-01-31T08:00:00+00:00_{n}.ndjson"
                for n in range(self.server.files + 1)
            ]
            return {"items": [_object(bucket, name) for name in names]}
        start = int(query.get("pageToken", "0"))
        numbers = range(start, min(start + _PAGE, OBJECTS))
        page: dict[str, Any] = {"items": [_object(bucket, f"object-{n}") for n in numbers]}
        if numbers.stop < OBJECTS:
            page["nextPageToken"] = str(numbers.stop)
        return page

    def _media(self, data: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert wanted
        part = data[int(wanted[1]) : int(wanted[2]) + 1]
        headers = {
            "Content-Range": f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}",
            "X-Goog-Generation": "17",
        }
        self._answer(part, 206 if part else 416, headers)

    def _answer(
        self, body: bytes, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _object(bucket: str, name: str) -> dict[str, str]:
    return {
        "bucket": bucket,
        "name": name,
        "generation": "17",
        "size": str(16 * 1024 * 1024),
        "updated": "2026-01-31T08:00:00Z",
        "timeCreated": "2026-01-31T08:00:00Z",
    }


if __name__ == "__main__":
    server = Server(int(sys.argv[1]))
    print(server.server_port, flush=True)
    server.serve_forever()

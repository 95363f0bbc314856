"""Resumable uploads like Cloud Storage's, with losses on demand.

https://cloud.google.com/storage/docs/performing-resumable-uploads: a 308 has the received range in
`Range`, without `Range` nothing was received; bytes that were already received are ignored when
they are sent again; a lost session answers 404 or 410.
"""

import re
from dataclasses import dataclass, field
from typing import Any

KIB = 1024


@dataclass
class Upload:
    """One session: `origin`: whose pages may continue it; `size` of the object if it is known."""

    bucket: str
    resource: dict[str, Any]
    query: dict[str, str]
    origin: str = ""
    size: int = 0
    data: bytearray = field(default_factory=bytearray)


@dataclass
class Reply:
    """The answer to a chunk; status 0: the connection breaks, 200: the upload is complete."""

    status: int
    upload: Upload
    headers: dict[str, str] = field(default_factory=dict)


class Uploads:
    """The sessions. `plan` says what happens to each chunk, in turn; when it is spent all go well.

    lose: it is accepted, but the connection breaks instead of an answer
    drop: the connection breaks and nothing is taken
    half: 256 KiB of it are taken
    none: nothing is taken, and the 308 has no Range
    gone, 404: the session does not exist any more (410, 404)
    503, 429: nothing is taken; the 429 has a Retry-After
    spoil: other bytes are taken than were sent
    """

    def __init__(self) -> None:
        self.plan: list[str] = []
        self.ranges: list[str] = []
        self.sessions: list[Upload] = []

    def begin(self, upload: Upload) -> int:
        """A new session; its number."""
        self.sessions.append(upload)
        return len(self.sessions) - 1

    def take(self, session: str, content_range: str, data: bytes) -> Reply:
        """One chunk, or with no data the question how much is there. Without a range it is all."""
        upload = self.sessions[int(session)]
        content_range = content_range or f"bytes 0-{len(data) - 1}/{len(data)}"
        self.ranges.append(content_range)
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", content_range)
        assert found
        act = self.plan.pop(0) if self.plan else ""
        statuses = {"gone": 410, "404": 404, "503": 503, "429": 429, "drop": 0}
        if act in statuses:
            return Reply(statuses[act], upload, {"Retry-After": "1"} if act == "429" else {})
        if found[3] != "*" and upload.size not in (0, int(found[3])):
            return Reply(400, upload)
        if found[1] is not None and act != "none":
            start = int(found[1])
            assert start <= len(upload.data), "a gap"
            assert int(found[2]) - start + 1 == len(data)
            if act == "half":
                data = data[: 256 * KIB]
            if act == "spoil":
                data = bytes(len(data))
            upload.data += data[len(upload.data) - start :]
        if act == "lose":
            return Reply(0, upload)
        if found[3] == str(len(upload.data)):
            return Reply(200, upload)
        there = {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {}
        return Reply(308, upload, {} if act == "none" else there)

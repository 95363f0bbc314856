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
        first, last, size = found.groups()
        act = ""
        if self.plan:
            act = self.plan.pop(0)
        if act == "429":
            return Reply(429, upload, {"Retry-After": "1"})
        if act in _REFUSED:
            return Reply(_REFUSED[act], upload)
        if size != "*" and upload.size not in (0, int(size)):
            return Reply(400, upload)
        if first is not None and act != "none":
            assert int(last) - int(first) + 1 == len(data)
            _add(upload, int(first), data, act)
        if act == "lose":
            return Reply(0, upload)
        if size == str(len(upload.data)):
            return Reply(200, upload)
        if act == "none" or not upload.data:
            return Reply(308, upload)
        return Reply(308, upload, {"Range": f"bytes=0-{len(upload.data) - 1}"})


# What is planned for a chunk of which nothing is taken, and its status.
_REFUSED = {"gone": 410, "404": 404, "503": 503, "drop": 0}


def _add(upload: Upload, start: int, data: bytes, act: str) -> None:
    """The bytes of a chunk that are not there yet."""
    assert start <= len(upload.data), "a gap"
    if act == "half":
        data = data[: 256 * KIB]
    if act == "spoil":
        data = bytes(len(data))
    upload.data += data[len(upload.data) - start :]

"""Sending bytes to Cloud Storage: in one request, or as a resumable upload whose chunks are checked
and resumed."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import requests

from functions.common.checksum import Checksum
from functions.common.clients.transport import Request, Transport, drain
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError

CHUNK_BYTES: Final = 32 * 1024 * 1024  # a multiple of 256 KiB, as resumable uploads demand
_SEND_BYTES: Final = 256 * 1024
_ATTEMPTS: Final = 4
_BACKOFF_S: Final = 0.5
_RANGE: Final = re.compile(r"bytes=0-([0-9]+)", re.ASCII)


class Pieces:
    """A request body made of pieces in memory, sent one after the other and never joined."""

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._length = sum(len(piece) for piece in pieces)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            for start in range(0, len(piece), _SEND_BYTES):
                yield piece[start : start + _SEND_BYTES]  # type: ignore[misc]  # a socket takes any buffer


class Resumable:
    """One resumable upload of a stream whose length is not known.

    A chunk whose answer is lost is not sent blindly again: the service is asked how much it has.
    Memory: one chunk.

    Args:
        url: the upload session's.
        chunk_bytes: a multiple of 256 KiB.
    """

    def __init__(
        self, transport: Transport, url: str, deadline: Deadline, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._transport, self._url, self._deadline = transport, url, deadline
        self._buffer = memoryview(bytearray(chunk_bytes))
        self._filled = 0
        self._sent = 0  # bytes before the buffer's first
        self.checksum = Checksum()

    @property
    def size(self) -> int:
        """Bytes sent so far."""
        return self._sent

    def send(self, stream: Iterator[bytes]) -> requests.Response:
        """Send it all.

        Returns:
            The last answer, of any status that is not worth another try: 200 or 201 when the object
                is there.

        Raises:
            RetryableError: as Transport.send, or the service lost what it had said it had.
        """
        for piece in stream:
            rest = memoryview(piece)
            while rest:
                if (
                    self._filled == len(self._buffer)
                    and (answer := self._flush(last=False)) is not None
                ):
                    return answer
                taken = rest[: len(self._buffer) - self._filled]
                self._buffer[self._filled : self._filled + len(taken)] = taken
                self._filled += len(taken)
                rest = rest[len(taken) :]
        answer = self._flush(last=True)
        if answer is None:
            raise RetryableError("unavailable")
        return answer

    def _flush(self, *, last: bool) -> requests.Response | None:
        """Send what is in the buffer; None when the service has it and waits for more."""
        for start in range(0, self._filled, _SEND_BYTES):
            self.checksum.add(self._buffer[start : min(start + _SEND_BYTES, self._filled)])
        end = self._sent + self._filled
        total = str(end) if last else "*"
        at, failures = self._sent, 0
        while True:
            answer = self._put(at, end, total, ask=failures > 0 and at < 0)
            if answer is not None and answer.status_code != 308:
                self._sent, self._filled = end, 0
                return answer
            if answer is None:
                failures, at = failures + 1, -1
            else:
                drain(answer)
                had, at = at, _persisted(answer)
                failures += at <= had
            if at == end and not last:
                self._sent, self._filled = end, 0
                return None
            if failures >= _ATTEMPTS or (at >= 0 and not self._sent <= at <= end):
                raise RetryableError("unavailable")
            if failures and not self._deadline.sleep(_BACKOFF_S * 2**failures):
                raise RetryableError("deadline_exceeded")

    def _put(self, at: int, end: int, total: str, *, ask: bool) -> requests.Response | None:
        """The buffer from offset `at` on, or only the question how much is there; None: no
        answer."""
        if ask or at == end:
            request = Request(
                "PUT", self._url, None, {"Content-Range": f"bytes */{total}"}, b"", resend=False
            )
        else:
            view = self._buffer[at - self._sent : end - self._sent]
            headers = {"Content-Range": f"bytes {at}-{end - 1}/{total}"}
            request = Request("PUT", self._url, None, headers, lambda: Pieces([view]), resend=False)
        try:
            return self._transport.send(request, self._deadline)
        except RetryableError as error:
            if error.reason in ("deadline_exceeded", "unauthorized"):
                raise
            return None


def _persisted(answer: requests.Response) -> int:
    """How many bytes the service says it has."""
    found = _RANGE.fullmatch(answer.headers.get("Range", ""))
    return int(found[1]) + 1 if found else 0

"""The search function's answers as HTTP."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from errno import ECONNRESET
from typing import Final

import flask

from functions.common import web
from functions.common.errors import RetryableError
from functions.common.log import log, log_bug
from functions.common.settings import SEARCH

# The page's own policy is in page.py.
SAFE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def do_nothing() -> None:
    """There is nothing to close."""


@dataclass(frozen=True)
class Reply:
    """An answer to a caller.

    Args:
        body: complete, or in chunks as they come.
        close: closes the source of the chunks.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    close: Callable[[], None] = do_nothing

    def begun(self) -> "Reply":
        """The same answer after the first chunk was read: until then, an error can still be
        answered with a status.

        Raises:
            Whatever the chunks raise.
        """
        if isinstance(self.body, bytes):
            return self
        with contextlib.ExitStack() as on_error:
            on_error.callback(self.close)
            first = next(self.body, b"")
            on_error.pop_all()
        return replace(self, body=rejoined(first, self.body))

    def response(self, headers: dict[str, str]) -> flask.Response:
        """The answer for the server, with these additional headers."""
        headers = {**SAFE_HEADERS, **headers, **self.headers}
        if isinstance(self.body, bytes):
            return web.response(self.status, headers, self.body)
        response = web.streamed(
            self.status,
            headers,
            cut_on_error(self.body),
        )
        response.call_on_close(self.close)
        return response


def cut_on_error(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of an answer that has begun, so that a status can no longer be sent. An error cuts
    it.

    Raises:
        ConnectionResetError: on any error. After it, the server closes the connection, so that the
            caller notices the incomplete answer, and logs nothing; after others it would log the
            request's URL and the error's text.
    """
    try:
        yield from chunks
    except (RetryableError, OSError):
        log("WARNING", "answer_cut", function=SEARCH)
        raise ConnectionResetError(ECONNRESET, "the answer is cut") from None
    except Exception as error:  # noqa: BLE001 (a bug)
        log_bug(SEARCH, error)
        raise ConnectionResetError(ECONNRESET, "the answer is cut") from None


def rejoined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks that were already read, and the rest."""
    yield first
    yield from rest

"""What the search function answers, as HTTP."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import flask

from functions.common import web
from functions.common.settings import SEARCH

# The page's own policy is in page.py.
SAFE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _nothing() -> None:
    """There is nothing to close."""


@dataclass(frozen=True)
class Reply:
    """An answer to a caller.

    Args:
        body: whole, or in chunks as they come.
        close: lets go of what the chunks come from.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    close: Callable[[], None] = _nothing

    def begun(self) -> "Reply":
        """The same with the first chunk read: until then an error can still be answered with a
        status.

        Raises:
            Whatever the chunks raise.
        """
        if isinstance(self.body, bytes):
            return self
        with contextlib.ExitStack() as on_error:
            on_error.callback(self.close)
            first = next(self.body, b"")
            on_error.pop_all()
        return replace(self, body=chain(first, self.body))

    def response(self, headers: dict[str, str]) -> flask.Response:
        """For the server, with these headers too."""
        headers = {**SAFE_HEADERS, **headers, **self.headers}
        if isinstance(self.body, bytes):
            return web.response(self.status, headers, self.body)
        response = web.streamed(
            self.status,
            headers,
            web.unbroken(SEARCH, self.body),
        )
        response.call_on_close(self.close)
        return response


def chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """What was read already, and the rest."""
    yield first
    yield from rest

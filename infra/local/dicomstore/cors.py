"""Answers to web pages of other origins (CORS), as the service gives them to viewers that call it
with a token: OHIF, slim.

Which origins may call at all is decided before (`infra.local.callers`): pages of this machine,
those of `--allow-origin`, and of any site where the store asks for tokens and the page brings one.
Here these pages get answers that their browser lets them read.
"""

from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

METHODS = "DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT"
MAX_AGE_S = 3600
VARY = "Origin, X-Origin, Referer"
# The headers that a page may read besides the default ones.
EXPOSED = "Content-Encoding, Content-Length, Date, Retry-After"


def brings_token(environ: Environ) -> bool:
    """Whether a request has a token, or a preflight announces one."""
    announced = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "").lower()
    return "HTTP_AUTHORIZATION" in environ or "authorization" in announced


class Cors:
    """A WSGI application that answers preflights, and lets pages read the answers of another."""

    def __init__(self, application: WSGIApp) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        origin = environ.get("HTTP_ORIGIN", "")
        if not origin:
            return self._application(environ, start_response)
        method = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD", "")
        if environ["REQUEST_METHOD"] == "OPTIONS" and method:
            start_response("200 OK", _preflight(environ, origin))
            return []

        def start(status: str, headers: Headers, exc_info: object = None) -> Any:
            allowed = [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Expose-Headers", EXPOSED),
                ("Vary", VARY),
            ]
            return start_response(status, [*headers, *allowed], exc_info)

        return self._application(environ, start)


def _preflight(environ: Environ, origin: str) -> Headers:
    headers = [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Methods", METHODS),
        ("Access-Control-Max-Age", str(MAX_AGE_S)),
        ("Vary", VARY),
        ("Content-Length", "0"),
    ]
    named = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    if named:
        headers.append(("Access-Control-Allow-Headers", named))
    return headers

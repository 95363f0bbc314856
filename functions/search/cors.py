"""Which origins may read the answers in a browser (the Fetch standard, CORS)."""

from typing import Final

import flask

_METHODS: Final = "GET, HEAD, OPTIONS, POST"
_HEADERS: Final = (
    "accept, authorization, content-type, if-none-match, range, x-serverless-authorization"
)
_EXPOSED: Final = "content-range, content-type, etag, link, retry-after, warning"


def headers_for(origins: tuple[str, ...], request: flask.Request) -> dict[str, str]:
    """The headers for the answer to a request.

    A listed origin is repeated in the answer and may send credentials; `*` allows every origin,
    without credentials.
    """
    if not origins:
        return {}
    origin = request.headers.get("Origin", "")
    anyone = "*" in origins
    headers = {} if anyone else {"Vary": "Origin"}
    if not origin or not (anyone or origin in origins):
        return headers
    headers["Access-Control-Allow-Origin"] = "*" if anyone else origin
    if not anyone:
        headers["Access-Control-Allow-Credentials"] = "true"
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = _METHODS
        headers["Access-Control-Allow-Headers"] = _HEADERS
        headers["Access-Control-Max-Age"] = "600"
    else:
        headers["Access-Control-Expose-Headers"] = _EXPOSED
    return headers

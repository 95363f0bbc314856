"""The search page's own files."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from functions.search.replies import Reply

JSON: Final = "application/json"
_FOLDER: Final = Path(__file__).parent / "web"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": JSON,
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def asset(name: str, known: str, uploads: str) -> Reply:
    """One file.

    Args:
        name: one of targets.ASSETS.
        known: the ETag that the browser has, from If-None-Match.
        uploads: the URL to which the page sends files; empty: none. A policy takes a URL without
            its query (https://www.w3.org/TR/CSP3/#match-url-to-source-expression).
    """
    content, etag = _file(name)
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": f"{_POLICY}; connect-src 'self' {uploads}".rstrip(),
    }
    if known == etag:
        return Reply(304, headers)
    headers["Content-Type"] = _TYPES[Path(name).suffix]
    return Reply(200, headers, content)


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = (_FOLDER / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'

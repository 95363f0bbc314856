"""Answers a retrieve: WADO-RS passed through as a stream, with the store's own URLs replaced by the
function's."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from functions.search.answers import RefusedError
from functions.search.relay import Relay
from functions.search.rows import rewritten
from functions.search.searching import Reply
from functions.search.targets import Media, Target

# For callers who take anything: the bytes as stored (fact sheet section 5.1: else the store
# decompresses them).
_DEFAULT_ACCEPT: Final[Mapping[Media, str]] = {
    "dicom": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    "metadata": "application/dicom+json",
    "rendered": "image/jpeg",
    "frames": 'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    "bulkdata": "application/octet-stream; transfer-syntax=*",
}
_ONE_INSTANCE: Final = "application/dicom; transfer-syntax=*"
_PASSED_ON: Final = ("Range", "If-Range", "If-None-Match", "If-Modified-Since")
_PASSED_BACK: Final = (
    "Content-Type",
    "Content-Length",
    "Content-Range",
    "Content-Encoding",
    "Accept-Ranges",
    "ETag",
    "Last-Modified",
)
# What a browser may be handed under the function's own name. Anything else is sent as bytes.
_TYPES: Final = re.compile(
    r"application/(dicom(\+json|\+xml)?|json|octet-stream|pdf|x-deflate)|multipart/related|text/plain"
    r"|image/(jpeg|png|gif|jp2|jpx|jls|jxl|jphc|jph|dicom-rle|x-dicom-rle|x-jls)|video/(mp4|mpeg|mpeg2)",
    re.ASCII,
)
_HEADER: Final = re.compile(r"[\x20-\x7e]{1,1024}", re.ASCII)
_NUMBER: Final = r"-?[0-9]{1,9}(\.[0-9]{1,9})?"
_VIEWPORT: Final = re.compile(rf"{_NUMBER},{_NUMBER}(,({_NUMBER})?){{0,4}}", re.ASCII)


def answer(
    relay: Relay,
    target: Target,
    pairs: Iterable[tuple[str, str]],
    headers: Mapping[str, str],
    base: str,
) -> Reply:
    """The answer to a retrieve.

    Args:
        target: of the kind `retrieve`.
        pairs: `accept`, which goes before the header, and for `rendered` `viewport`.
        headers: the caller's.
        base: the function's own URL, with a slash at its end.

    Raises:
        RefusedError: the caller's request is no good, or the store's answer.
    """
    accept, query = _parameters(target, pairs)
    passed = {name: _checked(name, headers[name]) for name in _PASSED_ON if name in headers}
    passed["Accept"] = _accept(target, accept or _checked("Accept", headers.get("Accept") or "*/*"))
    upstream = relay.get(target.path, query, passed)
    if upstream.status == 204:
        upstream.close()
        raise RefusedError("not_found", "the DICOM store has no such thing")
    back = {name: upstream.headers[name] for name in _PASSED_BACK if name in upstream.headers}
    kind = back.get("Content-Type", "").partition(";")[0].strip().lower()
    if not _TYPES.fullmatch(kind):
        back["Content-Type"] = "application/octet-stream"
    chunks = upstream.chunks()
    if target.media == "metadata" and "Content-Encoding" not in back:
        back.pop("Content-Length", None)
        chunks = rewritten(chunks, relay.urls, base.encode())
    if upstream.status == 304:
        upstream.drain()
        return Reply(304, {name: back[name] for name in ("ETag", "Last-Modified") if name in back})
    return Reply(upstream.status, back, chunks, upstream.close)


def _parameters(target: Target, pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    accept, query = "", ""
    for name, value in pairs:
        if name == "accept" and not accept:
            accept = _checked("Accept", value)
        elif name == "viewport" and target.media == "rendered" and not query:
            if not _VIEWPORT.fullmatch(value):
                raise RefusedError(
                    "invalid_parameter", "takes width,height and perhaps x,y,width,height", name
                )
            query = f"viewport={value}"
        else:
            known = name if re.fullmatch(r"[\w.]{1,64}", name, re.ASCII) else ""
            raise RefusedError(
                "invalid_parameter", "a retrieve takes accept, and rendered takes viewport", known
            )
    return accept, query


def _checked(name: str, value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise RefusedError("invalid_header", f"{name} takes up to 1024 printable ASCII characters")
    return value


def _accept(target: Target, accept: str) -> str:
    """What to ask the store for. Browsers name many types and then `*/*`: they get what is
    plainest."""
    kinds = {item.partition(";")[0].strip().lower() for item in accept.split(",")}
    if target.media == "rendered":
        if kinds & {"image/jpeg", "image/*", "*/*"}:
            return "image/jpeg" if "image/jpeg" in kinds or "image/png" not in kinds else accept
        return accept
    if "*/*" not in kinds or accept.lower().startswith(("multipart/related", "application/")):
        return accept
    if target.media == "dicom" and target.resource and target.resource.instance:
        return _ONE_INSTANCE
    return _DEFAULT_ACCEPT[target.media]

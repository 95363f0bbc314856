"""Answers a retrieve: WADO-RS passed through as a stream, with the store's own URLs replaced by the
function's."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from functions.search.qidors import Pairs
from functions.search.refusals import RefusedError
from functions.search.replies import Reply
from functions.search.targets import Media, Target
from functions.search.upstream import Answer, Upstream, refused_by_store

# For callers who accept anything: the stored bytes. Without `transfer-syntax=*` the store
# decompresses them (fact sheet section 5.1).
_DEFAULT_ACCEPT: Final[Mapping[Media, str]] = {
    "dicom": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    "metadata": "application/dicom+json",
    "rendered": "image/jpeg",
    "frames": 'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    "bulkdata": "application/octet-stream; transfer-syntax=*",
}
_ONE_INSTANCE: Final = "application/dicom; transfer-syntax=*"
_CONDITIONS: Final = ("If-None-Match", "If-Modified-Since")
_RANGES: Final = ("Range", "If-Range")
_PASSED_BACK: Final = (
    "Content-Type",
    "Content-Length",
    "Content-Range",
    "Content-Encoding",
    "Accept-Ranges",
    "ETag",
    "Last-Modified",
)
_OF_AN_UNCHANGED_ANSWER: Final = ("ETag", "Last-Modified")
# Cloud Run refuses an answer of more than 32 MiB over HTTP/1 that announces its length; a streamed
# one may have any size.
_ANNOUNCED_BYTES_MAX: Final = 30 * 1024 * 1024
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
# Types that may be sent to a browser from the function's own origin. Anything else is sent as
# bytes.
_MEDIA_TYPES: Final = frozenset(
    {
        "application/dicom",
        "application/dicom+json",
        "application/dicom+xml",
        "application/json",
        "application/octet-stream",
        "application/pdf",
        "application/x-deflate",
        "image/dicom-rle",
        "image/gif",
        "image/jls",
        "image/jp2",
        "image/jpeg",
        "image/jph",
        "image/jphc",
        "image/jpx",
        "image/jxl",
        "image/png",
        "image/x-dicom-rle",
        "image/x-jls",
        "multipart/related",
        "text/plain",
        "video/mp4",
        "video/mpeg",
        "video/mpeg2",
    }
)
_HEADER: Final = re.compile(r"[\x20-\x7e]{1,1024}", re.ASCII)
_PARAMETER_NAME: Final = re.compile(r"[\w.]{1,64}", re.ASCII)
_NUMBER: Final = r"-?[0-9]{1,9}(\.[0-9]{1,9})?"
_VIEWPORT: Final = re.compile(
    rf"{_NUMBER},{_NUMBER}(,({_NUMBER})?){{0,4}}",
    re.ASCII,
)


def retrieve(
    upstream: Upstream, target: Target, pairs: Pairs, headers: Mapping[str, str], base: str
) -> Reply:
    """The answer to a retrieve.

    Args:
        upstream: the DICOM store.
        target: of the kind `retrieve`.
        pairs: `accept`, which overrides the header, and for `rendered` `viewport`.
        headers: the caller's.
        base: the function's own URL, with a trailing slash.

    Raises:
        RefusedError: the caller's request is malformed, or the store refuses.
    """
    accept, query = _parameters(target, pairs)
    if not accept:
        accept = _checked("Accept", headers.get("Accept") or "*/*")
    sent = {"Accept": _accept(target, accept)}
    for name in _passed_on(target):
        if name in headers:
            sent[name] = _checked(name, headers[name])
    answer = upstream.get(target.path, query, sent)
    if answer.status == 204:
        answer.close()
        raise refused_by_store("not_found")
    passed = _headers(answer)
    if answer.status == 304:
        answer.drain()
        kept = {name: value for name, value in passed.items() if name in _OF_AN_UNCHANGED_ANSWER}
        return Reply(304, kept)
    chunks: Iterator[bytes] = answer.chunks()
    if target.media == "metadata" and "Content-Encoding" not in passed:
        passed.pop("Content-Length", None)
        passed.pop("Accept-Ranges", None)
        chunks = upstream.urls.replaced_in_chunks(chunks, base.encode())
    return Reply(answer.status, passed, chunks, answer.close)


def _passed_on(target: Target) -> tuple[str, ...]:
    """The caller's headers that the store gets. In metadata the URLs are replaced, so a range of
    the store's bytes is no range of the answer."""
    if target.media == "metadata":
        return _CONDITIONS
    return (*_CONDITIONS, *_RANGES)


def _headers(answer: Answer) -> dict[str, str]:
    """The store's headers that are passed on, except malformed ones: the server would refuse them,
    and log the caller's URL."""
    passed = {}
    for name in _PASSED_BACK:
        value = answer.headers.get(name, "")
        if _HEADER.fullmatch(value):
            passed[name] = value
    length = passed.get("Content-Length", "0")
    if not _LENGTH.fullmatch(length) or int(length) > _ANNOUNCED_BYTES_MAX:
        del passed["Content-Length"]
    if answer.media_type not in _MEDIA_TYPES or "Content-Type" not in passed:
        passed["Content-Type"] = "application/octet-stream"
    return passed


def _parameters(target: Target, pairs: Pairs) -> tuple[str, str]:
    """The Accept header and the query for the store; empty if the caller has none."""
    accept = ""
    query = ""
    for name, value in pairs:
        if name == "accept" and not accept:
            accept = _checked("Accept", value)
        elif name == "viewport" and target.media == "rendered" and not query:
            if not _VIEWPORT.fullmatch(value):
                message = "takes width,height and perhaps x,y,width,height"
                raise RefusedError("invalid_parameter", message, name)
            query = f"viewport={value}"
        else:
            known = name if _PARAMETER_NAME.fullmatch(name) else ""
            message = "a retrieve takes accept, and rendered takes viewport"
            raise RefusedError("invalid_parameter", message, known)
    return accept, query


def _checked(name: str, value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise RefusedError(
            "invalid_header",
            f"{name} takes up to 1024 printable ASCII characters",
        )
    return value


def _accept(target: Target, accept: str) -> str:
    """The Accept header for the store. Browsers send many types and then `*/*`: they get the
    simplest one."""
    kinds = {item.partition(";")[0].strip().lower() for item in accept.split(",")}
    if target.media == "rendered":
        return _accept_picture(kinds, accept)
    names_its_type = accept.lower().startswith(("multipart/related", "application/"))
    if "*/*" not in kinds or names_its_type:
        return accept
    if target.media == "dicom" and target.resource and target.resource.instance:
        return _ONE_INSTANCE
    return _DEFAULT_ACCEPT[target.media]


def _accept_picture(kinds: set[str], accept: str) -> str:
    takes_jpeg = kinds & {"image/jpeg", "image/*", "*/*"}
    prefers_png = "image/png" in kinds and kinds.isdisjoint({"image/jpeg", "*/*"})
    if takes_jpeg and not prefers_png:
        return "image/jpeg"
    return accept

"""The meaning of a URL. The path is read as it was sent, and only paths of DICOMweb's grammar are
accepted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from functions.api.page_uploads import PREFIX, RANDOM_ID
from functions.common.resources import LEVELS, Resource, is_uid
from functions.search.refusals import RefusedError

Kind = Literal["asset", "config", "search", "query", "retrieve", "exports", "uploads", "request"]
Media = Literal["dicom", "metadata", "rendered", "frames", "bulkdata"]

OPENAPI: Final = "openapi.json"
# The page's code, in modules by subject.
_SCRIPTS: Final = (
    "search.js",
    "address.js",
    "dom.js",
    "exports.js",
    "files.js",
    "form.js",
    "instance.js",
    "request.js",
    "sending.js",
    "series.js",
    "service.js",
    "studies.js",
    "uploads.js",
    "values.js",
)
_FILES: Final = ("search.css", "icon.svg", "names.json", OPENAPI, *_SCRIPTS)
ASSETS: Final = {"/": "index.html", **{f"/{name}": name for name in _FILES}}
_TARGET_LENGTH: Final = 8192
_PATH_LENGTH: Final = 1024
_PATH: Final = re.compile(r"/[\w.,:/-]*", re.ASCII)
_FRAMES: Final = re.compile(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", re.ASCII)
_FRAMES_LENGTH: Final = 512  # the store's own URLs end near 400 frames
# The ids that POST /exports and POST /uploads return: nobody can guess another caller's.
_REQUEST: Final = re.compile(f"/requests/((?:{PREFIX})?{RANDOM_ID})", re.ASCII)
_SEGMENT: Final = re.compile(r"[\w-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Target:
    """The meaning of a path.

    Args:
        kind: `asset` is a file of the page, `config` the page's configuration; `query` is a search
            with its parameters in the body.
        resource: the study, series or instance in the path; None without one.
        level: of a search: studies, series or instances.
        media: of a retrieve.
        below: the path segments after the resource.
        asset: the file of the page.
        request_id: of an export or an upload.
    """

    kind: Kind
    resource: Resource | None = None
    level: str = ""
    media: Media = "dicom"
    below: tuple[str, ...] = ()
    asset: str = ""
    request_id: str = ""

    @property
    def path(self) -> str:
        """The path below `dicomWeb`, for the DICOM store."""
        return "/".join(filter(None, [str(self.resource or ""), *self.below, self.level]))


def raw_target(environ: Mapping[str, Any]) -> tuple[str, str]:
    """Path and query as they were sent; Flask gets the path percent-decoded.

    Raises:
        RefusedError: invalid_path.
    """
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if not target:
        raise RefusedError("internal")
    if len(target) > _TARGET_LENGTH:
        raise RefusedError(
            "invalid_path", f"longer than {_TARGET_LENGTH} characters; send the query by POST"
        )
    path, _, query = target.partition("?")
    return path, query


def parse(path: str) -> Target:
    """Read a raw path.

    Raises:
        RefusedError: invalid_path, invalid_uid, or not_found for a well-formed path without a
            meaning.
    """
    if path in ASSETS:
        return Target("asset", asset=ASSETS[path])
    if path == "/config.json":
        return Target("config")
    if path == "/exports":
        return Target("exports")
    if path == "/uploads":
        return Target("uploads")
    request = _REQUEST.fullmatch(path)
    if request:
        return Target("request", request_id=request[1])
    path = path.replace("%2C", ",").replace("%2c", ",").removesuffix("/")
    parts = path.split("/")[1:]
    if (
        len(path) > _PATH_LENGTH
        or not _PATH.fullmatch(path)
        or not {"", ".", ".."}.isdisjoint(parts)
    ):
        raise RefusedError(
            "invalid_path", "a path must have plain segments: no %, no empty segments, no . or .."
        )
    query = parts[-1] == "_query"
    uids, rest = _uids(parts[:-1] if query else parts)
    resource = Resource(*uids) if uids else None
    if len(rest) == 1 and rest[0] in LEVELS[len(uids) :]:
        return Target("query" if query else "search", resource, level=rest[0])
    if query or not resource:
        raise RefusedError("not_found")
    return Target(
        "retrieve",
        resource,
        media=_media(resource, rest),
        below=tuple(rest),
    )


def _uids(parts: list[str]) -> tuple[list[str], list[str]]:
    uids: list[str] = []
    while len(uids) < len(LEVELS) and len(parts) > 1 and parts[0] == LEVELS[len(uids)]:
        if not is_uid(parts[1]):
            raise RefusedError(
                "invalid_uid",
                "a UID has only digits and dots, at most 64 characters",
            )
        uids.append(parts[1])
        parts = parts[2:]
    return uids, parts


def _media(resource: Resource, rest: list[str]) -> Media:
    match rest:
        case []:
            return "dicom"
        case ["metadata"]:
            return "metadata"
        case ["rendered"] if resource.instance:
            return "rendered"
        case ["frames", frames, *more] if resource.instance and more in ([], ["rendered"]):
            if len(frames) > _FRAMES_LENGTH or not _FRAMES.fullmatch(frames):
                raise RefusedError(
                    "invalid_path",
                    "frames must be numbers from 1, separated by commas",
                )
            return "rendered" if more else "frames"
        case ["bulkdata", *segments] if (
            resource.instance and segments and all(map(_SEGMENT.fullmatch, segments))
        ):
            return "bulkdata"
        case _:
            raise RefusedError("not_found")

"""Shared by the views: bodies, fields, pages (fact sheet sections 1, 9)."""

import json
import re
from typing import Any

import flask

from infra.local.dicomstore import choices
from infra.local.dicomstore.media import ApiError

Json = dict[str, Any]

MAX_BODY = 10_000_000  # bytes; only store requests may be larger (fact sheet section 9)
PAGE, MAX_PAGE = 100, 1000  # items of a list


def body() -> Json:
    """The JSON object in the request's body; an empty body is an empty object.

    Raises:
        ApiError: 400, it is not one; 413, it is too large.
    """
    data = flask.request.environ["wsgi.input"].read(MAX_BODY + 1)
    if len(data) > MAX_BODY:
        raise ApiError(413, "the request is larger than 10 MB")
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "Invalid JSON payload received.") from error
    if not isinstance(found, dict):
        raise ApiError(400, "Invalid JSON payload received.")
    return found


def fault() -> Json:
    """The fault on demand of this request, if the store itself applies it; empty: none."""
    return dict(flask.request.environ.get("dicomstore.fault", {}))


def field(found: Any, name: str) -> Any:
    """A field by its JSON name, or by its proto name as some clients send it; None when there is
    none."""
    if not isinstance(found, dict):
        return None
    snake = re.sub("([A-Z])", r"_\1", name).lower()
    return found.get(name, found.get(snake))


def masked(known: tuple[str, ...]) -> list[str]:
    """The top-level fields that updateMask names. Raises ApiError 400: one is not known."""
    fields = flask.request.args.get("updateMask", "").split(",")
    for name in fields:
        if name not in known:
            raise ApiError(400, f"updateMask: unknown field {name!r}")
    return fields


def page(key: str, found: list[Json]) -> flask.Response:
    """The requested page of a list.

    Raises:
        ApiError: 400, its size or token is malformed.
    """
    size = _number("pageSize", PAGE) or PAGE
    start = _number("pageToken", 0)
    if size > MAX_PAGE:
        raise ApiError(choices.BAD_PAGE, f"pageSize must not be greater than {MAX_PAGE}")
    if start > len(found):
        raise ApiError(choices.BAD_PAGE, "pageToken is not valid")
    answer: Json = {}
    if found[start:]:
        answer[key] = found[start : start + size]
    if len(found) > start + size:
        answer["nextPageToken"] = str(start + size)
    return flask.jsonify(answer)


def _number(name: str, default: int) -> int:
    text = flask.request.args.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise ApiError(choices.BAD_PAGE, f"{name} is not valid")
    return int(text)


def not_here(**args: str) -> flask.Response:
    """Methods of the service that this store leaves out on purpose. Raises ApiError 501."""
    del args
    method = flask.request.path.rpartition("/")[2]
    message = f"{flask.request.method} {method} is not part of this local store"
    raise ApiError(501, message)


def not_here_in_beta(**args: str) -> flask.Response:
    """The same of methods that v1 does not have. Raises ApiError 405, 501."""
    if args["version"] == "v1":
        raise ApiError(choices.NOT_IN_V1, "Method not allowed.")
    return not_here(**args)

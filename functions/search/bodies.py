"""The bodies of requests: a query by POST, and JSON."""

import json
from typing import Any, Final

import flask

from functions.common import web
from functions.common.errors import PermanentError
from functions.search import qidors
from functions.search.refusals import RefusedError

_LIMIT_BYTES: Final = 64 * 1024


def query_pairs(request: flask.Request) -> list[tuple[str, str]]:
    """The parameters in the body of a query by POST: a form, or a JSON object whose values may be
    lists.

    Raises:
        RefusedError: unsupported_media_type, invalid_body, invalid_parameter.
    """
    if request.mimetype == "application/x-www-form-urlencoded":
        try:
            return qidors.decode(_body(request).decode("ascii"))
        except UnicodeDecodeError as error:
            raise RefusedError(
                "invalid_body",
                "a form must be percent-encoded",
            ) from error
    wanted = json_object(request)
    pairs = []
    for name, value in wanted.items():
        items = value if isinstance(value, list) else [value]
        if not items and name != "includefield":
            # Left out, it would not limit the search at all.
            raise RefusedError("invalid_body", "a list must have a value")
        pairs += [(name, _value(name, item)) for item in items]
    return pairs


def json_object(request: flask.Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        RefusedError: unsupported_media_type, invalid_body.
    """
    if request.mimetype != "application/json":
        raise RefusedError(
            "unsupported_media_type",
            "takes application/json (a query also a form)",
        )
    try:
        wanted = json.loads(_body(request), object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        raise RefusedError("invalid_body", "not JSON in UTF-8") from error
    if not isinstance(wanted, dict):
        raise RefusedError("invalid_body", "not a JSON object")
    return wanted


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RefusedError("invalid_body", "a key is given more than once")
    return found


def _value(name: str, item: object) -> str:
    """A value as in a URL: fuzzymatching is true or false, limit and offset are whole numbers, all
    others are texts."""
    if name == "fuzzymatching":
        if isinstance(item, bool):
            return str(item).lower()
    elif name in ("limit", "offset"):
        is_number = isinstance(item, int | float) and not isinstance(item, bool)
        if is_number and item % 1 == 0:  # type: ignore[operator]
            return str(int(item))  # type: ignore[call-overload]
    elif isinstance(item, str):
        return item
    raise RefusedError(
        "invalid_body",
        "values must be strings; limit and offset whole numbers; fuzzymatching true or false",
    )


def _body(request: flask.Request) -> bytes:
    try:
        return web.read_body(request, _LIMIT_BYTES)
    except PermanentError as error:
        raise RefusedError("invalid_body", error.detail) from error

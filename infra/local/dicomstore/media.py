"""Content negotiation and the shapes of errors (sheet 5.7, 8)."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

_PARAMETER = re.compile(r';\s*([\w!#$%&\'*+.^`|~-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s]*)')
_RANGE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "INVALID_ARGUMENT",
    406: "INVALID_ARGUMENT",
    409: "ALREADY_EXISTS",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}


class ApiError(Exception):
    """An answer other than success.

    Args:
        code: the HTTP status.
        message: what it says.
        form: object, array (DICOMweb), string (a missing resource), or text (negotiation).
    """

    def __init__(self, code: int, message: str, form: str = "object") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.form = form

    def body(self) -> tuple[str, str]:
        """The body and its content type."""
        if self.form == "text":
            return self.message, "text/plain; charset=utf-8"
        error = {
            "error": {
                "code": self.code,
                "message": self.message,
                "status": STATUS.get(self.code, "UNKNOWN"),
            }
        }
        shape: object = {"array": [error], "string": self.message}.get(self.form, error)
        return json.dumps(shape, ensure_ascii=False), "application/json; charset=UTF-8"


class MissingError(ApiError):
    """The resource does not exist, or no longer exists."""


class Media(NamedTuple):
    """A media type with the parameters that matter here."""

    type: str
    part: str = ""  # the `type` parameter of a multipart
    syntax: str = ""  # the `transfer-syntax` parameter

    def __str__(self) -> str:
        syntax = f"; transfer-syntax={self.syntax}" if self.syntax else ""
        return self.type + syntax + (f'; type="{self.part}"' if self.part else "")


def parse(value: str) -> tuple[str, dict[str, str]]:
    """A header value such as a Content-Type: the type in lower case, and its parameters
    unquoted."""
    found = {name.lower(): text.strip('"') for name, text in _PARAMETER.findall(value)}
    return value.partition(";")[0].strip().lower(), found


def negotiate(accept: str, offers: Sequence[Media], unlisted: Sequence[Media] = ()) -> Media:
    """The offer the client likes best; the first one for `*/*` or no header.

    A refusal lists the offers, and not the unlisted ones.

    Raises:
        ApiError: 406, the client likes none.
    """
    ranges = []
    for text in _RANGE.findall(accept.strip() or "*/*"):
        kind, parameters = parse(text.strip())
        quality = _quality(parameters.get("q", "1"))
        if quality > 0:
            ranges.append((quality, kind, parameters))
    ranges.sort(key=lambda item: -item[0])
    for _, kind, parameters in ranges:
        for offer in (*offers, *unlisted):
            if _matches(kind, parameters, offer):
                return offer
    listed = ",".join(str(offer) for offer in offers)
    raise ApiError(
        406,
        f"no supported media type found in [{accept}], accept-header must include one of {listed}",
        "text",
    )


def _quality(text: str) -> float:
    """A q value; 1 if it is not a number."""
    try:
        return float(text)
    except ValueError:
        return 1.0


def _matches(kind: str, parameters: dict[str, str], offer: Media) -> bool:
    syntax = parameters.get("transfer-syntax", offer.syntax)
    part = parameters.get("type", offer.part).lower()
    return (
        _covers(kind, offer.type)
        and syntax == offer.syntax
        and (part == offer.part or _covers(part, offer.part))
    )


def _covers(wildcard: str, kind: str) -> bool:
    (main, _, sub), (own_main, _, own_sub) = wildcard.partition("/"), kind.partition("/")
    return bool(kind) and main in ("*", own_main) and sub in ("*", own_sub)

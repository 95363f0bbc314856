"""What the search function answers: every way it can refuse, and the headers that every answer
carries."""

import json
from dataclasses import dataclass
from typing import Final

# PS3.18 leaves the body of an error open; here it is always {"error": {"reason": …, "message": …}}.
STATUS: Final = {
    "invalid_path": 400,  # encoded slashes, `..`, control characters, an absolute URL, too long
    "invalid_uid": 400,  # a UID in the path is malformed
    "invalid_parameter": 400,  # unknown, not searchable, or with a value that cannot be; `parameter` names it
    "invalid_header": 400,  # a header that is passed on has control characters or is too long
    "invalid_body": 400,  # a query or an export request by POST that cannot be read
    "rejected": 400,  # the DICOM store refused it
    "unauthenticated": 401,  # no token, or one that does not verify
    "forbidden": 403,  # a caller, a parameter, an origin or a destination that is not on its list
    "retrieve_disabled": 403,  # SEARCH_RETRIEVE is off
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,  # nothing in Accept can be made
    "conflict": 409,  # the store is at work on that resource
    "gone": 410,
    "unsupported_media_type": 415,  # the body's
    "range_not_satisfiable": 416,
    "rate_limited": 429,
    "internal": 500,  # a bug
    "unauthorized": 502,  # the service's own credentials were refused
    "unavailable": 502,  # no answer from the DICOM store, or one that makes no sense
    "overloaded": 503,  # the DICOM store asks to come back later
    "deadline_exceeded": 504,  # the DICOM store took too long
}

# The page's own policy is stricter where it can be and looser where it must; see
# functions/search/handler.py.
SAFE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class RefusedError(Exception):
    """An answer other than the one that was asked for.

    Args:
        reason: one of STATUS.
        message: one line of our own words: never a value from the request, never a server's text.
        parameter: the parameter to blame; its name only.
        retry_after: as the DICOM store sent it: seconds or a date.
        allow: the methods there are, for method_not_allowed.
    """

    reason: str
    message: str = ""
    parameter: str = ""
    retry_after: str = ""
    allow: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.reason]

    def body(self) -> bytes:
        """The JSON document."""
        error = {"reason": self.reason, "message": self.message, "parameter": self.parameter}
        return json.dumps({"error": {name: text for name, text in error.items() if text}}).encode()

    def headers(self) -> dict[str, str]:
        """The headers that belong to this refusal only."""
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        if self.allow:
            headers["Allow"] = ", ".join(self.allow)
        if self.reason == "unauthenticated":
            headers["WWW-Authenticate"] = "Bearer"
        return headers

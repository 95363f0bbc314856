"""Every way in which the search function can refuse.

PS3.18 leaves the body of an error open; here it is always {"error": {"reason": …, "message": …}}.
"""

import json
from dataclasses import dataclass
from typing import Final

STATUS: Final = {
    # An encoded slash, `..`, a control character, an absolute URL, too long.
    "invalid_path": 400,
    # A UID in the path is malformed.
    "invalid_uid": 400,
    # Unknown, not searchable, or with an impossible value; `parameter` names it.
    "invalid_parameter": 400,
    # A header that is passed on has control characters or is too long.
    "invalid_header": 400,
    # A query or an export request by POST that cannot be read.
    "invalid_body": 400,
    # The DICOM store refused it.
    "rejected": 400,
    # No token, or one that does not verify.
    "unauthenticated": 401,
    # A caller, a parameter, an origin or a destination that is not on its list.
    "forbidden": 403,
    # SEARCH_RETRIEVE is off.
    "retrieve_disabled": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    # Nothing in Accept can be made.
    "not_acceptable": 406,
    # The store is at work on that resource.
    "conflict": 409,
    "gone": 410,
    # Of the request's body.
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "rate_limited": 429,
    # A bug.
    "internal": 500,
    # The service's own credentials were refused.
    "unauthorized": 502,
    # No answer from the DICOM store, or a malformed one.
    "unavailable": 502,
    # The DICOM store asks to come back later.
    "overloaded": 503,
    # The DICOM store took too long.
    "deadline_exceeded": 504,
}


@dataclass
class RefusedError(Exception):
    """An answer other than the one that was asked for.

    Args:
        reason: one of STATUS.
        message: one line of our own words: never a value from the request, never a server's text.
        parameter: the parameter to blame; its name only.
        retry_after_s: seconds that the DICOM store asks to wait.
        allow: the methods that exist, for method_not_allowed.
    """

    reason: str
    message: str = ""
    parameter: str = ""
    retry_after_s: int | None = None
    allow: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.reason]

    def body(self) -> bytes:
        """The JSON document."""
        error = {"reason": self.reason, "message": self.message, "parameter": self.parameter}
        filled = {name: text for name, text in error.items() if text}
        return json.dumps({"error": filled}).encode()

    def headers(self) -> dict[str, str]:
        """The headers that belong to this refusal only."""
        headers = {"Content-Type": "application/json"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.allow:
            headers["Allow"] = ", ".join(self.allow)
        if self.reason == "unauthenticated":
            headers["WWW-Authenticate"] = "Bearer"
        return headers

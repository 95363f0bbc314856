"""Every way in which `commands` refuses a request, in one shape: {"error": {"reason": …}}."""

import json
from dataclasses import dataclass
from typing import Final

STATUS: Final = {
    "invalid_command": 400,  # a missing, malformed or unknown key; the message names it
    "unauthenticated": 401,  # no ID token, or one that does not verify
    "forbidden": 403,  # a caller, a command or a destination that is not on its list
    "not_found": 404,  # no such path, or no such request
    "method_not_allowed": 405,
    "conflict": 409,  # the same id with another command, or while the first is being published
    "unsupported_media_type": 415,  # the body is not application/json
    "rate_limited": 429,
    "internal": 500,  # a bug
    "unavailable": 503,  # Pub/Sub or the state bucket is away; nothing was published
}


@dataclass
class RefusedError(Exception):
    """A request that is not carried out.

    Args:
        reason: one of STATUS.
        message: one line of our own words.
        retry_after_s: when to try again; 0: not known.
        allow: the methods there are, for method_not_allowed.
    """

    reason: str
    message: str = ""
    retry_after_s: int = 0
    allow: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.reason]

    def body(self) -> bytes:
        """The JSON document."""
        error = {"reason": self.reason}
        if self.message:
            error["message"] = self.message
        return json.dumps({"error": error}).encode()

    def headers(self) -> dict[str, str]:
        """The headers that belong to this refusal only."""
        headers = {}
        if self.retry_after_s:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.allow:
            headers["Allow"] = ", ".join(self.allow)
        if self.reason == "unauthenticated":
            headers["WWW-Authenticate"] = "Bearer"
        return headers

"""How `search` and `commands` refuse a request: with a status and {"error": {"reason": …}}.

PS3.18 leaves the body of an error open. Each function lists its reasons: search/refusals.py,
commands/refusals.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass
class RefusalError(Exception):
    """A refused request.

    Args:
        reason: one of STATUS.
        message: one line for a person: never a value from the request, never a server's text.
        parameter: the name of the wrong parameter.
        retry_after_s: when to try again, if known.
        allow: the methods that exist, for method_not_allowed.
    """

    STATUS: ClassVar[Mapping[str, int]]

    reason: str
    message: str = ""
    parameter: str = ""
    retry_after_s: int | None = None
    allow: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.STATUS[self.reason]

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

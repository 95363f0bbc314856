"""How `search` and `commands` refuse a request: with a status and {"error": {"reason": …}}.

PS3.18 leaves the body of an error open. Each function lists its reasons: search/refusals.py,
commands/refusals.py.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from functions.common.errors import PermanentError, RetryableError
from functions.common.log import log


@dataclass(eq=False)  # hashable, as every exception must be
class BaseRefusedError(Exception):
    """A refused request; each function has a subclass with its reasons.

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

    @classmethod
    def caused_by(cls, part: str, error: PermanentError | RetryableError) -> Self:
        """A refusal that is not the caller's fault, but that of a bucket or a topic of the service.

        Args:
            part: which it is, such as `the landing bucket`; its name is not shown.
            error: of its client.
        """
        if isinstance(error, PermanentError):
            message = f"{part} is missing or refuses the request; tell its operator"
            return cls("unavailable", message)
        if error.reason == "unauthorized":
            message = f"{part} refuses the service's own credentials; tell its operator"
            return cls("unauthorized", message)
        if error.reason == "rate_limited":
            wait_s = None
            if error.retry_after_s is not None:
                wait_s = math.ceil(error.retry_after_s)
            return cls("overloaded", f"{part} is busy; try again later", retry_after_s=wait_s)
        return cls("unavailable", f"{part} is missing or gave no answer; try again later")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.STATUS[self.reason]

    def log(self, function: str) -> None:
        """Log what an operator may have to correct; the caller's mistakes are not logged."""
        if self.status < 500:
            return
        log(
            "WARNING",
            "answered",
            function=function,
            reason=self.reason,
            detail=self.message,
            status=self.status,
        )

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

"""What a check of the doctor finds, and how checks fetch resources."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cli.clients import Clients
from cli.errors import CliError

Status = Literal["ok", "failed", "skipped"]
Resource = Mapping[str, Any]
REDEPLOY: Final = "./deploy.sh puts it back"
RETRY: Final = "try again in a minute"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: the kind of check, such as `bucket`.
        subject: the name of what was checked.
        detail: what was found.
        fix: how to fix it; empty when it is ok.
    """

    check: str
    subject: str
    status: Status
    detail: str = ""
    fix: str = ""


Check = Callable[[Clients], Iterator[Finding]]


@dataclass(frozen=True)
class Look:
    """One kind of check: fetches resources and makes findings.

    Args:
        clients: of the system.
        check: the kind.
        role: the role that can see these resources.
    """

    clients: Clients
    check: str
    role: str = ""

    def ok(self, subject: str, detail: str = "") -> Finding:
        """It is as it should be."""
        return Finding(self.check, subject, "ok", detail)

    def failed(self, subject: str, detail: str, fix: str = REDEPLOY) -> Finding:
        """It is wrong, and how to fix it."""
        return Finding(
            check=self.check,
            subject=subject,
            status="failed",
            detail=detail,
            fix=fix,
        )

    def skipped(self, subject: str, detail: str, fix: str = "") -> Finding:
        """It could not be checked, and that is not a fault of the system."""
        return Finding(
            check=self.check,
            subject=subject,
            status="skipped",
            detail=detail,
            fix=fix,
        )

    def refused(self, subject: str) -> Finding:
        """You may not see it; the fix names the role."""
        return self.failed(subject, "you may not see it", f"you need {self.role}")

    def fetch(self, url: str, subject: str, method: str = "GET") -> Resource | Finding:
        """A resource, or why it could not be fetched."""
        try:
            answer = self.clients.call(method, url)
        except CliError as error:
            return self.failed(subject, "no answer", str(error))
        if answer.status in (401, 403):
            return self.refused(subject)
        if answer.status == 404:
            return self.failed(subject, "does not exist")
        if answer.status != 200 or not isinstance(answer.json, dict):
            return self.failed(subject, f"the service answered {answer.status}", RETRY)
        return answer.json

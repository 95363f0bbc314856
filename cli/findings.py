"""What a check of the doctor finds, and how it asks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cli.clients import Clients
from cli.errors import CliError

Status = Literal["ok", "failed", "skipped"]
REDEPLOY: Final = "./deploy.sh puts it back"
RETRY: Final = "try again in a minute"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: which kind of thing, such as `bucket`.
        subject: its name.
        detail: what is so or not so.
        fix: what to do about it; empty when it is ok.
    """

    check: str
    subject: str
    status: Status
    detail: str = ""
    fix: str = ""


Check = Callable[[Clients], Iterator[Finding]]


def fetch(
    clients: Clients, url: str, check: str, subject: str, role: str, method: str = "GET"
) -> Mapping[str, Any] | Finding:
    """A resource, or why it cannot be had.

    Args:
        role: what it takes to see it.
    """
    try:
        answer = clients.call(method, url)
    except CliError as error:
        return Finding(check, subject, "failed", "no answer", str(error))
    if answer.status in (401, 403):
        return refused(check, subject, role)
    if answer.status == 404:
        return Finding(check, subject, "failed", "does not exist", REDEPLOY)
    if answer.status != 200 or not isinstance(answer.json, dict):
        detail = f"the service answered {answer.status}"
        return Finding(check, subject, "failed", detail, RETRY)
    return answer.json


def refused(check: str, subject: str, role: str) -> Finding:
    """You may not see it: the role that lets you."""
    return Finding(check, subject, "failed", "you may not see it", f"you need {role}")

"""What is needed for an export within one invocation."""

from dataclasses import dataclass

from functions.api.requests import ExportRequest
from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.storage import Buckets
from functions.common.deadline import Deadline
from functions.common.events.outcomes import outcome_id
from functions.common.settings import EXPORT


@dataclass(frozen=True)
class Attempt:
    """Which delivery of its message this is.

    Args:
        number: from 1.
        give_up_at: from this one on, failing instances may be given up.
    """

    number: int
    give_up_at: int

    @property
    def is_first(self) -> bool:
        """Whether nothing was tried before."""
        return self.number == 1

    @property
    def may_give_up(self) -> bool:
        """Whether what fails now may be given up."""
        return self.number >= self.give_up_at


@dataclass(frozen=True)
class Job:
    """A request, the clients, and the time limits.

    Args:
        work_deadline: for retrieving; earlier than `deadline`, so that time is left to record the
            results.
        deadline: of the invocation.
    """

    request: ExportRequest
    store: DicomStore
    buckets: Buckets
    attempt: Attempt
    work_deadline: Deadline
    deadline: Deadline

    @property
    def key(self) -> str:
        """The export's id: a hash of the request's id, so that each delivery finds the same."""
        return outcome_id(EXPORT, self.request.request_id)

    @property
    def bucket(self) -> str:
        """Of the destination."""
        return self.request.destination.bucket

"""What the work on a slice is done with."""

from dataclasses import dataclass

from functions.api.requests import ExportRequest
from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.storage import Buckets
from functions.common.deadline import Deadline
from functions.export.slices import Attempt


@dataclass(frozen=True)
class Job:
    """One slice within one invocation.

    Args:
        run: of the plan.
        working: for retrieving.
        deadline: for writing what was retrieved; later than `working`.
    """

    store: DicomStore
    buckets: Buckets
    request: ExportRequest
    run: str
    attempt: Attempt
    working: Deadline
    deadline: Deadline

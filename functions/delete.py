"""Delete a study, a series or an instance, and follow the long-running operation to its end."""

from typing import Final

from functions.common.deadline import Deadline
from functions.common.dicomweb import DicomStore, Operation
from functions.common.errors import PermanentError, RetryableError
from functions.common.events import Message
from functions.common.outcomes import Outcome, Outcomes
from functions.common.resources import Resource
from functions.common.runtime import Services, View, event_function, request_id
from functions.common.settings import DELETE

_KEYS: Final = frozenset({"path", "request_id"})
_POLL_S: Final = 1.0
_POLL_MAX_S: Final = 10.0


def entry_point() -> View:
    """The function that is deployed."""
    return event_function(DELETE, handle)


def handle(message: Message, services: Services, outcomes: Outcomes, deadline: Deadline) -> None:
    """Delete what the command names.

    Raises:
        PermanentError: invalid_command, rejected, or operation_failed.
        RetryableError: the DICOM store is busy or away, or the operation goes on.
    """
    command = message.json()
    if unknown := command.keys() - _KEYS:
        raise PermanentError("invalid_command", f"{len(unknown)} unknown keys")
    name = request_id(message, command)
    resource = Resource.parse(str(command.get("path", "")))
    operation = services.dicom_store.delete(resource, deadline)
    if operation:
        _follow(services.dicom_store, operation, deadline)
    outcomes.publish(Outcome("deleted", request_id=name, resource=resource))


def _follow(store: DicomStore, operation: Operation, deadline: Deadline) -> None:
    """Poll until it is done; an operation that ends well may still have failed for some instances."""
    wait_s = _POLL_S
    while not operation.done:
        if not deadline.sleep(wait_s):
            raise RetryableError("operation_pending")
        wait_s = min(_POLL_MAX_S, wait_s * 1.5)
        operation = store.operation(operation.name, deadline)
    if operation.error_code or operation.failures:
        raise PermanentError("operation_failed", f"code {operation.error_code}, {operation.failures} failures")

"""A checked command becomes a request: kept in the state bucket, published once, and shown later.

The state of a request is in api/request_state.py: an object that is only created if there is none
with this id. So the same request sent twice is published once, and another one with this id is
refused. The outcome comes from `notify`.
"""

import hashlib
import uuid
from dataclasses import replace
from typing import Any, Final

from functions.api.request_state import Request, Requests
from functions.commands.command import Command
from functions.commands.refusals import RefusedError
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.common.events import messages
from functions.common.events.runtime import Services
from functions.common.log import log
from functions.common.settings import COMMANDS

_BUDGET_S: Final = 20.0
_PUBLISHING_S: Final = 30.0  # after which a request that is not published is published again


class Accepting:
    """The requests of one caller, within one invocation.

    Args:
        caller: its address; empty if callers are not distinguished.
    """

    def __init__(self, services: Services, caller: str) -> None:
        self._services = services
        self._caller_sha256 = _digest(caller)
        self._requests = Requests(
            buckets=services.buckets,
            bucket=services.settings.state_bucket,
            deadline=Deadline(_BUDGET_S),
        )

    def accept(self, command: Command) -> None:
        """Keep and publish a command, unless an earlier request has published it.

        Raises:
            RefusedError: conflict, when another command has this id, or when it is being published
                now; as RefusedError.caused_by.
        """
        request = Request(
            request_id=command.request_id,
            command_sha256=command.sha256,
            caller_sha256=self._caller_sha256,
            invocation=str(uuid.uuid4()),
        )
        try:
            to_publish = self._requests.accept(request)
            if to_publish is None:
                to_publish = self._taken_over(request)
            if to_publish:
                self._publish(command, to_publish)
        except RetryableError as error:
            raise _state_bucket_failed(error) from None

    def find(self, request_id: str) -> dict[str, Any]:
        """The state of a request of this caller, with its outcome if there is one.

        Raises:
            PermanentError: invalid_command, when the id is malformed.
            RefusedError: not_found; as RefusedError.caused_by.
        """
        name = messages.request_id(request_id)
        try:
            request = self._requests.find(name)
        except RetryableError as error:
            raise _state_bucket_failed(error) from None
        if request is None or request.caller_sha256 != self._caller_sha256:
            raise RefusedError("not_found", "no such request")
        if request.state == "done":
            return {"request_id": name, "state": "done", "outcome": request.outcome}
        return {"request_id": name, "state": "accepted"}

    def _taken_over(self, request: Request) -> Request | None:
        """The request with this id that is kept, if it must be published; None if it is published.

        Raises:
            RefusedError: conflict; unavailable, when it has just expired.
            RetryableError: the state bucket does not answer.
        """
        kept = self._kept(request)
        if kept.state == "accepted" and kept.age_s() >= _PUBLISHING_S:
            accepted = self._requests.accept(replace(kept, invocation=request.invocation))
            if accepted:
                return accepted
            kept = self._kept(request)
        if kept.state != "accepted":
            return None
        if kept.invocation == request.invocation:
            # The answer to the write was lost, and its repetition found the object.
            return kept
        raise RefusedError("conflict", "this request is being published", retry_after_s=5)

    def _kept(self, request: Request) -> Request:
        """The request with this id that is kept.

        Raises:
            RefusedError, RetryableError: as _taken_over.
        """
        kept = self._requests.find(request.request_id)
        if kept is None:
            raise RefusedError("unavailable", "try again", retry_after_s=1)
        if kept.command_sha256 != request.command_sha256:
            raise RefusedError("conflict", "another request has this id")
        if kept.caller_sha256 != request.caller_sha256:
            raise RefusedError("conflict", "another request has this id")
        return kept

    def _publish(self, command: Command, request: Request) -> None:
        settings = self._services.settings
        topics = {
            "exports": settings.exports_topic,
            "deletes": settings.deletes_topic,
        }
        topic = topics[command.kind]
        attributes = {}
        if request.first_time != request.time:
            # It may have been published before: a delete must not delete what was stored since.
            attributes[messages.FIRST_PUBLISHED] = request.first_time
        deadline = Deadline(_BUDGET_S)
        try:
            self._services.topics.publish(topic, command.data, attributes, deadline)
        except RetryableError as error:
            # The same request can be sent again at once.
            self._requests.release(request)
            raise RefusedError.caused_by(f"the {command.kind} topic", error) from None
        try:
            self._requests.published(request)
        except RetryableError as error:
            # The command is published, so it is accepted. If it is sent again later, it is
            # published again, under the same id.
            log("WARNING", "state_not_written", function=COMMANDS, reason=error.reason)


def _state_bucket_failed(error: RetryableError) -> RefusedError:
    return RefusedError.caused_by("the state bucket", error)


def _digest(caller: str) -> str:
    """The caller as kept in the state of a request; empty if callers are not distinguished."""
    if not caller:
        return ""
    return hashlib.sha256(caller.encode()).hexdigest()

"""The state of a request: `requests/<id>.json` in the state bucket.

    accepted ──published──▶ published ──outcome record──▶ done

`commands` writes the first two states, `notify` the last one, also for requests that came by
Pub/Sub. The object's name is a hash, because a request's id is the caller's text.
"""

import contextlib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from functions.common.clients.json_objects import JsonObjects
from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.deadline import Deadline, age_s, parsed_rfc3339, utc_now
from functions.common.errors import RetryableError

_FOLDER: Final = "requests"
_LIMIT_BYTES: Final = 1024 * 1024
State = Literal["accepted", "published", "done"]


@dataclass(frozen=True)
class Request:
    """One request.

    Args:
        request_id: its id.
        state: its state.
        time: when it was last accepted, RFC 3339 in UTC; empty: it was released, because it could
            not be published.
        first_time: when it was first accepted, RFC 3339 in UTC.
        invocation: a random value of the invocation that accepted it.
        command_sha256: of the command, to recognise another one with the same id; empty if the
            request came by Pub/Sub.
        caller_sha256: of the caller's address; empty if callers are not distinguished.
        outcome: the outcome record, once there is one.
        generation: of the object; 0: not written yet.
    """

    request_id: str
    state: State = "accepted"
    time: str = ""
    first_time: str = ""
    invocation: str = ""
    command_sha256: str = ""
    caller_sha256: str = ""
    outcome: Mapping[str, Any] = field(default_factory=dict)
    generation: int = 0

    def age_s(self) -> float:
        """Seconds since it was last accepted; infinite for a released one."""
        accepted = parsed_rfc3339(self.time)
        if accepted is None:
            return math.inf
        return age_s(accepted)


class Requests:
    """Reads and writes requests.

    Args:
        buckets: the client.
        bucket: the state bucket.
        deadline: of the invocation.
    """

    def __init__(self, buckets: Buckets, bucket: str, deadline: Deadline) -> None:
        self._objects = JsonObjects(buckets, bucket, deadline, _LIMIT_BYTES)

    def find(self, request_id: str) -> Request | None:
        """The state of a request, as it is shown to callers; None if none is known.

        Raises:
            RetryableError: the state bucket does not answer; unavailable also when it is missing,
                which an operator can correct.
        """
        request = self._read(request_id)
        if request is None:
            self._check_bucket(_name(request_id))
        return request

    def accept(self, request: Request) -> Request | None:
        """Keep a new request, or one that was not published; None if there is one with this id, or
        another process was faster. That one may be this one, if the answer to its write was lost:
        its `invocation` says so.

        Raises:
            RetryableError: the state bucket does not answer.
        """
        time = utc_now()
        first_time = request.first_time or time
        try:
            return self._write(replace(request, time=time, first_time=first_time))
        except PreconditionFailedError:
            return None

    def release(self, request: Request) -> None:
        """It could not be published: it can be sent again at once."""
        with contextlib.suppress(PreconditionFailedError):
            self._write(replace(request, time=""))

    def published(self, request: Request) -> None:
        """Its command is published. If the outcome came first, it stays."""
        with contextlib.suppress(PreconditionFailedError):
            self._write(replace(request, state="published"))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Keep the outcome record of the request that it names.

        Raises:
            RetryableError: operation_pending, when another process changed it meanwhile, or the
                state bucket does not answer.
        """
        request_id = record["request_id"]
        known = self._read(request_id)
        if known is None:
            known = Request(request_id, time=record["time"])
        if known.state == "done" and known.outcome["time"] <= record["time"]:
            # If there are several records, the first by time counts (outcomes.py).
            return
        try:
            self._write(replace(known, state="done", outcome=record))
        except PreconditionFailedError:
            raise RetryableError("operation_pending") from None

    def _read(self, request_id: str) -> Request | None:
        kept = self._objects.read(_name(request_id))
        if kept is None:
            return None
        try:
            return Request(**kept.value, generation=kept.generation)
        except TypeError:
            raise RetryableError("unavailable") from None

    def _check_bucket(self, name: str) -> None:
        """An object of a missing bucket is answered 404, like a missing object; a listing shows
        which it is."""
        next(self._objects.list(name), None)

    def _write(self, request: Request) -> Request:
        name = _name(request.request_id)
        value = asdict(request)
        # The object has its own generation.
        del value["generation"]
        generation = self._objects.write(name, value, if_generation_match=request.generation)
        return replace(request, generation=generation)


def _name(request_id: str) -> str:
    digest = hashlib.sha256(request_id.encode()).hexdigest()
    return f"{_FOLDER}/{digest}.json"

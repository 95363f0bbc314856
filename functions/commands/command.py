"""A command that came by HTTP, checked with the same code as in the delete or export function."""

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import flask

from functions.api.requests import DeleteRequest, ExportRequest
from functions.commands.refusals import RefusedError
from functions.common import jsonvalues, web
from functions.common.events import messages
from functions.common.events.messages import Message
from functions.common.settings import Settings

_BODY_LIMIT_BYTES: Final = 64 * 1024
Kind = Literal["exports", "deletes"]


@dataclass(frozen=True)
class Command:
    """A checked command.

    Args:
        kind: which function it is for.
        request_id: its id.
        data: the message that is published.
    """

    kind: Kind
    request_id: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Another command under the same id has another hash."""
        named = f"{self.kind} ".encode() + self.data
        return hashlib.sha256(named).hexdigest()

    @classmethod
    def read(cls, kind: Kind, http: flask.Request, settings: Settings) -> Self:
        """The command in the body of a request.

        Raises:
            PermanentError: invalid_command; invalid_event, for a body that cannot be read.
            RefusedError: unsupported_media_type; invalid_command; forbidden, for a destination that
                is not allowed.
        """
        values = _body(http)
        idempotency_key = http.headers.get("Idempotency-Key", "")
        request_id = _request_id(values, idempotency_key)
        values["request_id"] = request_id
        data = json.dumps(values, sort_keys=True).encode()
        if kind == "deletes":
            DeleteRequest.read(Message(data))
        else:
            export = ExportRequest.read(Message(data))
            if not settings.may_export_to(export.destination):
                raise RefusedError("forbidden", "exports may not go to this destination")
        return cls(kind, request_id, data)


def _body(http: flask.Request) -> dict[str, Any]:
    if http.mimetype != "application/json":
        raise RefusedError("unsupported_media_type", "takes application/json")
    data = web.read_body(http, _BODY_LIMIT_BYTES)
    values = jsonvalues.parsed(data)
    if not isinstance(values, dict):
        raise RefusedError("invalid_command", "a command must be a JSON object")
    return values


def _request_id(values: dict[str, Any], idempotency_key: str) -> str:
    """The id in the body, else in the header, else a new one."""
    if "request_id" not in values:
        return messages.request_id(idempotency_key or str(uuid.uuid4()))
    given = values["request_id"]
    if idempotency_key and given != idempotency_key:
        raise RefusedError("invalid_command", "request_id and Idempotency-Key differ")
    return messages.request_id(given)

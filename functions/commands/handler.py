"""`POST /exports`, `POST /deletes` and `GET /requests/ID`: commands over HTTP.

A command is checked with the same code as in the delete or export function, kept as a request, and
published on that function's topic; the answer is 202. The same request sent twice is done once: its
id is its `request_id`, else its `Idempotency-Key`. `notify` keeps its outcome.
"""

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import flask

from functions.api import requests
from functions.api.callers import Callers
from functions.api.id_tokens import CallerError
from functions.api.request_state import Request, Requests
from functions.commands import limits
from functions.commands.limits import Limits
from functions.commands.refusals import RefusedError
from functions.common import jsonvalues, web
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.events import messages
from functions.common.events.messages import Message
from functions.common.events.runtime import Services
from functions.common.log import log, log_bug
from functions.common.settings import COMMANDS, Settings

_BODY_LIMIT_BYTES: Final = 64 * 1024
_BUDGET_S: Final = 20.0
_PUBLISHING_S: Final = 30.0  # after which a request that is not published is published again
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
_METHODS: Final = {
    "/exports": "POST",
    "/deletes": "POST",
    "/requests/": "GET",
    "/openapi.json": "GET",
}
_DESCRIPTION: Final = Path(__file__).with_name("openapi.json")


def entry_point() -> Callable[[flask.Request], flask.Response]:
    """Make the deployed function.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    service = _Service(Settings.load(COMMANDS))

    def commands(request: flask.Request) -> flask.Response:
        try:
            status, headers, value = service.answer(request)
            body = json.dumps(value).encode()
        except RefusedError as error:
            status, headers, body = error.status, error.headers(), error.body()
        except Exception as error:  # noqa: BLE001 (a bug: logged without its text)
            log_bug(COMMANDS, error)
            refused = RefusedError("internal")
            status, headers, body = refused.status, {}, refused.body()
        return web.response(status, {**_HEADERS, **headers}, body)

    return commands


Answer = tuple[int, dict[str, str], dict[str, Any]]


class _Service:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._services = Services.of(settings)
        self._callers = Callers(
            COMMANDS,
            settings.commands_callers,
            settings.commands_audience,
            settings.id_token_keys_url,
        )
        self._limits = Limits(settings.commands_callers, settings.commands_per_minute)

    def answer(self, request: flask.Request) -> Answer:
        """The answer to a request.

        Raises:
            RefusedError: it is refused.
        """
        path = "/requests/" if request.path.startswith("/requests/") else request.path
        method = _METHODS.get(path)
        if method is None:
            raise RefusedError("not_found")
        if request.method != method:
            raise RefusedError("method_not_allowed", f"takes {method}", allow=(method,))
        try:
            caller = self._callers.identify(path, request.headers.get("Authorization", ""))
        except CallerError as error:
            raise RefusedError(error.reason, error.message) from None
        if path == "/openapi.json":
            return 200, {}, json.loads(_DESCRIPTION.read_text())
        deadline = Deadline(_BUDGET_S)
        kept = Requests(self._services.buckets, self._settings.state_bucket, deadline)
        try:
            if method == "GET":
                return _found(request.path.removeprefix(path), caller, kept)
            return self._command(path.removeprefix("/"), request, caller, kept)
        except PermanentError as error:
            raise RefusedError("invalid_command", error.detail) from None
        except RetryableError as error:
            log("WARNING", "answered", function=COMMANDS, reason=error.reason, status=503)
            raise RefusedError("unavailable", "try again", retry_after_s=5) from None

    def _command(self, name: str, request: flask.Request, caller: str, kept: Requests) -> Answer:
        self._limits.check(caller, name)
        command = _body(request)
        command["request_id"] = _request_id(command, request.headers.get("Idempotency-Key", ""))
        data = json.dumps(command, sort_keys=True).encode()
        self._check(name, data)
        wanted = Request(
            request_id=command["request_id"],
            command_sha256=hashlib.sha256(f"{name} ".encode() + data).hexdigest(),
            caller_sha256=limits.digest(caller),
        )
        accepted = kept.accept(wanted) or _known(wanted, kept)
        if accepted.state == "accepted":
            self._publish(name, data, accepted, kept)
        place = f"/requests/{wanted.request_id}"
        answer = {"request_id": wanted.request_id, "state": "accepted"}
        return 202, {"Location": place}, answer

    def _publish(self, name: str, data: bytes, request: Request, kept: Requests) -> None:
        try:
            self._services.topics.publish(self._topic(name), data, {}, Deadline(_BUDGET_S))
        except RetryableError:
            kept.release(request)
            raise
        kept.published(request)

    def _check(self, name: str, data: bytes) -> None:
        """Check it like the function itself.

        Raises:
            PermanentError: invalid_command.
            RefusedError: forbidden, for a destination that is not allowed.
        """
        message = Message(data)
        if name == "deletes":
            requests.DeleteRequest.read(message)
            return
        export = requests.ExportRequest.read(message)
        if not self._settings.may_export_to(export.destination):
            raise RefusedError("forbidden", "exports may not go to this destination")

    def _topic(self, name: str) -> str:
        topics = {"exports": self._settings.exports_topic, "deletes": self._settings.deletes_topic}
        return topics[name]


def _body(request: flask.Request) -> dict[str, Any]:
    if request.mimetype != "application/json":
        raise RefusedError("unsupported_media_type", "takes application/json")
    value = jsonvalues.parsed(web.read_body(request, _BODY_LIMIT_BYTES))
    if not isinstance(value, dict):
        raise RefusedError("invalid_command", "a command must be a JSON object")
    return value


def _request_id(command: dict[str, Any], idempotency_key: str) -> str:
    given = command.get("request_id")
    if given is not None and idempotency_key and given != idempotency_key:
        raise RefusedError("invalid_command", "request_id and Idempotency-Key differ")
    wanted = given if given is not None else idempotency_key or str(uuid.uuid4())
    return messages.request_id(wanted)


def _known(wanted: Request, kept: Requests) -> Request:
    """The earlier request with this id.

    Raises:
        RefusedError: conflict, when it has another command, or is being published now.
    """
    known = kept.find(wanted.request_id)
    if known is None:  # expired in between
        raise RefusedError("unavailable", "try again", retry_after_s=1)
    same = known.command_sha256 == wanted.command_sha256
    if not same or known.caller_sha256 != wanted.caller_sha256:
        raise RefusedError("conflict", "another request has this id")
    if known.state != "accepted":
        return known
    if known.age_s() >= _PUBLISHING_S:
        again = kept.accept(known)
        if again:
            return again
    raise RefusedError("conflict", "this request is being published", retry_after_s=5)


def _found(request_id: str, caller: str, kept: Requests) -> Answer:
    request = kept.find(messages.request_id(request_id))
    if request is None or request.caller_sha256 != limits.digest(caller):
        raise RefusedError("not_found", "no such request")
    if request.state != "done":
        return 200, {}, {"request_id": request.request_id, "state": "accepted"}
    answer = {"request_id": request.request_id, "state": "done", "outcome": request.outcome}
    return 200, {}, answer

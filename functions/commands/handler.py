"""`POST /exports`, `POST /deletes` and `GET /requests/ID`: commands over HTTP.

A command is checked with the same code as in the delete or export function, kept as a request, and
published on that function's topic; the answer is 202. The same request sent twice is done once: its
id is its `request_id`, else its `Idempotency-Key`. `notify` keeps its outcome.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import flask

from functions.api.callers import Callers
from functions.api.id_tokens import CallerError
from functions.commands.accepting import Accepting
from functions.commands.command import Command, Kind
from functions.commands.limits import Limits
from functions.commands.refusals import RefusedError
from functions.common import web
from functions.common.errors import PermanentError, SettingsError
from functions.common.events.runtime import Services
from functions.common.log import log_bug
from functions.common.settings import COMMANDS, Settings

_HEADERS: Final = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
_EXPORTS: Final = "/exports"
_DELETES: Final = "/deletes"
_REQUESTS: Final = "/requests/"
_OPENAPI: Final = "/openapi.json"
_METHODS: Final = {
    _EXPORTS: "POST",
    _DELETES: "POST",
    _REQUESTS: "GET",
    _OPENAPI: "GET",
}
_DESCRIPTION: Final = Path(__file__).with_name("openapi.json")


def entry_point() -> Callable[[flask.Request], flask.Response]:
    """Make the deployed function.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    settings = Settings.load(COMMANDS)
    _check_settings(settings)
    service = _Service(settings)

    def commands(request: flask.Request) -> flask.Response:
        answer = service.answer(request)
        headers = {**_HEADERS, **answer.headers}
        return web.response(answer.status, headers, answer.body)

    return commands


def _check_settings(settings: Settings) -> None:
    """Check those that other functions can do without.

    Raises:
        SettingsError: one is missing.
    """
    needed = {
        "EXPORTS_TOPIC": settings.exports_topic,
        "DELETES_TOPIC": settings.deletes_topic,
        "EXPORT_DESTINATIONS": settings.export_destinations,
    }
    for name, value in needed.items():
        if not value:
            raise SettingsError(f"{name} is not set: commands needs it")


@dataclass(frozen=True)
class _Answer:
    """What is answered; the headers are those that belong to this answer only."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _Service:
    """The function with its settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._services = Services.of(settings)
        self._limits = Limits(settings.commands_callers, settings.commands_per_minute)
        self._callers = Callers(
            function=COMMANDS,
            listed=settings.commands_callers,
            audiences=settings.commands_audience,
            keys_url=settings.id_token_keys_url,
        )

    def answer(self, request: flask.Request) -> _Answer:
        """The answer to any request."""
        try:
            return self._route(request)
        except RefusedError as error:
            error.log(COMMANDS)
            return _refusal(error)
        except PermanentError as error:
            return _refusal(RefusedError("invalid_command", error.detail))
        except Exception as error:  # noqa: BLE001 (a bug: logged without its text)
            log_bug(COMMANDS, error)
            return _refusal(RefusedError("internal"))

    def _route(self, request: flask.Request) -> _Answer:
        """The answer by the request's path.

        Raises:
            RefusedError: for any reason in commands/refusals.py.
            PermanentError: as Command.read and Accepting.find.
        """
        path = _checked_path(request)
        caller = self._caller(path, request)
        # This one is open to all (api/callers.py).
        if path == _OPENAPI:
            return _Answer(200, _DESCRIPTION.read_bytes())
        accepting = Accepting(self._services, caller)
        if path == _REQUESTS:
            request_id = request.path.removeprefix(_REQUESTS)
            state = accepting.find(request_id)
            return _Answer(200, json.dumps(state).encode())
        kind: Kind = "exports"
        if path == _DELETES:
            kind = "deletes"
        self._limits.check(caller, kind)
        command = Command.read(kind, request, self._settings)
        accepting.accept(command)
        return _accepted(command)

    def _caller(self, path: str, request: flask.Request) -> str:
        authorization = request.headers.get("Authorization", "")
        try:
            return self._callers.identify(path, authorization)
        except CallerError as error:
            raise RefusedError(error.reason, error.message) from None


def _checked_path(request: flask.Request) -> str:
    """The request's path, one of _METHODS."""
    path = request.path
    if path.startswith(_REQUESTS):
        path = _REQUESTS
    method = _METHODS.get(path)
    if method is None:
        raise RefusedError("not_found")
    if request.method != method:
        raise RefusedError("method_not_allowed", f"takes {method}", allow=(method,))
    return path


def _accepted(command: Command) -> _Answer:
    state = {"request_id": command.request_id, "state": "accepted"}
    return _Answer(
        status=202,
        body=json.dumps(state).encode(),
        headers={"Location": f"{_REQUESTS}{command.request_id}"},
    )


def _refusal(error: RefusedError) -> _Answer:
    return _Answer(error.status, error.body(), error.headers())

"""The one wrapper round a handler: request in, status out, and nothing that a caller or a log must
not see."""

import contextlib
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import flask

from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.pubsub import Topics
from functions.common.clients.storage import Buckets
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.events import messages
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes
from functions.common.log import log
from functions.common.settings import Settings

_TRACE: Final = re.compile(r"([0-9a-f]{32})(/|$)", re.ASCII)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-", re.ASCII)
_REQUEST_ID: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
FOLLOW_UPS_PATH: Final = "/follow-ups"  # where the subscription of follow-up messages calls
_ROOT: Final = Path(__file__).parents[3]


@dataclass(frozen=True)
class Services:
    """What a handler works with, made once for each process."""

    settings: Settings
    dicom_store: DicomStore
    buckets: Buckets
    topics: Topics

    @classmethod
    def of(cls, settings: Settings) -> "Services":
        """The clients, over one transport."""
        transport = Transport()
        return cls(
            settings,
            DicomStore(transport, settings.healthcare_endpoint, settings.dicom_store),
            Buckets(transport, settings.storage_emulator_host),
            Topics(transport, settings.pubsub_emulator_host),
        )


Handler = Callable[[Message, Services, Outcomes, Deadline], None]
View = Callable[[flask.Request], flask.Response]


def event_function(name: str, handle: Handler) -> View:
    """The HTTP function that a push subscription calls.

    Answers 204 (done: acknowledge) or 503 (deliver again, after Retry-After where it is known),
    never with a body. A PermanentError that the handler lets through is recorded as `rejected` and
    acknowledged.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    services = Services.of(Settings.load(name))

    def view(request: flask.Request) -> flask.Response:
        deadline = Deadline(services.settings.budget_s)
        trace = _trace(request, services.settings)
        message = Message(b"")
        try:
            message = messages.parse(_headers(request), _body(request))
            message = replace(message, follow_up=request.path == FOLLOW_UPS_PATH)
            outcomes = _outcomes(name, services, message, deadline, trace)
            try:
                handle(message, services, outcomes, deadline)
            except PermanentError as error:
                outcomes.publish(_rejected(error, message))
        except PermanentError as error:
            # Not even a message: there is nothing to name in an outcome, and delivering it again
            # cannot help.
            log(
                "ERROR",
                "refused",
                trace=trace,
                function=name,
                reason=error.reason,
                detail=error.detail,
            )
        except RetryableError as error:
            return _retry(name, message, error, trace)
        except Exception as error:  # noqa: BLE001 (the one place: a bug is logged without its text and retried)
            _log_bug(name, message, error, trace)
            return flask.Response(status=503)
        return flask.Response(status=204)

    view.__name__ = name
    return view


def request_id(message: Message, data: dict[str, object]) -> str:
    """What a command is called: its `request_id`, else the message's id.

    Raises:
        PermanentError: invalid_command, when it is not up to 128 letters, digits and `_.:-`.
    """
    value = data.get("request_id") or message.attributes.get("request_id") or message.message_id
    if not isinstance(value, str) or not _REQUEST_ID.fullmatch(value):
        raise PermanentError(
            "invalid_command", "request_id takes up to 128 letters, digits and _.:-"
        )
    return value


def _outcomes(
    name: str, services: Services, message: Message, deadline: Deadline, trace: str
) -> Outcomes:
    return Outcomes(
        name, services.settings.outcomes_topic, services.topics, message, deadline, trace
    )


def _rejected(error: PermanentError, message: Message) -> Outcome:
    """What is no event for this function is named by its message, whatever request it names."""
    identity = message.message_id
    if error.reason != "invalid_event":
        with contextlib.suppress(PermanentError):
            identity = request_id(message, message.json() if message.data.strip() else {})
    return Outcome("rejected", error.reason, request_id=identity, detail=error.detail)


def _body(request: flask.Request) -> bytes:
    if (request.content_length or 0) > messages.BODY_LIMIT_BYTES:
        raise PermanentError("invalid_event", "larger than any Pub/Sub message")
    return request.get_data(cache=False)


def _headers(request: flask.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _trace(request: flask.Request, settings: Settings) -> str:
    found = _TRACE.match(request.headers.get("X-Cloud-Trace-Context", "")) or _TRACEPARENT.match(
        request.headers.get("traceparent", "")
    )
    project = settings.dicom_store.name.split("/")[1]
    return f"projects/{project}/traces/{found[1]}" if found else ""


def _retry(name: str, message: Message, error: RetryableError, trace: str) -> flask.Response:
    log(
        "WARNING",
        "handed_back",
        trace=trace,
        function=name,
        reason=error.reason,
        message_id=message.message_id,
        attempt=message.attempt,
        retry_after_s=error.retry_after_s,
    )
    response = flask.Response(status=503)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(round(error.retry_after_s))
    return response


def _log_bug(name: str, message: Message, error: Exception, trace: str) -> None:
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if Path(f.filename).is_relative_to(_ROOT)
    ]
    place = (
        f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else ""
    )
    log(
        "ERROR",
        "bug",
        trace=trace,
        function=name,
        error_type=type(error).__name__,
        error_place=place,
        message_id=message.message_id,
        attempt=message.attempt,
    )

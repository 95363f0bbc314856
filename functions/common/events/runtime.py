"""The only wrapper round handlers: request in, status out, without anything that a caller or a log
must not see."""

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import flask

from functions.common import web
from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.pubsub import Topics
from functions.common.clients.storage import Buckets
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, UnpublishableError
from functions.common.events import messages
from functions.common.events.messages import Message, written_object
from functions.common.events.outcomes import Outcome, Outcomes
from functions.common.log import log, log_bug
from functions.common.settings import Settings

_TRACE: Final = re.compile(r"([0-9a-f]{32})(/|$)", re.ASCII)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-", re.ASCII)
FOLLOW_UPS_PATH: Final = "/follow-ups"  # the path that the subscription of follow-up messages calls


@dataclass(frozen=True)
class Services:
    """The clients and settings for a handler, made once for each process."""

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
            Buckets(transport, settings.storage_url),
            Topics(transport, settings.pubsub_emulator_host, settings.pubsub_endpoint),
        )


Handler = Callable[[Message, Services, Outcomes, Deadline], None]
View = Callable[[flask.Request], flask.Response]


def event_function(name: str, handle: Handler, *, reports: bool = True) -> View:
    """Make the HTTP function that a push subscription calls.

    A delivery is answered 204 (done: acknowledge) or 503 (deliver again, after Retry-After if it is
    known), without a body. A PermanentError of the handler, or of a message that cannot be read, is
    recorded as `rejected` and acknowledged. A request that is neither a Pub/Sub push nor a
    CloudEvent is answered 400 or 405: its sender must not think that it succeeded.

    Args:
        name: the function's name.
        handle: processes one message; it must catch SupersededError, which would count as a bug.
        reports: whether a refusal is published as an outcome; else it is only logged.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    function = _EventFunction(name, Services.of(Settings.load(name)), handle, reports)

    def view(request: flask.Request) -> flask.Response:
        return function.answer(request)

    view.__name__ = name
    return view


@dataclass(frozen=True)
class _EventFunction:
    """One event function, for all its deliveries."""

    name: str
    services: Services
    handle: Handler
    reports: bool

    def answer(self, request: flask.Request) -> flask.Response:
        """The answer to any request."""
        settings = self.services.settings
        deadline = Deadline(settings.budget_s)
        trace = _trace(request, settings)
        if request.method != "POST":
            return _refused(self.name, 405, "method_not_allowed", "takes POST", trace)
        try:
            message, unreadable = _received(request)
        except PermanentError as error:
            return _refused(self.name, 400, error.reason, error.detail, trace)
        outcomes = Outcomes(
            function=self.name,
            topic=settings.outcomes_topic,
            topics=self.services.topics,
            message=message,
            deadline=deadline,
            trace=trace,
        )
        try:
            self._process(outcomes, unreadable)
        except RetryableError as error:
            return _handed_back(outcomes, error)
        # The only place for bugs: they are logged without their text, and retried.
        except Exception as error:  # noqa: BLE001
            _log_bug(outcomes, error)
            return web.response(503, {}, b"")
        return web.response(204, {}, b"")

    def _process(self, outcomes: Outcomes, unreadable: PermanentError | None) -> None:
        """Process a message; one that can never be processed is refused."""
        try:
            if unreadable:
                raise unreadable
            self.handle(outcomes.message, self.services, outcomes, outcomes.deadline)
        except PermanentError as error:
            self._refuse(outcomes, error)
        except UnpublishableError as error:
            _log_bug(outcomes, error)
            refusal = PermanentError("operation_failed", "a message could not be published")
            self._refuse(outcomes, refusal)

    def _refuse(self, outcomes: Outcomes, error: PermanentError) -> None:
        if self.reports:
            outcomes.publish(_rejected(error, outcomes.message))
        else:
            _log_refused(self.name, error.reason, error.detail, outcomes.trace)


def _received(request: flask.Request) -> tuple[Message, PermanentError | None]:
    """The message, and why it cannot be read, if so.

    Raises:
        PermanentError: invalid_event, when this is not a delivery.
    """
    body = web.read_body(request, messages.BODY_LIMIT_BYTES)
    headers = {name.lower(): value for name, value in request.headers.items()}
    unreadable = None
    try:
        message = messages.parse(headers, body)
    except messages.UnreadableMessageError as error:
        message, unreadable = error.message, error
    is_follow_up = request.path == FOLLOW_UPS_PATH
    return replace(message, follow_up=is_follow_up, path=request.path), unreadable


def _rejected(error: PermanentError, message: Message) -> Outcome:
    """The outcome of a refused message. If it is not an event of this function, the message's id
    stands for a request's."""
    identity = message.message_id
    if error.reason != "invalid_event":
        with contextlib.suppress(PermanentError):
            identity = message.request_id()
        if messages.is_finalize(message):
            # A command may have the attribute of a notification too.
            with contextlib.suppress(PermanentError):
                source = written_object(message.json()).ref
                return Outcome("rejected", error.reason, source=source, detail=error.detail)
    return Outcome("rejected", error.reason, request_id=identity, detail=error.detail)


def _trace(request: flask.Request, settings: Settings) -> str:
    headers = request.headers
    found = _TRACE.match(headers.get("X-Cloud-Trace-Context", ""))
    if not found:
        found = _TRACEPARENT.match(headers.get("traceparent", ""))
    if not found:
        return ""
    project = settings.dicom_store.name.split("/")[1]
    return f"projects/{project}/traces/{found[1]}"


def _refused(name: str, status: int, reason: str, message: str, trace: str) -> flask.Response:
    """The answer to something else: a person who tries the function, or a wrong subscription."""
    _log_refused(name, reason, message, trace)
    headers = {"Content-Type": "application/json"}
    if status == 405:
        headers["Allow"] = "POST"
    body = json.dumps({"error": {"reason": reason, "message": message}})
    return web.response(status, headers, body.encode())


def _log_refused(name: str, reason: str, detail: str, trace: str) -> None:
    log("WARNING", "refused", trace=trace, function=name, reason=reason, detail=detail)


def _log_bug(outcomes: Outcomes, error: Exception) -> None:
    log_bug(
        outcomes.function,
        error,
        trace=outcomes.trace,
        message_id=outcomes.message.message_id,
        attempt=outcomes.message.attempt,
    )


def _handed_back(outcomes: Outcomes, error: RetryableError) -> flask.Response:
    log(
        "WARNING",
        "handed_back",
        trace=outcomes.trace,
        function=outcomes.function,
        reason=error.reason,
        message_id=outcomes.message.message_id,
        attempt=outcomes.message.attempt,
        retry_after_s=error.retry_after_s,
    )
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(round(error.retry_after_s))
    return web.response(503, headers, b"")

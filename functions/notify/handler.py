"""Call the operator's webhooks with outcome records.

Each webhook has its own push subscription, to `/webhooks/<name>`: if a receiver is down, the others
are not delayed. What becomes of one call:

    signed     payload.py: HMAC-SHA256 over id, time and body, with each secret. The id is the same
               for all attempts, the time is that of the attempt.
    sent       sender.py: one POST of at most 10 s (`_TIMEOUT_S`). Nothing is retried in here.
    2xx        The message is acknowledged.
    410        gone.py: the webhook is not called any more until its URL changes or an operator
               deletes its object in the state bucket. Its records are logged and acknowledged.
    other, or  RetryableError, answered 503: Pub/Sub delivers the message again, after
    no answer  `delivery.minimum_backoff_s` to `maximum_backoff_s` of infra/topology.json.
    given up   After `optional.webhooks.max_delivery_attempts` deliveries (same file) the message
               becomes a dead letter of the webhook's subscription.

Another subscription, to `/requests`, keeps the outcomes of requests. Nothing is published here: an
outcome of a webhook would cause further webhook calls.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from functions.api.request_state import Requests
from functions.common.clients.json_objects import JsonObjects
from functions.common.deadline import Deadline, epoch_s
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.messages import Message, request_id
from functions.common.events.outcomes import Outcomes
from functions.common.events.runtime import Services, View, event_function
from functions.common.log import Severity, log
from functions.common.settings import NOTIFY, Settings
from functions.notify import payload, webhooks
from functions.notify.gone import LIMIT_BYTES, Gone
from functions.notify.sender import Sender
from functions.notify.webhooks import Webhook

_REQUESTS: Final = "/requests"
_WEBHOOKS: Final = "/webhooks/"
_GONE: Final = 410
_KEPT_BYTES: Final = 1_000_000  # of a record; the state of a request has 1 MiB in all
_NEEDED: Final = ("id", "time", "outcome", "function")
_ESSENTIAL: Final = (*_NEEDED, "request_id")
_ESSENTIAL_LENGTH: Final = 256


def entry_point() -> View:
    """Make the deployed function."""
    settings = Settings.load(NOTIFY)
    bound = functools.partial(
        handle,
        known=webhooks.read(settings),
        sender=Sender(private=settings.webhook_private_addresses),
        gone=Gone(),
    )
    # It reports no outcomes: one would come back here.
    return event_function(NOTIFY, bound, reports=False)


def handle(
    message: Message,
    services: Services,
    _outcomes: Outcomes,
    deadline: Deadline,
    known: Mapping[str, Webhook],
    sender: Sender,
    gone: Gone,
) -> None:
    """Call one webhook with one record, or keep the record as a request's.

    Raises:
        PermanentError: invalid_event, when it is not an outcome record.
        RetryableError: the receiver did not answer 2xx, or the state bucket does not answer; also
            for a webhook that is missing in the settings, which an operator can correct.
    """
    if message.path == _REQUESTS:
        _keep_outcome(message, services, deadline)
        return
    record = _record(message, _NEEDED)
    name = message.path.removeprefix(_WEBHOOKS)
    webhook = known.get(name)
    if webhook is None:
        raise RetryableError("unavailable")
    if not webhook.wants(record["outcome"]):
        return
    objects = JsonObjects(
        buckets=services.buckets,
        bucket=services.settings.state_bucket,
        deadline=deadline,
        limit_bytes=LIMIT_BYTES,
    )
    if gone.is_gone(webhook, objects):
        log("WARNING", "webhook_gone", webhook=webhook.name, id=record["id"])
        return
    status = _call(webhook, record, message, sender, deadline)
    if status == _GONE:
        gone.end(webhook, objects)


def _call(
    webhook: Webhook,
    record: Mapping[str, Any],
    message: Message,
    sender: Sender,
    deadline: Deadline,
) -> int:
    """Call it once; returns the status, if it is final."""
    data = payload.body(record, webhook)
    now_s = int(epoch_s())
    headers = payload.headers(webhook, record["id"], now_s, data)
    status = sender.post(webhook.url, headers, data, deadline)
    is_final = 200 <= status < 300 or status == _GONE
    severity: Severity = "INFO"
    if not is_final:
        severity = "WARNING"
    log(
        severity,
        "webhook",
        webhook=webhook.name,
        id=record["id"],
        status=status,
        attempt=message.attempt,
    )
    if not is_final:
        raise RetryableError("unavailable")
    return status


def _keep_outcome(message: Message, services: Services, deadline: Deadline) -> None:
    """Keep the record of a request for `GET /requests/ID`.

    Raises:
        PermanentError: invalid_event, when it is not the outcome record of a request;
            invalid_command, when the request's id is malformed.
        RetryableError: as Requests.finish.
    """
    record = _record(message, _ESSENTIAL)
    request_id(record["request_id"])  # checked, because it is kept and sent to callers
    if "member" in record:
        return  # of one study of a query; the outcome of the query comes last
    requests = Requests(
        buckets=services.buckets,
        bucket=services.settings.state_bucket,
        deadline=deadline,
    )
    requests.finish(_bounded(record))


def _bounded(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record; if it is too large to keep, only the fields that say how the request ended."""
    size = len(json.dumps(record))
    if size <= _KEPT_BYTES:
        return record
    return {key: str(record[key])[:_ESSENTIAL_LENGTH] for key in _ESSENTIAL}


def _record(message: Message, needed: Sequence[str]) -> dict[str, Any]:
    """The outcome record in a message.

    Args:
        needed: the keys that must have a text.

    Raises:
        PermanentError: invalid_event, when it is not one.
    """
    record = message.json()
    for key in needed:
        value = record.get(key)
        if not isinstance(value, str) or not value:
            raise PermanentError("invalid_event", "not an outcome record")
    return record

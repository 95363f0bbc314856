"""Webhooks that answered 410 Gone: they are not called again until an operator changes that.

`webhooks/<name>.json` in the state bucket records it, for every process and for people. It applies
to one URL: if the URL changes, or the object is deleted, the webhook is called again.
"""

import hashlib
import threading
from typing import Final

from functions.common.clients.json_objects import JsonObjects
from functions.common.deadline import utc_now
from functions.notify.webhooks import Webhook

_FOLDER: Final = "webhooks"
LIMIT_BYTES: Final = 4096


class Gone:
    """Which webhooks have answered 410. This process remembers those that have not; the others are
    looked up before each call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._not_gone: set[str] = set()

    def is_gone(self, webhook: Webhook, objects: JsonObjects) -> bool:
        """Whether it answered 410 at its present URL.

        Raises:
            RetryableError: the state bucket does not answer.
        """
        with self._lock:
            if webhook.name in self._not_gone:
                return False
        kept = objects.read(_name(webhook))
        if kept is not None:
            gone_url = kept.value.get("url_sha256")
            if gone_url == _url_hash(webhook):
                return True
        with self._lock:
            self._not_gone.add(webhook.name)
        return False

    def end(self, webhook: Webhook, objects: JsonObjects) -> None:
        """Remember that it answered 410.

        Raises:
            RetryableError: the state bucket does not answer.
        """
        state = {
            "state": "gone",
            "time": utc_now(),
            "url_sha256": _url_hash(webhook),
        }
        objects.write(_name(webhook), state, if_generation_match=None)
        with self._lock:
            self._not_gone.discard(webhook.name)


def _name(webhook: Webhook) -> str:
    return f"{_FOLDER}/{webhook.name}.json"


def _url_hash(webhook: Webhook) -> str:
    return hashlib.sha256(webhook.url.encode()).hexdigest()

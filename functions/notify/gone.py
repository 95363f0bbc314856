"""Webhooks that answered 410 Gone: they are called no more until somebody says so.

`webhooks/<name>.json` in the state bucket is the sign, for every process and for people. It is of
one URL: a new one is called again. Deleting the object has the same effect.
"""

import hashlib
import json
import threading
from typing import Final

from functions.common.clients.storage import Buckets
from functions.common.clients.transport import read_all
from functions.common.deadline import Deadline, utc_now
from functions.common.errors import SupersededError
from functions.common.resources import ObjectRef
from functions.notify.webhooks import Webhook

_FOLDER: Final = "webhooks"
_LIMIT_BYTES: Final = 4096


class Gone:
    """Which webhooks have ended; one that has not is looked up once in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._called: set[str] = set()

    def is_gone(self, webhook: Webhook, buckets: Buckets, bucket: str, deadline: Deadline) -> bool:
        """Whether it answered 410 under its URL.

        Raises:
            RetryableError: the state bucket is away.
        """
        with self._lock:
            if webhook.name in self._called:
                return False
        if _read(_ref(bucket, webhook), buckets, deadline) == _url_hash(webhook):
            return True
        with self._lock:
            self._called.add(webhook.name)
        return False

    def end(self, webhook: Webhook, buckets: Buckets, bucket: str, deadline: Deadline) -> None:
        """Remember that it answered 410.

        Raises:
            RetryableError: the state bucket is away.
        """
        state = {"state": "gone", "time": utc_now(), "url_sha256": _url_hash(webhook)}
        ref = _ref(bucket, webhook)
        buckets.create(
            ref.bucket,
            ref.name,
            json.dumps(state).encode(),
            deadline,
            content_type="application/json",
            if_generation_match=None,
        )
        with self._lock:
            self._called.discard(webhook.name)


def _read(ref: ObjectRef, buckets: Buckets, deadline: Deadline) -> str:
    try:
        response = buckets.open(ref, deadline)
    except SupersededError:
        return ""
    with response:
        state = json.loads(read_all(response, deadline, _LIMIT_BYTES))
    return str(state.get("url_sha256", ""))


def _ref(bucket: str, webhook: Webhook) -> ObjectRef:
    return ObjectRef(bucket, f"{_FOLDER}/{webhook.name}.json")


def _url_hash(webhook: Webhook) -> str:
    return hashlib.sha256(webhook.url.encode()).hexdigest()

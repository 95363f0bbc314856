"""Cloud Storage subscriptions: messages gathered into text objects, one message a line."""

import asyncio
import contextlib
import datetime
import time
import urllib.parse
import uuid

from infra.local.pubsub import wire
from infra.local.pubsub.http_client import PostError, post
from infra.local.pubsub.queue import Lease, Queue

DEFAULT_MAX_S = 300.0
DEFAULT_MAX_BYTES = 1_000_000_000
DEFAULT_MAX_MESSAGES = 1_000_000
LIMIT_BYTES = 64 * 1024 * 1024  # a batch is held in memory
WRITE_TIMEOUT_S = 60.0
RETRY_S = (0.5, 1.0, 2.0, 5.0)
FOREVER_S = 10 * 365 * 86400.0


class StorageSink:
    """Writes one subscription's messages to its bucket until stopped."""

    def __init__(self, queue: Queue, endpoint: str) -> None:
        """endpoint is the bucket server's root, http://host:port."""
        self._queue = queue
        self._endpoint = endpoint
        self._stopping = asyncio.Event()
        self._batch: list[Lease] = []

    def stop(self) -> None:
        """Write the present batch, then end."""
        self._stopping.set()

    async def run(self) -> None:
        """Gather and write; messages that cannot be written are delivered again later."""
        try:
            while not self._stopping.is_set() or self._batch:
                await self._gather()
                if self._batch and await self._write():
                    self._queue.ack([lease.ack_id for lease in self._batch])
                    self._batch = []
                elif self._stopping.is_set():
                    break
        finally:
            self._queue.nack([lease.ack_id for lease in self._batch])

    async def _gather(self) -> None:
        """Fill the batch until it is full, old enough, or stop() was called."""
        config = self._queue.config.cloud_storage_config
        most_bytes = min(config.max_bytes or DEFAULT_MAX_BYTES, LIMIT_BYTES)
        room = most_bytes - sum(lease.size for lease in self._batch)
        count = config.max_messages or DEFAULT_MAX_MESSAGES
        end = None
        while room > 0 and len(self._batch) < count:
            taken = self._queue.take(count - len(self._batch), room, FOREVER_S)
            self._batch += taken
            room -= sum(lease.size for lease in taken)
            if taken and end is None:
                end = time.monotonic() + (wire.seconds(config.max_duration) or DEFAULT_MAX_S)
            if taken:
                continue
            left_s = None
            if end is not None:
                left_s = end - time.monotonic()
            if self._stopping.is_set() or (left_s is not None and left_s <= 0):
                return
            await self._more(left_s)

    async def _more(self, timeout_s: float | None) -> None:
        """Wait until there may be a message, stop() is called, or timeout_s seconds have passed."""
        waits = [
            asyncio.ensure_future(self._queue.wait()),
            asyncio.ensure_future(self._stopping.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _object_url(self) -> str:
        """The URL to upload an object with a new name."""
        config = self._queue.config.cloud_storage_config
        stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        name = f"{config.filename_prefix}{stamp}_{uuid.uuid4().hex[:8]}{config.filename_suffix}"
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        bucket = urllib.parse.quote(config.bucket, safe="")
        return f"{self._endpoint}/upload/storage/v1/b/{bucket}/o?{query}"

    async def _write(self) -> bool:
        """Write the batch as one object; retries after pauses, but only once while stopping."""
        url = self._object_url()
        body = b"".join(lease.message.data + b"\n" for lease in self._batch)
        attempt = 0
        while True:
            with contextlib.suppress(PostError):
                if await post(url, {"content-type": "text/plain"}, body, WRITE_TIMEOUT_S) == 200:
                    return True
            if self._stopping.is_set():
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S[min(attempt, len(RETRY_S) - 1)]):
                    await self._stopping.wait()
            attempt += 1

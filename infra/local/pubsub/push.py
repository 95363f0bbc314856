"""Push delivery: each message as wrapped JSON to the subscription's endpoint, a few at a time."""

import asyncio
import json
from typing import Any

from google.protobuf import json_format

from infra.local.pubsub.http_client import PostError, post
from infra.local.pubsub.queue import Lease, Queue

ACKNOWLEDGING = frozenset({102, 200, 201, 202, 204})
IN_FLIGHT = 8  # the threads of a functions-framework process on two cores
HEADERS = {
    "content-type": "application/json",
    "accept": "application/json",
    "user-agent": "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)",
}


class Pusher:
    """Delivers one subscription's messages until cancelled."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Deliver until cancelled; messages that are being sent then are sent again later."""
        try:
            while True:
                await self._room.acquire()
                lease = await self._next()
                task = asyncio.create_task(self._deliver(lease))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _next(self) -> Lease:
        """The next message, as soon as there is one."""
        while True:
            leases = self._queue.take(1)
            if leases:
                return leases[0]
            await self._queue.wait()

    async def _deliver(self, lease: Lease) -> None:
        """Send one message once; it is acknowledged or returned to the queue, also if this is
        cancelled."""
        delivered = False
        try:
            delivered = await self._sent(lease)
        finally:
            if delivered:
                self._queue.ack([lease.ack_id])
            else:
                self._queue.nack([lease.ack_id])
            self._room.release()

    async def _sent(self, lease: Lease) -> bool:
        """Whether the endpoint accepted the message."""
        config = self._queue.config
        body = json.dumps(push_body(self._queue, lease)).encode()
        timeout_s = float(config.ack_deadline_seconds)
        try:
            status = await post(config.push_config.push_endpoint, HEADERS, body, timeout_s)
        except PostError:
            return False
        return status in ACKNOWLEDGING


def push_body(queue: Queue, lease: Lease) -> dict[str, Any]:
    """The JSON of a push. Like the service's, it has ids and times in two spellings, and always
    data."""
    message: dict[str, Any] = {"data": "", **json_format.MessageToDict(lease.message)}
    message["message_id"] = message["messageId"]
    message["publish_time"] = message["publishTime"]
    body: dict[str, Any] = {"message": message, "subscription": queue.config.name}
    if queue.config.dead_letter_policy.dead_letter_topic:
        body["deliveryAttempt"] = lease.attempt
    return body

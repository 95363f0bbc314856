"""Push delivery: each message as wrapped JSON to the subscription's endpoint, some at a time."""

import asyncio
import json
from typing import Any

from google.protobuf import json_format

from infra.local.pubsub.http_client import PostError, post
from infra.local.pubsub.queue import Lease, Queue

ACKNOWLEDGING = frozenset({102, 200, 201, 202, 204})
IN_FLIGHT = 8  # the threads of a functions-framework process on two cores


class Pusher:
    """Delivers one subscription's messages until cancelled."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Take and deliver, for ever; what is in flight when cancelled is delivered again later."""
        try:
            while True:
                await self._room.acquire()
                while not (leases := self._queue.take(1)):
                    await self._queue.wait()
                task = asyncio.create_task(self._deliver(leases[0]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, lease: Lease) -> None:
        config = self._queue.config
        body = json.dumps(push_body(self._queue, lease)).encode()
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "user-agent": "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)",
        }
        delivered = False
        try:
            timeout_s = float(config.ack_deadline_seconds)
            delivered = (
                await post(config.push_config.push_endpoint, headers, body, timeout_s)
                in ACKNOWLEDGING
            )
        except PostError:
            pass
        finally:
            (self._queue.ack if delivered else self._queue.nack)([lease.ack_id])
            self._room.release()


def push_body(queue: Queue, lease: Lease) -> dict[str, Any]:
    """The JSON of a push: the real service sends ids and times under both spellings, and always
    data."""
    message: dict[str, Any] = {"data": "", **json_format.MessageToDict(lease.message)}
    message["message_id"] = message["messageId"]
    message["publish_time"] = message["publishTime"]
    body: dict[str, Any] = {"message": message, "subscription": queue.config.name}
    if queue.config.dead_letter_policy.dead_letter_topic:
        body["deliveryAttempt"] = lease.attempt
    return body

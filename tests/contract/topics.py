"""A Pub/Sub emulator in this process: accepts messages over gRPC, and keeps them by topic."""

import asyncio
import base64
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from infra.local.pubsub import wire
from infra.local.pubsub.api import Api
from infra.local.pubsub.broker import Broker
from infra.local.pubsub.grpc_api import make_server
from infra.local.pubsub.journal import Journal


class TopicServer:
    """An emulator with these topics.

    `messages` are the published ones in the form of a push: data in base64, attributes if there are
    any. `refuse` names the gRPC status of the next publishes, in turn, such as UNAVAILABLE.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.refuse: list[str] = []
        self.published = 0  # calls that were answered well
        self._topics = topics
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        self._ended = asyncio.Event()
        journal = Journal("", lambda call: self._loop.call_later(0.1, call))
        broker = _Recorder(journal, self)
        for topic in self._topics:
            broker.save_topic(wire.PB["Topic"](name=topic))
        server, port = make_server(Api(broker))
        await server.start()
        self.address = f"127.0.0.1:{port}"
        self._started.set()
        await self._ended.wait()
        await server.stop(grace=None)
        await broker.stop()
        journal.close()


class _Recorder(Broker):
    """The emulator's state, which shows the messages to the tests."""

    def __init__(self, journal: Journal, server: TopicServer) -> None:
        super().__init__(journal, "")
        self._server = server

    def publish(self, topic: str, messages: Sequence[wire.Pb]) -> list[str]:
        if self._server.refuse:
            raise wire.ApiError(self._server.refuse.pop(0), "Doe^Jane")
        kept = self._server.messages.setdefault(topic, [])
        for message in messages:
            entry: dict[str, Any] = {"data": base64.b64encode(message.data).decode()}
            if message.attributes:
                entry["attributes"] = dict(message.attributes)
            kept.append(entry)
        self._server.published += 1
        return super().publish(topic, messages)


@contextmanager
def topic_server(*topics: str) -> Iterator[TopicServer]:
    """A server with these topics, for the length of a `with`."""
    server = TopicServer(topics)
    try:
        yield server
    finally:
        server.close()

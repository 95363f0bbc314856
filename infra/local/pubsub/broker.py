"""Topics and subscriptions, and the tasks of each: the state behind both APIs."""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence

from google.protobuf import timestamp_pb2

from infra.local.pubsub import wire
from infra.local.pubsub.journal import Journal
from infra.local.pubsub.push import Pusher
from infra.local.pubsub.queue import Lease, Queue
from infra.local.pubsub.sink import StorageSink

EXPIRY_CHECK_S = 60.0
FLUSH_TIMEOUT_S = 10.0


class Broker:
    """The emulator's whole state; used only from the event loop's thread."""

    def __init__(self, journal: Journal, storage_endpoint: str) -> None:
        """storage_endpoint is where Cloud Storage subscriptions write: http://host:port."""
        self._journal = journal
        self._storage_endpoint = storage_endpoint
        self.topics: dict[str, wire.Pb] = {}
        self.queues: dict[str, Queue] = {}
        self._clocks: dict[str, asyncio.Task[None]] = {}
        self._runners: dict[str, tuple[str, asyncio.Task[None], StorageSink | None]] = {}
        self._last_message = journal.last_message()
        self._sweeper: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run work concurrently; if it fails, `failed` gets the error."""

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                return
            error = task.exception()
            if error and not self.failed.done():
                self.failed.set_exception(error)

        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(ended)
        return task

    def start(self) -> None:
        """Continue with the contents of the journal."""
        for config in self._journal.topics():
            topic = wire.PB["Topic"].FromString(config)
            self.topics[topic.name] = topic
        for number, config in self._journal.subscriptions():
            self._open(number, wire.PB["Subscription"].FromString(config))
        self._sweeper = self._spawn(self._sweep())

    async def stop(self) -> None:
        """End deliveries; write what Cloud Storage subscriptions have gathered."""
        sinks = [(task, sink) for _kind, task, sink in self._runners.values() if sink]
        for _task, sink in sinks:
            sink.stop()
        if sinks:
            await asyncio.wait([task for task, _sink in sinks], timeout=FLUSH_TIMEOUT_S)
        tasks = [*self._clocks.values()]
        tasks += [task for _kind, task, _sink in self._runners.values()]
        if self._sweeper:
            tasks.append(self._sweeper)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_CHECK_S)
            for queue in list(self.queues.values()):
                queue.expire(time.time())

    # Publishing

    def publish(self, topic: str, messages: Sequence[wire.Pb]) -> list[str]:
        """Store the messages for every subscription whose filter matches; durable when this
        returns."""
        queues = list(self.subscribers(topic))
        numbers = [self._add(message, queues) for message in messages]
        self._journal.commit()
        return [str(number) for number in numbers]

    def _add(self, message: wire.Pb, queues: Sequence[Queue]) -> int:
        self._last_message += 1
        now = time.time()
        stored = wire.PubsubMessage()
        stored.CopyFrom(message)
        stored.message_id = str(self._last_message)
        stored.publish_time.CopyFrom(
            timestamp_pb2.Timestamp(seconds=int(now), nanos=int(now % 1 * 1e6) * 1000)
        )
        takers = [queue for queue in queues if queue.accepts(stored.attributes)]
        if takers:
            body = stored.SerializeToString()
            self._journal.add(self._last_message, now, body, [queue.number for queue in takers])
        for queue in takers:
            queue.offer(self._last_message)
        return self._last_message

    def _bury(self, queue: Queue, lease: Lease) -> bool:
        """Forward to the dead letter topic and acknowledge, in one transaction."""
        topic = queue.config.dead_letter_policy.dead_letter_topic
        if topic not in self.topics:
            return False
        self._journal.commit()
        self._add(_dead_letter(queue.config.name, lease), list(self.subscribers(topic)))
        self._journal.done(queue.number, [lease.number])
        self._journal.commit()
        return True

    # Topics and subscriptions

    def subscribers(self, topic: str) -> Iterator[Queue]:
        """The subscriptions that are attached to a topic."""
        for queue in self.queues.values():
            if queue.config.topic == topic and not queue.config.detached:
                yield queue

    def save_topic(self, topic: wire.Pb) -> None:
        """Create or change a topic."""
        self._journal.save_topic(topic.name, topic.SerializeToString())
        self.topics[topic.name] = topic

    def drop_topic(self, name: str) -> None:
        """Delete a topic; its subscriptions keep their messages."""
        for queue in list(self.subscribers(name)):
            queue.config.topic = wire.DELETED_TOPIC
            self._journal.save_subscription(queue.config.name, queue.config.SerializeToString())
        del self.topics[name]
        self._journal.drop_topic(name)

    def save_subscription(self, config: wire.Pb) -> None:
        """Create a subscription, or change one in place."""
        number = self._journal.save_subscription(config.name, config.SerializeToString())
        if config.name in self.queues:
            self.queues[config.name].config = config
            self._serve(self.queues[config.name])
        else:
            self._open(number, config)

    def detach_subscription(self, name: str) -> None:
        """Detach a subscription from its topic; its messages are dropped."""
        queue = self.queues[name]
        config = wire.PB["Subscription"]()
        config.CopyFrom(queue.config)
        config.detached = True
        self.save_subscription(config)
        queue.purge(float("inf"))
        queue.end(wire.detached(name))

    async def drop_subscription(self, name: str) -> None:
        """Delete a subscription and its messages."""
        queue = self.queues.pop(name)
        queue.end(wire.missing(name))
        _kind, runner, _sink = self._runners.pop(name)
        clock = self._clocks.pop(name)
        runner.cancel()
        clock.cancel()
        await asyncio.gather(runner, clock, return_exceptions=True)
        self._journal.drop_subscription(queue.number)

    def _open(self, number: int, config: wire.Pb) -> None:
        queue = Queue(number, config, self._journal, self._bury)
        if config.detached:
            queue.end(wire.detached(config.name))
        self.queues[config.name] = queue
        self._clocks[config.name] = self._spawn(queue.clock())
        self._serve(queue)

    def _serve(self, queue: Queue) -> None:
        """Start the task that the kind of subscription needs: none for pull, a pusher, or a bucket
        writer."""
        name = queue.config.name
        kind = _kind(queue.config)
        if name in self._runners:
            old_kind, old_task, _old_sink = self._runners[name]
            if old_kind == kind:
                return
            old_task.cancel()
        if kind == "storage":
            sink = StorageSink(queue, self._storage_endpoint)
            self._runners[name] = (kind, self._spawn(sink.run()), sink)
        elif kind == "push":
            self._runners[name] = (kind, self._spawn(Pusher(queue).run()), None)
        else:
            self._runners[name] = (kind, self._spawn(_nothing()), None)


def _dead_letter(subscription: str, lease: Lease) -> wire.Pb:
    """A message as it is forwarded to a dead letter topic; subscription is its full name."""
    source = lease.message
    message = wire.PubsubMessage(data=source.data, ordering_key=source.ordering_key)
    _projects, project, _subscriptions, name = subscription.split("/")
    message.attributes.update(source.attributes)
    added = {
        "DeliveryCount": str(lease.attempt),
        "Subscription": name,
        "SubscriptionProject": project,
        "TopicPublishTime": source.publish_time.ToJsonString(),
    }
    for key, value in added.items():
        message.attributes[f"CloudPubSubDeadLetterSource{key}"] = value
    return message


def _kind(config: wire.Pb) -> str:
    """How messages leave a subscription: push, storage or pull (nothing runs for it)."""
    if config.detached:
        return "pull"
    if config.push_config.push_endpoint:
        return "push"
    if config.HasField("cloud_storage_config"):
        return "storage"
    return "pull"


async def _nothing() -> None:
    """A pull subscription needs no runner."""

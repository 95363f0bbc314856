"""The rpcs of Publisher and Subscriber, as both transports call them."""

import asyncio
import inspect
from collections.abc import Callable

from infra.local.pubsub import wire
from infra.local.pubsub.broker import Broker
from infra.local.pubsub.filters import FilterError, compile_filter
from infra.local.pubsub.queue import Queue

PULL_WAIT_S = 30.0
RESPONSE_BYTES = 3 * 1024 * 1024  # stock clients refuse responses over 4 MiB from an emulator
_UNSUPPORTED = ("bigquery_config", "bigtable_config")


class Api:
    """Answers requests; every method takes and gives a protobuf message."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._methods: dict[str, Callable[[wire.Pb], wire.Pb]] = {
            "CreateTopic": self._create_topic,
            "UpdateTopic": self._update_topic,
            "Publish": self._publish,
            "GetTopic": lambda request: self._topic(request.topic),
            "ListTopics": self._list_topics,
            "ListTopicSubscriptions": self._list_topic_subscriptions,
            "DeleteTopic": self._delete_topic,
            "CreateSubscription": self._create_subscription,
            "UpdateSubscription": self._update_subscription,
            "GetSubscription": lambda request: self.queue(request.subscription).config,
            "ListSubscriptions": self._list_subscriptions,
            "DeleteSubscription": self._delete_subscription,
            "ModifyPushConfig": self._modify_push_config,
            "Pull": self._pull,
            "Acknowledge": self._acknowledge,
            "ModifyAckDeadline": self._modify_ack_deadline,
            "Seek": self._seek,
        }

    async def call(self, rpc: str, request: wire.Pb) -> wire.Pb:
        """Answer one request.

        Raises:
            ApiError: the request is wrong, or names what is not there.
        """
        answer = self._methods[rpc](request)
        return await answer if inspect.isawaitable(answer) else answer

    def queue(self, name: str) -> Queue:
        """A subscription by its full name."""
        if name not in self._broker.queues:
            raise wire.ApiError(
                "NOT_FOUND", f"Subscription does not exist (resource={name.split('/')[-1]})"
            )
        return self._broker.queues[name]

    def _topic(self, name: str) -> wire.Pb:
        if name not in self._broker.topics:
            raise wire.ApiError("NOT_FOUND", f"Topic not found (resource={name.split('/')[-1]})")
        return self._broker.topics[name]

    # Publisher

    def _create_topic(self, topic: wire.Pb) -> wire.Pb:
        wire.check_name(topic.name, "topics")
        if topic.name in self._broker.topics:
            raise wire.ApiError(
                "ALREADY_EXISTS", f"Topic already exists (resource={topic.name.split('/')[-1]})"
            )
        self._broker.save_topic(topic)
        return topic

    def _update_topic(self, request: wire.Pb) -> wire.Pb:
        topic = wire.PB["Topic"]()
        topic.CopyFrom(self._topic(request.topic.name))
        _merge(request, request.topic, topic)
        self._broker.save_topic(topic)
        return topic

    def _publish(self, request: wire.Pb) -> wire.Pb:
        self._topic(request.topic)
        if not request.messages:
            raise wire.ApiError("INVALID_ARGUMENT", "The request has no messages.")
        if request.ByteSize() > wire.MAX_MESSAGE_BYTES:
            raise wire.ApiError("INVALID_ARGUMENT", "The request is larger than 10 MB.")
        for message in request.messages:
            _check_message(message)
        return wire.PB["PublishResponse"](
            message_ids=self._broker.publish(request.topic, request.messages)
        )

    def _list_topics(self, request: wire.Pb) -> wire.Pb:
        topics = [
            t
            for name, t in sorted(self._broker.topics.items())
            if name.startswith(f"{request.project}/")
        ]
        return wire.PB["ListTopicsResponse"](topics=topics)

    def _list_topic_subscriptions(self, request: wire.Pb) -> wire.Pb:
        self._topic(request.topic)
        names = sorted(queue.config.name for queue in self._broker.subscribers(request.topic))
        return wire.PB["ListTopicSubscriptionsResponse"](subscriptions=names)

    def _delete_topic(self, request: wire.Pb) -> wire.Pb:
        self._topic(request.topic)
        self._broker.drop_topic(request.topic)
        return wire.PB["Empty"]()

    # Subscriber

    def _create_subscription(self, request: wire.Pb) -> wire.Pb:
        wire.check_name(request.name, "subscriptions")
        if request.name in self._broker.queues:
            name = request.name.split("/")[-1]
            raise wire.ApiError("ALREADY_EXISTS", f"Subscription already exists (resource={name})")
        self._topic(request.topic)
        config = wire.PB["Subscription"]()
        config.CopyFrom(request)
        config.ack_deadline_seconds = config.ack_deadline_seconds or 10
        config.state = 1  # ACTIVE
        _check_subscription(config)
        self._broker.save_subscription(config)
        return config

    def _update_subscription(self, request: wire.Pb) -> wire.Pb:
        config = wire.PB["Subscription"]()
        config.CopyFrom(self.queue(request.subscription.name).config)
        fixed = {"name", "topic", "filter", "enable_message_ordering"} & set(
            request.update_mask.paths
        )
        if fixed:
            raise wire.ApiError(
                "INVALID_ARGUMENT", f"{', '.join(sorted(fixed))} cannot be changed."
            )
        _merge(request, request.subscription, config)
        _check_subscription(config)
        self._broker.save_subscription(config)
        return config

    def _list_subscriptions(self, request: wire.Pb) -> wire.Pb:
        queues = sorted(self._broker.queues.items())
        configs = [queue.config for name, queue in queues if name.startswith(f"{request.project}/")]
        return wire.PB["ListSubscriptionsResponse"](subscriptions=configs)

    async def _delete_subscription(self, request: wire.Pb) -> wire.Pb:
        self.queue(request.subscription)
        await self._broker.drop_subscription(request.subscription)
        return wire.PB["Empty"]()

    def _modify_push_config(self, request: wire.Pb) -> wire.Pb:
        config = wire.PB["Subscription"]()
        config.CopyFrom(self.queue(request.subscription).config)
        config.push_config.CopyFrom(request.push_config)
        _check_subscription(config)
        self._broker.save_subscription(config)
        return wire.PB["Empty"]()

    async def _pull(self, request: wire.Pb) -> wire.Pb:
        queue = self.queue(request.subscription)
        if request.max_messages <= 0:
            raise wire.ApiError("INVALID_ARGUMENT", "max_messages must be positive.")
        received = queue.take_received(request.max_messages, RESPONSE_BYTES)
        if not received and not request.return_immediately:
            try:
                async with asyncio.timeout(PULL_WAIT_S):
                    while not received:
                        await queue.wait()
                        received = queue.take_received(request.max_messages, RESPONSE_BYTES)
            except TimeoutError:
                pass
        return wire.PB["PullResponse"](received_messages=received)

    def _acknowledge(self, request: wire.Pb) -> wire.Pb:
        self.queue(request.subscription).ack(request.ack_ids)
        return wire.PB["Empty"]()

    def _modify_ack_deadline(self, request: wire.Pb) -> wire.Pb:
        if not 0 <= request.ack_deadline_seconds <= 600:
            raise wire.ApiError(
                "INVALID_ARGUMENT", "ack_deadline_seconds must be between 0 and 600."
            )
        self.queue(request.subscription).modify(request.ack_ids, request.ack_deadline_seconds)
        return wire.PB["Empty"]()

    def _seek(self, request: wire.Pb) -> wire.Pb:
        queue = self.queue(request.subscription)
        if request.WhichOneof("target") != "time":
            raise wire.ApiError(
                "UNIMPLEMENTED", "Snapshots are not part of this emulator; seek to a time."
            )
        queue.purge(request.time.seconds + request.time.nanos / 1e9)
        return wire.PB["SeekResponse"]()


def _merge(request: wire.Pb, source: wire.Pb, target: wire.Pb) -> None:
    """Copy the fields of update_mask."""
    if not request.update_mask.paths:
        raise wire.ApiError("INVALID_ARGUMENT", "The update_mask must name at least one field.")
    try:
        request.update_mask.MergeMessage(source, target, True, True)
    except ValueError as error:
        raise wire.ApiError("INVALID_ARGUMENT", f"Invalid update_mask: {error}") from error


def _check_message(message: wire.Pb) -> None:
    """Limits of the real service: something in it, 100 attributes, keys and values of limited
    length."""
    if not message.data and not message.attributes:
        raise wire.ApiError("INVALID_ARGUMENT", "A message needs data or at least one attribute.")
    if len(message.attributes) > 100:
        raise wire.ApiError("INVALID_ARGUMENT", "A message takes at most 100 attributes.")
    for key, value in message.attributes.items():
        if not 0 < len(key.encode()) <= 256 or len(value.encode()) > 1024:
            raise wire.ApiError(
                "INVALID_ARGUMENT", "An attribute's key has at most 256 bytes, its value 1024."
            )
    if len(message.ordering_key.encode()) > 1024:
        raise wire.ApiError("INVALID_ARGUMENT", "An ordering key has at most 1024 bytes.")


def _check_subscription(config: wire.Pb) -> None:
    """What the real service refuses; ack deadlines under 10 s are allowed here, for tests."""
    problems = {
        "Ack deadline must be between 1 and 600 seconds.": not 1
        <= config.ack_deadline_seconds
        <= 600,
        "Not part of this emulator: BigQuery, Bigtable, message transforms.": any(
            config.HasField(field) for field in _UNSUPPORTED
        )
        or bool(config.message_transforms),
        "Not part of this emulator: push without the wrapper, Avro.": config.push_config.HasField(
            "no_wrapper"
        )
        or config.cloud_storage_config.HasField("avro_config"),
    }
    if endpoint := config.push_config.push_endpoint:
        problems["Invalid push endpoint."] = not endpoint.startswith(("http://", "https://"))
        problems["Push and Cloud Storage exclude each other."] = config.HasField(
            "cloud_storage_config"
        )
    if config.HasField("cloud_storage_config"):
        problems[
            "A Cloud Storage subscription needs a bucket."
        ] = not config.cloud_storage_config.bucket
    if config.HasField("dead_letter_policy"):
        attempts = config.dead_letter_policy.max_delivery_attempts
        problems["max_delivery_attempts must be between 5 and 100."] = (
            attempts != 0 and not 5 <= attempts <= 100
        )
    if config.HasField("retry_policy"):
        policy = config.retry_policy
        low, high = (
            wire.seconds(policy.minimum_backoff),
            wire.seconds(policy.maximum_backoff) or 600,
        )
        problems["Back-off must be between 0 and 600 seconds, the minimum first."] = (
            not 0 <= low <= high <= 600
        )
    if config.HasField("message_retention_duration"):
        retention = wire.seconds(config.message_retention_duration)
        problems["Retention must be between 10 minutes and 31 days."] = (
            not 600 <= retention <= 31 * 86400
        )
    try:
        compile_filter(config.filter)
    except FilterError as error:
        raise wire.ApiError("INVALID_ARGUMENT", f"Invalid filter: {error}") from error
    if problem := next((text for text, wrong in problems.items() if wrong), None):
        raise wire.ApiError("INVALID_ARGUMENT", problem)

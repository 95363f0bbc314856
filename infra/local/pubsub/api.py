"""The rpcs of Publisher, Subscriber and IAMPolicy, as both transports call them."""

import asyncio
import inspect
from collections.abc import Callable

from infra.local.pubsub import checks, wire
from infra.local.pubsub.broker import Broker
from infra.local.pubsub.queue import Queue

PULL_WAIT_S = 30.0
RESPONSE_BYTES = 3 * 1024 * 1024  # stock clients refuse responses over 4 MiB from an emulator
DEFAULT_ACK_DEADLINE_S = 10
_ACTIVE = 1  # Subscription.State


class Api:
    """Answers requests; every method takes and gives a protobuf message."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._policies: dict[str, wire.Pb] = {}
        self._methods: dict[str, Callable[[wire.Pb], wire.Pb]] = {
            "CreateTopic": self._create_topic,
            "UpdateTopic": self._update_topic,
            "Publish": self._publish,
            "GetTopic": lambda request: self._topic(request.topic),
            "ListTopics": self._list_topics,
            "ListTopicSubscriptions": self._list_topic_subscriptions,
            "DeleteTopic": self._delete_topic,
            "DetachSubscription": self._detach_subscription,
            "CreateSubscription": self._create_subscription,
            "UpdateSubscription": self._update_subscription,
            "GetSubscription": lambda request: self._queue(request.subscription).config,
            "ListSubscriptions": self._list_subscriptions,
            "DeleteSubscription": self._delete_subscription,
            "ModifyPushConfig": self._modify_push_config,
            "Pull": self._pull,
            "Acknowledge": self._acknowledge,
            "ModifyAckDeadline": self._modify_ack_deadline,
            "Seek": self._seek,
            "GetIamPolicy": self._get_iam_policy,
            "SetIamPolicy": self._set_iam_policy,
            "TestIamPermissions": self._test_iam_permissions,
        }

    async def call(self, rpc: str, request: wire.Pb) -> wire.Pb:
        """Answer one request.

        Raises:
            ApiError: the request is wrong, or names what is not there.
        """
        answer = self._methods[rpc](request)
        if inspect.isawaitable(answer):
            return await answer
        return answer

    def pullable(self, name: str) -> Queue:
        """A subscription that messages can be taken from, by its full name.

        Raises:
            ApiError: the name is malformed, there is no such subscription, or it is detached.
        """
        queue = self._queue(name)
        if queue.config.detached:
            raise wire.detached(name)
        return queue

    def _queue(self, name: str) -> Queue:
        wire.check_name(name, "subscriptions")
        if name not in self._broker.queues:
            raise wire.missing(name)
        return self._broker.queues[name]

    def _topic(self, name: str) -> wire.Pb:
        wire.check_name(name, "topics")
        if name not in self._broker.topics:
            raise wire.missing(name)
        return self._broker.topics[name]

    # Publisher

    def _create_topic(self, topic: wire.Pb) -> wire.Pb:
        wire.check_name(topic.name, "topics")
        if topic.name in self._broker.topics:
            raise wire.existing(topic.name)
        self._broker.save_topic(topic)
        return topic

    def _update_topic(self, request: wire.Pb) -> wire.Pb:
        topic = wire.PB["Topic"]()
        topic.CopyFrom(self._topic(request.topic.name))
        checks.merge(request.update_mask, request.topic, topic)
        self._broker.save_topic(topic)
        return topic

    def _publish(self, request: wire.Pb) -> wire.Pb:
        self._topic(request.topic)
        checks.check_publish(request)
        numbers = self._broker.publish(request.topic, request.messages)
        return wire.PB["PublishResponse"](message_ids=numbers)

    def _list_topics(self, request: wire.Pb) -> wire.Pb:
        found = _below(request.project, self._broker.topics)
        return wire.PB["ListTopicsResponse"](topics=found)

    def _list_topic_subscriptions(self, request: wire.Pb) -> wire.Pb:
        self._topic(request.topic)
        names = sorted(queue.config.name for queue in self._broker.subscribers(request.topic))
        return wire.PB["ListTopicSubscriptionsResponse"](subscriptions=names)

    def _delete_topic(self, request: wire.Pb) -> wire.Pb:
        self._topic(request.topic)
        self._broker.drop_topic(request.topic)
        self._policies.pop(request.topic, None)
        return wire.PB["Empty"]()

    def _detach_subscription(self, request: wire.Pb) -> wire.Pb:
        self._queue(request.subscription)
        self._broker.detach_subscription(request.subscription)
        return wire.PB["DetachSubscriptionResponse"]()

    # Subscriber

    def _create_subscription(self, request: wire.Pb) -> wire.Pb:
        wire.check_name(request.name, "subscriptions")
        if request.name in self._broker.queues:
            raise wire.existing(request.name)
        self._topic(request.topic)
        config = wire.PB["Subscription"]()
        config.CopyFrom(request)
        config.ack_deadline_seconds = config.ack_deadline_seconds or DEFAULT_ACK_DEADLINE_S
        config.state = _ACTIVE
        config.detached = False
        checks.check_subscription(config)
        self._broker.save_subscription(config)
        return config

    def _update_subscription(self, request: wire.Pb) -> wire.Pb:
        config = wire.PB["Subscription"]()
        config.CopyFrom(self._queue(request.subscription.name).config)
        checks.check_fixed(request.update_mask)
        checks.merge(request.update_mask, request.subscription, config)
        checks.check_subscription(config)
        self._broker.save_subscription(config)
        return config

    def _list_subscriptions(self, request: wire.Pb) -> wire.Pb:
        queues = _below(request.project, self._broker.queues)
        configs = [queue.config for queue in queues]
        return wire.PB["ListSubscriptionsResponse"](subscriptions=configs)

    async def _delete_subscription(self, request: wire.Pb) -> wire.Pb:
        self._queue(request.subscription)
        self._policies.pop(request.subscription, None)
        await self._broker.drop_subscription(request.subscription)
        return wire.PB["Empty"]()

    def _modify_push_config(self, request: wire.Pb) -> wire.Pb:
        config = wire.PB["Subscription"]()
        config.CopyFrom(self._queue(request.subscription).config)
        config.push_config.CopyFrom(request.push_config)
        checks.check_subscription(config)
        self._broker.save_subscription(config)
        return wire.PB["Empty"]()

    async def _pull(self, request: wire.Pb) -> wire.Pb:
        queue = self.pullable(request.subscription)
        if request.max_messages <= 0:
            raise wire.ApiError("INVALID_ARGUMENT", "max_messages must be positive.")
        received = queue.take_received(request.max_messages, RESPONSE_BYTES)
        if not received and not request.return_immediately:
            received = await _wait_for_messages(queue, request.max_messages)
        return wire.PB["PullResponse"](received_messages=received)

    def _acknowledge(self, request: wire.Pb) -> wire.Pb:
        self._queue(request.subscription).ack(request.ack_ids)
        return wire.PB["Empty"]()

    def _modify_ack_deadline(self, request: wire.Pb) -> wire.Pb:
        queue = self._queue(request.subscription)
        if not 0 <= request.ack_deadline_seconds <= checks.MAX_ACK_DEADLINE_S:
            raise wire.ApiError(
                "INVALID_ARGUMENT", "ack_deadline_seconds must be between 0 and 600."
            )
        queue.modify(request.ack_ids, request.ack_deadline_seconds)
        return wire.PB["Empty"]()

    def _seek(self, request: wire.Pb) -> wire.Pb:
        queue = self.pullable(request.subscription)
        if request.WhichOneof("target") != "time":
            raise wire.ApiError(
                "UNIMPLEMENTED", "Snapshots are not part of this emulator; seek to a time."
            )
        queue.purge(request.time.seconds + request.time.nanos / 1e9)
        return wire.PB["SeekResponse"]()

    # IAMPolicy: policies are kept until the emulator ends, and restrict nobody.

    def _get_iam_policy(self, request: wire.Pb) -> wire.Pb:
        self._check_resource(request.resource)
        return self._policies.get(request.resource) or wire.PB["Policy"]()

    def _set_iam_policy(self, request: wire.Pb) -> wire.Pb:
        self._check_resource(request.resource)
        self._policies[request.resource] = request.policy
        return request.policy

    def _test_iam_permissions(self, request: wire.Pb) -> wire.Pb:
        """Everybody has every permission; also on what is missing, which the API does not tell."""
        return wire.PB["TestIamPermissionsResponse"](permissions=request.permissions)

    def _check_resource(self, name: str) -> None:
        """A topic or a subscription that is there."""
        if "/subscriptions/" in name:
            self._queue(name)
        else:
            self._topic(name)


async def _wait_for_messages(queue: Queue, limit: int) -> list[wire.Pb]:
    """Up to limit messages as soon as there is one; none after PULL_WAIT_S seconds."""
    try:
        async with asyncio.timeout(PULL_WAIT_S):
            while True:
                await queue.wait()
                received = queue.take_received(limit, RESPONSE_BYTES)
                if received:
                    return received
    except TimeoutError:
        return []


def _below(project: str, found: dict[str, wire.Pb]) -> list[wire.Pb]:
    """What a project has, by name; project is its full name."""
    return [item for name, item in sorted(found.items()) if name.startswith(f"{project}/")]

"""What infra.local creates, read over the API, has the names and numbers of infra/topology.json."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from infra.local.clients import Watch
from infra.local.stack import Stack
from tests.infra.chosen import DELIVERY, LEDGER, OPTIONAL, TOPOLOGY

EVERY_FUNCTION = [*TOPOLOGY["functions"].values(), *OPTIONAL["functions"].values()]
FOLLOW_UPS = [item["follow_ups"] for item in EVERY_FUNCTION if "follow_ups" in item]
PUSHED = [*EVERY_FUNCTION, *FOLLOW_UPS]
BOUND = [*PUSHED, LEDGER]
TOPICS = {**TOPOLOGY["topics"], **OPTIONAL["topics"]}


@dataclass(frozen=True)
class Created:
    """What the local stack has created."""

    topics: set[str]
    buckets: set[str]
    subscriptions: dict[str, dict[str, Any]]
    environment: dict[str, str]

    def live(self, item: dict[str, Any]) -> dict[str, Any]:
        """The subscription of an item of the topology."""
        return self.subscriptions[item.get("subscription") or item["name"]]

    def hold(self, item: dict[str, Any]) -> dict[str, Any]:
        """The subscription that keeps its dead letters."""
        return self.subscriptions[item["dead_letter_subscription"]]


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Created:
    with Stack(tmp_path_factory.mktemp("topology")) as stack:
        subscriptions = {
            name.rpartition("/")[2]: stack.pubsub.send("GET", f"/v1/{name}").json()
            for name in stack.pubsub.subscriptions("local")
        }
        topics = stack.pubsub.send("GET", "/v1/projects/local/topics").json()["topics"]
        buckets = stack.buckets.send("GET", "/storage/v1/b?project=local").json()["items"]
        return Created(
            topics={topic["name"].rpartition("/")[2] for topic in topics},
            buckets={bucket["name"] for bucket in buckets},
            subscriptions=subscriptions,
            environment=dict(stack.env),
        )


def test_the_local_stack_has_the_topics_and_buckets_of_the_topology(created: Created) -> None:
    dead = {item["dead_letter_topic"] for item in BOUND}
    assert created.topics == {*TOPICS.values(), *dead}
    assert created.buckets >= set(TOPOLOGY["buckets"].values())


def test_the_local_functions_have_the_budget_and_the_bucket_of_the_topology(
    created: Created,
) -> None:
    assert created.environment["LANDING_BUCKET"] == TOPOLOGY["buckets"]["landing"]
    assert int(created.environment["BUDGET_S"]) == DELIVERY["budget_s"]


def test_the_local_stack_has_no_subscriptions_but_those_of_the_topology(created: Created) -> None:
    known = {item.get("subscription") or item["name"] for item in BOUND}
    known |= {item["dead_letter_subscription"] for item in BOUND}
    others = set(created.subscriptions) - known
    assert [name for name in others if Watch.PREFIX not in name and "seen-" not in name] == []


@pytest.mark.parametrize("item", BOUND, ids=lambda item: item["dead_letter_subscription"])
def test_a_local_subscription_gives_up_and_keeps_messages_as_the_topology_says(
    created: Created, item: dict[str, Any]
) -> None:
    live = created.live(item)
    assert live["topic"].endswith(f"/{TOPICS[item['topic']]}")
    policy = live["deadLetterPolicy"]
    assert policy["deadLetterTopic"].endswith(f"/{item['dead_letter_topic']}")
    assert policy["maxDeliveryAttempts"] == item["max_delivery_attempts"]
    assert live["messageRetentionDuration"] == f"{DELIVERY['retention_s']}s"
    kept_s = DELIVERY["dead_letter_retention_s"]
    assert created.hold(item)["messageRetentionDuration"] == f"{kept_s}s"


@pytest.mark.parametrize("item", PUSHED, ids=lambda item: item["dead_letter_subscription"])
def test_a_local_subscription_is_pushed_as_the_topology_says(
    created: Created, item: dict[str, Any]
) -> None:
    live = created.live(item)
    path = item.get("path", "/")
    if item in FOLLOW_UPS:
        path = TOPOLOGY["follow_ups_path"]
    assert urlsplit(live["pushConfig"]["pushEndpoint"]).path == path
    assert live.get("filter", "") == item.get("filter", "")
    assert live["ackDeadlineSeconds"] == DELIVERY["ack_deadline_s"]
    longest_s = item.get("maximum_backoff_s", DELIVERY["maximum_backoff_s"])
    assert live["retryPolicy"] == {
        "minimumBackoff": f"{DELIVERY['minimum_backoff_s']}s",
        "maximumBackoff": f"{longest_s}s",
    }

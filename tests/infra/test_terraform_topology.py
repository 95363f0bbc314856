"""infra/gcp has the names and numbers of infra/topology.json."""

import pytest

from tests.infra import terraform
from tests.infra.chosen import DELIVERY, LEDGER, OPTIONAL, TOPOLOGY, bound
from tests.infra.terraform import PROJECT, Plan

pytestmark = pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())


def test_the_same_names_as_the_topology(plan: Plan) -> None:
    everything = len(bound(plan)) > len(bound(terraform.plan()))
    topics = {item["dead_letter_topic"] for item in bound(plan)}
    topics |= set(TOPOLOGY["topics"].values())
    names = [*TOPOLOGY["functions"], *TOPOLOGY["http_functions"]]
    if everything:
        topics |= set(OPTIONAL["topics"].values())
        names += [*OPTIONAL["functions"], *OPTIONAL["http_functions"]]
    assert set(plan.by_name("google_pubsub_topic")) == topics
    subscriptions = {item.get("subscription") or item["name"] for item in bound(plan)}
    holds = {item["dead_letter_subscription"] for item in bound(plan)}
    assert set(plan.by_name("google_pubsub_subscription")) == subscriptions | holds
    functions = {f"dicom-{name.replace('_', '-')}" for name in names}
    assert set(plan.by_name("google_cloudfunctions2_function")) == functions


def test_the_same_numbers_as_the_topology(plan: Plan) -> None:
    subscriptions = plan.by_name("google_pubsub_subscription")
    for item in bound(plan):
        live = subscriptions[item.get("subscription") or item["name"]]
        (dead_letter,) = live["dead_letter_policy"]
        assert dead_letter["max_delivery_attempts"] == item["max_delivery_attempts"]
        assert live["message_retention_duration"] == f"{DELIVERY['retention_s']}s"
        assert live["ack_deadline_seconds"] == DELIVERY["ack_deadline_s"]
        (retry,) = live["retry_policy"]
        assert retry["minimum_backoff"] == f"{DELIVERY['minimum_backoff_s']}s"
        longest_s = item.get("maximum_backoff_s", DELIVERY["maximum_backoff_s"])
        assert retry["maximum_backoff"] == f"{longest_s}s"
        hold = subscriptions[item["dead_letter_subscription"]]
        assert hold["message_retention_duration"] == f"{DELIVERY['dead_letter_retention_s']}s"
    for name, function in plan.by_name("google_cloudfunctions2_function").items():
        (service,) = function["service_config"]
        assert service["timeout_seconds"] == DELIVERY["function_timeout_s"], name


def test_the_numbers_are_those_of_the_design() -> None:
    # A function ends by itself before it is stopped, and is stopped before its message comes again.
    assert DELIVERY["budget_s"] == 480
    assert DELIVERY["function_timeout_s"] == 540
    assert DELIVERY["ack_deadline_s"] == 600
    assert DELIVERY["minimum_backoff_s"] == 10
    assert DELIVERY["maximum_backoff_s"] == 600
    attempts = {name: item["max_delivery_attempts"] for name, item in TOPOLOGY["functions"].items()}
    assert attempts == {
        "store_upload": 20,
        "delete_resource": 10,
        "export_resource": 10,
    }


def test_the_ledger_is_written_as_the_topology_says(plan: Plan) -> None:
    (storage,) = plan.by_name("google_pubsub_subscription")[LEDGER["name"]]["cloud_storage_config"]
    assert storage["bucket"] == f"{PROJECT}-{TOPOLOGY['buckets'][LEDGER['bucket']]}"
    assert storage["filename_prefix"] == LEDGER["filename_prefix"]
    assert storage["filename_suffix"] == LEDGER["filename_suffix"]
    assert storage["max_duration"] == f"{LEDGER['max_duration_s']}s"
    assert storage["max_bytes"] == LEDGER["max_bytes"]
    assert storage["avro_config"] == []  # text, one JSON object a line


def test_what_is_only_known_in_the_cloud_is_wired_to_the_right_thing() -> None:
    plan = terraform.plan()
    kind = "google_pubsub_subscription"
    topics = plan.references(kind, "topic")
    dead = plan.references(kind, "dead_letter_policy.dead_letter_topic")
    outcomes = "google_pubsub_topic.outcomes.id"
    outcomes_dead = "google_pubsub_topic.outcomes_dead.id"
    assert topics[f"{kind}.ledger"][0] == outcomes
    assert dead[f"{kind}.ledger"][0] == outcomes_dead
    assert topics[f"{kind}.outcomes_dead_hold"][0] == outcomes_dead
    module = f"module.event_function.{kind}"
    assert "google_pubsub_topic.this" in topics[f"{module}.push"]
    assert "google_pubsub_topic.dead" in dead[f"{module}.push"]
    assert "google_pubsub_topic.dead" in topics[f"{module}.hold"]
    (notified,) = plan.references("google_storage_notification", "topic").values()
    assert notified[0] == 'module.event_function["store_upload"].topic_id'
    (landing,) = (values for _, values in plan.resources("google_storage_notification"))
    assert landing["event_types"] == ["OBJECT_FINALIZE"]
    assert landing["payload_format"] == "JSON_API_V1"

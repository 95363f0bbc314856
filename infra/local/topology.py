"""infra/topology.json for the local stack: names, the functions' environment, and set-up."""

import base64
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.local.clients import Buckets, PubSub, Watch

ROOT = Path(__file__).parents[2]
PROJECT = "local"
LISTENER = "listen"  # the webhook of this machine; called while somebody listens
# Calls from this machine to itself; a deployed system keeps its secrets in Secret Manager.
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"for this machine alone, no secret").decode()
DICOM_STORE = f"projects/{PROJECT}/locations/local/datasets/local/dicomStores/local"


@dataclasses.dataclass(frozen=True, slots=True)
class Overrides:
    """Values that may differ from the cloud; None keeps the topology's value. Times in seconds."""

    minimum_backoff_s: float | None = None
    maximum_backoff_s: float | None = None
    ack_deadline_s: int | None = None
    max_delivery_attempts: int | None = None
    ledger_max_duration_s: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Addresses:
    """Where the services listen: host:port by name."""

    gcs: str
    pubsub: str
    dicomstore: str
    functions: Mapping[str, str]
    webhook: str = ""

    @property
    def healthcare_endpoint(self) -> str:
        """Base URL of the Healthcare API."""
        return f"http://{self.dicomstore}/v1"

    @property
    def dicomweb_url(self) -> str:
        """Base URL of the DICOM store's DICOMweb service."""
        return f"{self.healthcare_endpoint}/{DICOM_STORE}/dicomWeb"


class Topology:
    """Names and delivery settings, from the one file that Terraform reads too."""

    def __init__(
        self,
        path: Path = ROOT / "infra" / "topology.json",
        overrides: Overrides | None = None,
    ) -> None:
        self._data: dict[str, Any] = json.loads(path.read_text())
        optional = self._data["optional"]  # all of it runs here
        self._data["topics"] |= optional["topics"]
        self._data["functions"] |= optional["functions"]
        self._data["http_functions"] += optional["http_functions"]
        if overrides:
            self._override(overrides)

    def _override(self, overrides: Overrides) -> None:
        """Change the delivery settings that the overrides name."""
        given = dataclasses.asdict(overrides)
        changes = {key: value for key, value in given.items() if value is not None}
        delivery = self._data["delivery"]
        for key in ("minimum_backoff_s", "maximum_backoff_s", "ack_deadline_s"):
            if key in changes:
                delivery[key] = changes[key]
        least_s = delivery["minimum_backoff_s"]
        delivery["maximum_backoff_s"] = max(least_s, delivery["maximum_backoff_s"])
        if "max_delivery_attempts" in changes:
            for item in self._deliveries().values():
                item["max_delivery_attempts"] = changes["max_delivery_attempts"]
        if "ledger_max_duration_s" in changes:
            ledger = self._data["ledger_subscription"]
            ledger["max_duration_s"] = changes["ledger_max_duration_s"]

    @property
    def buckets(self) -> dict[str, str]:
        """Role to bucket name."""
        return dict(self._data["buckets"])

    @property
    def topics(self) -> dict[str, str]:
        """Role to full topic name."""
        return {
            role: f"projects/{PROJECT}/topics/{name}" for role, name in self._data["topics"].items()
        }

    @property
    def functions(self) -> list[str]:
        """The targets, those with a subscription first."""
        return [*self._data["functions"], *self._data["http_functions"]]

    @property
    def subscriptions(self) -> dict[str, str]:
        """Full names of the push subscriptions, by function and by `FUNCTION/follow-ups`."""
        return {
            name: _subscription(item["subscription"]) for name, item in self._deliveries().items()
        }

    @property
    def dead_letters(self) -> dict[str, str]:
        """Full names of the subscriptions that hold dead letters, by the same names."""
        return {
            name: _subscription(item["dead_letter_subscription"])
            for name, item in self._deliveries().items()
        }

    def _deliveries(self) -> dict[str, dict[str, Any]]:
        """The entries of the functions and of their follow-ups, which say what calls them."""
        found: dict[str, dict[str, Any]] = {}
        for name, item in self._data["functions"].items():
            found[name] = item
            if "follow_ups" in item:
                found[name + self._data["follow_ups_path"]] = item["follow_ups"]
        return found

    @property
    def ledger_prefix(self) -> str:
        """Beginning of the names of the ledger's objects."""
        return str(self._data["ledger_subscription"]["filename_prefix"])

    def environment(self, at: Addresses) -> dict[str, str]:
        """The settings of the functions."""
        buckets, topics = self.buckets, self.topics
        return {
            "DICOM_STORE": DICOM_STORE,
            "HEALTHCARE_ENDPOINT": at.healthcare_endpoint,
            "STORAGE_EMULATOR_HOST": f"http://{at.gcs}",
            "PUBSUB_EMULATOR_HOST": at.pubsub,
            "LANDING_BUCKET": buckets["landing"],
            "QUARANTINE_BUCKET": buckets["quarantine"],
            "EXPORT_DESTINATIONS": f"gs://{buckets['export']}",
            "OUTCOMES_TOPIC": topics["outcomes"],
            "STATE_BUCKET": buckets["state"],
            "DELETES_TOPIC": topics["deletes"],
            "STUDIES_NEXT_TOPIC": topics["studies_next"],
            "UPLOADS_NEXT_TOPIC": topics["uploads_next"],
            "DELETES_NEXT_TOPIC": topics["deletes_next"],
            "EXPORTS_NEXT_TOPIC": topics["exports_next"],
            "EXPORTS_TOPIC": topics["exports"],
            "WEBHOOKS": json.dumps({LISTENER: {"url": f"http://{at.webhook}/"}}),
            "WEBHOOK_SECRET_LISTEN": WEBHOOK_SECRET,
            "WEBHOOK_PRIVATE_ADDRESSES": "true",
            "SEARCH_RETRIEVE": "true",
            "SEARCH_EXPORTS": "true",
            "SEARCH_UPLOADS": "true",
            "BUDGET_S": str(
                min(self._data["delivery"]["budget_s"], self._data["delivery"]["ack_deadline_s"])
            ),
        }

    def create_topics(self, pubsub: PubSub, at: Addresses) -> None:
        """Create or update every topic and subscription; waiting messages are kept.

        Raises:
            ClientError: the emulator refused.
        """
        for name in pubsub.subscriptions(PROJECT):
            if name.split("/")[-1].startswith(Watch.PREFIX):
                pubsub.delete_subscription(name)
        for topic in self.topics.values():
            pubsub.ensure_topic(topic)
        for name, item in self._deliveries().items():
            self._create_dead_letters(pubsub, item)
            function, _, path = name.partition("/")
            path = path or item.get("path", "/").removeprefix("/")
            address = at.functions.get(function, "")
            push = self._push_subscription(item, f"http://{address}/{path}" if address else "")
            pubsub.ensure_subscription(
                _subscription(item["subscription"]), self.topics[item["topic"]], push
            )
        ledger = self._data["ledger_subscription"]
        self._create_dead_letters(pubsub, ledger)
        config = self._ledger_subscription(ledger)
        pubsub.ensure_subscription(
            _subscription(ledger["name"]), self.topics[ledger["topic"]], config
        )

    def _create_dead_letters(self, pubsub: PubSub, item: Mapping[str, Any]) -> None:
        topic = f"projects/{PROJECT}/topics/{item['dead_letter_topic']}"
        hold = {"messageRetentionDuration": f"{self._data['delivery']['dead_letter_retention_s']}s"}
        pubsub.ensure_topic(topic)
        pubsub.ensure_subscription(_subscription(item["dead_letter_subscription"]), topic, hold)

    def _push_subscription(self, item: Mapping[str, Any], url: str) -> dict[str, Any]:
        delivery = self._data["delivery"]
        longest_s = min(
            delivery["maximum_backoff_s"],
            item.get("maximum_backoff_s", delivery["maximum_backoff_s"]),
        )
        return {
            "pushConfig": {"pushEndpoint": url} if url else {},
            **({"filter": item["filter"]} if "filter" in item else {}),
            "ackDeadlineSeconds": delivery["ack_deadline_s"],
            "retryPolicy": {
                "minimumBackoff": f"{delivery['minimum_backoff_s']}s",
                "maximumBackoff": f"{longest_s}s",
            },
            **self._keeping(item),
        }

    def _ledger_subscription(self, item: Mapping[str, Any]) -> dict[str, Any]:
        storage = {
            "bucket": self.buckets[item["bucket"]],
            "filenamePrefix": item["filename_prefix"],
            "filenameSuffix": item["filename_suffix"],
            "textConfig": {},
            "maxDuration": f"{item['max_duration_s']}s",
            "maxBytes": str(item["max_bytes"]),
        }
        return {"cloudStorageConfig": storage, **self._keeping(item)}

    def _keeping(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """How long a message is kept, and where it goes after too many attempts."""
        return {
            "messageRetentionDuration": f"{self._data['delivery']['retention_s']}s",
            "deadLetterPolicy": {
                "deadLetterTopic": f"projects/{PROJECT}/topics/{item['dead_letter_topic']}",
                "maxDeliveryAttempts": item["max_delivery_attempts"],
            },
        }

    def create_buckets(self, buckets: Buckets) -> None:
        """Create what is missing.

        Raises:
            ClientError: the bucket server refused.
        """
        for name in self.buckets.values():
            buckets.ensure(name)


def _subscription(name: str) -> str:
    return f"projects/{PROJECT}/subscriptions/{name}"

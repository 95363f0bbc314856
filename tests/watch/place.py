"""`watch_studies` between a DICOM store that answers as planned, a bucket server and topics."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from functions.common.deadline import Deadline, rfc3339
from functions.common.events.messages import FIRST_PUBLISHED, Message
from functions.common.events.outcomes import Outcomes
from functions.common.events.runtime import Services
from functions.common.settings import WATCH, Settings
from functions.watch import orders
from functions.watch.handler import handle
from functions.watch.memory import OpenStudies
from tests.contract.strictbucket import Blob, StrictBuckets, strict_buckets
from tests.contract.topics import TopicServer, topic_server
from tests.search.kit import STORE, Answer, FakeStore, Received, fake_store, row

STATE = "dicom-state"
OUTCOMES = "projects/local/topics/outcomes"
EXPORTS = "projects/local/topics/exports"
NEXT = "projects/local/topics/next"
STUDY = "1.2.3"
MARKER = f"studies/{STUDY}.json"
FIRST = "2026-11-24T10:00:00.000000Z"
QUIET_S = 5
ORDER = {"name": "all", "export": {"destination": "gs://dicom-export/all"}}
ROWS = [
    row(t0020000D=STUDY, t0020000E=f"{STUDY}.1", t00080018=f"{STUDY}.1.1"),
    row(t0020000D=STUDY, t0020000E=f"{STUDY}.1", t00080018=f"{STUDY}.1.2"),
]


def ago(seconds: float) -> str:
    """A time so many seconds ago, as in a record."""
    return rfc3339(datetime.now(UTC) - timedelta(seconds=seconds))


def finds(rows: list[Any], delay_s: float = 0) -> Callable[[Received], Answer]:
    """These instances, in pages of one."""

    def page(request: Received) -> Answer:
        offset = int(request.query.partition("offset=")[2])
        return Answer(body=json.dumps(rows[offset : offset + 1]).encode(), delay_s=delay_s)

    return page


@dataclass
class Place:
    """The function's clients, and the servers behind them."""

    store: FakeStore
    buckets: StrictBuckets
    topics: TopicServer
    services: Services
    open_studies: OpenStudies = field(default_factory=OpenStudies)

    def mark(self, count: list[int], changed: str) -> None:
        """Keep an open marker of the study."""
        marker = {
            "opened_by": "m1",
            "record_id": "m1",
            "first": FIRST,
            "changed": changed,
            "count": count,
            "counting_began": "",
            "reported": False,
        }
        self.buckets.put(STATE, MARKER, json.dumps(marker).encode())

    @property
    def marker(self) -> dict[str, Any]:
        """The marker of the study."""
        marker: dict[str, Any] = json.loads(self.buckets.read(STATE, MARKER))
        return marker

    @property
    def marker_blob(self) -> Blob:
        """The object with the marker, which can be put back."""
        return self.buckets.buckets[STATE][MARKER]

    def put_back(self, blob: Blob) -> None:
        """The marker as it was."""
        self.buckets.buckets[STATE][MARKER] = blob

    def store_record(
        self,
        time: str,
        message_id: str = "m2",
        *,
        record_id: str = "",
        replayed: bool = False,
    ) -> None:
        """Deliver the record of an instance that was stored.

        Args:
            record_id: of the record; without it, a new record for each message id.
            replayed: whether the message was a dead letter.
        """
        record = {
            "id": record_id or message_id,
            "time": time,
            "outcome": "stored",
            "function": "store_upload",
            "study": STUDY,
        }
        attributes = {}
        if replayed:
            attributes[FIRST_PUBLISHED] = time
        self._deliver(Message(json.dumps(record).encode(), attributes, message_id, 1))

    def follow_up(self) -> None:
        """Deliver the follow-up message of the marker.

        Raises:
            RetryableError: the study is not complete.
        """
        data = json.dumps({"study": STUDY, "first": self.marker["first"]}).encode()
        self._deliver(Message(data, {}, "m3", 1, follow_up=True))

    def published(self, topic: str) -> list[dict[str, Any]]:
        """The messages on a topic."""
        messages = self.topics.messages.get(topic, [])
        return [json.loads(base64.b64decode(message["data"])) for message in messages]

    def _deliver(self, message: Message) -> None:
        deadline = Deadline(60)
        outcomes = Outcomes(
            function=WATCH,
            topic=OUTCOMES,
            topics=self.services.topics,
            message=message,
            deadline=deadline,
        )
        handle(
            message=message,
            services=self.services,
            outcomes=outcomes,
            deadline=deadline,
            open_studies=self.open_studies,
            known_orders=orders.read(self.services.settings),
        )


@contextmanager
def watch_place() -> Iterator[Place]:
    """The function with one order, which every study matches."""
    with (
        fake_store() as store,
        strict_buckets(STATE) as buckets,
        topic_server(OUTCOMES, EXPORTS, NEXT) as topics,
    ):
        environ = {
            "DICOM_STORE": STORE,
            "HEALTHCARE_ENDPOINT": f"{store.url}/v1",
            "STORAGE_EMULATOR_HOST": buckets.url,
            "PUBSUB_EMULATOR_HOST": topics.address,
            "STATE_BUCKET": STATE,
            "OUTCOMES_TOPIC": OUTCOMES,
            "EXPORTS_TOPIC": EXPORTS,
            "EXPORT_DESTINATIONS": "gs://dicom-export",
            "STUDIES_NEXT_TOPIC": NEXT,
            "STUDY_QUIET_S": str(QUIET_S),
            "ON_STUDY_COMPLETE": json.dumps([ORDER]),
        }
        services = Services.of(Settings.load(WATCH, environ))
        yield Place(store, buckets, topics, services)

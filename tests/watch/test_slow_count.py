"""A study that is counted slowly: what is stored meanwhile may not be in the count."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcomes
from functions.common.events.runtime import Services
from functions.common.settings import WATCH, Settings
from functions.watch.handler import handle
from functions.watch.memory import OpenStudies
from tests.contract.strictbucket import strict_buckets
from tests.contract.topics import topic_server
from tests.search.kit import STORE, Answer, Asked, fake_store, row

OUTCOMES, NEXT = "projects/local/topics/outcomes", "projects/local/topics/next"
FIRST = "2026-11-24T10:00:00.000000Z"
ROW = row(t0020000D="1.2.3", t0020000E="1.2.3.1", t00080018="1.2.3.1.1")


def page(asked: Asked) -> Answer:
    """One instance, said a while after it was looked up."""
    found = [] if "offset=1" in asked.query else [ROW]
    return Answer(body=json.dumps(found).encode(), delay_s=1.5)


def test_the_time_that_a_count_takes_is_no_quiet_time() -> None:
    moved = datetime.now(UTC) - timedelta(seconds=3)
    marker = {
        "opened_by": "m1",
        "first": FIRST,
        "count": [1, 1],
        "moved": moved.isoformat().replace("+00:00", "Z"),
        "counted": "",
        "again": False,
    }
    with (
        fake_store() as store,
        strict_buckets("dicom-state") as buckets,
        topic_server(OUTCOMES, NEXT) as topics,
    ):
        store.plan = page
        buckets.put("dicom-state", "studies/1.2.3.json", json.dumps(marker).encode())
        environ = {
            "DICOM_STORE": STORE,
            "HEALTHCARE_ENDPOINT": f"{store.url}/v1",
            "STORAGE_EMULATOR_HOST": buckets.url,
            "PUBSUB_EMULATOR_HOST": topics.address,
            "STATE_BUCKET": "dicom-state",
            "OUTCOMES_TOPIC": OUTCOMES,
            "STUDIES_NEXT_TOPIC": NEXT,
            "STUDY_QUIET_S": "5",
        }
        services = Services.of(Settings.load(WATCH, environ))
        data = json.dumps({"study": "1.2.3", "first": FIRST}).encode()
        message = Message(data, {}, "m2", 1, follow_up=True)
        deadline = Deadline(60)
        outcomes = Outcomes(WATCH, OUTCOMES, services.topics, message, deadline)
        with pytest.raises(RetryableError):
            handle(message, services, outcomes, deadline, OpenStudies())
        assert not topics.messages

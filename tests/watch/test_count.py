"""The count of a study in the DICOM store: what it says of the study's end."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

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
ROWS = [
    row(t0020000D="1.2.3", t0020000E="1.2.3.1", t00080018="1.2.3.1.1"),
    row(t0020000D="1.2.3", t0020000E="1.2.3.1", t00080018="1.2.3.1.2"),
]


def finds(rows: list[Any], delay_s: float = 0) -> Callable[[Asked], Answer]:
    """These instances, in pages of one."""

    def page(asked: Asked) -> Answer:
        offset = int(asked.query.partition("offset=")[2])
        return Answer(body=json.dumps(rows[offset : offset + 1]).encode(), delay_s=delay_s)

    return page


def outcomes_of_follow_up(
    plan: Callable[[Asked], Answer], count: list[int], moved_s_ago: float
) -> list[dict[str, Any]]:
    """What is published for a study whose last count is known.

    Raises:
        RetryableError: the study is not complete.
    """
    moved = datetime.now(UTC) - timedelta(seconds=moved_s_ago)
    marker = {
        "opened_by": "m1",
        "first": FIRST,
        "count": count,
        "moved": moved.isoformat().replace("+00:00", "Z"),
        "counted": "",
        "again": False,
    }
    with (
        fake_store() as store,
        strict_buckets("dicom-state") as buckets,
        topic_server(OUTCOMES, NEXT) as topics,
    ):
        store.plan = plan
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
        handle(message, services, outcomes, deadline, OpenStudies())
        published = topics.messages[OUTCOMES]
        return [json.loads(base64.b64decode(one["data"])) for one in published]


def test_the_time_that_a_count_takes_is_no_quiet_time() -> None:
    slow = finds(ROWS[:1], delay_s=1.5)
    with pytest.raises(RetryableError):
        outcomes_of_follow_up(slow, count=[1, 1], moved_s_ago=3)


def test_another_number_of_instances_begins_a_new_quiet_time() -> None:
    with pytest.raises(RetryableError):
        outcomes_of_follow_up(finds(ROWS), count=[1, 1], moved_s_ago=60)


def test_pages_that_miss_a_series_begin_no_new_quiet_time() -> None:
    # The order of a search is not documented: with several pages, an instance may come twice and
    # another one be missing.
    (record,) = outcomes_of_follow_up(finds(ROWS), count=[2, 2], moved_s_ago=60)
    assert record["counts"] == {"series": 2, "instances": 2, "exports": 0}

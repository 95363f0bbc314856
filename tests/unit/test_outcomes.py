import base64
import json

import pytest

from functions.common.clients.pubsub import Topics
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcome, Outcomes, outcome_id
from functions.common.resources import ObjectRef, Resource
from tests.contract.topics import topic_server

REF = ObjectRef("landing", "Doe^Jane.dcm", 7)


def test_the_id_follows_from_the_input_alone() -> None:
    assert outcome_id("store_upload", REF) == outcome_id(
        "store_upload", ObjectRef("landing", "Doe^Jane.dcm", 7)
    )
    others = [
        outcome_id("store_upload", REF),
        outcome_id("export_resource", REF),
        outcome_id("store_upload", ObjectRef("landing", "Doe^Jane.dcm", 8)),
        outcome_id("store_upload", REF, "a.dcm"),
        outcome_id("store_upload", "request-1"),
    ]
    assert len(set(others)) == len(others)


def test_the_message_names_the_input_and_the_log_line_does_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with topic_server("projects/p/topics/outcomes") as server:
        topics = Topics(Transport(), server.address)
        message = Message(b"", {}, "m1", 3)
        outcomes = Outcomes(
            "store_upload",
            "projects/p/topics/outcomes",
            topics,
            message,
            Deadline(30),
            "projects/p/traces/t",
        )
        outcomes.publish(
            Outcome("stored", source=REF, resource=Resource("1.2", "3", "4"), size_bytes=9)
        )
        (published,) = server.messages["projects/p/topics/outcomes"]
    record = json.loads(base64.b64decode(published["data"]))
    assert published["attributes"] == {
        "outcome": "stored",
        "function": "store_upload",
        "study": "1.2",
    }
    assert record.pop("time") < "3"
    assert record.pop("duration_ms") >= 0
    assert record == {
        "id": outcome_id("store_upload", REF),
        "outcome": "stored",
        "function": "store_upload",
        "bucket": "landing",
        "name": "Doe^Jane.dcm",
        "generation": "7",
        "study": "1.2",
        "series": "3",
        "instance": "4",
        "bytes": 9,
        "attempt": 3,
        "trace": "projects/p/traces/t",
    }
    line = capfd.readouterr().out
    assert "Doe" not in line
    assert json.loads(line)["id"] == record["id"]

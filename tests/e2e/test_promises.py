"""What the README promises, end to end: bucket, topics, functions and DICOM store, all over real
sockets."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests

from infra.local.stack import Stack
from tests.e2e.conftest import Seen


def upload(stack: Stack, name: str, data: bytes) -> int:
    return stack.buckets.upload(stack.topology.buckets["landing"], name, data, {})


def scan(path: Path, study: str) -> bytes:
    """The scan with new UIDs, so that tests do not share instances."""
    instance = pydicom.dcmread(path)
    instance.StudyInstanceUID, instance.SeriesInstanceUID = study, f"{study}.1"
    instance.SOPInstanceUID = f"{study}.1.1"
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def retrieve(stack: Stack, record: dict[str, Any]) -> requests.Response:
    path = f"studies/{record['study']}/series/{record['series']}/instances/{record['instance']}"
    headers = {"Accept": "application/dicom; transfer-syntax=*"}
    return requests.get(f"{stack.addresses.dicomweb_url}/{path}", headers=headers, timeout=30)


def search(stack: Stack, query: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{stack.function_url('search')}/{query}", timeout=30)
    assert answer.status_code == 200
    return list(answer.json())


def new_study() -> str:
    return f"2.25.{uuid.uuid4().int}"


def notification(
    stack: Stack, name: str, generation: int, size: int
) -> tuple[bytes, dict[str, str]]:
    """The event that the bucket sent, to send it again."""
    bucket = stack.topology.buckets["landing"]
    resource = {
        "bucket": bucket,
        "name": name,
        "generation": str(generation),
        "size": str(size),
    }
    return json.dumps(resource).encode(), {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": bucket,
        "objectId": name,
    }


@pytest.fixture
def fault(stack: Stack) -> Iterator[Any]:
    """Sets fault rules at the DICOM store, and removes them at the end."""
    admin = f"http://{stack.addresses.dicomstore}/_faults"

    def set_rules(*rules: dict[str, Any]) -> None:
        assert requests.post(admin, json=list(rules), timeout=10).ok

    yield set_rules
    requests.delete(admin, timeout=10)


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "rtplan.dcm", "SC_rgb_rle.dcm"]
)
def test_a_scan_is_stored_found_and_comes_back_byte_for_byte(
    stack: Stack, seen: Seen, scans: dict[str, Path], name: str
) -> None:
    data = scan(scans[name], new_study())
    upload(stack, f"night 1/üñí {name}", data)
    record = seen.of(f"night 1/üñí {name}")[0]
    assert record["outcome"] == "stored"
    assert record["bytes"] == len(data)
    assert retrieve(stack, record).content == data
    found = search(stack, f"studies?StudyInstanceUID={record['study']}")
    assert [study["0020000D"]["Value"] for study in found] == [[record["study"]]]


def test_an_export_holds_the_stored_bytes_and_a_delete_leaves_nothing(
    stack: Stack, seen: Seen, scans: dict[str, Path]
) -> None:
    study = new_study()
    data = scan(scans["CT_small.dcm"], study)
    upload(stack, "to-export.dcm", data)
    seen.of("to-export.dcm")
    export = {
        "path": f"studies/{study}",
        "destination": "gs://dicom-export/e2e",
        "request_id": f"export-{study[-8:]}",
    }
    stack.pubsub.publish(stack.topology.topics["exports"], export)
    record = seen.answer(export["request_id"])
    assert record["outcome"] == "exported"
    bucket = stack.topology.buckets["export"]
    assert stack.buckets.download(bucket, f"e2e/{study}/{study}.1/{study}.1.1.dcm") == data
    manifest = json.loads(stack.buckets.download(bucket, "e2e/manifest.json"))
    assert [item["instance"] for item in manifest["objects"]] == [f"{study}.1.1"]

    stack.pubsub.publish(
        stack.topology.topics["deletes"],
        {"path": f"studies/{study}", "request_id": f"delete-{study[-8:]}"},
    )
    assert seen.answer(f"delete-{study[-8:]}")["outcome"] == "deleted"
    assert search(stack, f"studies?StudyInstanceUID={study}") == []


def test_what_can_never_be_stored_ends_in_quarantine_with_its_reason(
    stack: Stack, seen: Seen
) -> None:
    upload(stack, "notes/readme.txt", b"this is no scan")
    record = seen.of("notes/readme.txt")[0]
    assert record["outcome"] == "rejected"
    assert record["reason"] == "unsupported_input"
    bucket = stack.topology.buckets["quarantine"]
    assert (
        stack.buckets.download(bucket, "unsupported_input/notes/readme.txt") == b"this is no scan"
    )
    assert [o["name"] for o in stack.buckets.objects(bucket, "unsupported_input/notes/readme.txt")][
        1:
    ]


def test_one_event_five_times_twice_at_once_stores_one_instance(
    stack: Stack, seen: Seen, scans: dict[str, Path]
) -> None:
    study = new_study()
    data = scan(scans["CT_small.dcm"], study)
    generation = upload(stack, "again.dcm", data)
    event = notification(stack, "again.dcm", generation, len(data))
    topic = stack.topology.topics["uploads"]
    threads = [
        threading.Thread(target=stack.pubsub.publish, args=(topic, *event)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2):
        stack.pubsub.publish(topic, *event)
    upload(stack, "after.dcm", scan(scans["CT_small.dcm"], new_study()))
    seen.of("after.dcm")
    records = seen.of("again.dcm")
    # A worker that has processed the event publishes nothing; another one repeats the outcome.
    assert {record["outcome"] for record in records} == {"stored"}
    assert len({record["id"] for record in records}) == 1
    assert len(search(stack, f"studies/{study}/instances")) == 1


def test_a_function_killed_while_it_stores_leaves_one_copy_and_one_outcome(
    stack: Stack, seen: Seen, scans: dict[str, Path], fault: Any
) -> None:
    study = new_study()
    data = scan(scans["MR_small.dcm"], study)
    # The store has the instance, but the answer does not come before the function is gone.
    fault(
        {
            "method": "POST",
            "path": "studies$",
            "kind": "slow",
            "delay_s": 20,
            "count": 1,
            "when": "after",
        }
    )
    upload(stack, "killed.dcm", data)
    _until(lambda: search(stack, f"studies/{study}/instances"))
    stack.kill_function("store_upload")
    record = seen.of("killed.dcm", timeout_s=120)[0]
    assert record["outcome"] == "stored"
    assert retrieve(stack, record).content == data
    assert len(search(stack, f"studies/{study}/instances")) == 1


def _until(condition: Any, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.05)


def test_no_name_of_a_patient_or_an_object_is_in_any_log(
    stack: Stack, seen: Seen, scans: dict[str, Path]
) -> None:
    instance = pydicom.dcmread(scans["CT_small.dcm"])
    upload(stack, "Planted^Patient.dcm", scan(scans["CT_small.dcm"], new_study()))
    upload(stack, "Planted^Broken.dcm", b"\0" * 128 + b"DICM" + b"broken")
    seen.of("Planted^Patient.dcm")
    seen.of("Planted^Broken.dcm")
    search(stack, "studies?PatientName=Planted%5EQuery")
    for function in stack.topology.functions:
        log = stack.log(function)
        assert "Planted" not in log, function
        assert str(instance.PatientName) not in log, function
        assert str(instance.PatientID) not in log, function
    assert '"event":"outcome"' in stack.log("store_upload")

"""When a study is said to be complete, on the whole system."""

import io
import json
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import requests

from infra.local.clients import Watch
from infra.local.stack import Stack
from infra.local.topology import Overrides
from tests.contract.world import instance
from tests.e2e.conftest import Seen

QUIET_S = 2
QUICK = Overrides(
    minimum_backoff_s=0.2, maximum_backoff_s=1, ack_deadline_s=60, ledger_max_duration_s=1
)
ORDERS = [
    {
        "name": "ct-to-training",
        "match": {"Modality": "CT"},
        "export": {"destination": "gs://dicom-export/ct", "format": "metadata"},
    },
    {
        "name": "mr-to-training",
        "match": {"Modality": "MR"},
        "export": {"destination": "gs://dicom-export/mr"},
    },
    {
        "name": "us-as-zip",
        "match": {"Modality": "US"},
        "export": {"destination": "gs://dicom-export/us", "format": "zip"},
    },
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The functions that store, watch and export, with a short time to be quiet."""
    with Stack(
        tmp_path_factory.mktemp("watch"),
        overrides=QUICK,
        env={
            "STUDY_QUIET_S": str(QUIET_S),
            "ON_STUDY_COMPLETE": json.dumps(ORDERS),
            "CONFLICT_POLICY": "overwrite",
        },
        functions=["store_upload", "export_resource", "watch_studies"],
    ) as running:
        yield running


@pytest.fixture
def seen(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Seen]:
    name = f"projects/local/subscriptions/seen-{abs(hash(request.node.nodeid))}"
    with Watch(stack.pubsub, stack.topology.topics["outcomes"], name) as watch:
        yield Seen(watch)


def upload(
    stack: Stack,
    study: str,
    *numbers: int,
    modality: str = "CT",
    label: str = "",
) -> None:
    for number in numbers:
        uids = (study, f"{study}.{number % 2}", f"{study}.{number % 2}.{number}")
        data = instance(*uids, Modality=modality, SeriesDescription=label)
        stack.buckets.upload("dicom-landing", f"{study}/{number}.dcm", data)


def complete(records: list[dict[str, Any]], study: str) -> list[dict[str, Any]]:
    return [r for r in records if r["outcome"] == "study_complete" and r["study"] == study]


def exported(records: list[dict[str, Any]], study: str) -> list[dict[str, Any]]:
    return [r for r in records if r["outcome"] == "exported" and r["study"] == study]


def members(stack: Stack, name: str) -> bytes:
    """The content of all members of a zip."""
    data = stack.buckets.download("dicom-export", name)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return b"".join(archive.read(member) for member in archive.namelist())


def stored_times(records: list[dict[str, Any]], study: str) -> list[datetime]:
    return [
        datetime.fromisoformat(r["time"])
        for r in records
        if r["outcome"] == "stored" and r.get("study") == study
    ]


def test_a_study_is_complete_once_when_nothing_came_for_a_while(stack: Stack, seen: Seen) -> None:
    study = "1.2.3.1"
    upload(stack, study, 1, 2, 3)
    time.sleep(QUIET_S / 2)
    upload(stack, study, 4, 5)
    records = seen.until(lambda records: bool(complete(records, study)))
    time.sleep(QUIET_S)
    records = seen.until(lambda _: True)
    (record,) = complete(records, study)
    assert record["counts"] == {"series": 2, "instances": 5, "exports": 1}
    assert "again" not in record
    quiet_s = (datetime.fromisoformat(record["time"]) - stored_times(records, study)[-1]).seconds
    assert quiet_s >= QUIET_S - 1


def test_an_instance_that_comes_later_completes_the_study_again(stack: Stack, seen: Seen) -> None:
    study = "1.2.3.2"
    upload(stack, study, 1, 2)
    seen.until(lambda records: len(complete(records, study)) == 1)
    upload(stack, study, 3)
    records = seen.until(lambda records: len(complete(records, study)) == 2)
    first, second = complete(records, study)
    assert second["again"] is True
    assert second["counts"]["instances"] == 3
    assert first["id"] != second["id"]


def test_a_complete_study_is_exported_where_an_order_matches_it(stack: Stack, seen: Seen) -> None:
    study = "1.2.3.3"
    upload(stack, study, 1, 2)
    records = seen.until(lambda records: bool(exported(records, study)))
    (record,) = exported(records, study)
    assert record["request_id"].startswith(f"ct-to-training:{study}:")
    names = {o["name"] for o in stack.buckets.objects("dicom-export")}
    assert f"ct/{study}/manifest.json" in names
    assert not any(name.startswith("mr/") for name in names)


def test_records_that_come_twice_and_late_complete_nothing_again(stack: Stack, seen: Seen) -> None:
    study = "1.2.3.4"
    upload(stack, study, 1, 2)
    records = seen.until(lambda records: bool(complete(records, study)))
    stored = [r for r in records if r["outcome"] == "stored" and r["study"] == study]
    for record in stored * 2:
        attributes = {
            "outcome": "stored",
            "function": "store_upload",
            "study": study,
        }
        stack.pubsub.publish(stack.topology.topics["outcomes"], record, attributes)
    time.sleep(QUIET_S * 2)
    records = seen.until(lambda _: True)
    assert len(complete(records, study)) == 1


def test_a_study_that_was_deleted_meanwhile_is_not_complete(stack: Stack, seen: Seen) -> None:
    study = "1.2.3.5"
    upload(stack, study, 1)
    seen.until(lambda records: bool(stored_times(records, study)))
    url = f"{stack.addresses.dicomweb_url}/studies/{study}"
    assert requests.delete(url, timeout=30).status_code == 200
    time.sleep(QUIET_S * 2)
    assert not complete(seen.until(lambda _: True), study)


def test_a_study_that_was_deleted_and_is_sent_again_is_complete_again(
    stack: Stack, seen: Seen
) -> None:
    study = "1.2.3.6"
    upload(stack, study, 1, 2)
    seen.until(lambda records: len(complete(records, study)) == 1)
    url = f"{stack.addresses.dicomweb_url}/studies/{study}"
    assert requests.delete(url, timeout=30).status_code == 200
    upload(stack, study, 1, 2)  # the process that stored them remembers them
    records = seen.until(lambda records: len(complete(records, study)) == 2)
    assert [record["counts"]["instances"] for record in complete(records, study)] == [2, 2]


def test_what_the_store_has_already_completes_nothing_again(stack: Stack, seen: Seen) -> None:
    study = "1.2.3.7"
    upload(stack, study, 1, 2)
    seen.until(lambda records: len(complete(records, study)) == 1)
    upload(stack, study, 1, 2)
    time.sleep(QUIET_S * 2)
    records = seen.until(lambda records: [r["outcome"] for r in records].count("duplicate") >= 2)
    assert len(complete(records, study)) == 1


def test_a_zip_is_made_again_when_an_instance_was_replaced(stack: Stack, seen: Seen) -> None:
    study = "1.2.3.8"
    upload(stack, study, 1, modality="US", label="before")
    seen.until(lambda records: len(exported(records, study)) == 1)
    upload(stack, study, 1, modality="US", label="after")
    seen.until(lambda records: len(exported(records, study)) == 2)
    assert b"after" in members(stack, f"us/{study}/{study}.zip")

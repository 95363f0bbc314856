"""Filling a DICOM store, exporting from it, and looking at what was written."""

import base64
import json
from collections.abc import Iterable
from typing import Any

from functions.api.requests import ExportRequest
from functions.common.deadline import Deadline
from functions.export.handler import handle
from functions.export.job import Attempt, Job
from tests.contract.world import BUCKET, World, instance

TO = f"gs://{BUCKET}/out"


def fill(
    store: World, studies: int = 1, series: int = 2, instances: int = 3, **options: Any
) -> dict[str, bytes]:
    """The stored files, by the names of their exports."""
    stored = {}
    for s in range(1, studies + 1):
        for e in range(1, series + 1):
            for n in range(1, instances + 1):
                data = instance(f"1.{s}", f"1.{s}.{e}", f"1.{s}.{e}.{n}", **options)
                store.put(data)
                stored[f"out/1.{s}/1.{s}.{e}/1.{s}.{e}.{n}.dcm"] = data
    return stored


def order(**changes: Any) -> dict[str, Any]:
    """A command that exports the study 1.1, with these changes."""
    return {
        "path": "studies/1.1",
        "destination": TO,
        "request_id": "r1",
        **changes,
    }


def encoded_order(**changes: Any) -> bytes:
    """The same as the data of a message."""
    return json.dumps(order(**changes)).encode()


def run(store: World, expect: str = "exported", **command: Any) -> dict[str, Any]:
    (record,) = store.run(handle, order(**command))
    assert record["outcome"] == expect, record
    return record


def job_of(store: World, request: ExportRequest) -> Job:
    """A first delivery with a minute of time."""
    services = store.services
    deadline = Deadline(60)
    return Job(
        request=request,
        store=services.dicom_store,
        buckets=services.buckets,
        attempt=Attempt(1, 5),
        work_deadline=deadline,
        deadline=deadline,
    )


def manifest(store: World) -> dict[str, Any]:
    return dict(json.loads(store.read("out/manifest.json")))


def names(store: World) -> set[str]:
    return set(store.objects()) - {"out/manifest.json"}


def deliver(store: World, attempts: Iterable[int], **command: Any) -> list[str]:
    """Deliver a command and its follow-up messages, each up to so often until it is acknowledged;
    returns the last answers."""
    data = encoded_order(**command)
    answers = [_deliver(store, data, attempts, follow_up=False)]
    while store.follow_ups:
        data = base64.b64decode(store.follow_ups.pop(0)["data"])
        answers.append(_deliver(store, data, attempts, follow_up=True))
    return answers


def _deliver(store: World, data: bytes, attempts: Iterable[int], follow_up: bool) -> str:
    for attempt in attempts:
        if store.deliver(handle, data, {}, attempt, follow_up=follow_up) == "":
            return ""
    return "in vain"

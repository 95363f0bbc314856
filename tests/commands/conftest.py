"""The function `commands` as it is deployed, between a bucket server and topics."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.strictbucket import StrictBuckets, strict_buckets
from tests.contract.topics import TopicServer, topic_server
from tests.search.kit import Function, running_function

STATE = "dicom-state"
EXPORTS = "projects/local/topics/dicom-exports"
DELETES = "projects/local/topics/dicom-deletes"
EXPORT = {"path": "studies/1.2.3", "destination": "gs://dicom-export/a"}


@dataclass
class Place:
    """The function and its servers."""

    function: Function
    buckets: StrictBuckets
    topics: TopicServer

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        """Send a command."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **headers}
        return requests.post(self.function.url + path, data=data, headers=given, timeout=60)

    def get(self, path: str, **headers: str) -> requests.Response:
        """Send a GET."""
        return requests.get(self.function.url + path, headers=headers, timeout=60)

    def published(self, topic: str) -> list[dict[str, Any]]:
        """The commands on a topic."""
        messages = self.topics.messages.get(topic, [])
        return [json.loads(base64.b64decode(message["data"])) for message in messages]


def environment(buckets: StrictBuckets, topics: TopicServer) -> dict[str, str]:
    """The environment of the function in front of these servers."""
    return {
        "DICOM_STORE": "projects/p/locations/l/datasets/d/dicomStores/s",
        "STATE_BUCKET": STATE,
        "STORAGE_EMULATOR_HOST": buckets.url,
        "PUBSUB_EMULATOR_HOST": topics.address,
        "EXPORTS_TOPIC": EXPORTS,
        "DELETES_TOPIC": DELETES,
        "EXPORT_DESTINATIONS": "gs://dicom-export",
    }


@contextmanager
def commands_place(folder: Path, **changes: str) -> Iterator[Place]:
    """The function, with changed settings."""
    with strict_buckets(STATE) as buckets, topic_server(EXPORTS, DELETES) as topics:
        environ = {**environment(buckets, topics), **changes}
        with running_function("commands", folder, environ) as function:
            yield Place(function, buckets, topics)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with commands_place(tmp_path_factory.mktemp("commands")) as place:
        yield place


@pytest.fixture
def commands(running: Place) -> Place:
    running.topics.messages.clear()
    running.topics.refuse.clear()
    running.buckets.failures.clear()
    running.buckets.lost.clear()
    running.buckets.retry_after = ""
    return running

"""The store function between real servers: a strict bucket server, the DICOM store, and a topic."""

import base64
import functools
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from functions.store import handler as store
from functions.store.memory import Memory
from tests import scans
from tests.contract.strictbucket import Blob, StrictBuckets, strict_buckets
from tests.contract.world import STATE, STORE_NAME, World, world

LANDING = "dicom-landing"
QUARANTINE = "dicom-quarantine"
ARCHIVE = "dicom-archive"
UPLOADS = "projects/local/topics/dicom-uploads"
NEXT = "projects/local/topics/dicom-uploads-next"


class Landing:
    """Uploads, deliveries, and their outcomes."""

    def __init__(self, made: World, buckets: StrictBuckets) -> None:
        self.world = made
        self.buckets = buckets
        self.restart()

    def restart(self) -> None:
        """A new process, without the memory of the old one."""
        self.handle = functools.partial(store.handle, memory=Memory())

    def upload(self, name: str, data: bytes, **more: Any) -> Blob:
        """Write an object; `more`: metadata, created."""
        return self.buckets.put(LANDING, name, data, **more)

    def event(self, blob: Blob) -> tuple[bytes, dict[str, str]]:
        """The notification's data and attributes."""
        return json.dumps(blob.resource).encode(), {
            "eventType": "OBJECT_FINALIZE",
            "bucketId": blob.bucket,
        }

    def deliver(self, blob: Blob, **options: Any) -> str:
        """One delivery: "" when acknowledged, else why not."""
        return self.world.deliver(self.handle, *self.event(blob), **options)

    def deliver_follow_up(self, state: dict[str, Any]) -> None:
        """Deliver a follow-up message of an archive, which is acknowledged."""
        data = json.dumps(state).encode()
        attributes = {"follow-up": "archive"}
        assert self.world.deliver(self.handle, data, attributes, follow_up=True) == ""

    def drop(self, name: str, data: bytes, **more: Any) -> list[dict[str, Any]]:
        """Upload and deliver, follow-up messages too, until all are acknowledged; returns the
        outcomes."""
        before = len(self.world.outcomes)
        self.finish(self.upload(name, data, **more))
        return self.world.outcomes[before:]

    def finish(self, blob: Blob, **options: Any) -> int:
        """Deliver an event and its follow-up messages until all is acknowledged; how many messages
        there were."""
        attempt = 1
        while self.deliver(blob, attempt=attempt, **options):
            attempt += 1
            assert attempt < 12, self.world.answers
        return 1 + self.follow(**options)

    def follow(self, **options: Any) -> int:
        """Deliver the waiting messages of the topics, and those that follow; returns their
        number."""
        delivered = 0
        while self._deliver_next(UPLOADS, **options) or self._deliver_next(NEXT, **options):
            delivered += 1
        return delivered

    def _deliver_next(self, topic: str, **options: Any) -> bool:
        """Deliver a topic's oldest message until it is acknowledged; False where there is none."""
        queue = self.world.topics.messages.setdefault(topic, [])
        if not queue:
            return False
        message = queue.pop(0)
        data = base64.b64decode(message["data"])
        attributes = message["attributes"]
        given = {"attempt": 1, "follow_up": topic == NEXT, **options}
        while self.world.deliver(self.handle, data, attributes, **given):
            given["attempt"] += 1
            assert given["attempt"] < 12, self.world.answers
        return True

    def at_once(self, *blobs: Blob, processes: bool = False) -> list[str]:
        """Deliver them at the same time, from several threads of one process or each in a new
        process; returns the answers."""
        ready = threading.Barrier(len(blobs))
        answers = dict.fromkeys(range(len(blobs)), "")

        def one(number: int, blob: Blob) -> None:
            handle = self.handle
            if processes:
                handle = functools.partial(store.handle, memory=Memory())
            ready.wait()
            answers[number] = self.world.deliver(handle, *self.event(blob))

        threads = [threading.Thread(target=one, args=item) for item in enumerate(blobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return list(answers.values())

    def stored(self, uids: scans.Uids) -> bytes | None:
        """The file in the DICOM store, or None."""
        study, series, instance = uids
        path = f"studies/{study}/series/{series}/instances/{instance}"
        url = f"{self.world.store_url}/v1/{STORE_NAME}/dicomWeb/{path}"
        request = urllib.request.Request(
            url, headers={"Accept": "application/dicom; transfer-syntax=*"}
        )
        try:
            return bytes(urllib.request.urlopen(request).read())
        except urllib.error.HTTPError as error:
            assert error.code == 404
            return None

    def get(self, path: str) -> Any:
        """JSON from the DICOM store."""
        url = f"{self.world.store_url}/v1/{STORE_NAME}/dicomWeb/{path}"
        return json.loads(urllib.request.urlopen(url).read())

    def delete(self, path: str) -> None:
        """Delete from the DICOM store."""
        url = f"{self.world.store_url}/v1/{STORE_NAME}/dicomWeb/{path}"
        with urllib.request.urlopen(urllib.request.Request(url, method="DELETE")) as answer:
            assert answer.status == 200

    def instances(self) -> int:
        """The number of instances in the DICOM store."""
        return len(self.world.found("instances?limit=50000"))

    def sidecar(self, name: str) -> dict[str, Any]:
        """The sidecar of an object in quarantine."""
        return dict(json.loads(self.buckets.read(QUARANTINE, f"{name}.reason.json")))


@contextmanager
def landing(data: Path, **env: str) -> Iterator[Landing]:
    """The function with these settings, for the length of a `with`."""
    settings: Any = {
        "LANDING_BUCKET": LANDING,
        "QUARANTINE_BUCKET": QUARANTINE,
        "UPLOADS_NEXT_TOPIC": NEXT,
        **env,
    }
    with (
        strict_buckets(LANDING, QUARANTINE, ARCHIVE, STATE) as buckets,
        world(
            "store_upload", data, buckets_url=buckets.url, topics_beside=[UPLOADS], **settings
        ) as made,
    ):
        yield Landing(made, buckets)


def words(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Outcome and reason of each."""
    return [(record["outcome"], record.get("reason", "")) for record in records]

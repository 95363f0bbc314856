"""The check that touches: a synthetic scan goes all the way, is found, and is deleted again."""

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from functions.common.clients.storage import Buckets
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError
from functions.common.resources import GcsPrefix, ObjectRef
from ops import scan
from ops.checks import CALL_S, Finding
from ops.limits import Limits
from ops.system import Client, System

_POLL_S: Final = 0.5
_DOCTOR: Final = "the checks above say what is wrong; else see the function's log"


@dataclass(frozen=True)
class Probe:
    """One way through the system.

    Args:
        limit_s: for each of the two outcomes; a cold start in the cloud takes some seconds.
    """

    system: System
    client: Client
    limit_s: float

    @property
    def limits(self) -> Limits:
        """What the system's settings close to it."""
        return Limits.of(self.system.environments, self.system.search_ingress)

    def run(self) -> Iterator[Finding]:
        """Upload, outcome, search, delete; stops at the first that fails, and leaves nothing
        behind."""
        system, made, name = self.system, scan.make(), f"dicom-probe-{uuid.uuid4().hex[:12]}"
        buckets = Buckets(self.client.transport, system.endpoints.storage)
        watch = f"{system.endpoints.pubsub}/v1/{system.subscription(name)}"
        try:
            # Of a busy system's outcomes only these: a backlog of the others would hide ours.
            mine = f'attributes.study = "{made.study}" OR attributes.outcome = "rejected"'
            body = {
                "topic": system.topic("outcomes"),
                "messageRetentionDuration": "3600s",
                "filter": mine,
            }
            status, _ = self.client.send("PUT", watch, Deadline(CALL_S), body)
            if status != 200:
                yield _bad(
                    "subscribe",
                    f"Pub/Sub answered {status}",
                    "you need roles/pubsub.editor on the project",
                )
                return
            uploaded = buckets.create(
                system.buckets["landing"], f"{name}/scan.dcm", made.data, Deadline(CALL_S)
            )
            yield Finding(
                "probe", "upload", "ok", f"gs://{uploaded.ref.bucket}/{uploaded.ref.name}"
            )
            try:
                yield from self._steps(made, name, watch)
            finally:
                buckets.delete(uploaded.ref, Deadline(CALL_S))
                if self.limits.moved:
                    place = GcsPrefix.parse(self.limits.moved)
                    moved = f"{place.prefix}/{uploaded.ref.name}".lstrip("/")
                    buckets.delete(ObjectRef(place.bucket, moved), Deadline(CALL_S))
        except RetryableError as error:
            mend = "gcloud auth application-default login; you need to write, publish and subscribe"
            yield _bad("probe", error.reason, mend if error.reason == "unauthorized" else _DOCTOR)
        except PermanentError as error:
            yield _bad("upload", error.detail or error.reason, "./deploy.sh puts it back")
        finally:
            self._forget(watch)

    def _steps(self, made: scan.Scan, name: str, watch: str) -> Iterator[Finding]:
        stored = self._outcome(watch, "name", f"{name}/scan.dcm")
        yield _judged("outcome", stored, ("stored", "duplicate"), self.limit_s)
        if stored is None or stored["outcome"] not in ("stored", "duplicate"):
            return
        yield self._search(made.study)
        if self.limits.delete:
            stays = f"{self.limits.delete}: the synthetic scan stays in the DICOM store, studies/{made.study}"
            yield Finding("probe", "delete", "skipped", stays)
            return
        command = json.dumps({"path": made.path, "request_id": name}).encode()
        message = {"messages": [{"data": base64.b64encode(command).decode()}]}
        url = f"{self.system.endpoints.pubsub}/v1/{self.system.topic('deletes')}:publish"
        status, _ = self.client.post(url, message, Deadline(CALL_S))
        if status != 200:
            yield _bad(
                "delete",
                f"Pub/Sub answered {status}",
                "you need roles/pubsub.publisher on the deletes topic",
            )
            return
        yield _judged(
            "delete", self._outcome(watch, "request_id", name), ("deleted",), self.limit_s
        )

    def _outcome(self, watch: str, key: str, value: str) -> Mapping[str, Any] | None:
        """The first outcome with this value, or None when it does not come."""
        deadline = Deadline(self.limit_s)
        while True:
            body = {"maxMessages": 1000, "returnImmediately": True}
            status, found = self.client.post(f"{watch}:pull", body, deadline)
            received = found.get("receivedMessages", []) if status == 200 else []
            if received:
                self.client.post(
                    f"{watch}:acknowledge", {"ackIds": [one["ackId"] for one in received]}, deadline
                )
            for one in received:
                record: Mapping[str, Any] = json.loads(base64.b64decode(one["message"]["data"]))
                if record.get(key) == value:
                    return record
            if not deadline.sleep(0 if received else _POLL_S):
                return None

    def _search(self, study: str) -> Finding:
        url = f"{self.system.search_url}/studies"
        if not self.system.search_url:
            return Finding("probe", "search", "skipped", "this system runs without search")
        if self.limits.search:
            return Finding("probe", "search", "skipped", self.limits.search)
        searcher = Client(None if self.system.local else _identity(self.system.search_url))
        try:
            status, found = searcher.get(url, Deadline(CALL_S), [("StudyInstanceUID", study)])
        except RetryableError as error:
            mend = "add yourself to search_callers in infra/gcp/terraform.tfvars, and ./deploy.sh"
            return _bad(
                "search",
                f"refused ({error.reason})",
                mend if error.reason == "unauthorized" else _DOCTOR,
            )
        if status != 200 or not any(study in str(item) for item in found):
            return _bad("search", f"answered {status} without the scan", _DOCTOR)
        return Finding("probe", "search", "ok", "finds the scan")

    def _forget(self, watch: str) -> None:
        try:
            self.client.send("DELETE", watch, Deadline(CALL_S))
        except RetryableError:
            return  # Pub/Sub deletes it by itself after a month without use


def _identity(audience: str) -> Any:
    from ops.identity import IdentityToken

    return IdentityToken(audience)


def _judged(
    subject: str, record: Mapping[str, Any] | None, wanted: tuple[str, ...], limit_s: float
) -> Finding:
    if record is None:
        return _bad(subject, f"did not come within {limit_s:.0f} s", _DOCTOR)
    words = " ".join(filter(None, (record["outcome"], record.get("reason"), record.get("detail"))))
    if record["outcome"] not in wanted:
        return _bad(subject, words, "see docs/deploy.md for what the reason means")
    return Finding(
        "probe",
        subject,
        "ok",
        f"{words}, attempt {record.get('attempt', 1)}, {record.get('duration_ms', 0)} ms",
    )


def _bad(subject: str, detail: str, mend: str) -> Finding:
    return Finding("probe", subject, "failed", detail, mend)

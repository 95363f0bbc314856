"""The doctor's probe: a synthetic scan is uploaded, found by a search, and deleted again."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cli import scan
from cli.clients import CALL_S, LOGIN, Clients
from cli.errors import CliError
from cli.findings import REDEPLOY, Finding, Look
from cli.limits import Limits
from cli.watch import Outcome, Watch
from functions.common.resources import GcsPrefix

_SEE_CHECKS: Final = "see the checks above, else the function's log"
_STORED: Final = ("stored", "duplicate")


@dataclass(frozen=True)
class Probe:
    """One synthetic scan on its way through the system.

    Args:
        clients: of the system.
        limit_s: seconds to wait for each of the two outcomes; a cold start takes some of them.
    """

    clients: Clients
    limit_s: float

    @property
    def _look(self) -> Look:
        return Look(self.clients, "probe")

    @property
    def limits(self) -> Limits:
        """The steps that the system's settings prevent."""
        system = self.clients.system
        return Limits.of(system.environments, system.search_ingress)

    def run(self) -> Iterator[Finding]:
        """Upload, wait for the outcome, search, delete.

        Stops at the first failure, and removes what it uploaded.
        """
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, Unauthorized

        made = scan.make()
        # Only these outcomes: on a busy system the others would delay the probe's own.
        mine = f'attributes.study = "{made.study}" OR attributes.outcome = "rejected"'
        try:
            with Watch(self.clients, mine) as watch:
                yield from self._stored(made, watch)
        except (Forbidden, Unauthorized):
            fix = (
                "you need roles/pubsub.editor on the project and roles/storage.objectUser on the "
                f"landing bucket; else {LOGIN}"
            )
            yield self._look.failed("probe", "you may not upload or see outcomes", fix)
        except GoogleAPICallError as error:
            yield self._look.failed("probe", f"the service answered {error.code}", REDEPLOY)

    def _stored(self, made: scan.Scan, watch: Watch) -> Iterator[Finding]:
        name = f"dicom-probe-{uuid.uuid4().hex[:12]}"
        bucket = self.clients.storage.bucket(self.clients.system.buckets["landing"])
        blob = bucket.blob(f"{name}/scan.dcm")
        blob.upload_from_string(made.data, "application/dicom", timeout=CALL_S)
        yield self._look.ok("upload", f"gs://{bucket.name}/{blob.name}")
        try:
            yield from self._steps(made, name, watch)
        finally:
            self._remove(blob)

    def _remove(self, blob: Any) -> None:
        """Delete the object, and its copy if stored objects are moved."""
        _delete(blob)
        if self.limits.moved:
            place = GcsPrefix.parse(self.limits.moved)
            name = f"{place.prefix}/{blob.name}".lstrip("/")
            bucket = self.clients.storage.bucket(place.bucket)
            _delete(bucket.blob(name))

    def _steps(self, made: scan.Scan, name: str, watch: Watch) -> Iterator[Finding]:
        stored = self._outcome(watch, "name", f"{name}/scan.dcm")
        yield self._judged("outcome", stored, _STORED)
        if stored is None or stored["outcome"] not in _STORED:
            return
        yield self._search(made.study)
        reason = self.limits.delete
        if reason:
            stays = f"the synthetic scan stays in the DICOM store: studies/{made.study}"
            yield self._look.skipped("delete", f"{reason}; {stays}")
            return
        command = {"path": made.path, "request_id": name}
        topic = self.clients.system.topic("deletes")
        self.clients.publish(topic, json.dumps(command).encode(), {})
        deleted = self._outcome(watch, "request_id", name)
        yield self._judged("delete", deleted, ("deleted",))

    def _outcome(self, watch: Watch, key: str, value: str) -> Outcome | None:
        """The first outcome with this value; None if there is none in time."""
        for outcome in watch.until(self.limit_s):
            if outcome.get(key) == value:
                return outcome
        return None

    def _search(self, study: str) -> Finding:
        system = self.clients.system
        if not system.search_url:
            return self._look.skipped("search", "this system runs without search")
        if self.limits.search:
            return self._look.skipped("search", self.limits.search)
        try:
            answer = self.clients.call(
                method="GET",
                url=f"{system.search_url}/studies",
                params={"StudyInstanceUID": study},
                headers=self.clients.identity_header(system.search_url),
            )
        except CliError as error:
            return self._look.failed("search", "no answer", str(error))
        if answer.status in (401, 403):
            fix = "add yourself to search_callers in infra/gcp/terraform.tfvars; run ./deploy.sh"
            return self._look.failed("search", "you may not call it", fix)
        if answer.status != 200 or study not in json.dumps(answer.json):
            detail = f"answered {answer.status} without the scan"
            return self._look.failed("search", detail, _SEE_CHECKS)
        return self._look.ok("search", "finds the scan")

    def _judged(
        self,
        subject: str,
        record: Outcome | None,
        wanted: tuple[str, ...],
    ) -> Finding:
        if record is None:
            detail = f"no outcome within {self.limit_s:.0f} s"
            return self._look.failed(subject, detail, _SEE_CHECKS)
        outcome = record["outcome"]
        parts = [outcome, record.get("reason"), record.get("detail")]
        words = " ".join(str(part) for part in parts if part)
        if outcome not in wanted:
            return self._look.failed(subject, words, "docs/outcomes.md explains the reason")
        attempt = record.get("attempt", 1)
        duration_ms = record.get("duration_ms", 0)
        return self._look.ok(subject, f"{words}, attempt {attempt}, {duration_ms} ms")


def _delete(blob: Any) -> None:
    from google.api_core.exceptions import NotFound

    try:
        blob.delete(timeout=CALL_S)
    except NotFound:
        return

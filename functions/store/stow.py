"""One instance into the DICOM store (STOW-RS): sent, the answer read, and compared with what may be
there already."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from functions.common.clients.dicomweb import DicomStore
from functions.common.clients.transport import drain, read_all
from functions.common.deadline import Deadline, timestamp
from functions.common.dicom import dicomjson
from functions.common.errors import PermanentError, RetryableError
from functions.common.events.outcomes import Word
from functions.common.resources import Resource
from functions.store import stow_report
from functions.store.instances import Instance, Same
from functions.store.memory import Memory
from functions.store.refusals import conflict, rejected
from functions.store.stow_report import Failure, UnreadableReportError

_REPORT_LIMIT_BYTES: Final = 4 * 1024 * 1024
_ANSWERED: Final = (200, 202)
# Statuses that say that the instance is wrong; others are about the service.
_REFUSED: Final = (400, 409, 413, 415, 422)
_OTHER_BYTES: Final = "the DICOM store has other bytes under the same UIDs"
_OTHER_UIDS: Final = "the DICOM store reads other UIDs in the file than stand first in it"


class OtherInstanceError(PermanentError):
    """The DICOM store answers for another instance than the one that was sent, as far as we read
    its UIDs.

    Args:
        resource: the instance that the store names; None where it names none in full.
    """

    def __init__(self, resource: Resource | None) -> None:
        super().__init__("rejected", _OTHER_UIDS)
        self.resource = resource


@dataclass(frozen=True)
class Stow:
    """How instances of one input are stored.

    Args:
        store: the client.
        storage_class: as the store knows it; empty: its default.
        policy: reject, keep or overwrite, where other bytes are stored under the same UIDs.
        written: when the input was; None where that is not known.
        again: whether an earlier delivery may have stored it already.
        memory: of what this process stored lately.
        by: what the instance came in.
        deadline: of the invocation.
    """

    store: DicomStore
    storage_class: str
    policy: str
    written: datetime | None
    again: bool
    memory: Memory
    by: Hashable
    deadline: Deadline

    def run(self, instance: Instance) -> Word:
        """Store it.

        Returns:
            stored; duplicate; or conflict, where the policy is to keep what is there.

        Raises:
            PermanentError: rejected, as OtherInstanceError where the store answers for another
                instance; conflict, where the policy is to reject; whatever the source finds wrong.
            RetryableError: as Transport.send; operation_pending while its study or series is being
                deleted.
        """
        self._forget_deleted(instance)
        failure, attempts = self._send(instance)
        same = self._look(instance, failure, attempts)
        if failure is not None and failure.kind == "exists" and same is None:
            # It exists, but not under our UIDs: it may have been deleted in between. When that is
            # found twice, the store means another instance.
            failure, attempts = self._send(instance)
            same = self._look(instance, failure, attempts)
        if failure is None:
            return self._stored(instance)
        if same and failure.kind == "other":
            return self._stored(instance)
        if same:
            self._seen(instance)
            return "duplicate"
        if failure.kind == "refused":
            raise rejected(_refusal(failure))
        if failure.kind == "exists" and same is False:
            return self._conflict(instance, failure)
        raise OtherInstanceError(failure.named.resource)

    def _stored(self, instance: Instance) -> Word:
        if self._seen(instance):
            return "duplicate"
        return "stored"

    def _seen(self, instance: Instance) -> bool:
        """Whether another input with these UIDs and bytes was stored lately; remembers this one."""
        return self.memory.stored(instance.resource, instance.crc32c, self.by)

    def _forget_deleted(self, instance: Instance) -> None:
        """What was stored lately may have been deleted since: then it is no duplicate."""
        resource, crc32c = instance.resource, instance.crc32c
        if not self.memory.was_stored(resource, crc32c, self.by):
            return
        if not self.store.is_there(resource, self.deadline):
            self.memory.forget(resource, crc32c)

    def _look(self, instance: Instance, failure: Failure | None, attempts: int) -> Same:
        """Whether the same is stored; also None where there is no reason to look.

        Raises:
            RetryableError: operation_pending, when a delete runs.
        """
        if failure is None:
            return None
        if failure.kind == "busy":
            raise RetryableError("operation_pending")
        # Where an earlier attempt may have been stored before its answer was lost, a refusal says
        # little.
        is_sure = failure.kind == "refused" and attempts == 1 and not self.again
        if is_sure:
            return None
        try:
            return instance.same_in(self.store, self.deadline)
        except RetryableError as error:
            # By 403 the service also says that there is nothing (fact sheet section 5.8), and it
            # has just let us store.
            if failure.kind == "refused" and error.reason == "unauthorized":
                return None
            raise

    def _conflict(self, instance: Instance, failure: Failure) -> Word:
        if self.policy == "keep":
            return "conflict"
        if self.policy != "overwrite":
            raise conflict(_OTHER_BYTES)
        self._check_overwrite(instance, failure)
        self.store.delete(instance.resource, self.deadline)
        failed, _ = self._send(instance)
        if failed is not None:
            raise RetryableError("unavailable")  # another input came between; look again
        self._seen(instance)
        return "stored"

    def _check_overwrite(self, instance: Instance, failure: Failure) -> None:
        """Nothing is deleted unless it is certain that the store means this very instance.

        A failure names the SOP Instance UID at most, and other series may have an instance of the
        same one (fact sheet section 3.4): ours has to be the only one.

        Raises:
            PermanentError: conflict.
        """
        if failure.named.instance != instance.resource.instance:
            raise conflict(f"{_OTHER_BYTES}, and does not name the instance")
        query = [("SOPInstanceUID", instance.resource.instance), ("limit", "2")]
        found = self.store.search(None, "instances", query, self.deadline)
        if [dicomjson.instance(match) for match in found] != [instance.resource]:
            raise conflict(f"{_OTHER_BYTES}, or under a part of them")
        # Messages come late, twice and in any order: bytes that are older than those there never
        # replace them.
        stored = timestamp(self.store.stored_at(instance.resource, self.deadline))
        if stored and self.written and stored > self.written:
            raise conflict(f"{_OTHER_BYTES}, stored after this was written")

    def _send(self, instance: Instance) -> tuple[Failure | None, int]:
        """What went wrong, None when nothing did; and how often it was sent."""
        attempts = 0

        def body() -> Iterable[bytes]:
            nonlocal attempts
            attempts += 1
            return instance.body()

        answer = self.store.store(body, instance.content_type, self.deadline, self.storage_class)
        with answer:
            status = answer.status_code
            if status not in _ANSWERED and status not in _REFUSED:
                drain(answer)
                raise RetryableError("unavailable")
            text = read_all(answer, self.deadline, _REPORT_LIMIT_BYTES)
        try:
            return stow_report.parse(text).failure_of(instance.resource), attempts
        except UnreadableReportError:
            return self._unreadable(instance, status), attempts

    def _unreadable(self, instance: Instance, status: int) -> Failure | None:
        """What an answer means that is no report: its status, if what it says can be seen."""
        if status in _REFUSED:
            return Failure("refused", status)
        if instance.same_in(self.store, self.deadline):
            return None
        raise RetryableError("unavailable")


def _refusal(failure: Failure) -> str:
    return f"the DICOM store refused it, status or failure reason {failure.code}"

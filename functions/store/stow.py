"""Storing one instance in the DICOM store (STOW-RS), and what the answer means: stored, duplicate,
conflict or rejected.

1. An instance that the report names as stored is stored, and one that it refuses is rejected.
2. If the report leaves it open, the store's instance with the same UIDs is read: `_MEANINGS` says
   what follows. If it was sent before, the answer to that attempt may be lost. Then a refusal too
   leaves it open; and what the store has counts as stored by this input, not as a duplicate, so
   that its study is reported as complete (watch).
3. An instance that rule 1 or 2 calls stored is a duplicate if this process has lately stored the
   same bytes from another input: the store answers identical bytes like new ones.
4. CONFLICT_POLICY decides about conflicts.

The other files only supply the facts for these decisions:

    stow_report  `read`: what the report says of this very instance
    instances    `same_in`: whether what the store has is the same
    memory       `note_stored`, `has_stored`: what this process has stored lately
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from functions.common.clients.storage import StoredObject
from functions.common.clients.transport import drain, read_all
from functions.common.deadline import parsed_rfc3339
from functions.common.dicom import dicomjson
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.events.outcomes import Word
from functions.common.resources import Resource
from functions.common.settings import STORAGE_CLASSES
from functions.store import stow_report
from functions.store.delivery import Delivery
from functions.store.instances import Instance, Same
from functions.store.refusals import conflict, rejected
from functions.store.stow_report import Answer, Kind

_REPORT_LIMIT_BYTES: Final = 4 * 1024 * 1024
_ANSWERED: Final = (200, 202)
# Statuses that mean that the instance is wrong; others are about the service.
_REFUSED: Final = (400, 409, 413, 415, 422)
# In an object's metadata.
_CLASS_KEY: Final = "dicom-storage-class"
_REFUSED_IT: Final = "the DICOM store refused it, status or failure reason"
_OTHER_BYTES: Final = "the DICOM store has other bytes under the same UIDs"
_OTHER_UIDS: Final = "the DICOM store reads different UIDs from the first ones in the file"

# "misread": the store reads other UIDs in the file than this function. "gone": the store reports
# that the instance exists, but has none with these UIDs: it was deleted since, or misread.
Meaning = Literal["stored", "duplicate", "conflict", "rejected", "misread", "gone"]

# The result of the report, and whether the store has the same; None if it has nothing.
_MEANINGS: Final[dict[tuple[Kind, Same], Meaning]] = {
    ("exists", True): "duplicate",
    ("exists", False): "conflict",
    ("exists", None): "gone",
    ("refused", True): "stored",
    ("refused", False): "rejected",
    ("refused", None): "rejected",
    ("other", True): "stored",
    ("other", False): "misread",
    ("other", None): "misread",
}


class OtherInstanceError(PermanentError):
    """The DICOM store's report is about another instance than this function reads in the file.

    Args:
        resource: the instance that the store names; None if it does not name one in full.
    """

    def __init__(self, resource: Resource | None) -> None:
        super().__init__("rejected", _OTHER_UIDS)
        self.resource = resource


class Stow:
    """The storing of one instance.

    Args:
        delivery: of the event.
        instance: of these objects.
        inputs: one object, or both halves of a pair.
        place: of the instance in an archive.
    """

    def __init__(
        self,
        delivery: Delivery,
        instance: Instance,
        inputs: Sequence[StoredObject],
        place: str = "",
    ) -> None:
        self._memory = delivery.memory
        self._deadline = delivery.deadline
        self._store = delivery.services.dicom_store
        self._buckets = delivery.buckets
        self._settings = delivery.settings
        self._name = delivery.ref.name
        self._instance = instance
        self._resource = instance.resource
        self._inputs = inputs
        self._by = (delivery.ref, place)
        # How often it was sent, with earlier deliveries.
        self._sent = delivery.message.attempt - 1
        if delivery.message.follow_up:
            # The invocation before may have sent it too, and not got its answer.
            self._sent += 1

    def run(self) -> Word:
        """Store it.

        Returns:
            stored; duplicate; or conflict, if the policy is to keep the stored instance.

        Raises:
            PermanentError: rejected (OtherInstanceError if the report is about another instance);
                conflict, if the policy is to reject; errors of the source.
            SupersededError: an object is gone or was overwritten.
            RetryableError: as Transport.send; operation_pending while its study or series is being
                deleted.
        """
        self._forget_deleted()
        answer, meaning = self._try()
        if meaning == "gone":
            # If it was deleted since, it can be stored now.
            answer, meaning = self._try()
        if meaning == "rejected":
            raise rejected(f"{_REFUSED_IT} {answer.code}")
        # Not `in`: mypy narrows the type only with `==`.
        if meaning == "misread" or meaning == "gone":
            raise OtherInstanceError(answer.named.resource)
        if meaning == "conflict":
            return self._conflict(answer)
        if self._remember():
            return "duplicate"
        return meaning

    def _forget_deleted(self) -> None:
        """An instance that was stored lately may have been deleted since: then it is not a
        duplicate."""
        known = self._memory.has_stored(self._resource, self._by)
        if known and not self._store.is_there(self._resource, self._deadline):
            self._memory.forget(self._resource)

    def _remember(self) -> bool:
        """Remember that this input is stored; returns whether another one with the same UIDs and
        bytes was stored lately."""
        return self._memory.note_stored(self._resource, self._instance.crc32c, self._by)

    def _try(self) -> tuple[Answer, Meaning]:
        """Send it; if the answer leaves the result open, compare with the store's instance.

        Raises:
            RetryableError: operation_pending, when a delete runs.
        """
        answer = self._send()
        if answer.kind == "busy":
            raise RetryableError("operation_pending")
        if answer.kind == "stored":
            return answer, "stored"
        was_sent_before = self._sent > 1
        if answer.kind == "refused" and not was_sent_before:
            return answer, "rejected"
        meaning = _MEANINGS[answer.kind, self._is_same()]
        if meaning == "duplicate" and was_sent_before:
            return answer, "stored"
        return answer, meaning

    def _is_same(self) -> Same:
        """Whether the store has the same."""
        for _ in range(2):
            try:
                return self._instance.same_in(self._store, self._deadline)
            except RetryableError as error:
                if error.reason != "unauthorized":
                    raise
            # 403 also means that there is no such instance (fact sheet section 5.8). It does so
            # here if the service may search, which takes the same right (section 2), and it comes
            # again: no failure of credentials that has passed.
            self._store.search(None, "studies", [("limit", "1")], self._deadline)
        return None

    def _conflict(self, answer: Answer) -> Word:
        policy = self._settings.conflict_policy.of(self._name)
        if policy == "keep":
            return "conflict"
        if policy != "overwrite":
            raise conflict(_OTHER_BYTES)
        self._check_overwrite(answer)
        self._check_inputs()
        self._store.delete(self._resource, self._deadline)
        answer, meaning = self._try()
        if meaning == "rejected":
            raise rejected(f"{_REFUSED_IT} {answer.code}, after the stored instance was deleted")
        if meaning != "stored":
            # Another input came between; check again.
            raise RetryableError("unavailable")
        self._remember()
        return "stored"

    def _check_inputs(self) -> None:
        """Delete only while the new bytes are still there.

        Raises:
            SupersededError: an object is gone or was overwritten.
        """
        for one in self._inputs:
            if self._buckets.stat(one.ref, self._deadline) is None:
                raise SupersededError

    def _check_overwrite(self, answer: Answer) -> None:
        """Delete only if it is certain that the store's report means this instance.

        A failure names at most the SOP Instance UID, and other series may have an instance with the
        same one (fact sheet section 3.4): there must be only this one.

        Raises:
            PermanentError: conflict.
        """
        if answer.named.instance != self._resource.instance:
            raise conflict(f"{_OTHER_BYTES}; its report does not name the instance")
        query = [("SOPInstanceUID", self._resource.instance), ("limit", "2")]
        found = self._store.search(None, "instances", query, self._deadline)
        if [dicomjson.instance(match) for match in found] != [self._resource]:
            raise conflict(f"{_OTHER_BYTES}; a search does not find only this instance")
        # Messages come late, twice and in any order: older bytes never replace newer ones, nor do
        # bytes that may be older.
        stored = parsed_rfc3339(self._store.stored_at(self._resource, self._deadline))
        times = [parsed_rfc3339(one.created) for one in self._inputs]
        written = [time for time in times if time is not None]
        if stored is None or not written:
            raise conflict(f"{_OTHER_BYTES}; it is not known which are newer")
        if stored > max(written):
            raise conflict(f"{_OTHER_BYTES}, stored after this was written")

    def _send(self) -> Answer:
        """Send it once more; returns what the store answers about it."""
        with self._store.store(
            self._new_body, self._instance.content_type, self._deadline, self._storage_class()
        ) as response:
            status = response.status_code
            if status not in _ANSWERED and status not in _REFUSED:
                drain(response)
                raise RetryableError("unavailable")
            report = read_all(response, self._deadline, _REPORT_LIMIT_BYTES)
        answer = stow_report.read(report, self._resource)
        if answer is not None:
            return answer
        if status in _REFUSED:
            return Answer("refused", status)
        # It should be stored, which can be checked.
        if self._instance.same_in(self._store, self._deadline):
            return Answer("stored")
        raise RetryableError("unavailable")

    def _new_body(self) -> Iterable[bytes]:
        """The body for an attempt; the attempts are counted here, because the transport repeats
        them."""
        self._sent += 1
        return self._instance.body()

    def _storage_class(self) -> str:
        """The storage class: from the object's metadata, else for its prefix; empty: the store's
        default."""
        for one in self._inputs:
            storage_class = one.metadata.get(_CLASS_KEY)
            if storage_class is not None:
                return _checked(storage_class.upper())
        return self._settings.storage_class.of(self._name)


def _checked(storage_class: str) -> str:
    if storage_class not in STORAGE_CLASSES:
        raise rejected(f"{_CLASS_KEY} is not a storage class")
    return storage_class

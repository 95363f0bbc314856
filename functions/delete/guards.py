"""The guard rails of a delete: how much may be deleted, and how old it must be.

They are checked before a request begins and again before each target, with the store's contents at
that time: a message may be old, and studies grow.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from functions.common.clients.dicomweb import DicomStore
from functions.common.deadline import Deadline, timestamp
from functions.common.errors import PermanentError
from functions.common.resources import Resource

_THREADS: Final = 8
_BATCH: Final = 500  # instances between two checks whether one was too young


@dataclass(frozen=True)
class GuardRails:
    """The limits of one request.

    Args:
        store: to delete from.
        max_instances: of the whole request.
        before: only what was stored before this time may be deleted; None: anything.
        deadline: of the checks.
        asked: when the command was sent, if it is old or was delivered before, so that its target
            may have been stored again since; None: it is fresh.
    """

    store: DicomStore
    max_instances: int
    before: datetime | None
    deadline: Deadline
    asked: datetime | None = None

    def count(self, resource: Resource, taken: int) -> int:
        """The number of instances of a resource, by a search, because the store's metrics lag.

        Args:
            taken: how many others the request has deleted or will delete.

        Raises:
            PermanentError: rejected, when there are more than the request may delete.
            RetryableError: as DicomStore.search.
        """
        allowed = max(0, self.max_instances - taken)
        found = self.store.count(resource, allowed + 1, self.deadline)
        if found > allowed:
            limit = f"more than {self.max_instances} instances"
            raise _refused(f"{limit}, which DELETE_MAX_INSTANCES forbids")
        return found

    def check_age(self, resource: Resource) -> None:
        """Check ages, with one request for each instance, if there is a limit.

        Raises:
            PermanentError: rejected, when something in it was stored too recently.
            RetryableError: as DicomStore.search.
        """
        before, asked = self.before, self.asked
        if before and self._any_since(resource, before, when_unknown=True):
            raise _refused("something in it was stored too recently")
        if asked and self._any_since(resource, asked, when_unknown=False):
            raise _refused("stored again after the command was given")

    def _any_since(self, resource: Resource, limit: datetime, when_unknown: bool) -> bool:
        """Whether any instance was stored at that time or later.

        Args:
            when_unknown: the answer if the store does not say when.
        """

        def is_since(instance: Resource) -> bool:
            text = self.store.stored_at(instance, self.deadline)
            stored = timestamp(text)
            if stored is None:
                return when_unknown
            return stored >= limit

        instances = self.store.instances(resource, self.deadline)
        with ThreadPoolExecutor(_THREADS) as pool:
            while True:
                batch = list(islice(instances, _BATCH))
                if not batch:
                    return False
                if any(pool.map(is_since, batch)):
                    return True


def _refused(detail: str) -> PermanentError:
    return PermanentError("rejected", detail)

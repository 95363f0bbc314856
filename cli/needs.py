"""What the code of each function must be allowed to do, and on what. A test compares it with what
Terraform grants."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cli.system import System
from functions.common.resources import DicomStoreName, GcsPrefix
from functions.common.settings import DELETE, EXPORT, SEARCH, STORE

_PUBLISH: Final = ("pubsub.topics.publish",)
_READ: Final = "healthcare.dicomStores.dicomWebRead"
_WRITE: Final = "healthcare.dicomStores.dicomWebWrite"
_DELETE: Final = "healthcare.dicomStores.dicomWebDelete"
# Without list, Cloud Storage answers 403 and not 404 for what is gone, and a message would be tried
# for ever.
_OBJECTS_READ: Final = ("storage.objects.get", "storage.objects.list")
# Cloud Storage asks for delete where an object is written over, as it is on a redelivery.
_OBJECTS_WRITE: Final = ("storage.objects.create", "storage.objects.delete")


@dataclass(frozen=True)
class Need:
    """Permissions on one resource.

    Args:
        function: who needs them.
        kind: bucket, topic, store or dataset.
        resource: a bucket's name, or a full name.
    """

    function: str
    kind: str
    resource: str
    permissions: tuple[str, ...]


def of(system: System) -> Iterator[Need]:
    """What the functions need with the settings that they have."""
    for function in (STORE, DELETE, EXPORT):
        follow_ups = system.topology["functions"][function]["follow_ups"]["topic"]
        for role in (follow_ups, "outcomes"):
            yield Need(function, "topic", system.topic(role), _PUBLISH)
    # Each within its own folder: Terraform's condition says which.
    for function in (STORE, EXPORT):
        yield Need(function, "bucket", system.buckets["state"], (*_OBJECTS_READ, *_OBJECTS_WRITE))
    yield from _store(system)
    yield from _delete(system)
    yield Need(EXPORT, "store", system.store.name, (_READ,))
    for bucket in sorted({place.bucket for place in _destinations(system, EXPORT)}):
        yield Need(EXPORT, "bucket", bucket, (*_OBJECTS_READ, *_OBJECTS_WRITE))
    yield Need(SEARCH, "store", system.store.name, (_READ,))
    if system.environments[SEARCH].get("SEARCH_EXPORTS") == "true":
        yield Need(SEARCH, "topic", system.topic("exports"), _PUBLISH)


def _store(system: System) -> Iterator[Need]:
    environment = system.environments[STORE]
    overwrites = "overwrite" in environment.get("CONFLICT_POLICY", "")
    yield Need(
        STORE, "store", system.store.name, (_READ, _WRITE, *((_DELETE,) if overwrites else ()))
    )
    yield Need(
        STORE, "bucket", system.buckets["landing"], (*_OBJECTS_READ, "storage.objects.delete")
    )
    # Read too: a note that is there already says whether it is of this upload or of an earlier one
    # of its name.
    yield Need(STORE, "bucket", system.buckets["quarantine"], (*_OBJECTS_READ, *_OBJECTS_WRITE))
    if place := environment.get("MOVE_DESTINATION"):
        yield Need(STORE, "bucket", GcsPrefix.parse(place).bucket, _OBJECTS_WRITE)


def _delete(system: System) -> Iterator[Need]:
    names = system.environments[DELETE].get("DELETE_STORES", "").split(",")
    stores = {DicomStoreName(name.strip()) for name in names if name.strip()} | {system.store}
    for store in sorted(stores, key=lambda store: store.name):
        # Google documents no permission for getStudyMetrics; getDICOMStoreMetrics takes `get`.
        yield Need(DELETE, "store", store.name, (_READ, _DELETE, "healthcare.dicomStores.get"))
    for dataset in sorted({store.dataset for store in stores}):
        yield Need(DELETE, "dataset", dataset, ("healthcare.operations.get",))


def _destinations(system: System, function: str) -> list[GcsPrefix]:
    text = system.environments[function].get("EXPORT_DESTINATIONS", "")
    return [GcsPrefix.parse(item.strip()) for item in text.split(",") if item.strip()]

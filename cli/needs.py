"""The permissions that each function's code needs, and on which resources. A test compares them
with what Terraform grants."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cli.system import System
from functions.common.resources import DicomStoreName, GcsPrefix
from functions.common.settings import COMMANDS, DELETE, EXPORT, NOTIFY, SEARCH, STORE, WATCH

_PUBLISH: Final = ("pubsub.topics.publish",)
_READ: Final = "healthcare.dicomStores.dicomWebRead"
_WRITE: Final = "healthcare.dicomStores.dicomWebWrite"
_DELETE: Final = "healthcare.dicomStores.dicomWebDelete"
# Google documents no permission for getStudyMetrics; getDICOMStoreMetrics takes this one.
_GET_STORE: Final = "healthcare.dicomStores.get"
# Without list, Cloud Storage answers 403 instead of 404 for a missing object, and the message would
# be retried forever.
_OBJECTS_READ: Final = ("storage.objects.get", "storage.objects.list")
# Overwriting an object needs delete; a redelivery overwrites.
_OBJECTS_KEPT: Final = (*_OBJECTS_READ, "storage.objects.create", "storage.objects.delete")
_OBJECTS_TAKEN: Final = (*_OBJECTS_READ, "storage.objects.delete")


@dataclass(frozen=True)
class Need:
    """Permissions on one resource.

    Args:
        function: that needs them.
        kind: bucket, topic, store, dataset or secret.
        resource: a bucket's name, or a full name.
    """

    function: str
    kind: str
    resource: str
    permissions: tuple[str, ...]


def of(system: System) -> Iterator[Need]:
    """The needs of all functions with their present settings."""
    for function in (STORE, DELETE, EXPORT):
        item = system.topology["functions"][function]
        follow_ups = item["follow_ups"]["topic"]
        yield _publishing(system, function, follow_ups)
        yield _publishing(system, function, "outcomes")
    # Each only in its own folder, by a condition in Terraform.
    state = system.buckets["state"]
    yield Need(STORE, "bucket", state, _OBJECTS_KEPT)
    yield Need(EXPORT, "bucket", state, _OBJECTS_KEPT)
    yield from _store(system)
    yield from _delete(system)
    yield from _export(system)
    yield from _search(system)
    yield from _optional(system)


def _optional(system: System) -> Iterator[Need]:
    """The needs of the optional functions that are deployed."""
    state = system.buckets["state"]
    for function in (COMMANDS, NOTIFY, WATCH):
        if function in system.environments:
            yield Need(function, "bucket", state, _OBJECTS_KEPT)
    if COMMANDS in system.environments:
        yield _publishing(system, COMMANDS, "exports")
        yield _publishing(system, COMMANDS, "deletes")
    for name in sorted(set(system.webhook_secrets.values())):
        secret = f"projects/{system.project}/secrets/{name}"
        yield Need(NOTIFY, "secret", secret, ("secretmanager.versions.access",))
    if WATCH in system.environments:
        yield Need(WATCH, "store", system.store.name, (_READ,))
        yield _publishing(system, WATCH, "outcomes")
        yield _publishing(system, WATCH, "studies_next")
        if system.environments[WATCH].get("ON_STUDY_COMPLETE"):
            yield _publishing(system, WATCH, "exports")


def _publishing(system: System, function: str, role: str) -> Need:
    return Need(function, "topic", system.topic(role), _PUBLISH)


def _store(system: System) -> Iterator[Need]:
    environment = system.environments[STORE]
    in_store = [_READ, _WRITE]
    if "overwrite" in environment.get("CONFLICT_POLICY", ""):
        in_store.append(_DELETE)
    yield Need(STORE, "store", system.store.name, tuple(in_store))
    landing = system.buckets["landing"]
    yield Need(STORE, "bucket", landing, _OBJECTS_TAKEN)
    # Read too: an existing sidecar says whether it belongs to this upload or to an earlier one of
    # the same name.
    quarantine = system.buckets["quarantine"]
    yield Need(STORE, "bucket", quarantine, _OBJECTS_KEPT)
    place = environment.get("MOVE_DESTINATION")
    if place:
        # Read too: if an object already has the name there, the two are compared.
        bucket = GcsPrefix.parse(place).bucket
        yield Need(STORE, "bucket", bucket, _OBJECTS_KEPT)


def _delete(system: System) -> Iterator[Need]:
    text = system.environments[DELETE].get("DELETE_STORES", "")
    stores = {DicomStoreName(name) for name in _listed(text)}
    stores.add(system.store)
    names = sorted(store.name for store in stores)
    for name in names:
        yield Need(DELETE, "store", name, (_READ, _DELETE, _GET_STORE))
    datasets = {store.dataset for store in stores}
    for dataset in sorted(datasets):
        yield Need(DELETE, "dataset", dataset, ("healthcare.operations.get",))


def _export(system: System) -> Iterator[Need]:
    yield Need(EXPORT, "store", system.store.name, (_READ,))
    text = system.environments[EXPORT].get("EXPORT_DESTINATIONS", "")
    places = [GcsPrefix.parse(item) for item in _listed(text)]
    for bucket in sorted({place.bucket for place in places}):
        yield Need(EXPORT, "bucket", bucket, _OBJECTS_KEPT)


def _search(system: System) -> Iterator[Need]:
    environment = system.environments[SEARCH]
    yield Need(SEARCH, "store", system.store.name, (_READ,))
    if environment.get("SEARCH_EXPORTS") == "true":
        yield _publishing(system, SEARCH, "exports")
    if "STATE_BUCKET" in environment:
        yield Need(SEARCH, "bucket", system.buckets["state"], _OBJECTS_READ)
    if environment.get("SEARCH_UPLOADS") == "true":
        landing = system.buckets["landing"]
        yield Need(SEARCH, "bucket", landing, ("storage.objects.create",))


def _listed(text: str) -> list[str]:
    """The items of a comma-separated list."""
    return [item.strip() for item in text.split(",") if item.strip()]

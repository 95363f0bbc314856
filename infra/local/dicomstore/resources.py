"""The API's resources: datasets, dicomStores and operations (fact sheet sections 1, 7)."""

import re
from typing import TYPE_CHECKING, Any

import flask

from infra.local.dicomstore import choices, operations, rest
from infra.local.dicomstore.media import ApiError
from infra.local.dicomstore.rest import Json
from infra.local.dicomstore.urls import (
    DATASET,
    DATASETS,
    INSTANCE,
    SERIES,
    STORE,
    STORES,
    STUDY,
    WEB,
    dataset_of,
    location_of,
)

if TYPE_CHECKING:
    from infra.local.dicomstore.app import Store

DATASET_FIELDS = ("timeZone",)
STORE_FIELDS = ("labels", "notificationConfig", "notificationConfigs", "streamConfigs")
TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
ID = re.compile(r"[\w.-]{1,256}")
# The one filter of dicomStores.list: `labels.key=value`, several of them joined by AND.
LABEL = re.compile(r'labels\.([\w-]+)\s*=\s*"?([\w-]*)"?')
IAM = (("GET", "getIamPolicy"), ("POST", "setIamPolicy"), ("POST", "testIamPermissions"))
BULK = ("import", "export", "deidentify")


class Resources:
    """The views; each takes the variables of its URL."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._stores = store.stores
        self._operations = store.operations
        for method, path, view in (
            ("POST", DATASETS, self.create_dataset),
            ("GET", DATASETS, self.list_datasets),
            ("GET", DATASET, self.get_dataset),
            ("PATCH", DATASET, self.patch_dataset),
            ("DELETE", DATASET, self.delete_dataset),
            ("POST", STORES, self.create_store),
            ("GET", STORES, self.list_stores),
            ("GET", STORE, self.get_store),
            ("PATCH", STORE, self.patch_store),
            ("DELETE", STORE, self.delete_store),
            ("GET", DATASET + "/operations", self.list_operations),
            ("GET", DATASET + "/operations/<operation>", self.get_operation),
            ("POST", DATASET + "/operations/<operation>:cancel", self.cancel_operation),
        ):
            store.route(method, path, view)
        self._left_out()

    def _left_out(self) -> None:
        """Methods of the service that this store does not have."""
        for path in (WEB + "/studies", STUDY):
            self._store.route("PUT", path, rest.not_here_in_beta)
        for path in (STUDY, SERIES, INSTANCE):
            self._store.route("PATCH", path + "/metadata", rest.not_here_in_beta)
        for verb in BULK:
            self._store.route("POST", f"{STORE}:{verb}", rest.not_here)
        self._store.route("POST", DATASET + ":deidentify", rest.not_here)
        for method, verb in IAM:
            for path in (DATASET, STORE):
                self._store.route(method, f"{path}:{verb}", rest.not_here)

    # --- datasets ---

    def create_dataset(self, **args: str) -> flask.Response:
        """datasets.create: an operation, which is done at once."""
        name = f"{location_of(args)}/datasets/{_new_id('datasetId')}"
        kept = _kept(rest.body(), DATASET_FIELDS)
        if not self._stores.create_dataset(name, kept):
            raise ApiError(409, f"already exists: {name}")
        operation = self._operations.done(name, args["version"], operations.CREATE_DATASET)
        return flask.jsonify(operation)

    def list_datasets(self, **args: str) -> flask.Response:
        """datasets.list."""
        found = self._stores.datasets(f"{location_of(args)}/datasets")
        return rest.page("datasets", [_shown(name, body) for name, body in found])

    def get_dataset(self, **args: str) -> flask.Response:
        """datasets.get."""
        return flask.jsonify(_shown(*self._dataset(args)))

    def patch_dataset(self, **args: str) -> flask.Response:
        """datasets.patch."""
        name, kept = self._dataset(args)
        kept = _patched(kept, _kept(rest.body(), DATASET_FIELDS), DATASET_FIELDS)
        self._stores.update_dataset(name, kept)
        return flask.jsonify(_shown(name, kept))

    def delete_dataset(self, **args: str) -> flask.Response:
        """datasets.delete, with everything in it."""
        name, _ = self._dataset(args)
        self._stores.delete_dataset(name)
        return flask.jsonify({})

    def _dataset(self, args: dict[str, str]) -> tuple[str, Json]:
        """An existing dataset. Raises ApiError 404, 403."""
        name = dataset_of(args)
        body = self._stores.dataset(name)
        if body is None:
            raise self._store.missing_resource(name)
        return name, body

    # --- dicomStores ---

    def create_store(self, **args: str) -> flask.Response:
        """dicomStores.create."""
        if not choices.DATASETS_IMPLICIT:
            self._dataset(args)
        name = f"{dataset_of(args)}/dicomStores/{_new_id('dicomStoreId')}"
        kept = _store_fields()
        if not self._stores.create(name, kept):
            raise ApiError(409, f"already exists: {name}")
        return flask.jsonify(_shown(name, kept))

    def list_stores(self, **args: str) -> flask.Response:
        """dicomStores.list, by labels."""
        wanted = _labels(flask.request.args.get("filter", ""))
        found = [
            _shown(name, body)
            for name, body in self._stores.listed(dataset_of(args))
            if wanted.items() <= body.get("labels", {}).items()
        ]
        return rest.page("dicomStores", found)

    def get_store(self, **args: str) -> flask.Response:
        """dicomStores.get."""
        return flask.jsonify(_shown(*self._stores.get(self._store.place(args).store)))

    def patch_store(self, **args: str) -> flask.Response:
        """dicomStores.patch, of whole top-level fields."""
        place = self._store.place(args)
        name, kept = self._stores.get(place.store)
        kept = _patched(kept, _store_fields(), STORE_FIELDS)
        self._stores.update(place.store, kept)
        return flask.jsonify(_shown(name, kept))

    def delete_store(self, **args: str) -> flask.Response:
        """dicomStores.delete, with everything in it."""
        self._stores.delete(self._store.place(args).store)
        return flask.jsonify({})

    # --- operations ---

    def list_operations(self, **args: str) -> flask.Response:
        """operations.list."""
        if flask.request.args.get("filter"):
            raise ApiError(501, "operations.list: filter is not part of this local store")
        return rest.page("operations", self._operations.list(dataset_of(args)))

    def get_operation(self, **args: str) -> flask.Response:
        """operations.get."""
        return flask.jsonify(self._operations.get(dataset_of(args), args["operation"]))

    def cancel_operation(self, **args: str) -> flask.Response:
        """operations.cancel."""
        self._operations.cancel(dataset_of(args), args["operation"])
        return flask.jsonify({})


def _new_id(parameter: str) -> str:
    """The id of the resource to create. Raises ApiError 400."""
    found = flask.request.args.get(parameter, "")
    if not ID.fullmatch(found):
        raise ApiError(400, f"{parameter} is missing or not valid")
    return found


def _shown(name: str, body: Json) -> Json:
    return {"name": name, **body}


def _kept(body: Json, fields: tuple[str, ...]) -> Json:
    return {name: body[name] for name in fields if body.get(name)}


def _patched(kept: Json, new: Json, fields: tuple[str, ...]) -> Json:
    """A body with the fields in updateMask replaced or removed. Raises ApiError 400."""
    found = dict(kept)
    for name in rest.masked(fields):
        found.pop(name, None)
        if name in new:
            found[name] = new[name]
    return found


def _labels(text: str) -> dict[str, str]:
    """The labels in a filter. Raises ApiError 400: it has anything else."""
    found = {}
    for term in re.split(r"\s+AND\s+", text.strip()):
        if not term:
            continue
        match = LABEL.fullmatch(term.strip("()"))
        if not match:
            raise ApiError(400, "filter: only labels.KEY=VALUE is supported")
        found[match[1]] = match[2]
    return found


def _store_fields() -> Json:
    """The fields of a dicomStore in the request's body.

    Raises:
        ApiError: 400, a label is not text, or it would notify no topic.
    """
    found = _kept(rest.body(), STORE_FIELDS)
    if not _are_labels(found.get("labels", {})):
        raise ApiError(400, "labels are an object of texts")
    for topic in _topics(found):
        if not isinstance(topic, str) or not TOPIC.fullmatch(topic):
            form = "projects/PROJECT/topics/TOPIC"
            raise ApiError(400, f"the pubsubTopic of a notification configuration is {form}")
    return found


def _are_labels(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return all(isinstance(text, str) for text in value.values())


def _topics(store: Json) -> list[Any]:
    """The topics of a store's notification configurations; None for one that names none."""
    several = store.get("notificationConfigs", [])
    if not isinstance(several, list):
        return [None]
    topics = [rest.field(config, "pubsubTopic") for config in several]
    legacy = store.get("notificationConfig")
    if legacy:
        topics.append(rest.field(legacy, "pubsubTopic") or None)
    return topics

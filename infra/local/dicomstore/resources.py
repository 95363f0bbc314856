"""The JSON side of the API: dicomStores, operations, metrics and storage (sheet sections 1, 7,
13)."""

import http.client
import json
import re
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import flask

from infra.local.dicomstore import choices, operations, stow, wado
from infra.local.dicomstore.index import Uids
from infra.local.dicomstore.media import ApiError
from infra.local.dicomstore.urls import DATASET, INSTANCE, SERIES, STORE, STUDY, WEB

if TYPE_CHECKING:
    from infra.local.dicomstore.app import Place, Store

FIELDS = ("labels", "notificationConfig", "notificationConfigs", "streamConfigs")
TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")
STORE_ID = re.compile(r"[\w.-]{1,256}")
LISTED = re.compile(
    r"/(studies/[\d.]+(?:/series/[\d.]+(?:/instances/[\d.]+)?)?)"
)  # a line of a filter file
FETCH_S = 30


class Resources:
    """The views; each takes the variables of its URL."""

    def __init__(self, store: "Store") -> None:
        self.place = store.place
        self.index = store.index
        self.operations = store.operations
        self.storage_url = store.options.storage_url
        for method, path, view in (
            ("POST", DATASET + "/dicomStores", self.create_store),
            ("GET", DATASET + "/dicomStores", self.list_stores),
            ("GET", STORE, self.get_store),
            ("PATCH", STORE, self.patch_store),
            ("DELETE", STORE, self.delete_store),
            ("GET", STORE + ":getDICOMStoreMetrics", self.metrics),
            ("GET", STUDY + ":getStudyMetrics", self.metrics),
            ("GET", SERIES + ":getSeriesMetrics", self.metrics),
            ("GET", INSTANCE + ":getStorageInfo", self.storage_info),
            ("GET", DATASET + "/operations", self.list_operations),
            ("GET", DATASET + "/operations/<operation>", self.get_operation),
            ("POST", DATASET + "/operations/<operation>:cancel", self.cancel_operation),
            *(
                ("POST", path + ":setBlobStorageSettings", self.set_class)
                for path in (STORE, STUDY, SERIES, INSTANCE)
            ),
            *(("PUT", path, not_here) for path in (WEB + "/studies", STUDY)),
            *(("PATCH", path + "/metadata", not_here) for path in (STUDY, SERIES, INSTANCE)),
            *(("POST", f"{STORE}:{verb}", not_here) for verb in ("import", "export", "deidentify")),
            ("POST", DATASET + ":deidentify", not_here),
        ):
            store.route(method, path, view)

    # --- dicomStores ---

    def create_store(self, **args: str) -> flask.Response:
        """dicomStores.create."""
        store_id = flask.request.args.get("dicomStoreId", "")
        name = f"{dataset(args)}/dicomStores/{store_id}"
        if not STORE_ID.fullmatch(store_id):
            raise ApiError(400, "dicomStoreId is missing or not valid")
        kept = _store_fields()
        if not self.index.create_store(name, json.dumps(kept)):
            raise ApiError(409, f"already exists: {name}")
        return flask.jsonify({"name": name, **kept})

    def list_stores(self, **args: str) -> flask.Response:
        """dicomStores.list."""
        found = self.index.stores(dataset(args) + "/dicomStores/")
        return _page("dicomStores", [{"name": name, **json.loads(body)} for name, body in found])

    def get_store(self, **args: str) -> flask.Response:
        """dicomStores.get."""
        place = self.place(args)
        return flask.jsonify({"name": place.name, **self.index.store_body(place.store)})

    def patch_store(self, **args: str) -> flask.Response:
        """dicomStores.patch, of whole top-level fields."""
        place = self.place(args)
        body, kept = _store_fields(), self.index.store_body(place.store)
        for field in flask.request.args.get("updateMask", "").split(","):
            if field not in FIELDS:
                raise ApiError(400, f"updateMask: unknown field {field!r}")
            kept.pop(field, None)
            kept.update({field: body[field]} if field in body else {})
        self.index.update_store(place.store, json.dumps(kept))
        return flask.jsonify({"name": place.name, **kept})

    def delete_store(self, **args: str) -> flask.Response:
        """dicomStores.delete, with everything in it."""
        self.index.delete_store(self.place(args).store)
        return flask.jsonify({})

    # --- metrics and storage ---

    def metrics(self, **args: str) -> flask.Response:
        """:getStudyMetrics, :getSeriesMetrics, :getDICOMStoreMetrics."""
        place = self.place(args)
        fault = flask.request.environ.get("dicomstore.fault", {})
        lag_s = fault.get("seconds", 3600) if fault.get("kind") == "lag" else 0.0
        counts = self.index.counts(place.store, place.uids, lag_s)
        found = {key: str(value) for key, value in counts.items()}
        if not place.uids.study:
            return flask.jsonify({"name": place.name, **found})
        level = "series" if place.uids.series else "study"
        if counts["instanceCount"] == 0 and not lag_s:
            raise wado.missing(level)
        for key in ("studyCount", "seriesCount") if place.uids.series else ("studyCount",):
            del found[key]
        return flask.jsonify({level: f"{place.name}/dicomWeb/{place.uids.path}", **found})

    def storage_info(self, **args: str) -> flask.Response:
        """:getStorageInfo."""
        place = self.place(args)
        one = self.index.find(place.store, place.uids)
        if not one:
            raise wado.missing("instance")
        blob = {
            "sizeBytes": str(one.size),
            "storageClass": one.storage_class,
            "storageClassUpdateTime": operations.timestamp(one.class_time),
        }
        structured = sum(len(line) for line in self.index.metadata(one.id))
        found = {
            "referencedResource": f"{place.name}/dicomWeb/{one.uids.path}",
            "blobStorageInfo": blob,
        }
        return flask.jsonify({**found, "structuredStorageInfo": {"sizeBytes": str(structured)}})

    def set_class(self, **args: str) -> flask.Response:
        """:setBlobStorageSettings on a study, series or instance, or on what a file in a bucket
        lists."""
        place = self.place(args)
        posted = small_json()
        wanted = _field(_field(posted, "blobStorageSettings"), "blobStorageClass")
        if wanted not in stow.STORAGE_CLASSES:
            raise ApiError(
                400,
                f"blobStorageSettings.blobStorageClass is one of {', '.join(stow.STORAGE_CLASSES)}",
            )
        uri = _field(_field(posted, "filterConfig"), "resourcePathsGcsUri")
        if bool(uri) == bool(place.uids.study):
            raise ApiError(
                400,
                "filterConfig.resourcePathsGcsUri belongs to the path of a store, and to no other",
            )
        if not uri and not self.index.instances(place.store, place.uids):
            raise wado.missing("resource")
        return self.start_operation(
            place, operations.SET_CLASS, self.listed(uri) if uri else [place.uids], wanted
        )

    def listed(self, uri: object) -> list[Uids]:
        """The resources that a filter file names, one a line (sheet section 12). Raises ApiError
        400, 501."""
        if not self.storage_url:
            raise ApiError(
                501,
                "filterConfig: STORAGE_EMULATOR_HOST (--storage) names no bucket server to read it from",
            )
        bucket, _, name = str(uri).removeprefix("gs://").partition("/")
        path = "/storage/v1/b/{}/o/{}?alt=media".format(
            *(urllib.parse.quote(part, safe="") for part in (bucket, name))
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                self.storage_url + path, timeout=FETCH_S
            ) as answer:
                lines = answer.read().decode("latin-1").split()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiError(choices.BAD_FILTER, "filterConfig: the file cannot be read") from error
        found = [LISTED.fullmatch(line) for line in lines]
        if not found or None in found:
            raise ApiError(
                choices.BAD_FILTER,
                "filterConfig: every line is /studies/S[/series/R[/instances/I]]",
            )
        return [Uids.parse(match[1]) for match in found if match]

    # --- operations ---

    def start_operation(
        self, place: "Place", method: str, targets: list[Uids], argument: str = ""
    ) -> flask.Response:
        """Start an operation on resources of the place's store and name it."""
        fault = flask.request.environ.get("dicomstore.fault", {})
        name = self.operations.start(
            place.dataset, place.version, method, place.store, targets, argument, fault
        )
        return flask.jsonify({"name": name})

    def list_operations(self, **args: str) -> flask.Response:
        """operations.list."""
        return _page("operations", self.operations.list(dataset(args)))

    def get_operation(self, **args: str) -> flask.Response:
        """operations.get."""
        return flask.jsonify(self.operations.get(dataset(args), args["operation"]))

    def cancel_operation(self, **args: str) -> flask.Response:
        """operations.cancel."""
        self.operations.cancel(dataset(args), args["operation"])
        return flask.jsonify({})


def dataset(args: dict[str, str]) -> str:
    """`projects/…/locations/…/datasets/…` of a URL."""
    return f"projects/{args['project']}/locations/{args['location']}/datasets/{args['dataset']}"


def small_json() -> Any:
    """The JSON object in the request's body. Raises ApiError 400, 413."""
    body = flask.request.environ["wsgi.input"].read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise ApiError(413, "the request is larger than 10 MB")
    try:
        found = json.loads(body or b"{}")
    except ValueError as error:
        raise ApiError(400, "Invalid JSON payload received.") from error
    if not isinstance(found, dict):
        raise ApiError(400, "Invalid JSON payload received.")
    return found


def _store_fields() -> dict[str, Any]:
    """The fields of a dicomStore in the request's body. Raises ApiError 400: it would notify no
    topic."""
    body = small_json()
    found = {field: body[field] for field in FIELDS if body.get(field)}
    try:
        topics = [config["pubsubTopic"] for config in found.get("notificationConfigs", ())]
        topics += filter(None, (found.get("notificationConfig", {}).get("pubsubTopic"),))
        named = all(TOPIC.fullmatch(topic) for topic in topics)
    except (AttributeError, KeyError, TypeError):
        named = False
    if not named:
        raise ApiError(
            400, "the pubsubTopic of a notification configuration is projects/PROJECT/topics/TOPIC"
        )
    return found


def _field(body: Any, name: str) -> Any:
    """A field by its JSON name, or by its proto name as some clients send it; None when there is
    none."""
    snake = re.sub("([A-Z])", r"_\1", name).lower()
    return body.get(name, body.get(snake)) if isinstance(body, dict) else None


MAX_BODY = 10_000_000  # bytes; only store requests may be larger (sheet section 9)


def not_here(**args: str) -> flask.Response:
    """Methods of the service that this store leaves out on purpose."""
    del args
    raise ApiError(
        501,
        f"{flask.request.method} {flask.request.path.rpartition('/')[2]} is not part of this local store",
    )


def _page(key: str, found: list[dict[str, Any]]) -> flask.Response:
    size = max(1, min(flask.request.args.get("pageSize", 100, int) or 100, 1000))
    start = flask.request.args.get("pageToken", 0, int)
    more = {"nextPageToken": str(start + size)} if len(found) > start + size else {}
    return flask.jsonify({key: found[start : start + size], **more})

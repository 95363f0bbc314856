"""The API's URLs: which request goes where (sheet section 1)."""

import errno
import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flask
from werkzeug.exceptions import HTTPException

from infra.local.dicomstore import choices, media, operations, search, stow, wado
from infra.local.dicomstore.faults import Faults
from infra.local.dicomstore.index import Index, Instance, Uids
from infra.local.dicomstore.media import ApiError, Media
from infra.local.dicomstore.server import Server

DATASET = "/<any(v1,v1beta1):version>/projects/<project>/locations/<location>/datasets/<dataset>"
STORE = DATASET + "/dicomStores/<store>"
WEB = STORE + "/dicomWeb"
STUDY = "/studies/<study>"
SERIES = STUDY + "/series/<series>"
INSTANCE = SERIES + "/instances/<instance>"
DEFAULT_STORE = "projects/local/locations/local/datasets/local/dicomStores/local"
MAX_OTHER_BODY = 10_000_000  # bytes; only store requests may be larger (sheet section 9)


class Place(NamedTuple):
    """What a URL names."""

    store: int
    version: str
    dataset: str
    name: str  # projects/…/dicomStores/…
    uids: Uids
    root: str  # http://host/v1

    @property
    def base(self) -> str:
        """The store's dicomWeb URL."""
        return f"{self.root}/{self.name}/dicomWeb"


class Store:
    """The application: one data directory, any number of stores."""

    def __init__(self, directory: Path, options: choices.Options, stores: tuple[str, ...] = (DEFAULT_STORE,)) -> None:
        self.options = options
        self.index = Index(directory)
        self.operations = operations.Operations(self.index, options.operation_s, self.removed)
        for name in stores:
            self.index.create_store(name, "{}")
        self.app = flask.Flask("dicomstore", static_folder=None)
        self.app.json.sort_keys = False  # type: ignore[attr-defined]
        self.app.config["PROPAGATE_EXCEPTIONS"] = True
        self.app.before_request(self.authenticate)
        for failure in (ApiError, HTTPException, OSError, sqlite3.OperationalError):
            self.app.register_error_handler(failure, answer_error)
        self._routes()

    def _routes(self) -> None:
        def rule(method: str, path: str, view: Callable[..., Any]) -> None:
            self.app.add_url_rule(path, f"{method} {path}", view, methods=[method])

        for path in ("/studies", STUDY):
            rule("POST", WEB + path, self.store)
        for path in ("/studies", "/series", "/instances"):
            rule("GET", WEB + path, self.search)
        for path in (f"{STUDY}/series", f"{STUDY}/instances", f"{SERIES}/instances"):
            rule("GET", WEB + path, self.search)
        for path in (STUDY, SERIES, INSTANCE):
            rule("GET", WEB + path, self.retrieve)
            rule("GET", WEB + path + "/metadata", self.metadata)
            rule("DELETE", WEB + path, self.delete)
            rule("POST", WEB + path + ":setBlobStorageSettings", self.set_class)
        rule("GET", WEB + INSTANCE + "/bulkdata/<path:path>", self.bulkdata)
        rule("GET", WEB + INSTANCE + ":getStorageInfo", self.storage_info)
        rule("GET", WEB + STUDY + ":getStudyMetrics", self.metrics)
        rule("GET", WEB + SERIES + ":getSeriesMetrics", self.metrics)
        rule("GET", STORE + ":getDICOMStoreMetrics", self.metrics)
        rule("GET", DATASET + "/operations", self.list_operations)
        rule("GET", DATASET + "/operations/<operation>", self.get_operation)
        rule("POST", DATASET + "/operations/<operation>:cancel", self.cancel_operation)

    # --- what every request has ---

    def authenticate(self) -> None:
        """Check the bearer token, when tokens were given. Raises ApiError 401, 403."""
        if not (self.options.tokens or self.options.read_tokens):
            return
        form = "array" if flask.request.method == "GET" and "/dicomWeb/" in flask.request.path else "object"
        kind, _, token = flask.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            token = flask.request.args.get("access_token", "")
        if token in self.options.tokens:
            return
        if token not in self.options.read_tokens:
            raise ApiError(401, "Request is missing required authentication credential.", form)
        if flask.request.method != "GET":
            raise ApiError(403, "The caller does not have permission.", form)

    def place(self, args: dict[str, str]) -> Place:
        """What the URL names. Raises ApiError when there is no such store."""
        dataset = f"projects/{args['project']}/locations/{args['location']}/datasets/{args['dataset']}"
        name = f"{dataset}/dicomStores/{args['store']}"
        store = self.index.store_id(name)
        if store is None:
            secret = bool(self.options.tokens or self.options.read_tokens)
            code = choices.MISSING_STORE_WITH_AUTH if secret else 404
            form = "array" if "/dicomWeb/" in flask.request.path else "object"
            raise ApiError(code, f"Permission denied or resource not found: {name}", form)
        uids = Uids(args.get("study", ""), args.get("series", ""), args.get("instance", ""))
        return Place(store, args["version"], dataset, name, uids, f"{flask.request.host_url}{args['version']}")

    def accept(self, offers: tuple[Media, ...]) -> Media:
        """The media type to answer with."""
        return media.negotiate(flask.request.headers.get("Accept", ""), offers)

    def removed(self, instances: list[Instance]) -> None:
        """Called with instances that were just deleted."""

    # --- transactions ---

    def store(self, **args: str) -> flask.Response:
        """STOW-RS."""
        place = self.place(args)
        answer = self.accept(stow.ANSWERS)
        storage_class = flask.request.headers.get("Storage-Class", "STANDARD").upper()
        if storage_class not in stow.STORAGE_CLASSES:
            raise ApiError(choices.BAD_STORAGE_CLASS, f"invalid Storage-Class: {storage_class}", "array")
        kind, parameters = media.parse(flask.request.headers.get("Content-Type", ""))
        stream = flask.request.environ["wsgi.input"]
        receiver = stow.Receiver(
            self.index,
            place.store,
            place.uids.study,
            storage_class,
            lambda uids: self.operations.blocks(place.store, uids),
        )
        part = parameters.get("type", "").lower()
        if kind == "application/dicom":
            receiver.single(stream)
        elif kind == "multipart/related" and part == "application/dicom" and parameters.get("boundary"):
            receiver.multipart(stream, parameters["boundary"])
        else:
            raise ApiError(400, f"unsupported Content-Type: {kind}", "array")
        found = stow.report(receiver.outcomes, place.base, place.uids.study)
        failed = any(outcome.failure for outcome in receiver.outcomes) or not receiver.outcomes
        text = stow.render(found, answer.type.endswith("json"))
        return flask.Response(text, 409 if failed else 200, content_type=answer.type)

    def search(self, **args: str) -> flask.Response:
        """QIDO-RS."""
        place = self.place(args)
        answer = self.accept(search.ANSWERS)
        level = flask.request.path.rpartition("/")[2]
        query = search.parse(level, place.uids, list(flask.request.args.items(multi=True)))
        fault = flask.request.environ.get("dicomstore.fault", {})
        stale_s = fault.get("seconds", 3600) if fault.get("kind") == "stale" else self.options.stale_s
        found = search.run(self.index, place.store, query, stale_s)
        if answer.part:
            documents = search.as_xml(found, place.base)
            if documents:
                header, body = wado.multipart(((answer.part, [text.encode()]) for text in documents), answer.part)
                return flask.Response(body, content_type=header)
        elif text := search.as_json(found, place.base):
            return flask.Response(text, content_type="application/dicom+json; charset=utf-8")
        return flask.Response(status=choices.EMPTY_SEARCH, content_type="text/html")

    def instances(self, place: Place) -> list[Instance]:
        """Every instance under the resource. Raises ApiError 404 when there is none."""
        found = self.index.instances(place.store, place.uids)
        if not found:
            level = "instance" if place.uids.instance else "series" if place.uids.series else "study"
            raise wado.missing(level)
        return found

    def retrieve(self, **args: str) -> flask.Response:
        """WADO-RS study, series, instance."""
        place = self.place(args)
        answer = self.accept(wado.MULTIPART + wado.SINGLE if place.uids.instance else wado.MULTIPART)
        found = self.instances(place)
        if answer.part:
            parts = (
                (f"application/dicom; transfer-syntax={one.syntax}", wado.file_pieces(self.index.files / one.file))
                for one in found
            )
            header, body = wado.multipart(parts, answer.part, answer.syntax)
            return flask.Response(body, content_type=header)
        one = found[0]
        header = f"{answer.type}; transfer-syntax={one.syntax}"
        pieces = wado.file_pieces(self.index.files / one.file)
        return flask.Response(pieces, content_type=header, headers={"Content-Length": str(one.size)})

    def metadata(self, **args: str) -> flask.Response:
        """WADO-RS metadata."""
        place = self.place(args)
        answer = self.accept(wado.METADATA)
        found = self.instances(place)
        if answer.part:
            header, body = wado.multipart(wado.metadata_xml(self.index, found, place.base), answer.part)
            return flask.Response(body, content_type=header)
        text = wado.metadata_json(self.index, found, place.base)
        return flask.Response(text, content_type="application/dicom+json; charset=utf-8")

    def bulkdata(self, **args: str) -> flask.Response:
        """WADO-RS bulk data."""
        place = self.place(args)
        answer = self.accept(wado.BULKDATA)
        path = self.index.files / self.instances(place)[0].file

        def pieces() -> Any:
            with wado.scanned(path) as file:
                yield from wado.bulk_pieces(file, wado.bulk_element(file, args["path"]))

        with wado.scanned(path) as file:
            wado.bulk_element(file, args["path"])  # missing: say so while the status can still be chosen
        if answer.part:
            kind = f"{answer.part}; transfer-syntax={answer.syntax}"
            header, body = wado.multipart([(kind, pieces())], answer.part, answer.syntax)
            return flask.Response(body, content_type=header)
        return flask.Response(pieces(), content_type=str(answer))

    def delete(self, **args: str) -> flask.Response:
        """DELETE: an instance at once, a study or series as an operation."""
        place = self.place(args)
        found = self.instances(place)
        if place.uids.instance:
            self.removed(self.index.remove(place.store, place.uids))
            return flask.jsonify({})
        method = operations.DELETE_METHODS["series" if place.uids.series else "study"]
        del found
        return self.start_operation(place, method, "")

    def start_operation(self, place: Place, method: str, argument: str) -> flask.Response:
        """Start an operation on the place and name it."""
        fault = flask.request.environ.get("dicomstore.fault", {})
        name = self.operations.start(place.dataset, place.version, method, place.store, place.uids, argument, fault)
        return flask.jsonify({"name": name})

    def set_class(self, **args: str) -> flask.Response:
        """:setBlobStorageSettings on a study, series or instance."""
        place = self.place(args)
        wanted = operations.blob_class(self.small_body())
        if wanted not in stow.STORAGE_CLASSES:
            raise ApiError(400, f"invalid blobStorageClass: {wanted}")
        self.instances(place)
        return self.start_operation(place, operations.SET_CLASS, wanted)

    def small_body(self) -> bytes:
        """The body of a request other than store. Raises ApiError 413 beyond 10 MB."""
        body: bytes = flask.request.environ["wsgi.input"].read(MAX_OTHER_BODY + 1)
        if len(body) > MAX_OTHER_BODY:
            raise ApiError(413, "the request is larger than 10 MB")
        return body

    def storage_info(self, **args: str) -> flask.Response:
        """:getStorageInfo."""
        place = self.place(args)
        one = self.instances(place)[0]
        structured = sum(len(line) for line in self.index.metadata(one.id))
        blob = {
            "sizeBytes": str(one.size),
            "storageClass": one.storage_class,
            "storageClassUpdateTime": operations.timestamp(one.class_time),
        }
        resource = f"{place.name}/dicomWeb/{one.uids.path}"
        found = {"referencedResource": resource, "blobStorageInfo": blob}
        return flask.jsonify({**found, "structuredStorageInfo": {"sizeBytes": str(structured)}})

    def metrics(self, **args: str) -> flask.Response:
        """:getStudyMetrics, :getSeriesMetrics, :getDICOMStoreMetrics."""
        place = self.place(args)
        counts = self.index.counts(place.store, place.uids)
        found = {key: str(value) for key, value in counts.items()}
        if place.uids.study:
            if counts["instanceCount"] == 0:
                raise wado.missing("series" if place.uids.series else "study")
            level = "series" if place.uids.series else "study"
            dropped = ("studyCount", "seriesCount") if place.uids.series else ("studyCount",)
            found = {key: value for key, value in found.items() if key not in dropped}
            return flask.jsonify({level: f"{place.name}/dicomWeb/{place.uids.path}", **found})
        return flask.jsonify({"name": place.name, **found})

    def list_operations(self, **args: str) -> flask.Response:
        """Operations of a dataset."""
        size = min(flask.request.args.get("pageSize", 100, int) or 100, 1000)
        after = flask.request.args.get("pageToken", 0, int)
        found = self.operations.page(_dataset(args), size + 1, after)
        more = {"nextPageToken": str(after + size)} if len(found) > size else {}
        return flask.jsonify({"operations": found[:size], **more})

    def get_operation(self, **args: str) -> flask.Response:
        """One operation."""
        return flask.jsonify(self.operations.get(_dataset(args), args["operation"]))

    def cancel_operation(self, **args: str) -> flask.Response:
        """Cancel one."""
        self.operations.cancel(_dataset(args), args["operation"])
        return flask.jsonify({})


def _dataset(args: dict[str, str]) -> str:
    return f"projects/{args['project']}/locations/{args['location']}/datasets/{args['dataset']}"


def answer_error(error: Exception) -> flask.Response:
    """Every error as the service words it."""
    if isinstance(error, ApiError):
        failure = error
    elif isinstance(error, HTTPException):
        failure = ApiError(error.code or 500, error.description or "")
    elif isinstance(error, sqlite3.OperationalError):
        failure = ApiError(503, f"The index cannot be written: {error}")
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        failure = ApiError(503, "There is no room on the disk.")
    else:
        raise error
    body, content_type = failure.body()
    return flask.Response(body, failure.code, content_type=content_type)


def serve(store: Store, host: str = "127.0.0.1", port: int = 0) -> Server:
    """Start serving in the background; `server.url` says where, `server.shutdown()` ends it."""
    server = Server(host, port, Faults(store.app))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def parse_json(body: bytes) -> Any:
    """A JSON body. Raises ApiError 400."""
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise ApiError(400, "Invalid JSON payload received.") from error

"""The application: what all requests share, and the transactions store, search and delete.

The other views are in `retrieve.py` (WADO-RS), `resources.py` (datasets, dicomStores, operations)
and `storage.py` (metrics, storage classes).
"""

import errno
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from infra.local.callers import Callers, Guard
from infra.local.dicomstore import (
    choices,
    media,
    operations,
    rest,
    search,
    stow,
    stow_json,
    wado,
)
from infra.local.dicomstore.cors import Cors, Environ, brings_token
from infra.local.dicomstore.faults import Faults
from infra.local.dicomstore.index import Index
from infra.local.dicomstore.media import ApiError, Media
from infra.local.dicomstore.notify import Notifier
from infra.local.dicomstore.resources import Resources
from infra.local.dicomstore.retrieve import Retrieve
from infra.local.dicomstore.rows import Instance, Uids
from infra.local.dicomstore.server import Server
from infra.local.dicomstore.storage import Storage
from infra.local.dicomstore.stores import Stores
from infra.local.dicomstore.urls import (
    INSTANCE,
    SERIES,
    STUDY,
    WEB,
    Place,
    dataset_of,
    is_dicomweb,
    own_url,
    store_of,
    uids_of,
)

DEFAULT_STORE = "projects/local/locations/local/datasets/local/dicomStores/local"
FORM = "application/x-www-form-urlencoded"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Store:
    """The application: one data directory, any number of stores."""

    def __init__(
        self, directory: Path, options: choices.Options, stores: tuple[str, ...] = (DEFAULT_STORE,)
    ) -> None:
        self.options = options
        self.index = Index(directory)
        self.stores = Stores(self.index)
        self.notifier = Notifier(options.pubsub_host)
        self.operations = operations.Operations(self.index, options.operation_s, self.tell)
        for name in stores:
            self.stores.create(name, {})
        self.app = flask.Flask("dicomstore", static_folder=None)
        self.app.json.sort_keys = False  # type: ignore[attr-defined]
        self.app.config["PROPAGATE_EXCEPTIONS"] = True
        self.app.url_map.merge_slashes = False
        self.app.before_request(self.authenticate)
        for failure in (ApiError, HTTPException, OSError, sqlite3.OperationalError):
            self.app.register_error_handler(failure, answer_error)
        self._routes()
        Retrieve(self)
        Resources(self)
        Storage(self)

    def route(self, method: str, path: str, view: Callable[..., flask.Response]) -> None:
        """Answer a method on a URL rule with a view."""
        self.app.add_url_rule(
            path, f"{method} {path}", view, methods=[method], provide_automatic_options=False
        )

    def _routes(self) -> None:
        for path in (WEB + "/studies", STUDY):
            self.route("POST", path, self.store)
        for path in ("/studies", "/series", "/instances"):
            self.route("GET", WEB + path, self.search)
        for path in (f"{STUDY}/series", f"{STUDY}/instances", f"{SERIES}/instances"):
            self.route("GET", path, self.search)
        for path in (STUDY, SERIES, INSTANCE):
            self.route("DELETE", path, self.delete)

    # --- all requests ---

    @property
    def asks_for_tokens(self) -> bool:
        """Whether requests are authenticated."""
        return bool(self.options.tokens or self.options.read_tokens)

    def authenticate(self) -> None:
        """Check the bearer token, when tokens were given. Raises ApiError 401, 403."""
        if not self.asks_for_tokens:
            return
        form = "object"
        if flask.request.method == "GET" and is_dicomweb():
            form = "array"
        kind, _, token = flask.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            token = flask.request.args.get("access_token", "")
        if token in self.options.tokens:
            return
        if token not in self.options.read_tokens:
            raise ApiError(401, "Request is missing required authentication credential.", form)
        if flask.request.method not in ("GET", "HEAD"):
            raise ApiError(403, "The caller does not have permission.", form)

    def place(self, args: dict[str, str]) -> Place:
        """What the URL names. Raises ApiError when there is no such store."""
        name = store_of(args)
        store = self.stores.id_of(name)
        if store is None:
            raise self.missing_resource(name)
        version = args["version"]
        return Place(
            store=store,
            version=version,
            dataset=dataset_of(args),
            name=name,
            uids=uids_of(args),
            root=f"{own_url()}/{version}",
        )

    def missing_resource(self, name: str) -> ApiError:
        """The answer for a missing store or dataset."""
        code = 404
        if self.asks_for_tokens:
            code = choices.MISSING_STORE_WITH_AUTH
        form = "object"
        if is_dicomweb():
            form = "array"
        return ApiError(code, f"Permission denied or resource not found: {name}", form)

    def accept(self, offers: tuple[Media, ...], unlisted: tuple[Media, ...] = ()) -> Media:
        """The media type to answer with; a refusal does not list the unlisted ones.

        Raises:
            ApiError: 406, none of them is accepted.
        """
        accepted = flask.request.headers.get("Accept", "")
        if choices.JSON_IS_DICOM_JSON:
            accepted = accepted.replace("application/json", "application/dicom+json")
        return media.negotiate(accepted, offers, unlisted)

    def instances(self, place: Place) -> list[Instance]:
        """Every instance under the resource. Raises MissingError when there is none."""
        found = self.index.instances(place.store, place.uids)
        if not found:
            raise wado.missing(place.uids.level)
        return found

    def start_operation(
        self, place: Place, method: str, targets: list[Uids], argument: str = ""
    ) -> flask.Response:
        """Start an operation on resources of the place's store and name it."""
        name = self.operations.start(
            dataset=place.dataset,
            version=place.version,
            method=method,
            store=place.store,
            targets=targets,
            argument=argument,
            fault=rest.fault(),
        )
        return flask.jsonify({"name": name})

    # --- notifications ---

    def tell(
        self, action: str, store: int, instances: list[Instance], storage_class: str = ""
    ) -> None:
        """Publish an action on instances to the store's topics; storage_class is the new one where
        it changes."""
        if not self.options.pubsub_host:
            return
        name, body = self.stores.get(store)
        for one in instances:
            more = {"modality": one.modality, "storageClass": storage_class or one.storage_class}
            if more["storageClass"] != one.storage_class:
                more["previousStorageClass"] = one.storage_class
            self.notifier.tell(body, action, name, one.uids, **more)

    def added(self, place: Place, outcomes: list[stow.Outcome], storage_class: str) -> None:
        """Notify the store's topics of new instances, not of identical ones stored again."""
        if not self.options.pubsub_host:
            return
        _, body = self.stores.get(place.store)
        for one in outcomes:
            if one.new:
                more = {"modality": one.modality, "storageClass": storage_class}
                self.notifier.tell(body, "StoreInstances", place.name, one.uids, **more)

    # --- transactions ---

    def store(self, **args: str) -> flask.Response:
        """STOW-RS."""
        place = self.place(args)
        answer = self._report_type()
        storage_class = flask.request.headers.get("Storage-Class", "STANDARD").upper()
        if storage_class not in stow.STORAGE_CLASSES:
            message = f"invalid Storage-Class: {storage_class}"
            raise ApiError(choices.BAD_STORAGE_CLASS, message, "array")
        receiver = stow.Receiver(
            index=self.index,
            store=place.store,
            study=place.uids.study,
            storage_class=storage_class,
            blocked=lambda uids: self.operations.blocks(place.store, uids),
        )
        try:
            _receive(receiver)
        finally:
            # What was stored before a body broke off stays stored.
            self.added(place, receiver.outcomes, storage_class)
        if not receiver.outcomes:
            raise ApiError(400, "the request holds no instance", "array")
        found = stow.report(receiver.outcomes, place.base, place.uids.study)
        code = 200
        if any(outcome.failure for outcome in receiver.outcomes):
            code = 409
        text = stow.render(found, answer.type.endswith("json"))
        return flask.Response(text, code, content_type=answer.type)

    def _report_type(self) -> Media:
        """The answer to a store request."""
        unlisted: tuple[Media, ...] = ()
        if choices.STORE_ACCEPTS_DICOM:
            unlisted = (stow.LIKE_DEFAULT,)
        answer = self.accept(stow.ANSWERS, unlisted)
        if answer == stow.LIKE_DEFAULT:
            return stow.ANSWERS[0]
        return answer

    def search(self, **args: str) -> flask.Response:
        """QIDO-RS."""
        place = self.place(args)
        answer = self.accept(search.ANSWERS)
        level = flask.request.path.rpartition("/")[2]
        query = search.parse(level, place.uids, list(flask.request.args.items(multi=True)))
        stale_s = self.options.stale_s
        fault = rest.fault()
        if fault.get("kind") == "stale":
            stale_s = fault.get("seconds", 3600)
        found = search.run(self.index, place.store, query, stale_s)
        first = next(found, None)
        if first is None:
            empty = flask.Response(status=choices.EMPTY_SEARCH)
            del empty.headers["Content-Type"]
            return empty
        matches = itertools.chain([first], found)
        if not answer.part:
            body = search.as_json(matches, place.base)
            return flask.Response(body, content_type="application/dicom+json; charset=utf-8")
        documents = search.as_xml(matches, place.base)
        parts = (wado.Part(answer.part, pieces) for pieces in documents)
        header, body = wado.multipart(parts, answer.part)
        return flask.Response(body, content_type=header)

    def delete(self, **args: str) -> flask.Response:
        """DELETE: an instance at once, a study or series as an operation."""
        place = self.place(args)
        self.instances(place)  # 404 if it is missing
        if place.uids.instance:
            gone = self.index.remove(place.store, place.uids)
            self.tell("DeleteInstances", place.store, gone)
            return flask.jsonify({})
        method = operations.DELETE_METHODS[place.uids.level]
        return self.start_operation(place, method, [place.uids])


def _receive(receiver: stow.Receiver) -> None:
    """The request's body, by its type.

    Raises:
        ApiError: 400, for another type.
    """
    content_type = flask.request.headers.get("Content-Type", "")
    kind, parameters = media.parse(content_type)
    stream = flask.request.environ["wsgi.input"]
    is_form = kind == FORM and choices.FORM_IS_DICOM
    if kind == "application/dicom" or is_form:
        receiver.single(stream)
        return
    boundary = parameters.get("boundary")
    if kind == "multipart/related" and boundary:
        part = parameters.get("type", "").lower()
        if part == "application/dicom":
            receiver.multipart(stream, boundary)
            return
        if part == "application/dicom+json":
            stow_json.JsonRequest(receiver).run(stream, boundary)
            return
    raise ApiError(400, f"unsupported Content-Type: {kind}", "array")


def answer_error(error: Exception) -> flask.Response:
    """Every error in the service's words."""
    failure = _failure(error)
    headers = {}
    if failure.code == 405 and isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.valid_methods or ())
    body, content_type = failure.body()
    return flask.Response(body, failure.code, headers, content_type=content_type)


def _failure(error: Exception) -> ApiError:
    """What is answered for an error; a bug is raised again."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, NotFound) or _unknown_verb(error):
        return ApiError(404, choices.NO_METHOD)
    if isinstance(error, MethodNotAllowed):
        return ApiError(405, "Method not allowed.")
    if isinstance(error, HTTPException):
        return ApiError(error.code or 500, error.description or "")
    if isinstance(error, sqlite3.OperationalError):
        return ApiError(503, "The index cannot be written.")
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return ApiError(503, "There is no room on the disk.")
    raise error


def _unknown_verb(error: Exception) -> bool:
    """Whether a path such as `STORE:verb` was read as that of a store."""
    last = flask.request.path.rpartition("/")[2]
    return isinstance(error, MethodNotAllowed) and ":" in last


def serve(
    store: Store,
    host: str = "127.0.0.1",
    port: int = 0,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
) -> Server:
    """Start serving in the background; `server.url` says where, `server.shutdown()` ends it.

    Args:
        store: the application.
        host: the address to listen on.
        port: the port; 0 chooses a free one.
        allowed_hosts: names for this machine in Host headers, besides the loopback ones.
        allowed_origins: web origins whose pages may call, besides those of this machine.
    """

    def excused(environ: Environ) -> bool:
        """Like the service, a store that requires tokens serves pages of any origin."""
        return store.asks_for_tokens and brings_token(environ)

    callers = Callers(host, allowed_hosts, allowed_origins)
    guard = Guard(Cors(Faults(store.app)), callers, excused)
    server = Server(host, port, guard)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    ).start()
    return server

"""The API's URLs: which request goes where (sheet section 1)."""

import errno
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import flask
from werkzeug.exceptions import HTTPException

from infra.local.callers import Callers, Guard
from infra.local.dicomstore import choices, media, operations, search, stow, stow_json, wado
from infra.local.dicomstore.faults import Faults
from infra.local.dicomstore.index import Index, Instance, Uids
from infra.local.dicomstore.media import ApiError, Media
from infra.local.dicomstore.notify import Notifier
from infra.local.dicomstore.resources import Resources, dataset
from infra.local.dicomstore.retrieve import Retrieve
from infra.local.dicomstore.server import Server
from infra.local.dicomstore.urls import INSTANCE, SERIES, STUDY, WEB

DEFAULT_STORE = "projects/local/locations/local/datasets/local/dicomStores/local"


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

    def __init__(
        self, directory: Path, options: choices.Options, stores: tuple[str, ...] = (DEFAULT_STORE,)
    ) -> None:
        self.options = options
        self.index = Index(directory)
        self.notifier = Notifier(options.pubsub_host)
        self.operations = operations.Operations(self.index, options.operation_s, self.tell)
        for name in stores:
            self.index.create_store(name, "{}")
        self.app = flask.Flask("dicomstore", static_folder=None)
        self.app.json.sort_keys = False  # type: ignore[attr-defined]
        self.app.config["PROPAGATE_EXCEPTIONS"] = True
        self.app.before_request(self.authenticate)
        for failure in (ApiError, HTTPException, OSError, sqlite3.OperationalError):
            self.app.register_error_handler(failure, answer_error)
        self.resources = Resources(self)
        Retrieve(self)
        self._routes()

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

    # --- what every request has ---

    def authenticate(self) -> None:
        """Check the bearer token, when tokens were given. Raises ApiError 401, 403."""
        if not (self.options.tokens or self.options.read_tokens):
            return
        form = (
            "array"
            if flask.request.method == "GET" and "/dicomWeb/" in flask.request.path
            else "object"
        )
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
        name = f"{dataset(args)}/dicomStores/{args['store']}"
        store = self.index.store_id(name)
        if store is None:
            secret = bool(self.options.tokens or self.options.read_tokens)
            code = choices.MISSING_STORE_WITH_AUTH if secret else 404
            form = "array" if "/dicomWeb/" in flask.request.path else "object"
            raise ApiError(code, f"Permission denied or resource not found: {name}", form)
        uids = Uids(args.get("study", ""), args.get("series", ""), args.get("instance", ""))
        return Place(
            store, args["version"], dataset(args), name, uids, f"{own_url()}/{args['version']}"
        )

    def accept(self, offers: tuple[Media, ...]) -> Media:
        """The media type to answer with."""
        return media.negotiate(flask.request.headers.get("Accept", ""), offers)

    def tell(
        self, action: str, store: int, instances: list[Instance], storage_class: str = ""
    ) -> None:
        """Publish an action on instances to the store's topics; storage_class is the new one where
        it changes."""
        if not self.options.pubsub_host:
            return
        name, body = self.index.store_name(store), self.index.store_body(store)
        for one in instances:
            more = {"modality": one.modality, "storageClass": storage_class or one.storage_class}
            if more["storageClass"] != one.storage_class:
                more["previousStorageClass"] = one.storage_class
            self.notifier.tell(body, action, name, one.uids, **more)

    def added(self, place: Place, outcomes: list[stow.Outcome], storage_class: str) -> None:
        """Tell the store's topics of instances that were just stored; not of identical ones stored
        again."""
        body = self.index.store_body(place.store) if self.options.pubsub_host else {}
        for one in outcomes:
            if one.new and body:
                more = {"modality": one.modality, "storageClass": storage_class}
                self.notifier.tell(body, "StoreInstances", place.name, one.uids, **more)

    # --- transactions ---

    def store(self, **args: str) -> flask.Response:
        """STOW-RS."""
        place = self.place(args)
        answer = self.accept(stow.ANSWERS)
        storage_class = flask.request.headers.get("Storage-Class", "STANDARD").upper()
        if storage_class not in stow.STORAGE_CLASSES:
            raise ApiError(
                choices.BAD_STORAGE_CLASS, f"invalid Storage-Class: {storage_class}", "array"
            )
        receiver = stow.Receiver(
            self.index,
            place.store,
            place.uids.study,
            storage_class,
            lambda uids: self.operations.blocks(place.store, uids),
        )
        try:
            _receive(receiver)
        finally:  # what was stored before a body broke off is stored
            self.added(place, receiver.outcomes, storage_class)
        if not receiver.outcomes:
            raise ApiError(400, "the request holds no instance", "array")
        found = stow.report(receiver.outcomes, place.base, place.uids.study)
        failed = any(outcome.failure for outcome in receiver.outcomes)
        text = stow.render(found, answer.type.endswith("json"))
        return flask.Response(text, 409 if failed else 200, content_type=answer.type)

    def search(self, **args: str) -> flask.Response:
        """QIDO-RS."""
        place = self.place(args)
        answer = self.accept(search.ANSWERS)
        level = flask.request.path.rpartition("/")[2]
        query = search.parse(level, place.uids, list(flask.request.args.items(multi=True)))
        fault = flask.request.environ.get("dicomstore.fault", {})
        stale_s = (
            fault.get("seconds", 3600) if fault.get("kind") == "stale" else self.options.stale_s
        )
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

    def instances(self, place: Place) -> list[Instance]:
        """Every instance under the resource. Raises ApiError 404 when there is none."""
        found = self.index.instances(place.store, place.uids)
        if not found:
            level = (
                "instance" if place.uids.instance else "series" if place.uids.series else "study"
            )
            raise wado.missing(level)
        return found

    def delete(self, **args: str) -> flask.Response:
        """DELETE: an instance at once, a study or series as an operation."""
        place = self.place(args)
        self.instances(place)  # 404 when there is nothing
        if place.uids.instance:
            self.tell("DeleteInstances", place.store, self.index.remove(place.store, place.uids))
            return flask.jsonify({})
        method = operations.DELETE_METHODS["series" if place.uids.series else "study"]
        return self.resources.start_operation(place, method, [place.uids])


def _receive(receiver: stow.Receiver) -> None:
    """The request's body, by its type. Raises ApiError 400."""
    kind, parameters = media.parse(flask.request.headers.get("Content-Type", ""))
    stream = flask.request.environ["wsgi.input"]
    part, boundary = parameters.get("type", "").lower(), parameters.get("boundary")
    if kind == "application/dicom":
        receiver.single(stream)
    elif kind == "multipart/related" and part == "application/dicom" and boundary:
        receiver.multipart(stream, boundary)
    elif kind == "multipart/related" and part == "application/dicom+json" and boundary:
        stow_json.JsonRequest(receiver).run(stream, boundary)
    else:
        raise ApiError(400, f"unsupported Content-Type: {kind}", "array")


def own_url() -> str:
    """`http://host:port` as the client sees it; a Host of this machine without its port
    (dicomweb-client) gets it."""
    host, port = flask.request.host, flask.request.environ["SERVER_PORT"]
    if host in ("127.0.0.1", "localhost", flask.request.environ["SERVER_NAME"]) and port != "80":
        host = f"{host}:{port}"
    return f"{flask.request.scheme}://{host}"


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


def serve(
    store: Store, host: str = "127.0.0.1", port: int = 0, allowed_hosts: Iterable[str] = ()
) -> Server:
    """Start serving in the background; `server.url` says where, `server.shutdown()` ends it.

    allowed_hosts are names for this machine in Host headers, besides the loopback ones.
    """

    def brings_token(environ: dict[str, Any]) -> bool:
        """As the service does, a store that asks for tokens serves pages of any origin."""
        asks = bool(store.options.tokens or store.options.read_tokens)
        announced = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "").lower()
        return asks and ("HTTP_AUTHORIZATION" in environ or "authorization" in announced)

    guard = Guard(Faults(store.app), Callers(host, allowed_hosts), brings_token)
    server = Server(host, port, guard)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    ).start()
    return server

"""The HTTP function for people, scripts and viewers: QIDO-RS, WADO-RS for reading, and a search
page with exports and uploads.

The DICOM store is called with the service's own credentials. An answer is JSON, CSV, DICOMweb or a
file of the page. Every error has the same form, {"error": {"reason": …}}, without text of the
store.
"""

import json
import re
from collections.abc import Callable
from typing import Final

import flask
import werkzeug.exceptions

from functions.api.callers import EVERYONE, Callers
from functions.api.id_tokens import CallerError
from functions.common.clients.transport import Transport
from functions.common.errors import RetryableError
from functions.common.log import log_bug
from functions.common.settings import SEARCH, Settings
from functions.search import bodies, cors, page, pages, qidors, retrieving, targets
from functions.search.access import Access, FixedFilters
from functions.search.exporting import Exports
from functions.search.qidors import Pairs, Query
from functions.search.refusals import RefusedError
from functions.search.replies import Reply
from functions.search.searching import Searcher
from functions.search.states import States
from functions.search.targets import Target
from functions.search.uploading import Uploads
from functions.search.upstream import Upstream, refused_by_store

_READ: Final = ("GET", "HEAD", "OPTIONS")
_SENT: Final = ("POST", "OPTIONS")
_METHODS: Final = {
    "asset": _READ,
    "config": _READ,
    "search": _READ,
    "retrieve": _READ,
    "query": _SENT,
    "exports": _SENT,
    "uploads": _SENT,
    "request": _READ,
}
_HOST: Final = re.compile(
    r"([\w.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?",
    re.ASCII,
)


def entry_point() -> Callable[[flask.Request], flask.Response]:
    """Make the deployed function.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    service = _Service(Settings.load(SEARCH))

    def search(request: flask.Request) -> flask.Response:
        return service.answer(request)

    if flask.has_app_context():
        app = flask.current_app
        # No redirects: a path with empty segments is refused like other malformed paths.
        app.url_map.merge_slashes = False
        app.register_error_handler(
            werkzeug.exceptions.HTTPException, lambda _: service.answer(flask.request)
        )
        app.register_error_handler(Exception, _bug)
    return search


def _bug(error: Exception) -> flask.Response:
    log_bug(SEARCH, error)
    internal = RefusedError("internal")
    return Reply(internal.status, internal.headers(), internal.body()).response({})


class _Service:
    """The function with its settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        transport = Transport()
        self._upstream = Upstream(
            transport,
            settings.healthcare_endpoint,
            settings.dicom_store.name,
            settings.search_timeout_s,
        )
        self._searcher = Searcher(self._upstream)
        self._access = Access(self._searcher)
        self._exports = Exports(settings, transport)
        self._uploads = Uploads(settings, transport)
        self._states = States(settings, transport)
        self._callers = Callers(
            SEARCH,
            settings.search_callers,
            settings.search_audience,
            settings.id_token_keys_url,
        )

    def answer(self, request: flask.Request) -> flask.Response:
        """The answer to any request."""
        headers = cors.headers_for(self._settings.search_origins, request)
        try:
            return self._reply(request).begun().response(headers)
        except RefusedError as error:
            refusal = error
        except RetryableError:
            # Only the DICOM store's answers are read here; errors of buckets and of Pub/Sub are
            # refusals already.
            refusal = refused_by_store("unavailable")
        refusal.log(SEARCH)
        return Reply(refusal.status, refusal.headers(), refusal.body()).response(headers)

    def _reply(self, request: flask.Request) -> Reply:
        path, query = targets.raw_target(request.environ)
        target = targets.parse(path)
        methods = _METHODS[target.kind]
        if request.method == "OPTIONS":
            return Reply(204, {"Allow": ", ".join(methods)})
        if request.method not in methods:
            raise RefusedError(
                "method_not_allowed",
                f"takes {', '.join(methods)}",
                allow=methods,
            )
        fixed = self._filters_of_caller(target, request)
        match target.kind:
            case "asset":
                return self._asset(target, request)
            case "config":
                return self._config(fixed)
            case "retrieve":
                return self._retrieve(target, query, fixed, request)
            case "exports":
                return self._export(fixed, request)
            case "uploads":
                return self._upload(fixed, request)
            case "request":
                return self._request(target)
            case "query":
                return self._query(target, query, fixed, request)
            case _:
                return self._search(target, query, fixed, request)

    def _filters_of_caller(self, target: Target, request: flask.Request) -> FixedFilters:
        """Check the caller; returns the filters that all requests of this caller have.

        Raises:
            RefusedError: unauthenticated; forbidden; unavailable.
        """
        authorization = request.headers.get("Authorization", "")
        try:
            caller = self._callers.identify(target.kind, authorization)
        except CallerError as error:
            raise RefusedError(error.reason, error.message) from error
        if caller == EVERYONE:
            return {}
        return self._settings.search_callers[caller]

    def _search(
        self, target: Target, query: str, fixed: FixedFilters, request: flask.Request
    ) -> Reply:
        """A search with its parameters in the URL."""
        form = pages.form_of(request.headers.get("Accept", ""))
        pairs = qidors.decode(query)
        base = self._base(request)
        translated = _translated(target, pairs, fixed)
        self._check_path(target, fixed)
        found = self._searcher.search(translated, base)
        return found.reply(form, base + target.path, pairs)

    def _query(
        self, target: Target, query: str, fixed: FixedFilters, request: flask.Request
    ) -> Reply:
        """A search with its parameters in the body; limit and offset may be in the URL, as in the
        link to the next page."""
        form = pages.form_of(request.headers.get("Accept", ""))
        paging = qidors.decode(query)
        base = self._base(request)
        names = {name for name, _ in paging}
        if not names <= {"limit", "offset"}:
            raise RefusedError(
                "invalid_parameter", "the URL of a query by POST takes limit and offset only"
            )
        pairs = bodies.query_pairs(request)
        translated = _translated(target, pairs, fixed)
        if paging:
            # The whole body is checked too; then the URL takes precedence.
            pairs = [pair for pair in pairs if pair[0] not in names] + paging
            translated = _translated(target, pairs, fixed)
        self._check_path(target, fixed)
        found = self._searcher.search(translated, base)
        return found.reply(form, f"{base}{target.path}/_query", ())

    def _check_path(self, target: Target, fixed: FixedFilters) -> None:
        """Check a study in the path of a search too: it is not known what the store does if a
        filter contradicts the path."""
        if target.resource:
            self._access.check(target.resource, fixed)

    def _retrieve(
        self, target: Target, query: str, fixed: FixedFilters, request: flask.Request
    ) -> Reply:
        if not self._settings.search_retrieve:
            raise RefusedError(
                "retrieve_disabled",
                "retrieving is switched off here",
            )
        assert target.resource
        self._access.check(target.resource, fixed)
        return retrieving.retrieve(
            upstream=self._upstream,
            target=target,
            pairs=qidors.decode(query),
            headers=dict(request.headers),
            base=self._base(request),
        )

    def _export(self, fixed: FixedFilters, request: flask.Request) -> Reply:
        if not self._settings.search_exports:
            raise RefusedError("not_found")
        self._check_origin(request)
        resource, command = self._exports.checked(bodies.json_object(request))
        self._access.check(resource, fixed)
        body = json.dumps({"request_id": self._exports.publish(command)})
        return Reply(202, {"Content-Type": page.JSON}, body.encode())

    def _upload(self, fixed: FixedFilters, request: flask.Request) -> Reply:
        self._check_origin(request)
        origin = request.headers.get("Origin", "")
        begun = self._uploads.begin(bodies.json_object(request), fixed, origin)
        return Reply(201, {"Content-Type": page.JSON}, json.dumps(begun).encode())

    def _request(self, target: Target) -> Reply:
        if not self._states.are_kept:
            raise RefusedError("not_found")
        body = json.dumps(self._states.find(target.request_id))
        return Reply(200, {"Content-Type": page.JSON}, body.encode())

    def _check_origin(self, request: flask.Request) -> None:
        """Refuse requests of other sites' pages to change something, even if they may read answers
        (SEARCH_ORIGINS).

        Raises:
            RefusedError: forbidden.
        """
        # Browsers send this and no page can change it, whichever Host a proxy sets
        # (https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header).
        site = request.headers.get("Sec-Fetch-Site", "")
        if site == "same-origin":
            return
        # A program that is not a browser sends neither header.
        origin = request.headers.get("Origin", "")
        if not site and (not origin or origin + "/" == self._base(request)):
            return
        raise RefusedError("forbidden", "pages of other sites may not ask for this")

    def _config(self, fixed: FixedFilters) -> Reply:
        """The page's configuration for this caller."""
        config = {
            "retrieve": self._settings.search_retrieve,
            "exports": self._exports.choices(),
            "uploads": self._uploads.choices(fixed),
            "viewer": self._settings.search_viewer_url,
        }
        return Reply(
            200,
            {"Content-Type": page.JSON},
            json.dumps(config).encode(),
        )

    def _asset(self, target: Target, request: flask.Request) -> Reply:
        if not self._settings.search_page and target.asset != targets.OPENAPI:
            raise RefusedError("not_found")
        return page.asset(
            target.asset,
            request.headers.get("If-None-Match", ""),
            self._uploads.sessions,
        )

    def _base(self, request: flask.Request) -> str:
        """The function's own URL, with a trailing slash."""
        if self._settings.search_public_url:
            return self._settings.search_public_url + "/"
        environ = request.environ
        host = environ.get("HTTP_HOST", "")
        if not _HOST.fullmatch(host):
            raise RefusedError(
                "invalid_header",
                "Host is not the name of a host",
            )
        schemes = (environ.get("HTTP_X_FORWARDED_PROTO"), environ.get("wsgi.url_scheme"))
        scheme = "https" if "https" in schemes else "http"
        return f"{scheme}://{host}/"


def _translated(target: Target, pairs: Pairs, fixed: FixedFilters) -> Query:
    return qidors.translate(
        target.level,
        target.resource,
        pairs,
        fixed,
    )

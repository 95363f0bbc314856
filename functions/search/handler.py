"""The HTTP function that people, scripts and viewers ask: QIDO-RS, WADO-RS for reading, and a page
to search with.

The DICOM store is asked with the service's own credentials. Every answer is JSON, DICOMweb or the
page's own files; whatever goes wrong is answered in one shape, {"error": {"reason": …}}, without a
word of the store's.
"""

import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import flask
import werkzeug.exceptions

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SettingsError
from functions.common.log import log
from functions.common.resources import GcsPrefix, Resource
from functions.common.settings import SEARCH, Settings
from functions.search import callers, qidors, retrieving, targets
from functions.search.answers import SAFE_HEADERS, RefusedError
from functions.search.callers import Caller, Callers
from functions.search.relay import Relay
from functions.search.searching import Reply, Searcher, form_of, own_url
from functions.search.targets import Target

_WEB: Final = Path(__file__).parent / "web"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_METHODS: Final = {
    "asset": ("GET", "HEAD", "OPTIONS"),
    "search": ("GET", "HEAD", "OPTIONS"),
    "retrieve": ("GET", "HEAD", "OPTIONS"),
    "query": ("POST", "OPTIONS"),
    "exports": ("POST", "OPTIONS"),
}
_BODY_LIMIT_BYTES: Final = 64 * 1024
_HOST: Final = re.compile(r"([\w.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?", re.ASCII)
_FORMATS: Final = ("dicom", "zip", "jpeg", "png", "metadata", "metadata-xml", "bulkdata")
_PUBLISH_S: Final = 20.0
_ALLOWED_S: Final = 30.0  # how long it is remembered that a limited caller may see a study
_ALLOWED_STUDIES: Final = 1024


def entry_point() -> Callable[[flask.Request], flask.Response]:
    """The function that is deployed.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    service = _Service(Settings.load(SEARCH))

    def search(request: flask.Request) -> flask.Response:
        return service.answer(request)

    if flask.has_app_context():
        app = flask.current_app
        app.url_map.merge_slashes = (
            False  # no redirects: a path with empty segments is refused like other bad ones
        )
        app.register_error_handler(
            werkzeug.exceptions.HTTPException, lambda _: service.answer(flask.request)
        )
        app.register_error_handler(Exception, _bug)
    return search


def _bug(error: Exception) -> flask.Response:
    """An error that nothing foresaw: its kind and place are logged, never its text."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    log("ERROR", "bug", function=SEARCH, error_type=type(error).__name__, error_place=place)
    refused = RefusedError("internal")
    return _response(
        Reply(refused.status, {"Content-Type": "application/json"}, refused.body()), {}
    )


class _Service:
    def __init__(self, settings: Settings) -> None:
        if settings.search_callers and not settings.search_audience:
            raise SettingsError(
                "SEARCH_AUDIENCE is not set: SEARCH_CALLERS needs to know what tokens are made for"
            )
        if settings.search_exports and not (
            settings.exports_topic and settings.export_destinations
        ):
            raise SettingsError("SEARCH_EXPORTS needs EXPORTS_TOPIC and EXPORT_DESTINATIONS")
        self._settings = settings
        store = settings.dicom_store.name
        self._relay = Relay(settings.healthcare_endpoint, store, settings.search_timeout_s)
        self._searcher = Searcher(self._relay)
        self._callers = Callers(
            settings.search_callers, settings.search_audience, settings.search_certs_url
        )
        self._allowed: dict[tuple[str, str], Deadline] = {}

    def answer(self, request: flask.Request) -> flask.Response:
        preflight = request.method == "OPTIONS"
        headers = callers.cors(
            self._settings.search_origins, request.headers.get("Origin", ""), preflight=preflight
        )
        try:
            return _response(self._reply(request), headers)
        except RefusedError as error:
            refused = error
        except (RetryableError, ConnectionResetError):
            refused = RefusedError("unavailable", "the DICOM store gave no answer that makes sense")
        if refused.status >= 500:
            log(
                "WARNING", "answered", function=SEARCH, reason=refused.reason, status=refused.status
            )
        headers |= {"Content-Type": "application/json", **refused.headers()}
        return _response(Reply(refused.status, {}, refused.body()), headers)

    def _reply(self, request: flask.Request) -> Reply:
        path, query = targets.raw_target(request.environ)
        target = targets.parse(path)
        methods = _METHODS[target.kind]
        if request.method == "OPTIONS":
            return Reply(204, {"Allow": ", ".join(methods)})
        if request.method not in methods:
            raise RefusedError("method_not_allowed", f"takes {', '.join(methods)}", allow=methods)
        if target.kind == "asset" and target.asset != "config.json":
            return self._asset(target.asset, request.headers.get("If-None-Match", ""))
        caller = self._callers.identify(request.headers.get("Authorization", ""))
        match target.kind:
            case "asset":
                return Reply(200, {"Content-Type": _TYPES[".json"]}, self._config())
            case "retrieve":
                return self._retrieve(target, query, caller, request)
            case "exports":
                return self._export(caller, request)
            case _:
                return self._search(target, query, caller, request)

    def _search(self, target: Target, query: str, caller: Caller, request: flask.Request) -> Reply:
        form = form_of(request.headers.get("Accept", ""))
        pairs = qidors.decode(query)
        base = self._base(request)
        url = f"{base}{target.path}"
        if target.kind == "query":
            if not {name for name, _ in pairs} <= {"limit", "offset"}:
                raise RefusedError(
                    "invalid_parameter", "the URL of a query by POST takes limit and offset only"
                )
            found = translate_body(request)
            if page := {name for name, _ in pairs}:
                self._translated(target, found, caller)
                found = [pair for pair in found if pair[0] not in page] + pairs
            return self._searcher.answer(
                self._translated(target, found, caller), form, base, lambda: f"{url}/_query"
            )
        return self._searcher.answer(
            self._translated(target, pairs, caller), form, base, lambda: own_url(url, pairs)
        )

    def _translated(
        self, target: Target, pairs: list[tuple[str, str]], caller: Caller
    ) -> qidors.Query:
        return qidors.translate(target.level, target.resource, pairs, caller.fixed)

    def _retrieve(
        self, target: Target, query: str, caller: Caller, request: flask.Request
    ) -> Reply:
        if not self._settings.search_retrieve:
            raise RefusedError("retrieve_disabled", "this service searches only")
        assert target.resource
        self._check_study(target.resource, caller)
        pairs = qidors.decode(query)
        return retrieving.answer(
            self._relay, target, pairs, dict(request.headers), self._base(request)
        )

    def _check_study(self, resource: Resource, caller: Caller) -> None:
        """A caller who is limited to some data sees a study only when it is part of that."""
        if not caller.fixed:
            return
        key = (json.dumps(caller.fixed, sort_keys=True), resource.study)
        remembered = self._allowed.get(key)
        if remembered and remembered.remaining_s():
            return
        if not self._searcher.holds(resource.study, dict(caller.fixed)):
            raise RefusedError("not_found", "the DICOM store has no such thing")
        if len(self._allowed) >= _ALLOWED_STUDIES:
            self._allowed.clear()
        self._allowed[key] = Deadline(_ALLOWED_S)

    def _export(self, caller: Caller, request: flask.Request) -> Reply:
        settings = self._settings
        if not settings.search_exports:
            raise RefusedError("not_found")
        self._check_origin(request)
        wanted = _json_body(request)
        if not isinstance(wanted, dict) or {*wanted} != {"path", "destination", "format"}:
            raise RefusedError("invalid_body", "an export takes path, destination and format")
        try:
            resource = Resource.parse(str(wanted["path"]))
            destination = GcsPrefix.parse(str(wanted["destination"]))
        except PermanentError as error:
            raise RefusedError("invalid_body", error.detail) from error
        if wanted["format"] not in _FORMATS:
            raise RefusedError("invalid_body", f"format takes {', '.join(_FORMATS)}")
        if not any(allowed.contains(destination) for allowed in settings.export_destinations):
            raise RefusedError("forbidden", "exports may not go to this destination")
        self._check_study(resource, caller)
        command = {
            "path": str(resource),
            "destination": str(destination),
            "format": wanted["format"],
        }
        return Reply(202, {"Content-Type": _TYPES[".json"]}, _published(settings, command))

    def _check_origin(self, request: flask.Request) -> None:
        """Other sites' pages ask for nothing in a person's name; who is no browser sends no
        Origin."""
        origin = request.headers.get("Origin", "")
        if not origin or origin in self._settings.search_origins:
            return
        # A proxy may give the request another Host than the browser's. Browsers say this, and no
        # page can.
        if request.headers.get("Sec-Fetch-Site") == "same-origin" or origin + "/" == self._base(
            request
        ):
            return
        raise RefusedError("forbidden", "this origin may not ask for exports")

    def _config(self) -> bytes:
        settings = self._settings
        exports = {
            "formats": _FORMATS,
            "destinations": [str(place) for place in settings.export_destinations or ()],
        }
        return json.dumps(
            {
                "retrieve": settings.search_retrieve,
                "exports": exports if settings.search_exports else None,
            }
        ).encode()

    def _asset(self, name: str, known: str) -> Reply:
        if not self._settings.search_page and name != "openapi.json":
            raise RefusedError("not_found")
        content, etag = _file(name)
        headers = {
            "ETag": etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _PAGE_POLICY,
        }
        if known == etag:
            return Reply(304, headers)
        return Reply(200, headers | {"Content-Type": _TYPES[Path(name).suffix]}, content)

    def _base(self, request: flask.Request) -> str:
        """The function's own URL, with a slash at its end."""
        if self._settings.search_public_url:
            return self._settings.search_public_url + "/"
        host = request.environ.get("HTTP_HOST", "")
        if not _HOST.fullmatch(host):
            raise RefusedError("invalid_header", "Host is not the name of a host")
        secure = "https" in (
            request.environ.get("HTTP_X_FORWARDED_PROTO"),
            request.environ.get("wsgi.url_scheme"),
        )
        return f"{'https' if secure else 'http'}://{host}/"


def translate_body(request: flask.Request) -> list[tuple[str, str]]:
    """The parameters in the body of a query by POST: a form, or a JSON object whose values may be
    lists.

    Raises:
        RefusedError: unsupported_media_type, invalid_body, invalid_parameter.
    """
    if request.mimetype == "application/x-www-form-urlencoded":
        try:
            return qidors.decode(_body(request).decode("ascii"))
        except UnicodeDecodeError as error:
            raise RefusedError("invalid_body", "a form is percent-encoded") from error
    wanted = _json_body(request)
    if not isinstance(wanted, dict):
        raise RefusedError("invalid_body", "a query is a JSON object")
    lists = (
        (name, value if isinstance(value, list) else [value]) for name, value in wanted.items()
    )
    return [(name, _value(name, item)) for name, items in lists for item in items]


def _value(name: str, item: object) -> str:
    """A text; of fuzzymatching true or false, of limit and offset a whole number."""
    if isinstance(item, bool) and name == "fuzzymatching":
        return str(item).lower()
    if (
        isinstance(item, int | float)
        and not isinstance(item, bool)
        and name in ("limit", "offset")
        and item % 1 == 0
    ):
        return str(int(item))
    if isinstance(item, str) and name not in ("limit", "offset", "fuzzymatching"):
        return item
    raise RefusedError(
        "invalid_body", "texts; limit and offset whole numbers; fuzzymatching true or false"
    )


def _json_body(request: flask.Request) -> Any:
    if request.mimetype != "application/json":
        raise RefusedError("unsupported_media_type", "takes application/json (a query also a form)")
    try:
        return json.loads(_body(request))
    except (ValueError, RecursionError) as error:
        raise RefusedError("invalid_body", "not JSON in UTF-8") from error


def _body(request: flask.Request) -> bytes:
    request.max_content_length = _BODY_LIMIT_BYTES
    try:
        return request.stream.read()
    except werkzeug.exceptions.RequestEntityTooLarge as error:
        raise RefusedError("invalid_body", f"larger than {_BODY_LIMIT_BYTES} bytes") from error
    except werkzeug.exceptions.ClientDisconnected as error:
        raise RefusedError("invalid_body", "shorter than announced") from error


def _published(settings: Settings, command: dict[str, str]) -> bytes:
    import uuid

    from functions.common.clients.pubsub import Topics
    from functions.common.clients.transport import Transport

    request_id = str(uuid.uuid4())
    data = json.dumps({**command, "request_id": request_id}).encode()
    try:
        topics = Topics(Transport(), settings.pubsub_emulator_host, settings.pubsub_endpoint)
        topics.publish(settings.exports_topic, data, {}, Deadline(_PUBLISH_S))
    except RetryableError as error:
        raise RefusedError("overloaded", "the export could not be asked for; try again") from error
    return json.dumps({"request_id": request_id}).encode()


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = (_WEB / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _response(reply: Reply, headers: dict[str, str]) -> flask.Response:
    """Always a stream: for others functions-framework reads the request's body into memory
    first."""
    body = reply.body
    headers = {**SAFE_HEADERS, **headers, **reply.headers}
    if isinstance(body, bytes):
        if reply.status not in (204, 304):
            headers["Content-Length"] = str(len(body))
        body = iter((body,))
    response = flask.Response(body, reply.status, headers)
    response.call_on_close(reply.close)
    return response

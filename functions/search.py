"""QIDO-RS over HTTP with the service's own credentials."""

import json
import re
from collections.abc import Callable
from typing import Final

import flask

from functions.common.deadline import Deadline
from functions.common.dicomweb import DicomStore
from functions.common.errors import PermanentError, RetryableError
from functions.common.http import Transport
from functions.common.resources import Resource
from functions.common.settings import SEARCH, Settings

_PATH: Final = re.compile(r"/((?:studies/[^/]+)?(?:/series/[^/]+)?)/?(studies|series|instances)", re.ASCII)


def entry_point() -> Callable[[flask.Request], flask.Response]:
    """The function that is deployed."""
    settings = Settings.load(SEARCH)
    store = DicomStore(Transport(), settings.healthcare_endpoint, settings.dicom_store)

    def search(request: flask.Request) -> flask.Response:
        try:
            return _search(request, store, Deadline(settings.budget_s))
        except PermanentError as error:
            return _error(400, error.reason)
        except RetryableError as error:
            return _error(503, error.reason)

    return search


def _search(request: flask.Request, store: DicomStore, deadline: Deadline) -> flask.Response:
    found = _PATH.fullmatch(request.path)
    if not found or request.method not in ("GET", "HEAD"):
        return _error(404, "not_found")
    resource = Resource.parse(found[1]) if found[1] else None
    items = store.search(resource, found[2], list(request.args.items(multi=True)), deadline)
    return flask.Response(json.dumps(items), content_type="application/dicom+json")


def _error(status: int, reason: str) -> flask.Response:
    return flask.Response(json.dumps({"error": {"reason": reason}}), status, content_type="application/json")

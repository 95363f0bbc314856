"""Metrics and storage classes (fact sheet section 13)."""

import http.client
import re
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import flask

from infra.local.dicomstore import choices, operations, rest, stow, wado
from infra.local.dicomstore.media import ApiError
from infra.local.dicomstore.rows import Uids
from infra.local.dicomstore.urls import INSTANCE, SERIES, STORE, STUDY

if TYPE_CHECKING:
    from infra.local.dicomstore.app import Store

# A line of a filter file.
LISTED = re.compile(r"/(studies/[\d.]+(?:/series/[\d.]+(?:/instances/[\d.]+)?)?)")
FETCH_S = 30
MAX_LIST = 10_000_000  # bytes of a filter file


class Storage:
    """The views; each takes the variables of its URL."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._index = store.index
        store.route("GET", STORE + ":getDICOMStoreMetrics", self.metrics)
        store.route("GET", STUDY + ":getStudyMetrics", self.metrics)
        store.route("GET", SERIES + ":getSeriesMetrics", self.metrics)
        store.route("GET", INSTANCE + ":getStorageInfo", self.info)
        for path in (STORE, STUDY, SERIES, INSTANCE):
            store.route("POST", path + ":setBlobStorageSettings", self.set_class)

    def metrics(self, **args: str) -> flask.Response:
        """:getStudyMetrics, :getSeriesMetrics, :getDICOMStoreMetrics."""
        place = self._store.place(args)
        fault = rest.fault()
        lag_s = 0.0
        if fault.get("kind") == "lag":
            lag_s = fault.get("seconds", 3600)
        counts = self._index.counts(place.store, place.uids, lag_s)
        found = {key: str(value) for key, value in counts.items()}
        if not place.uids.study:
            return flask.jsonify({"name": place.name, **found})
        level = place.uids.level
        if counts["instanceCount"] == 0 and not lag_s:
            raise wado.missing(level)
        del found["studyCount"]
        if level == "series":
            del found["seriesCount"]
        return flask.jsonify({level: f"{place.name}/dicomWeb/{place.uids.path}", **found})

    def info(self, **args: str) -> flask.Response:
        """:getStorageInfo."""
        place = self._store.place(args)
        one = self._index.find(place.store, place.uids)
        if not one:
            raise wado.missing("instance")
        structured = sum(len(line) for line in self._index.metadata(one.id))
        found = {
            "referencedResource": f"{place.name}/dicomWeb/{one.uids.path}",
            "blobStorageInfo": {
                "sizeBytes": str(one.size),
                "storageClass": one.storage_class,
                "storageClassUpdateTime": operations.timestamp(one.class_time),
            },
            "structuredStorageInfo": {"sizeBytes": str(structured)},
        }
        return flask.jsonify(found)

    def set_class(self, **args: str) -> flask.Response:
        """:setBlobStorageSettings on a study, series or instance, or on what a file in a bucket
        lists."""
        place = self._store.place(args)
        posted = rest.body()
        settings = rest.field(posted, "blobStorageSettings")
        wanted = rest.field(settings, "blobStorageClass")
        if wanted not in stow.STORAGE_CLASSES:
            known = ", ".join(stow.STORAGE_CLASSES)
            raise ApiError(400, f"blobStorageSettings.blobStorageClass is one of {known}")
        uri = rest.field(rest.field(posted, "filterConfig"), "resourcePathsGcsUri")
        if bool(uri) == bool(place.uids.study):
            message = "filterConfig.resourcePathsGcsUri belongs to the path of a store"
            raise ApiError(400, message + ", and to no other")
        if uri:
            targets = self._listed(str(uri))
        elif self._index.instances(place.store, place.uids):
            targets = [place.uids]
        else:
            raise wado.missing("resource")
        return self._store.start_operation(place, operations.SET_CLASS, targets, wanted)

    def _listed(self, uri: str) -> list[Uids]:
        """The resources in a filter file, one on each line (fact sheet section 12).

        Raises:
            ApiError: 400, it cannot be read; 501, no bucket server is known.
        """
        server = self._store.options.storage_url
        if not server:
            message = "filterConfig: STORAGE_EMULATOR_HOST (--storage) names no bucket server"
            raise ApiError(501, message + " to read it from")
        try:
            lines = _fetched(server, uri).split()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiError(choices.BAD_FILTER, "filterConfig: the file cannot be read") from error
        if not lines:
            raise _bad_lines()
        found = []
        for line in lines:
            match = LISTED.fullmatch(line)
            if match is None:
                raise _bad_lines()
            found.append(Uids.parse(match[1]))
        return found


def _fetched(server: str, uri: str) -> str:
    """The beginning of an object, from the bucket server; without a proxy."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    quoted_bucket = urllib.parse.quote(bucket, safe="")
    quoted_name = urllib.parse.quote(name, safe="")
    url = f"{server}/storage/v1/b/{quoted_bucket}/o/{quoted_name}?alt=media"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=FETCH_S) as answer:
        data: bytes = answer.read(MAX_LIST)
    return data.decode("latin-1")


def _bad_lines() -> ApiError:
    message = "filterConfig: every line is /studies/S[/series/R[/instances/I]]"
    return ApiError(choices.BAD_FILTER, message)

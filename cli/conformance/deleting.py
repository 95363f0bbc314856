"""Questions about deleting, operations, metrics and the store itself; sections 6 to 8, 11, 13."""

import uuid
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from cli.conformance import answers, scans
from cli.conformance.client import Probe, path_of, series_of, study_of
from cli.conformance.question import Answer, NotSeenError, asks, first_seen


def _stored(probe: Probe) -> Dataset:
    ds = scans.plain()
    probe.stored(ds)
    return ds


# Deleting


@asks("6", {"study": 404, "series": 404, "instance": 404}, "MISSING")
def delete_of_what_is_missing(probe: Probe) -> Answer:
    """Status of deleting what is not there, at each level."""
    ds = _stored(probe)
    paths = {
        "study": f"studies/{generate_uid()}",
        "series": f"{study_of(ds)}/series/{generate_uid()}",
        "instance": f"{series_of(ds)}/instances/{generate_uid()}",
    }
    return {level: probe.web("DELETE", path).status for level, path in paths.items()}


@asks("6", {"status": 200, "body": {}})
def delete_of_an_instance(probe: Probe) -> Answer:
    """Answer to deleting an instance."""
    ds = _stored(probe)
    reply = probe.web("DELETE", path_of(ds))
    return {"status": reply.status, "body": reply.json()}


@asks("6", ["name"])
def delete_of_a_study(probe: Probe) -> Answer:
    """Fields of the operation that the deletion of a study answers."""
    ds = _stored(probe)
    reply = probe.web("DELETE", study_of(ds))
    probe.finished(reply)
    return sorted(reply.json())


@asks("7", {"done": True, "response": "type.googleapis.com/google.protobuf.Empty", "success": "1"},
      "operation_s")  # fmt: skip
def finished_delete(probe: Probe) -> Answer:
    """The operation of a study's deletion once it has ended: done, response, counter.success."""
    ds = _stored(probe)
    started = probe.web("DELETE", study_of(ds))
    operation = probe.finished(started)
    metadata = operation.get("metadata", {})
    return {
        "done": operation.get("done"),
        "response": operation.get("response", {}).get("@type"),
        "success": metadata.get("counter", {}).get("success"),
    }


@asks("7", "google.cloud.healthcare.v1.dicomweb.DicomWebService.DeleteSeries")
def delete_of_a_series_method(probe: Probe) -> Answer:
    """apiMethodName of the operation of a series' deletion."""
    ds = _stored(probe)
    started = probe.web("DELETE", series_of(ds))
    operation = probe.finished(started)
    metadata = operation.get("metadata", {})
    method = str(metadata.get("apiMethodName", ""))
    return method.replace(".v1beta1.", ".v1.")


@asks("4.3", "at once", "stale_s")
def search_after_delete(probe: Probe) -> Answer:
    """When a search no longer finds a study whose only instance was deleted."""
    ds = _stored(probe)
    probe.web("DELETE", path_of(ds))
    path = f"studies?StudyInstanceUID={ds.StudyInstanceUID}"
    return first_seen(lambda: probe.get(path).status == 204)


# Metrics


@asks("13", "at once")
def metrics_after_store(probe: Probe) -> Answer:
    """When getStudyMetrics counts an instance that was just stored."""
    ds = _stored(probe)
    path = f"{study_of(ds)}:getStudyMetrics"

    def counted() -> bool:
        found = probe.get(path).json()
        return isinstance(found, dict) and found.get("instanceCount") == "1"

    return first_seen(counted)


@asks("13", 404)
def metrics_of_what_is_missing(probe: Probe) -> Answer:
    """Status of getStudyMetrics of a study that is not there."""
    return probe.get(f"studies/{generate_uid()}:getStudyMetrics").status


# The store


@asks("2", 403, "MISSING_STORE_WITH_AUTH")
def missing_store(probe: Probe) -> Answer:
    """Status of a DICOM store that is not there, for a caller with credentials."""
    return probe.store_method("GET", "", store=f"{probe.name}-missing").status


@asks("8", "object")
def missing_store_form(probe: Probe) -> Answer:
    """Form of the error when a DICOM store is not there."""
    reply = probe.store_method("GET", "", store=f"{probe.name}-missing")
    return answers.envelope(reply)


@asks("13", 400, "BAD_FILTER")
def unreadable_filter(probe: Probe) -> Answer:
    """Status of setBlobStorageSettings with a filter file that is not there."""
    body: dict[str, Any] = {
        "blobStorageSettings": {"blobStorageClass": "NEARLINE"},
        "filterConfig": {"resourcePathsGcsUri": f"gs://conformance-{uuid.uuid4()}/missing"},
    }
    return probe.store_method("POST", ":setBlobStorageSettings", body).status


@asks("1", {"size": 400, "token": 400}, "BAD_PAGE")
def bad_pages(probe: Probe) -> Answer:
    """Status of a list of stores (of this one alone) with a bad pageSize and a bad pageToken."""
    return {
        "size": probe.list_stores("pageSize=-1").status,
        "token": probe.list_stores("pageToken=nonsense").status,
    }


@asks("1", {"PUT": 405, "PATCH": 405}, "NOT_IN_V1")
def methods_of_v1beta1(probe: Probe) -> Answer:
    """Status of PUT of an instance and PATCH of its metadata on v1."""
    if probe.version != "v1":
        raise NotSeenError("this is asked on v1 only")
    ds = _stored(probe)
    put = probe.web(
        "PUT",
        "studies",
        body=scans.part10(ds),
        kind="application/dicom",
    )
    patch = probe.web(
        "PATCH",
        f"{path_of(ds)}/metadata",
        body=b"[]",
        kind="application/json",
    )
    return {"PUT": put.status, "PATCH": patch.status}


@asks("8", {"status": 404, "message": "Method not found."}, "NO_METHOD")
def unknown_path(probe: Probe) -> Answer:
    """A path that the API does not have: status and message."""
    reply = probe.get("nothing")
    return {"status": reply.status, "message": answers.message(reply)[:200]}


@asks("1", 200, "DATASETS_IMPLICIT")
def store_in_a_missing_dataset(probe: Probe) -> Answer:
    """Status of making a DICOM store in a dataset that is not there (deleted if it is made)."""
    return probe.make_in_missing_dataset()

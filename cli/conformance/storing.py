"""Questions about storing (STOW-RS), fact sheet section 3."""

import json
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from cli.conformance import answers, scans
from cli.conformance.client import Probe, Reply, path_of, study_of
from cli.conformance.question import Answer, NotSeenError, asks, first_seen

DICOM_JSON = "application/dicom+json"
JPEG_BASELINE = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"


def _other_bytes_again(probe: Probe) -> Reply:
    """Store an instance, then another one with the same UIDs."""
    ds = scans.plain()
    probe.stored(ds)
    ds.SeriesDescription = "Other bytes"
    return probe.store(ds)


def _several(files: list[bytes], closed: bool = True) -> tuple[bytes, str]:
    parts = [({"Content-Type": "application/dicom"}, file) for file in files]
    return answers.multipart(parts, "application/dicom", closed)


# The report


@asks("3.2", "application/dicom+xml")
def report_without_accept(probe: Probe) -> Answer:
    """Content-Type of a store report when no Accept is sent."""
    return probe.post(scans.part10(scans.plain()), accept=None).kind


@asks("3.2", "<NativeDicomModel><DicomAttribute ")
def report_in_xml(probe: Probe) -> Answer:
    """How a store report in XML begins."""
    reply = probe.post(scans.part10(scans.plain()), accept="application/dicom+xml")
    begin = "<NativeDicomModel><DicomAttribute "
    return reply.body[: len(begin)].decode("latin-1")


@asks("3.2", "application/dicom+json")
def report_in_json(probe: Probe) -> Answer:
    """Content-Type of a store report in JSON."""
    return probe.store(scans.plain()).kind


@asks("3.2", "object")
def report_in_json_shape(probe: Probe) -> Answer:
    """Whether a store report in JSON is an object or an array of one."""
    return answers.envelope(probe.store(scans.plain()))


@asks("3.2", ["00081190", "00081199"])
def report_of_success(probe: Probe) -> Answer:
    """Attributes of a store report when everything was stored."""
    return sorted(answers.first(probe.store(scans.plain())))


@asks("3.2", "the first")
def report_of_several_studies(probe: Probe) -> Answer:
    """Which study the report's Retrieve URL names when a request stores two."""
    first, second = scans.plain(), scans.plain()
    body, kind = _several([scans.part10(first), scans.part10(second)])
    report = answers.first(probe.post(body, kind))
    url = str(answers.value(report, answers.RETRIEVE_URL) or "")
    if not url:
        return "none"
    for name, ds in (("the first", first), ("the second", second)):
        if url.endswith(study_of(ds)):
            return name
    return "another"


# Failures


@asks("3.4", {"status": 409, "reason": 272}, "FAILURE_REASON")
def other_bytes_again(probe: Probe) -> Answer:
    """Storing other bytes under the UIDs of a stored instance: status and FailureReason."""
    reply = _other_bytes_again(probe)
    reason = answers.value(answers.failure(reply), answers.REASON)
    return {"status": reply.status, "reason": reason}


@asks(
    "3.4",
    "An instance already exists in this DICOM Store with the same Study/Series/SOPInstance UID, "
    "but the DICOM files differ (checksum mismatch).",
    "DUPLICATE_DETAIL",
)
def other_bytes_again_detail(probe: Probe) -> Answer:
    """FailureDetail of other bytes under the UIDs of a stored instance."""
    return answers.value(answers.failure(_other_bytes_again(probe)), answers.DETAIL_JSON)


@asks("3.2", ["00081150", "00081155"], "FAILED_ITEM_UIDS")
def failed_item_uids(probe: Probe) -> Answer:
    """Which Referenced UIDs the failed item of a duplicate has."""
    return sorted({"00081150", "00081155"} & set(answers.failure(_other_bytes_again(probe))))


@asks("3.2", "LT", "JSON_DETAIL_VR")
def failure_detail_vr(probe: Probe) -> Answer:
    """VR of FailureDetailJSON (0009,1097)."""
    failed = answers.failure(_other_bytes_again(probe))
    return failed.get(answers.DETAIL_JSON, {}).get("vr")


@asks("3.2", "GOOGLE", "JSON_DETAIL_VR")
def failure_detail_creator(probe: Probe) -> Answer:
    """Private creator (0009,0010) in a failed item in JSON."""
    return answers.value(answers.failure(_other_bytes_again(probe)), answers.PRIVATE_CREATOR)


@asks("3.4", 200)
def same_bytes_again(probe: Probe) -> Answer:
    """Status of storing an identical file a second time."""
    ds = scans.plain()
    probe.stored(ds)
    return probe.store(ds).status


@asks("3.4", 200)
def same_sop_instance_in_another_series(probe: Probe) -> Answer:
    """Status of storing a SOP Instance UID again under another Series Instance UID."""
    ds = scans.plain()
    probe.stored(ds)
    ds.SeriesInstanceUID = generate_uid()
    return probe.store(ds).status


@asks("3.5", {"status": 409, "reason": 272}, "FAILURE_REASON")
def other_study(probe: Probe) -> Answer:
    """Storing an instance of another study than the URL's: status and FailureReason."""
    reply = probe.store(scans.plain(), path=f"studies/{generate_uid()}")
    reason = answers.value(answers.failure(reply), answers.REASON)
    return {"status": reply.status, "reason": reason}


@asks("3.5", "The Study Instance UID differs from the study in the URL.", "OTHER_STUDY_DETAIL")
def other_study_detail(probe: Probe) -> Answer:
    """FailureDetail of an instance of another study than the URL's."""
    reply = probe.store(scans.plain(), path=f"studies/{generate_uid()}")
    return answers.value(answers.failure(reply), answers.DETAIL_JSON)


@asks("3.5", {"status": 409, "reason": 272, "uids": False}, "FAILURE_REASON")
def no_dicom(probe: Probe) -> Answer:
    """Storing bytes that are not DICOM: status, FailureReason, whether the item has UIDs."""
    reply = probe.post(b"this is not DICOM" * 20)
    failed = answers.failure(reply)
    return {
        "status": reply.status,
        "reason": answers.value(failed, answers.REASON),
        "uids": answers.SOP_INSTANCE in failed,
    }


@asks("3.3", {"status": 409, "stored": 1, "failed": 1})
def partial_success(probe: Probe) -> Answer:
    """A request with one good file and one that is not DICOM: status, stored and failed items."""
    body, kind = _several([scans.part10(scans.plain()), b"this is not DICOM" * 20])
    reply = probe.post(body, kind)
    return {
        "status": reply.status,
        "stored": len(answers.items(reply, answers.STORED)),
        "failed": len(answers.items(reply, answers.FAILED)),
    }


@asks("3.5", {"status": 409, "detail": "A delete operation is running on this study or series."},
      "BEING_DELETED_DETAIL")  # fmt: skip
def store_while_deleted(probe: Probe) -> Answer:
    """Storing into a study while its delete operation runs: status and FailureDetail."""
    ds = scans.plain()
    probe.stored(ds)
    started = probe.web("DELETE", study_of(ds))
    reply = probe.store(ds)
    detail = answers.value(answers.failure(reply), answers.DETAIL_JSON)
    probe.finished(started)
    if reply.status == 200:
        raise NotSeenError("the operation was over before anything could be stored")
    return {"status": reply.status, "detail": detail}


@asks("3.5", {"status": 409, "failed": 1})
def missing_uid(probe: Probe) -> Answer:
    """Storing an instance without a Series Instance UID: status and failed items."""
    ds = scans.plain()
    del ds.SeriesInstanceUID
    reply = probe.store(ds)
    return {"status": reply.status, "failed": len(answers.items(reply, answers.FAILED))}


# What is refused as a whole


@asks("3.3", 400)
def unsupported_content_type(probe: Probe) -> Answer:
    """Status of a store request with Content-Type text/plain."""
    return probe.post(scans.part10(scans.plain()), "text/plain").status


@asks("3.5", 400)
def no_closing_boundary(probe: Probe) -> Answer:
    """Status of a multipart store request without its closing boundary."""
    body, kind = _several([scans.part10(scans.plain())], closed=False)
    return probe.post(body, kind).status


@asks("3.1", {"64": 200, "65": 409}, "MAX_UID")
def long_uids(probe: Probe) -> Answer:
    """Status of storing SOP Instance UIDs of 64 and of 65 characters."""
    found = {}
    for length in (64, 65):
        uid = "1.2." + "9" * (length - 4)
        found[str(length)] = probe.store(_unchecked("SOPInstanceUID", uid)).status
    return found


@asks("3.1", 200)
def uid_with_leading_zero(probe: Probe) -> Answer:
    """Status of storing a SOP Instance UID with a component that begins with 0."""
    return probe.store(_unchecked("SOPInstanceUID", f"{generate_uid()[:50]}.01")).status


@asks("3.1", 200)
def equal_uids_on_several_levels(probe: Probe) -> Answer:
    """Status of storing an instance whose study, series and SOP Instance UID are equal."""
    uid = generate_uid()
    ds = scans.plain(StudyInstanceUID=uid, SeriesInstanceUID=uid, SOPInstanceUID=uid)
    return probe.store(ds).status


def _unchecked(keyword: str, uid: str) -> Dataset:
    """An instance with a UID that pydicom would warn of."""
    from pydicom import config

    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        return scans.plain(**{keyword: uid})
    finally:
        config.settings.writing_validation_mode = before


# JSON with bulk data


def _json_request(ds: Dataset, parts: list[tuple[dict[str, str], bytes]]) -> tuple[bytes, str]:
    """A store request of metadata in JSON and bulk parts."""
    metadata = json.dumps([_as_json(ds)]).encode()
    first = ({"Content-Type": DICOM_JSON}, metadata)
    return answers.multipart([first, *parts], DICOM_JSON)


def _as_json(ds: Dataset) -> dict[str, Any]:
    """A data set in DICOM JSON, whose pixels are in the bulk part `pixels`."""
    found: dict[str, Any] = ds.to_json_dict(
        bulk_data_threshold=1, bulk_data_element_handler=lambda _element: "pixels"
    )
    found["00020010"] = {"vr": "UI", "Value": [str(ds.file_meta.TransferSyntaxUID)]}
    return found


def _jpeg_part(
    location: str = "pixels", kind: str = JPEG_BASELINE, body: bytes = scans.JPEG
) -> tuple[dict[str, str], bytes]:
    return {"Content-Type": kind, "Content-Location": location}, body


def _stored_syntax(probe: Probe, part: tuple[dict[str, str], bytes]) -> Answer:
    """Store metadata that says JPEG baseline with a bulk part: status, stored transfer syntax."""
    ds = scans.jpeg()
    status = probe.post(*_json_request(ds, [part])).status
    item = answers.first(probe.get(f"{path_of(ds)}/metadata"))
    return {"status": status, "syntax": answers.value(item, "00020010")}


@asks("3.1", 200)
def json_with_a_jpeg(probe: Probe) -> Answer:
    """Status of storing metadata in JSON with a JPEG as bulk data."""
    return probe.post(*_json_request(scans.jpeg(), [_jpeg_part()])).status


@asks("3.4", 200)
def json_with_a_jpeg_again(probe: Probe) -> Answer:
    """Status of storing the same metadata in JSON with the same JPEG a second time."""
    body, kind = _json_request(scans.jpeg(), [_jpeg_part()])
    probe.post(body, kind)
    return probe.post(body, kind).status


@asks(
    "3.1",
    {"status": 200, "syntax": "1.2.840.10008.1.2.4.50"},
    "PART_SYNTAX_FROM_CODESTREAM",
)
def jpeg_part_without_transfer_syntax(probe: Probe) -> Answer:
    """A bulk part of type image/jpeg that names no transfer syntax: status, stored syntax."""
    return _stored_syntax(probe, _jpeg_part(kind="image/jpeg"))


@asks(
    "3.1",
    {"status": 200, "syntax": "1.2.840.10008.1.2.4.55"},
    "PART_SYNTAX_FROM_CODESTREAM",
)
def progressive_jpeg_part(probe: Probe) -> Answer:
    """A bulk part that says baseline and is progressive JPEG: status, stored syntax."""
    return _stored_syntax(probe, _jpeg_part(body=scans.PROGRESSIVE_JPEG))


@asks("3.1", {"status": 400, "stored": 0}, "UNNAMED_PART")
def unnamed_bulk_part(probe: Probe) -> Answer:
    """A bulk part that no BulkDataURI names: status, and whether the instance was stored."""
    ds = scans.jpeg()
    parts = [_jpeg_part(), _jpeg_part("of-nobody")]
    status = probe.post(*_json_request(ds, parts)).status
    found = probe.get(f"instances?SOPInstanceUID={ds.SOPInstanceUID}")
    return {"status": status, "stored": len(found.json() or [])}


# Headers


@asks("3.1", 200, "STORE_ACCEPTS_DICOM")
def accept_dicom(probe: Probe) -> Answer:
    """Status of a store request with `Accept: application/dicom`."""
    return probe.post(scans.part10(scans.plain()), accept="application/dicom").status


@asks("3.1", 200, "FORM_IS_DICOM")
def form_content_type(probe: Probe) -> Answer:
    """Status of a store request with Content-Type application/x-www-form-urlencoded."""
    body = scans.part10(scans.plain())
    return probe.post(body, "application/x-www-form-urlencoded").status


@asks("3.1", "NEARLINE")
def storage_class(probe: Probe) -> Answer:
    """Storage class of an instance that was stored with `Storage-Class: NEARLINE`."""
    ds = scans.plain()
    probe.store(ds, Storage_Class="NEARLINE")
    return _storage_info(probe, ds).get("storageClass")


@asks("3.1", 400, "BAD_STORAGE_CLASS")
def bad_storage_class(probe: Probe) -> Answer:
    """Status of a store request with `Storage-Class: LUKEWARM`."""
    return probe.store(scans.plain(), Storage_Class="LUKEWARM").status


@asks("13", True)
def storage_class_time(probe: Probe) -> Answer:
    """Whether storageClassUpdateTime is set when an instance is stored for the first time."""
    ds = scans.plain()
    probe.stored(ds)
    return "storageClassUpdateTime" in _storage_info(probe, ds)


def _storage_info(probe: Probe, ds: Dataset) -> dict[str, Any]:
    found = answers.first(probe.get(f"{path_of(ds)}:getStorageInfo"))
    return dict(found.get("blobStorageInfo", {}))


@asks("10", "at once")
def found_after_store(probe: Probe) -> Answer:
    """When a search finds an instance that was just stored."""
    ds = scans.plain()
    probe.stored(ds)
    path = f"studies?StudyInstanceUID={ds.StudyInstanceUID}"
    return first_seen(lambda: probe.get(path).status == 200)

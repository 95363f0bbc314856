"""Questions about searching (QIDO-RS), fact sheet section 4."""

from typing import Any

from pydicom.dataset import Dataset

from cli.conformance import answers, scans
from cli.conformance.client import Probe, Reply, series_of, study_of
from cli.conformance.question import Answer, asks

UNKNOWN = "studies?StudyInstanceUID=1.2.3.4.5.6.7.8.9"


def _stored(probe: Probe, **attributes: Any) -> Dataset:
    ds = scans.plain(**attributes)
    probe.stored(ds)
    return ds


def _named(probe: Probe, name: str) -> int:
    """How many studies a search finds for a name that one study has as Search^Case."""
    ds = _stored(probe, PatientName="Search^Case")
    reply = probe.get(f"studies?PatientID={ds.PatientID}&PatientName={name}")
    return len(reply.json() or [])


# What is found


@asks("4.4", 204, "EMPTY_SEARCH")
def nothing_found(probe: Probe) -> Answer:
    """Status of a search that finds nothing."""
    return probe.get(UNKNOWN).status


@asks("4.4", "")
def nothing_found_type(probe: Probe) -> Answer:
    """Content-Type of a search that finds nothing; empty: none."""
    return probe.get(UNKNOWN).kind


@asks("4.4", "application/dicom+json; charset=utf-8")
def found_type(probe: Probe) -> Answer:
    """Content-Type of what a search finds."""
    ds = _stored(probe)
    return probe.get(f"studies?PatientID={ds.PatientID}").kind


@asks("4.4", 406, "JSON_IS_DICOM_JSON")
def accept_json(probe: Probe) -> Answer:
    """Status of a search with `Accept: application/json`."""
    ds = _stored(probe)
    return probe.get(f"studies?PatientID={ds.PatientID}", "application/json").status


@asks("4.2", True, "EMPTY_VALUE_MATCHES_ALL")
def empty_value(probe: Probe) -> Answer:
    """Whether a key without a value (`PatientName=`) matches everything."""
    return _named(probe, "") == 1


@asks("4.2", False)
def other_case(probe: Probe) -> Answer:
    """Whether a name in other case is found without fuzzymatching."""
    return _named(probe, "SEARCH%5ECASE") == 1


@asks("4.2", False)
def wildcard(probe: Probe) -> Answer:
    """Whether a name with `*` is found without fuzzymatching."""
    return _named(probe, "Search*") == 1


@asks("4.2", True)
def fuzzy_prefix(probe: Probe) -> Answer:
    """Whether a prefix of a name's part is found with fuzzymatching."""
    return _named(probe, "cas&fuzzymatching=true") == 1


@asks("4.3", {"studies": 400, "series": 400, "instances": 400}, "OVER_LIMIT")
def limit_over_maximum(probe: Probe) -> Answer:
    """Status of searches whose limit is one over the maximum, at each level."""
    return {
        "studies": probe.get("studies?limit=5001").status,
        "series": probe.get("series?limit=5001").status,
        "instances": probe.get("instances?limit=50001").status,
    }


@asks("4.3", 400, "OVER_LIMIT")
def offset_over_maximum(probe: Probe) -> Answer:
    """Status of a search whose offset is one over the maximum."""
    return probe.get("studies?offset=1000001").status


@asks("4.3", {"-1": 400, "many": 400})
def limit_that_is_no_number(probe: Probe) -> Answer:
    """Status of searches whose limit is negative or a word."""
    return {
        "-1": probe.get("studies?limit=-1").status,
        "many": probe.get("studies?limit=many").status,
    }


@asks("4.1", 400, "CHARSET_AS_KEY")
def charset_as_key(probe: Probe) -> Answer:
    """Status of a search with SpecificCharacterSet as a key."""
    return probe.get("studies?SpecificCharacterSet=ISO_IR%20192").status


@asks("4.1", 200, "CHARSET_AS_KEY")
def charset_as_field(probe: Probe) -> Answer:
    """Status of a search with SpecificCharacterSet as includefield."""
    ds = _stored(probe)
    path = f"studies?PatientID={ds.PatientID}&includefield=SpecificCharacterSet"
    return probe.get(path).status


@asks("4.1", {"SOPClassUID": 400, "Modality": 400, "NoSuchKey": 400})
def unsupported_keys(probe: Probe) -> Answer:
    """Status of study searches by keys of a lower level, of none, and by no attribute."""
    keys = {
        "SOPClassUID": scans.SECONDARY_CAPTURE,
        "Modality": "OT",
        "NoSuchKey": "1",
    }
    found = {}
    for key, text in keys.items():
        found[key] = probe.get(f"studies?{key}={text}").status
    return found


@asks("4.1", True)
def unsupported_field_text(probe: Probe) -> Answer:
    """Whether the refusal of an unknown includefield names it as unknown/unsupported."""
    reply = probe.get("instances?includefield=AvailableTransferSyntaxUID")
    return "unknown/unsupported QIDO attribute" in answers.message(reply)


@asks("1", 200)
def general_parameters(probe: Probe) -> Answer:
    """Status of a search with parameters of every Google API method."""
    ds = _stored(probe)
    return probe.get(f"studies?PatientID={ds.PatientID}&alt=json&prettyPrint=false").status


@asks("8", "array")
def refused_search(probe: Probe) -> Answer:
    """Form of the error of a refused search."""
    return answers.envelope(probe.get("studies?limit=-1"))


# Attributes that are given without being asked for


def _tags(reply: Reply) -> list[str]:
    found = reply.json() or [{}]
    return sorted(found[0])


STUDY_TAGS = [
    "00080005", "00080020", "00080030", "00080050", "00080090",
    "00100010", "00100020", "00100030", "00100040", "0020000D", "00200010",
]  # fmt: skip
SERIES_TAGS = ["00080005", "00080060", "0008103E", "0020000E"]
INSTANCE_TAGS = [
    "00080005", "00080016", "00080018", "00200013", "00280010", "00280011", "00280100",
]  # fmt: skip


@asks("4.4", STUDY_TAGS)
def study_fields(probe: Probe) -> Answer:
    """Attributes of a study that a search gives by default."""
    ds = _stored(probe)
    return _tags(probe.get(f"studies?PatientID={ds.PatientID}"))


@asks("4.4", SERIES_TAGS)
def series_fields(probe: Probe) -> Answer:
    """Attributes of a series that a search within its study gives by default."""
    ds = _stored(probe)
    return _tags(probe.get(f"{study_of(ds)}/series"))


def _image(probe: Probe) -> Dataset:
    ds = scans.grey()
    probe.stored(ds)
    return ds


@asks("4.4", INSTANCE_TAGS)
def instance_fields_in_series(probe: Probe) -> Answer:
    """Attributes of an instance that a search within its series gives by default."""
    ds = _image(probe)
    return _tags(probe.get(f"{series_of(ds)}/instances"))


@asks("4.4", sorted({*INSTANCE_TAGS, *SERIES_TAGS}))
def instance_fields_in_study(probe: Probe) -> Answer:
    """Attributes of an instance that a search within its study gives by default."""
    ds = _image(probe)
    return _tags(probe.get(f"{study_of(ds)}/instances"))


@asks("4.4", sorted({*INSTANCE_TAGS, *SERIES_TAGS, *STUDY_TAGS}))
def instance_fields(probe: Probe) -> Answer:
    """Attributes of an instance that a search in the whole store gives by default."""
    ds = _image(probe)
    return _tags(probe.get(f"instances?SOPInstanceUID={ds.SOPInstanceUID}"))

"""Store reports: the known forms, mixed ones, and whatever else a server may send."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.store.report import Failure, Report, UnreadableReportError, parse

CAPTURED = (  # fact sheet section 3.2: a real 409, and its text
    '<NativeDicomModel><DicomAttribute tag="00081190" vr="UR" keyword="RetrieveURL"><Value number="1">https://x/studies/1'
    '</Value></DicomAttribute><DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence"><Item number="1">'
    '<DicomAttribute tag="00081197" vr="US" keyword="FailureReason"><Value number="1">272</Value></DicomAttribute>'
    '<DicomAttribute tag="00090097" vr="LT" keyword="FailureDetail" privateCreator="GOOGLE"><Value number="1">{}'
    "</Value></DicomAttribute></Item></DicomAttribute></NativeDicomModel>"
)
STORED_XML = (
    '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"><DicomAttribute tag="00081199" vr="SQ">'
    '<Item number="1"><DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.3</Value></DicomAttribute></Item>'
    "</DicomAttribute></NativeDicomModel>"
)


def item(instance: str = "", detail: str = "", code: object = None) -> dict[str, object]:
    made: dict[str, object] = {}
    if instance:
        made["00081155"] = {"vr": "UI", "Value": [instance]}
    if detail:
        made["00091097"] = {"vr": "LT", "Value": [detail]}
    if code is not None:
        made["00081197"] = {"vr": "US", "Value": [code]}
    return made


def report(stored: list[dict[str, object]], failed: list[dict[str, object]]) -> bytes:
    document = {
        "00081199": {"vr": "SQ", "Value": stored},
        "00081198": {"vr": "SQ", "Value": failed},
    }
    return json.dumps({tag: value for tag, value in document.items() if value["Value"]}).encode()


@pytest.mark.parametrize(
    ("detail", "kind"),
    [
        (
            "An instance already exists in this DICOM Store with the same Study/Series/SOPInstance UID, but …",
            "exists",
        ),
        ("instance ALREADY  EXISTS", "exists"),
        ("A delete operation is running on this study or series.", "busy"),
        ("the series is part of an operation that deletes it", "busy"),
        ("failed to parse", "refused"),
        ("", "refused"),
    ],
)
def test_xml_and_json_say_the_same(detail: str, kind: str) -> None:
    expected = (Failure(kind, 272),)  # type: ignore[arg-type]
    assert parse(CAPTURED.format(detail).encode()).failures == expected
    assert parse(report([], [item("", detail, 272)])).failures == expected
    assert (
        parse(b"\xef\xbb\xbf [" + report([], [item("", detail, 272)]) + b"]").failures == expected
    )


def test_stored_in_both_forms() -> None:
    assert parse(STORED_XML.encode()) == parse(report([item("1.2.3")], [])) == Report(("1.2.3",))


def test_a_mixed_result_is_told_apart_by_instance() -> None:
    found = parse(
        report([item("1")], [item("2", "already exists"), item("3", "damaged", "0xA700")])
    )
    assert found.failure_of("1") is None
    assert found.failure_of("2") == Failure("exists", 0, "2")
    assert found.failure_of("3") == Failure("refused", 0, "3")
    # An instance that is not named at all counts as failed where anything did.
    assert found.failure_of("4") is not None
    assert parse(report([item("1")], [item("", "damaged")])).failure_of("1") is None


def test_the_standards_code_for_a_duplicate() -> None:
    assert parse(report([], [item("1", code=0x0111)])).failures[0].kind == "exists"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"[{},{}]",
        b"null",
        b'"text"',
        b"<html>",
        b"<html></html>",
        CAPTURED.format("x").encode()[:-10],
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><NativeDicomModel>&a;</NativeDicomModel>',
        b'{"00081198": {"Value": "x"}}',
        b'{"00081198": {"Value": [1]}}',
        b'{"00081198": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_report_is_never_success(body: bytes) -> None:
    with pytest.raises(UnreadableReportError):
        parse(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["00081198", "00081199", "00081155", "Value", "vr"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200)
@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200))
def test_anything_else_is_a_report_or_unreadable(body: bytes) -> None:
    try:
        found = parse(body)
    except UnreadableReportError:
        return
    assert found.stored or found.failures
    if not found.stored:
        assert found.failure_of("1") is not None


UID = st.from_regex(r"[1-9](\.[1-9])?", fullmatch=True)


@given(st.sets(UID, max_size=5), st.sets(UID, max_size=5))
def test_exactly_what_is_named_as_stored_is_stored(stored: set[str], failed: set[str]) -> None:
    stored -= failed
    if not stored and not failed:
        return
    found = parse(report([item(uid) for uid in stored], [item(uid, "no") for uid in failed]))
    assert all(found.failure_of(uid) is None for uid in stored)
    assert all(found.failure_of(uid) is not None for uid in failed)

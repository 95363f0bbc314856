"""Store reports: the known forms, mixed ones, and whatever else a server may send."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.common.resources import Resource
from functions.store.stow_report import (
    Answer,
    Named,
    Report,
    UnreadableReportError,
    parse,
)

CAPTURED = (  # fact sheet section 3.2: a real 409, and its text
    '<NativeDicomModel><DicomAttribute tag="00081190" vr="UR" keyword="RetrieveURL"><Value number="1">https://x/studies/1'
    '</Value></DicomAttribute><DicomAttribute tag="00081198" vr="SQ"'
    ' keyword="FailedSOPSequence"><Item number="1">'
    '<DicomAttribute tag="00081197" vr="US" keyword="FailureReason"><Value'
    ' number="1">272</Value></DicomAttribute>'
    '<DicomAttribute tag="00090097" vr="LT" keyword="FailureDetail"'
    ' privateCreator="GOOGLE"><Value number="1">{}'
    "</Value></DicomAttribute></Item></DicomAttribute></NativeDicomModel>"
)
STORED_XML = (
    '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"><DicomAttribute'
    ' tag="00081199" vr="SQ">'
    '<Item number="1"><DicomAttribute tag="00081155" vr="UI"><Value'
    ' number="1">1.2.3</Value></DicomAttribute>'
    '<DicomAttribute tag="00081190" vr="UR"><Value number="1">https://x/studies/1/series/1.2/instances/1.2.3</Value>'
    "</DicomAttribute></Item></DicomAttribute></NativeDicomModel>"
)
OURS = Resource("1", "1.2", "1.2.3")


def item(
    instance: str = "", detail: str = "", code: object = None, url: str = ""
) -> dict[str, object]:
    made: dict[str, object] = {}
    if instance:
        made["00081155"] = {"vr": "UI", "Value": [instance]}
    if detail:
        made["00091097"] = {"vr": "LT", "Value": [detail]}
    if code is not None:
        made["00081197"] = {"vr": "US", "Value": [code]}
    if url:
        made["00081190"] = {"vr": "UR", "Value": [url]}
    return made


def stored(study: str = "1", series: str = "1.2", instance: str = "1.2.3") -> dict[str, object]:
    url = f"https://x/v1/projects/p/studies/{study}/series/{series}/instances/{instance}"
    return item(instance, url=url)


def report(
    done: list[dict[str, object]], failed: list[dict[str, object]], study: str = ""
) -> bytes:
    document: dict[str, object] = {}
    if study:
        document["00081190"] = {"vr": "UR", "Value": [f"https://x/studies/{study}"]}
    if done:
        document["00081199"] = {"vr": "SQ", "Value": done}
    if failed:
        document["00081198"] = {"vr": "SQ", "Value": failed}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("detail", "kind"),
    [
        (
            "An instance already exists in this DICOM Store with the same"
            " Study/Series/SOPInstance UID, but …",
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
    expected = (Answer(kind, 272, Named(study="1")),)  # type: ignore[arg-type]
    same = report([], [item("", detail, 272)], study="1")
    assert parse(CAPTURED.format(detail).encode()).failures == expected
    assert parse(same).failures == expected
    assert parse(b"\xef\xbb\xbf [" + same + b"]").failures == expected


def test_stored_in_both_forms() -> None:
    named = Report((Named("1", "1.2", "1.2.3"),))
    assert parse(STORED_XML.encode()) == parse(report([stored()], [])) == named


def test_success_is_a_report_that_names_all_three_uids() -> None:
    assert parse(report([stored()], [])).of(OURS).kind == "stored"


@pytest.mark.parametrize(
    "found",
    [stored(study="9"), stored(series="9"), stored(instance="9"), item("1.2.3"), item("9")],
)
def test_a_report_that_stores_another_instance_is_no_success(found: dict[str, object]) -> None:
    answer = parse(report([found], [])).of(OURS)
    assert answer.kind == "other"


def test_what_was_stored_instead_is_known() -> None:
    answer = parse(report([stored("9", "9.2", "9.3")], [])).of(OURS)
    assert answer.named.resource == Resource("9", "9.2", "9.3")


@pytest.mark.parametrize(
    ("failed", "study"), [(item("9", "already exists"), ""), (item("", "already exists"), "9")]
)
def test_a_report_that_fails_another_instance_is_not_about_ours(
    failed: dict[str, object], study: str
) -> None:
    answer = parse(report([], [failed], study)).of(OURS)
    assert answer.kind == "other"


def test_a_failure_that_names_ours_goes_before_everything_else() -> None:
    failed = [item("", "damaged"), item("1.2.3", "already exists")]
    answer = parse(report([stored()], failed)).of(OURS)
    assert answer == Answer("exists", 0, Named(instance="1.2.3"))


def test_a_failure_that_names_nothing_counts_where_nothing_is_stored() -> None:
    assert parse(report([stored()], [item("", "damaged")])).of(OURS).kind == "stored"
    answer = parse(report([], [item("", "damaged")])).of(OURS)
    assert answer == Answer("refused")


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
        assert found.of(OURS).kind != "stored"


UID = st.from_regex(r"[1-9](\.[1-9])?", fullmatch=True)


@given(st.sets(UID, max_size=5), st.sets(UID, max_size=5))
def test_exactly_what_is_named_as_stored_is_stored(done: set[str], failed: set[str]) -> None:
    done -= failed
    if not done and not failed:
        return
    items = [stored(instance=uid) for uid in done]
    found = parse(report(items, [item(uid, "no") for uid in failed]))
    for uid in done | failed:
        is_stored = found.of(Resource("1", "1.2", uid)).kind == "stored"
        assert is_stored == (uid in done)

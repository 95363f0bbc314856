"""Store reports: the known forms, mixed ones, and whatever else a server may send."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.common.resources import Resource
from functions.store.stow_report import Answer, Named, read

OURS = Resource("1", "1.2", "1.2.3")


def item(
    instance: str = "", detail: str = "", code: object = None, url: str = "", tag: str = "00091097"
) -> dict[str, object]:
    made: dict[str, object] = {}
    if instance:
        made["00081155"] = {"vr": "UI", "Value": [instance]}
    if detail:
        made[tag] = {"vr": "LT", "Value": [detail]}
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


def answer_in(body: bytes, resource: Resource = OURS) -> Answer:
    answer = read(body, resource)
    assert answer is not None
    return answer


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
@pytest.mark.parametrize("tag", ["00091097", "00090097"])
def test_a_failure_is_known_by_its_detail(tag: str, detail: str, kind: str) -> None:
    expected = Answer(kind, 272, Named(study="1"))  # type: ignore[arg-type]
    text = report([], [item("", detail, 272, tag=tag)], study="1")
    assert read(text, OURS) == expected
    assert read(b"\xef\xbb\xbf [" + text + b"]", OURS) == expected


def test_success_is_a_report_that_names_all_three_uids() -> None:
    assert answer_in(report([stored()], [])).kind == "stored"


@pytest.mark.parametrize(
    "found",
    [stored(study="9"), stored(series="9"), stored(instance="9"), item("1.2.3"), item("9")],
)
def test_a_report_that_stores_another_instance_is_no_success(found: dict[str, object]) -> None:
    answer = answer_in(report([found], []))
    assert answer.kind == "other"


def test_what_was_stored_instead_is_known() -> None:
    answer = answer_in(report([stored("9", "9.2", "9.3")], []))
    assert answer.named.resource == Resource("9", "9.2", "9.3")


@pytest.mark.parametrize(
    ("failed", "study"), [(item("9", "already exists"), ""), (item("", "already exists"), "9")]
)
def test_a_report_that_fails_another_instance_is_not_about_ours(
    failed: dict[str, object], study: str
) -> None:
    answer = answer_in(report([], [failed], study))
    assert answer.kind == "other"


def test_a_failure_that_names_ours_goes_before_everything_else() -> None:
    failed = [item("", "damaged"), item("1.2.3", "already exists")]
    answer = answer_in(report([stored()], failed))
    assert answer == Answer("exists", 0, Named(instance="1.2.3"))


def test_a_failure_that_names_nothing_counts_where_nothing_is_stored() -> None:
    assert answer_in(report([stored()], [item("", "damaged")])).kind == "stored"
    answer = answer_in(report([], [item("", "damaged")]))
    assert answer == Answer("refused")


def test_the_standards_code_for_a_duplicate() -> None:
    assert answer_in(report([], [item("1.2.3", code=0x0111)])).kind == "exists"


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
        b"<NativeDicomModel></NativeDicomModel>",
        report([stored()], [])[:-10],
        b'{"00081198": {"Value": "x"}}',
        b'{"00081198": {"Value": [1]}}',
        b'{"00081198": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_report_is_never_success(body: bytes) -> None:
    assert read(body, OURS) is None


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
def test_anything_else_is_never_success(body: bytes) -> None:
    found = read(body, OURS)
    assert found is None or found.kind != "stored"


UID = st.from_regex(r"[1-9](\.[1-9])?", fullmatch=True)


@given(st.sets(UID, max_size=5), st.sets(UID, max_size=5))
def test_only_instances_named_as_stored_are_stored(done: set[str], failed: set[str]) -> None:
    done -= failed
    if not done and not failed:
        return
    items = [stored(instance=uid) for uid in done]
    text = report(items, [item(uid, "no") for uid in failed])
    for uid in done | failed:
        is_stored = answer_in(text, Resource("1", "1.2", uid)).kind == "stored"
        assert is_stored == (uid in done)

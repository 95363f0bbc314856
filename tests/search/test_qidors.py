"""QIDO-RS parameters: what is passed on, what is translated, what is refused by name."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.common.resources import Resource
from functions.search import attributes
from functions.search.qidors import Query, decode, translate
from functions.search.refusals import RefusedError


def parameters(query: Query) -> list[tuple[str, str]]:
    """The parameters that are sent to the store, without the limit."""
    pairs = parse_qsl(query.parameters(query.searches[0], 7, 0), keep_blank_values=True)
    return [pair for pair in pairs if pair != ("limit", "7")]


def refused(level: str, *pairs: tuple[str, str]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        translate(level, None, pairs)
    return caught.value


@pytest.mark.parametrize("level", attributes.KEYS)
@pytest.mark.parametrize("form", ["keyword", "tag", "tag in lower case"])
def test_every_key_of_a_level_is_passed_on_by_keyword_and_by_tag(level: str, form: str) -> None:
    values = {"StudyDate": "20240101-20241231", "Modality": "CT"}
    for key in attributes.KEYS[level]:
        if level == "studies" and key == "Modality":
            continue
        value = values.get(key, "1.2.3")
        name = key if form == "keyword" else attributes.TAG_OF[key]
        query = translate(level, None, [(name.lower() if form.endswith("case") else name, value)])
        assert parameters(query) == [(key, value)]


@pytest.mark.parametrize("name", ["山田\u3000太郎", "علی\u200cرضا", "Doe\u00a0Jane"])
def test_a_name_may_have_the_spaces_and_joiners_of_its_script(name: str) -> None:
    query = translate("studies", None, [("PatientName", name)])
    assert parameters(query) == [("PatientName", name)]


@pytest.mark.parametrize("value", ["a\nb", "a\u2028b", "a\x00", "a\x7f", "a\x85b", "\ud800"])
def test_a_value_with_a_control_character_is_refused(value: str) -> None:
    assert refused("studies", ("PatientName", value)).parameter == "PatientName"


@pytest.mark.parametrize(
    ("level", "name"),
    [
        ("studies", "SeriesInstanceUID"),
        ("series", "SOPInstanceUID"),
        ("instances", "SOPClassUID"),
        ("studies", "StudyDescription"),
        ("series", "ModalitiesInStudy"),
        ("studies", "access_token"),
        ("studies", "key"),
        ("studies", "prettyPrint"),
        ("studies", "fields"),
        ("studies", "patientname"),
    ],
)
def test_what_the_store_cannot_search_for_is_refused_by_name(level: str, name: str) -> None:
    error = refused(level, (name, "x"))
    assert error.reason == "invalid_parameter"
    assert error.parameter == name
    assert "StudyInstanceUID" in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "1e3"),
        ("limit", ""),
        ("limit", "99999999999"),
        ("offset", "1000001"),
        ("offset", "٣"),
        ("fuzzymatching", "yes"),
        ("StudyDate", "2024-01-01"),
        ("StudyDate", "20240101-20240102-20240103"),
        ("StudyInstanceUID", "1.2.x"),
        ("StudyInstanceUID", "1" * 65),
        ("StudyInstanceUID", "../1.2"),
        ("PatientID", "P*"),
        ("PatientID", "P?1"),
        ("PatientID", "a\\b"),
        ("AccessionNumber", "*7*"),
        ("ReferringPhysicianName", "Ref*"),
        ("PatientName", "D*e"),
        ("PatientName", "*oe"),
        ("PatientName", "Do?"),
        ("PatientName", "a" * 1025),
        ("PatientName", "Doe\r\nX-Injected: 1"),
        ("PatientName", "Doe\x00"),
        ("includefield", "Patient Name"),
        ("includefield", "<script>"),
        ("Modality", "c/t"),
        ("Modality", ","),
        ("Modality", "\\"),
        ("StudyInstanceUID", ",\\,"),
    ],
)
def test_a_bad_value_is_refused_by_the_parameters_name_and_never_repeated(
    name: str, value: str
) -> None:
    error = refused("studies", (name, value))
    assert error.reason == "invalid_parameter"
    assert error.parameter == name
    assert len(value) < 4 or value not in error.body().decode()


@pytest.mark.parametrize("name", ["limit", "offset", "fuzzymatching", "PatientID"])
def test_a_parameter_that_is_given_twice_is_refused(name: str) -> None:
    value = "true" if name == "fuzzymatching" else "1"
    assert refused("studies", (name, value), (name, value)).parameter == name
    assert refused("studies", ("00100020", "1"), ("PatientID", "2")).parameter == "PatientID"


@pytest.mark.parametrize("name", ["a=b", "X" * 65, "Näme", "", "a\r\nb"])
def test_a_name_that_is_none_is_refused_without_repeating_it(name: str) -> None:
    error = refused("studies", (name, "1"))
    assert error.reason == "invalid_parameter"
    assert error.parameter == ""


@pytest.mark.parametrize(
    ("typed", "sent"),
    [("Doe*", "Doe"), ("doe^jane*", "doe^jane"), ("*Doe*", "Doe"), ("Doe^*", "Doe")],
)
def test_a_name_with_an_asterisk_at_its_end_is_matched_fuzzily_and_says_so(
    typed: str, sent: str
) -> None:
    query = translate("studies", None, [("PatientName", typed)])
    assert parameters(query) == [("PatientName", sent), ("fuzzymatching", "true")]
    assert "fuzzily" in query.warnings[0]


@pytest.mark.parametrize("value", ["", "*", "**"])
def test_a_key_that_matches_anything_is_asked_for_and_not_searched_for(value: str) -> None:
    assert parameters(translate("series", None, [("PatientID", value)])) == [
        ("includefield", "PatientID")
    ]


def test_a_modality_at_study_level_goes_through_a_series_search_for_whole_studies() -> None:
    for name in ("Modality", "ModalitiesInStudy", "00080060", "00080061"):
        query = translate(
            "studies",
            None,
            [(name, "CT"), ("PatientID", "7"), ("includefield", "StudyDescription")],
        )
        assert query.path() == "series"
        assert query.is_merged
        assert ("Modality", "CT") in parameters(query)
        included = {value for key, value in parameters(query) if key == "includefield"}
        assert {"StudyDescription", "PatientName", "PatientBirthDate", "StudyID"} <= included
    assert ("includefield", "all") not in parameters(
        translate("studies", None, [("Modality", "CT"), ("includefield", "all")])
    )


def test_a_list_of_values_becomes_several_searches() -> None:
    studies = ("StudyInstanceUID", "1.2\\1.3,1.4")
    patient = ("PatientID", "7")
    query = translate("studies", None, [studies, patient])
    assert [search["StudyInstanceUID"] for search in query.searches] == ["1.2", "1.3", "1.4"]
    assert [search["PatientID"] for search in query.searches] == ["7", "7", "7"]
    assert query.is_merged


def test_a_list_of_too_many_values_is_refused() -> None:
    many = ",".join(f"1.{number}" for number in range(60))
    assert refused("studies", ("StudyInstanceUID", many)).parameter == "StudyInstanceUID"


def test_what_cannot_be_included_is_dropped_with_a_warning() -> None:
    fields = "00081030,NumberOfStudyRelatedSeries,Modality,00100010"
    query = translate("studies", None, [("includefield", fields)])
    assert parameters(query) == [
        ("includefield", "StudyDescription"),
        ("includefield", "PatientName"),
    ]
    assert query.warnings == ("the DICOM store cannot include NumberOfStudyRelatedSeries Modality",)
    fields = "AvailableTransferSyntaxUID,PixelSpacing,00181030"
    query = translate("instances", None, [("includefield", fields)])
    assert parameters(query) == [("includefield", "PixelSpacing"), ("includefield", "00181030")]
    query = translate("instances", None, [("includefield", "all,Rows")])
    assert parameters(query) == [("includefield", "all")]


def test_limits_are_the_stores_defaults_and_clamped_with_a_warning() -> None:
    assert [translate(level, None, []).limit for level in attributes.KEYS] == [100, 100, 1000]
    query = translate("studies", None, [("limit", "9999"), ("offset", "5")])
    assert query.limit == 5000
    assert query.offset == 5
    assert query.warnings == ("limit was lowered to 5000",)


def test_fixed_filters_cannot_be_left_out_or_changed() -> None:
    fixed = {"PatientID": "7"}
    assert parameters(translate("series", None, [], fixed)) == [("PatientID", "7")]
    assert parameters(translate("series", None, [("00100020", "7")], fixed)) == [("PatientID", "7")]
    for value in ("8", "*"):
        if value == "*":
            assert ("PatientID", "7") in parameters(
                translate("series", None, [("PatientID", value)], fixed)
            )
            continue
        with pytest.raises(RefusedError) as caught:
            translate("series", None, [("PatientID", value)], fixed)
        assert caught.value.reason == "forbidden"
        assert caught.value.parameter == "PatientID"


def test_the_scope_of_a_path_is_part_of_the_search() -> None:
    assert (
        translate("instances", Resource("1.2", "1.3"), []).path()
        == "studies/1.2/series/1.3/instances"
    )


def test_decoding_is_strict_utf8() -> None:
    assert decode("PatientName=M%C3%BCller%5EJ&x=a+b&&limit") == [
        ("PatientName", "Müller^J"),
        ("x", "a b"),
        ("limit", ""),
    ]
    with pytest.raises(RefusedError):
        decode("PatientName=%FF")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*attributes.TAG_OF, "limit", "offset", "includefield", "x"]), st.text()
        )
    )
)
def test_any_parameters_are_translated_or_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        query = translate("instances", None, pairs)
    except RefusedError as error:
        assert error.reason == "invalid_parameter"
        return
    for search in query.searches:
        assert query.parameters(search, query.limit, query.offset).isprintable()

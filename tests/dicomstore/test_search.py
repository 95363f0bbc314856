"""Search (QIDO-RS): section 4 of the fact sheet."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from infra.local.dicomstore import attributes
from tests.dicomstore.kit import (
    CT,
    Client,
    dicom,
    eventually,
    gradient,
    image,
    part10,
    parts_of,
    uids,
)

STUDY = "0020000D"
SERIES = "0020000E"
SOP = "00080018"


@pytest.fixture
def filled(store: Client) -> Client:
    """Three studies: two series in the first, two instances in its first series."""
    store.stored(
        dicom(
            "1.1",
            "1.1.1",
            "1.1.1.1",
            PatientName="John^Doe",
            StudyDate="20240105",
            AccessionNumber="A1",
            ReferringPhysicianName="Ref^One",
            StudyDescription="first",
            InstanceNumber=1,
        ),
        dicom(
            "1.1",
            "1.1.1",
            "1.1.1.2",
            PatientName="John^Doe",
            StudyDate="20240105",
            AccessionNumber="A1",
            ReferringPhysicianName="Ref^One",
            StudyDescription="first",
            InstanceNumber=2,
        ),
        dicom(
            "1.1", "1.1.2", "1.1.2.1", PatientName="John^Doe", StudyDate="20240105", Modality="SR"
        ),
        dicom(
            "1.2",
            "1.2.1",
            "1.2.1.1",
            PatientName="Zhang^Sally",
            PatientID="P2",
            StudyDate="20240210",
        ),
        dicom(
            "1.3",
            "1.3.1",
            "1.3.1.1",
            PatientName="Sally Zhang",
            PatientID="P3",
            StudyDate="20240315",
            Modality="MR",
        ),
    )
    return store


@pytest.mark.parametrize(
    ("path", "tag", "expected"),
    [
        ("studies", STUDY, ["1.1", "1.2", "1.3"]),
        ("series", SERIES, ["1.1.1", "1.1.2", "1.2.1", "1.3.1"]),
        ("instances", SOP, ["1.1.1.1", "1.1.1.2", "1.1.2.1", "1.2.1.1", "1.3.1.1"]),
        ("studies/1.1/series", SERIES, ["1.1.1", "1.1.2"]),
        ("studies/1.1/instances", SOP, ["1.1.1.1", "1.1.1.2", "1.1.2.1"]),
        ("studies/1.1/series/1.1.1/instances", SOP, ["1.1.1.1", "1.1.1.2"]),
        ("studies/9.9/series", SERIES, []),
    ],
)
def test_1_every_search_path(filled: Client, path: str, tag: str, expected: list[str]) -> None:
    assert uids(filled.found(path), tag) == expected


@pytest.mark.parametrize(
    ("path", "name", "value", "expected"),
    [
        ("studies", "StudyInstanceUID", "1.2", ["1.2"]),
        ("studies", "PatientName", "John^Doe", ["1.1"]),
        ("studies", "00100010", "John^Doe", ["1.1"]),
        ("studies", "PatientName", "Sally Zhang", ["1.3"]),
        ("studies", "PatientID", "P2", ["1.2"]),
        ("studies", "AccessionNumber", "A1", ["1.1"]),
        ("studies", "ReferringPhysicianName", "Ref^One", ["1.1"]),
        ("studies", "StudyDate", "20240210", ["1.2"]),
        ("series", "PatientID", "P3", ["1.3"]),
        ("series", "SeriesInstanceUID", "1.1.2", ["1.1"]),
        ("series", "Modality", "SR", ["1.1"]),
        ("series", "00080060", "MR", ["1.3"]),
        ("instances", "SOPInstanceUID", "1.1.1.2", ["1.1"]),
        ("instances", "StudyDate", "20240315", ["1.3"]),
        ("instances", "Modality", "SR", ["1.1"]),
    ],
)
def test_4_1_searchable_attributes_by_keyword_and_tag(
    filled: Client, path: str, name: str, value: str, expected: list[str]
) -> None:
    assert uids(filled.found(path, **{name: value})) == expected


@pytest.mark.parametrize(
    ("path", "name", "text"),
    [
        ("studies", "ModalitiesInStudy", "not a supported study"),
        ("studies", "StudyTime", "not a supported study"),
        ("studies", "StudyDescription", "not a supported study"),
        ("studies", "Modality", "not a supported study"),
        ("series", "SOPInstanceUID", "not a supported series"),
        ("instances", "SOPClassUID", "SOPClassUID is not a supported instance"),
        (
            "instances",
            "AvailableTransferSyntaxUID",
            "unknown/unsupported QIDO attribute: AvailableTransferSyntaxUID",
        ),
        ("studies", "SpecificCharacterSet", "SpecificCharacterSet"),
        ("studies", "Nonsense", "unknown/unsupported QIDO attribute: Nonsense"),
    ],
)
def test_4_1_unsupported_filters_are_400_in_a_one_element_array(
    filled: Client, path: str, name: str, text: str
) -> None:
    answer = filled.get(path, **{name: "x"})
    assert answer.status_code == 400
    ((error,),) = [answer.json()]
    assert error["error"]["status"] == "INVALID_ARGUMENT"
    assert text in error["error"]["message"]


def test_4_1_unsupported_includefield_is_400(filled: Client) -> None:
    answer = filled.get("instances", includefield="AvailableTransferSyntaxUID")
    assert answer.status_code == 400
    assert "unknown/unsupported QIDO attribute: AvailableTransferSyntaxUID" in answer.text
    assert filled.get("instances", includefield="NoSuchKeyword").status_code == 400


def test_1_google_parameters_are_no_attributes(filled: Client) -> None:
    names = (
        "alt",
        "prettyPrint",
        "fields",
        "key",
        "access_token",
        "quotaUser",
        "callback",
        "uploadType",
        "$alt",
    )
    assert len(filled.found("studies", **dict.fromkeys(names, "json"))) == 3


@pytest.mark.parametrize(
    "value", ["John*", "J?hn^Doe", "John", "Doe", "*", r"1.1\1.2", "John^Doe,Zhang^Sally"]
)
def test_4_2_values_match_exactly_without_wildcards_or_lists(filled: Client, value: str) -> None:
    assert filled.found("studies", PatientName=value) == []
    assert filled.found("studies", StudyInstanceUID=value) == []


def test_4_2_a_uid_list_matches_nothing(filled: Client) -> None:
    assert filled.found("studies", StudyInstanceUID="1.1,1.2") == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20240105-20240210", ["1.1", "1.2"]),
        ("20240106-20240209", []),
        ("20240210-", ["1.2", "1.3"]),
        ("-20240210", ["1.1", "1.2"]),
    ],
)
def test_4_2_study_date_ranges(filled: Client, value: str, expected: list[str]) -> None:
    assert uids(filled.found("studies", StudyDate=value)) == expected
    assert sorted(set(uids(filled.found("instances", StudyDate=value)))) == expected


@pytest.mark.parametrize(
    ("value", "matches"),
    [
        ("jo", True),
        ("Do", True),
        ("John Doe", True),
        ("DOE^x", True),
        ("ohn", False),
        ("^", False),
        ("oe", False),
    ],
)
def test_4_2_fuzzy_matching_is_by_prefix_of_any_name_part(
    filled: Client, value: str, matches: bool
) -> None:
    found = uids(filled.found("studies", PatientName=value, fuzzymatching="true"))
    assert found == (["1.1"] if matches else [])


def test_4_2_fuzzy_matching_applies_to_the_patient_name_alone(filled: Client) -> None:
    assert filled.found("studies", PatientID="p", fuzzymatching="true") == []
    assert uids(filled.found("studies", PatientID="P2", fuzzymatching="true")) == ["1.2"]


def test_4_2_filters_are_combined_with_and(filled: Client) -> None:
    assert filled.found("studies", PatientName="John^Doe", PatientID="P2") == []
    assert uids(filled.found("instances", PatientName="John^Doe", Modality="SR"), SOP) == [
        "1.1.2.1"
    ]


def test_4_3_includefield_repeated_and_comma_separated_by_keyword_and_tag(filled: Client) -> None:
    for fields in (["StudyDescription", "00100020"], ["00081030,PatientID"], "StudyDescription"):
        item = filled.found("studies", includefield=fields, StudyInstanceUID="1.1")[0]
        assert item["00081030"] == {"vr": "LO", "Value": ["first"]}


def test_4_3_limit_and_offset_page_through_everything_once(filled: Client) -> None:
    pages = [uids(filled.found("instances", limit=2, offset=at), SOP) for at in (0, 2, 4, 6)]
    assert pages == [["1.1.1.1", "1.1.1.2"], ["1.1.2.1", "1.2.1.1"], ["1.3.1.1"], []]


@pytest.mark.parametrize(
    ("path", "most"),
    [("studies", 5000), ("series", 5000), ("studies/1.1/series", 5000), ("instances", 50_000)],
)
def test_4_3_the_highest_limit_passes_and_one_more_is_400(
    filled: Client, path: str, most: int
) -> None:
    assert filled.get(path, limit=most).status_code == 200
    assert filled.get(path, limit=most + 1).status_code == 400


@pytest.mark.parametrize(
    "page",
    [{"limit": "-1"}, {"limit": "x"}, {"offset": "-1"}, {"offset": "1000001"}, {"limit": "1.5"}],
)
def test_4_3_bad_pages_are_400(filled: Client, page: dict[str, Any]) -> None:
    assert filled.get("studies", **page).status_code == 400


def test_4_3_default_limits_are_100_studies_and_series_and_1000_instances(store: Client) -> None:
    files = [dicom(f"1.{n}", f"1.{n}.1", f"1.{n}.1.1") for n in range(101)]
    files += [dicom("1.0", "1.0.1", f"1.0.1.{n}") for n in range(2, 902)]
    assert store.post_parts(files).status_code == 200
    assert len(store.found("studies")) == 100 == len(store.found("series"))
    assert len(store.found("instances")) == 1000
    assert len(store.found("instances", limit=5000)) == 1001


def test_4_3_no_warning_header_says_that_there_are_more(filled: Client) -> None:
    assert "Warning" not in filled.get("studies", limit=1).headers


def test_4_3_studies_whose_last_instance_was_deleted_stay_found_for_a_while(
    start: Callable[..., Client],
) -> None:
    client = start(stale_s=5.0)
    client.stored(dicom())
    client.delete("studies/1.2/series/1.2.3/instances/1.2.3.4")
    assert client.found("studies")
    assert client.found("series")
    assert not client.found("instances")
    assert client.get("studies/1.2").status_code == 404
    eventually(lambda: not client.found("studies") and not client.found("series"))


def test_4_4_no_match_is_204_without_a_body(filled: Client) -> None:
    answer = filled.get("studies", PatientID="nobody")
    assert answer.status_code == 204
    assert answer.content == b""


def test_4_4_json_is_the_default_and_xml_is_multipart(filled: Client) -> None:
    assert filled.get("studies").headers["Content-Type"] == "application/dicom+json; charset=utf-8"
    answer = filled.get(
        "studies", 'multipart/related; type="application/dicom+xml"', PatientName="John^Doe"
    )
    ((kind, body),) = parts_of(answer)
    assert kind == "application/dicom+xml"
    root = ElementTree.fromstring(body)
    name = root.find("./DicomAttribute[@keyword='PatientName']/PersonName/Alphabetic")
    assert name is not None
    assert [(part.tag, part.text) for part in name] == [
        ("FamilyName", "John"),
        ("GivenName", "Doe"),
    ]
    assert filled.get("studies", "text/html").status_code == 406


def everything() -> bytes:
    """An instance with every attribute that a search may show."""
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    ds = image(gradient(), NumberOfFrames=1, InstanceNumber=4)
    texts = {
        "DA": "20240101",
        "TM": "101112",
        "CS": "ONLINE",
        "SH": "-0500",
        "UI": "1.9",
    }
    for tag in sorted(attributes.STUDY_ALL | attributes.SERIES_ALL | attributes.INSTANCE_DEFAULT):
        keyword = keyword_for_tag(int(tag, 16))
        vr = dictionary_VR(int(tag, 16))
        if keyword not in ds and keyword != "SpecificCharacterSet":
            setattr(
                ds,
                keyword,
                Sequence([Dataset()])
                if vr == "SQ"
                else 1
                if vr in ("IS", "US")
                else texts.get(vr, "text"),
            )
    ds.SpecificCharacterSet = "ISO_IR 100"
    return part10(ds)


def test_4_4_default_attributes_at_each_level_and_no_others(store: Client) -> None:
    store.stored(everything())
    study = attributes.STUDY_DEFAULT
    series = attributes.SERIES_DEFAULT
    one = attributes.INSTANCE_DEFAULT
    expected = {
        "studies": study,
        "series": study | series,
        "instances": study | series | one,
        "studies/1.2/series": series,
        "studies/1.2/instances": series | one,
        "studies/1.2/series/1.2.3/instances": one,
    }
    for path, tags in expected.items():
        (item,) = store.found(path)
        assert set(item) == set(tags), path
        assert list(item) == sorted(item), "attributes are in the order of their tags"


def test_4_4_includefield_all_adds_the_listed_attributes(store: Client) -> None:
    store.stored(everything())
    (study,) = store.found("studies", includefield="all")
    assert set(study) == set(attributes.STUDY_ALL)
    (series,) = store.found("studies/1.2/series", includefield="all")
    assert set(series) == set(attributes.SERIES_ALL)
    (one,) = store.found("studies/1.2/series/1.2.3/instances", includefield="all")
    metadata = store.get("studies/1.2/series/1.2.3/instances/1.2.3.4/metadata").json()[0]
    assert one == metadata
    assert store.found("instances", includefield="all") == [metadata]


def test_4_4_no_counts_no_modalities_and_no_retrieve_url_are_made_up(filled: Client) -> None:
    for path in ("studies", "series", "instances"):
        for tag in ("00080061", "00201206", "00201208", "00201209", "00081190", "00080056"):
            assert all(tag not in item for item in filled.found(path, includefield="all"))


def test_4_4_absent_attributes_are_left_out_and_empty_ones_have_a_vr_alone(store: Client) -> None:
    store.stored(dicom(StudyDate="", PatientName=""))
    (item,) = store.found("studies")
    assert item["00080020"] == {"vr": "DA"}
    assert item["00100010"] == {"vr": "PN"}
    assert "00080005" not in item
    assert "00080050" not in item


def test_4_4_the_captured_answer_of_the_service(store: Client) -> None:
    """The file of dcmweb's own integration test has these elements with zero length; the service
    answered this."""
    empty = dict.fromkeys(
        (
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "ReferringPhysicianName",
            "PatientName",
            "PatientID",
        ),
        "",
    )
    more = {"PatientBirthDate": "", "PatientSex": "", "StudyID": ""}
    store.stored(dicom("111", "111", "111", **empty, **more))
    vrs = {
        "00080020": "DA",
        "00080030": "TM",
        "00080050": "SH",
        "00080090": "PN",
        "00100010": "PN",
        "00100020": "LO",
    }
    expected: dict[str, Any] = {tag: {"vr": vr} for tag, vr in vrs.items()}
    expected |= {
        "00100030": {"vr": "DA"},
        "00100040": {"vr": "CS"},
        "00200010": {"vr": "SH"},
    }
    assert store.found("studies") == [{**expected, "0020000D": {"vr": "UI", "Value": ["111"]}}]


def test_4_4_search_never_returns_bulk_values(store: Client) -> None:
    store.stored(part10(image(gradient())))
    (item,) = store.found("instances", includefield="7FE00010")
    base = f"{store.web}/studies/1.2/series/1.2.3/instances/1.2.3.4"
    assert item["7FE00010"] == {"vr": "OB", "BulkDataURI": f"{base}/bulkdata/7FE00010"}
    assert item["00080016"]["Value"] == [CT]

"""Store (STOW-RS): sections 3.1 to 3.5 of the fact sheet."""

import re
import time
from xml.etree import ElementTree

import pytest

from tests.dicomstore.kit import BUNDLED, CT, Client, dicom, failures, multipart, uids

WHOLE = 'multipart/related; type="application/dicom"; boundary=testboundary0c1d2e3f'


def test_3_1_single_part_file_is_stored_and_comes_back_byte_for_byte(store: Client) -> None:
    file = (BUNDLED / "CT_small.dcm").read_bytes()
    assert store.post(file).status_code == 200
    (found,) = store.found("instances", includefield="0020000E")
    study, series, instance = (
        uids([found], tag)[0] for tag in ("0020000D", "0020000E", "00080018")
    )
    path = f"studies/{study}/series/{series}/instances/{instance}"
    assert store.get(path, "application/dicom; transfer-syntax=*").content == file


def test_3_1_multipart_stores_many_instances_of_several_studies(store: Client) -> None:
    files = [dicom(f"1.{n}", f"1.{n}.1", f"1.{n}.1.1") for n in range(5)]
    assert store.post_parts(files).status_code == 200
    assert uids(store.found("studies")) == [f"1.{n}" for n in range(5)]


@pytest.mark.parametrize("kind", ['"application/dicom"', "application/dicom"])
def test_3_1_the_type_parameter_may_be_quoted_or_not(store: Client, kind: str) -> None:
    body = multipart([({"Content-Type": "application/dicom"}, dicom())])
    answer = store.post(body, f"multipart/related; type={kind}; boundary=testboundary0c1d2e3f")
    assert answer.status_code == 200


def test_3_1_a_boundary_may_be_quoted_and_straddle_reads(store: Client) -> None:
    file = dicom(ImageComments="x" * 9000, EncapsulatedDocument=bytes((1 << 20) - 6))
    body = multipart([({"Content-Type": "application/dicom"}, file), ({}, dicom(instance="9"))])
    chunks = (body[i : i + 997] for i in range(0, len(body), 997))
    kind = 'multipart/related; type="application/dicom"; boundary="testboundary0c1d2e3f"'
    assert store.post(chunks, kind).status_code == 200
    got = store.get(
        "studies/1.2/series/1.2.3/instances/1.2.3.4", "application/dicom; transfer-syntax=*"
    )
    assert got.content == file


def test_3_1_uids_may_be_as_short_as_111(store: Client) -> None:
    store.stored(dicom("111", "111", "111"))
    assert store.get("studies/111/series/111/instances/111/metadata").status_code == 200


@pytest.mark.parametrize("uid", ["1.2.x", "", "1" * 65])
def test_3_1_uids_are_digits_and_dots(store: Client, uid: str) -> None:
    file = dicom(instance="1.2.3.4")
    bad = file.replace(
        b"UI\x08\x001.2.3.4\0",
        b"UI"
        + len(uid + "\0" * (len(uid) % 2)).to_bytes(2, "little")
        + uid.encode()
        + b"\0" * (len(uid) % 2),
    )
    answer = store.post(bad)
    assert answer.status_code == 409
    assert failures(answer)[0][0] == "272"


def test_3_1_any_sop_class_and_private_attributes_are_taken(store: Client) -> None:
    assert store.post(dicom(SOPClassUID="1.2.3.999.1")).status_code == 200


@pytest.mark.parametrize("name", ["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"])
def test_3_1_storage_class_header(store: Client, name: str) -> None:
    assert store.post(dicom(), Storage_Class=name).status_code == 200
    info = store.get("studies/1.2/series/1.2.3/instances/1.2.3.4:getStorageInfo").json()
    assert info["blobStorageInfo"]["storageClass"] == name


def test_3_1_an_unknown_storage_class_is_400(store: Client) -> None:
    assert store.post(dicom(), Storage_Class="FROZEN").status_code == 400
    assert store.found("studies") == []


def test_3_2_xml_is_the_default_answer_in_the_exact_shape_of_the_sample(store: Client) -> None:
    answer = store.post(dicom())
    assert answer.headers["Content-Type"] == "application/dicom+xml"
    assert answer.text == "".join(
        [
            "<NativeDicomModel>",
            '<DicomAttribute tag="00081190" vr="UR" keyword="RetrieveURL">',
            f'<Value number="1">{store.web}/studies/1.2</Value>',
            "</DicomAttribute>",
            '<DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence">',
            '<Item number="1">',
            '<DicomAttribute tag="00081150" vr="UI" keyword="ReferencedSOPClassUID">',
            f'<Value number="1">{CT}</Value>',
            "</DicomAttribute>",
            '<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID">',
            '<Value number="1">1.2.3.4</Value>',
            "</DicomAttribute>",
            '<DicomAttribute tag="00081190" vr="UR" keyword="RetrieveURL">',
            f'<Value number="1">{store.web}/studies/1.2/series/1.2.3/instances/1.2.3.4</Value>',
            "</DicomAttribute>",
            "</Item>",
            "</DicomAttribute>",
            "</NativeDicomModel>",
        ]
    )


def test_3_2_json_answer(store: Client) -> None:
    answer = store.post(dicom(), Accept="application/dicom+json")
    assert answer.headers["Content-Type"] == "application/dicom+json"
    item = {
        "00081150": {"vr": "UI", "Value": [CT]},
        "00081155": {"vr": "UI", "Value": ["1.2.3.4"]},
        "00081190": {
            "vr": "UR",
            "Value": [f"{store.web}/studies/1.2/series/1.2.3/instances/1.2.3.4"],
        },
    }
    assert answer.json() == {
        "00081190": {"vr": "UR", "Value": [f"{store.web}/studies/1.2"]},
        "00081199": {"vr": "SQ", "Value": [item]},
    }


def test_3_2_failure_detail_is_a_private_text_in_xml_and_another_in_json(store: Client) -> None:
    xml = store.post(b"no dicom at all")
    assert xml.status_code == 409
    assert (
        '<DicomAttribute tag="00081197" vr="US" keyword="FailureReason">'
        '<Value number="1">272</Value>' in xml.text
    )
    assert (
        '<DicomAttribute tag="00090097" vr="LT" keyword="FailureDetail" privateCreator="GOOGLE">'
        in xml.text
    )
    item = store.post(b"no dicom at all", Accept="application/dicom+json").json()["00081198"][
        "Value"
    ][0]
    assert item["00081197"]["Value"] == [272]
    assert item["00091097"]["Value"][0]


def test_3_2_a_control_character_in_the_file_leaves_the_xml_answer_well_formed(
    store: Client,
) -> None:
    answer = store.post(dicom().replace(CT.encode() + b"\0", CT.encode() + b"\1"))
    assert (
        ElementTree.fromstring(answer.text).findtext(".//DicomAttribute[@tag='00081150']/Value")
        == CT
    )


def test_3_3_406_when_no_answer_is_acceptable_and_nothing_is_stored(store: Client) -> None:
    answer = store.post(dicom(), Accept="text/html")
    assert answer.status_code == 406
    assert answer.text == (
        "no supported media type found in [text/html], accept-header must include one of"
        " application/dicom+xml,application/dicom+json"
    )
    assert store.found("studies") == []


@pytest.mark.parametrize(
    "kind",
    ["application/json", "text/plain", "multipart/form-data; boundary=x", "multipart/related"],
)
def test_3_3_an_unsupported_content_type_is_400_not_415(store: Client, kind: str) -> None:
    assert store.post(dicom(), kind).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary",
        multipart([({}, b"x")])[:-30],
        multipart([({}, b"x")])[:-6],
        multipart([]),
    ],
)
def test_3_3_a_malformed_or_cut_multipart_body_is_400(store: Client, body: bytes) -> None:
    assert store.post(body, WHOLE).status_code == 400


def test_3_3_one_bad_instance_among_good_ones_is_409_and_the_good_ones_are_stored(
    store: Client,
) -> None:
    answer = store.post_parts(
        [dicom(), b"broken", dicom(instance="5")], Accept="application/dicom+json"
    )
    assert answer.status_code == 409
    assert len(answer.json()["00081199"]["Value"]) == 2
    assert len(failures(answer)) == 1
    assert sorted(uids(store.found("instances"), "00080018")) == ["1.2.3.4", "5"]


def test_3_4_identical_bytes_again_are_200(store: Client) -> None:
    store.stored(dicom(), dicom())
    assert store.post_parts([dicom(), dicom()]).status_code == 200
    assert len(store.found("instances")) == 1


def test_3_4_other_bytes_of_the_same_instance_are_409_already_exists_and_the_first_stays(
    store: Client,
) -> None:
    store.stored(dicom())
    answer = store.post(dicom(PatientID="P2"))
    ((reason, detail),) = failures(answer)
    assert answer.status_code == 409
    assert reason == "272"
    assert "already exists" in detail
    assert "checksum mismatch" in detail
    assert (
        f"{store.web}/studies/1.2</Value>" in answer.text
    )  # the top-level RetrieveURL stays on failure
    assert store.found("studies")[0]["00100020"]["Value"] == ["P1"]


def test_3_4_the_same_sop_instance_uid_in_two_series_is_two_instances(store: Client) -> None:
    one = dicom(series="1.2.3")
    two = dicom(series="1.2.4", SeriesDescription="second")
    store.stored(one, two)
    for series, file in (("1.2.3", one), ("1.2.4", two)):
        path = f"studies/1.2/series/{series}/instances/1.2.3.4"
        assert store.get(path, "application/dicom; transfer-syntax=*").content == file


def test_3_4_replace_is_delete_then_store(store: Client) -> None:
    store.stored(dicom())
    assert store.delete("studies/1.2/series/1.2.3/instances/1.2.3.4").status_code == 200
    store.stored(dicom(PatientID="P2"))
    assert store.found("studies")[0]["00100020"]["Value"] == ["P2"]


def test_3_5_a_file_of_another_study_fails_alone(store: Client) -> None:
    answer = store.post_parts([dicom("1.2"), dicom("7.7", "7.7.1", "7.7.2")], "studies/1.2")
    assert answer.status_code == 409
    assert len(failures(answer)) == 1
    assert uids(store.found("studies")) == ["1.2"]
    assert store.post(dicom(instance="8"), path="studies/1.2").status_code == 200


def test_3_5_a_file_without_its_uids_fails(store: Client) -> None:
    file = re.sub(rb" \x00\r\x00UI..1\.2\x00", b"", dicom(), flags=re.S)
    answer = store.post(file)
    assert answer.status_code == 409
    assert "Study Instance UID" in failures(answer)[0][1]


def test_3_5_nothing_goes_into_a_study_that_is_being_deleted(start: object) -> None:
    client: Client = start(operation_s=3.0)  # type: ignore[operator]
    client.stored(dicom())
    name = client.delete("studies/1.2").json()["name"]
    blocked = client.post(dicom(instance="6"))
    assert blocked.status_code == 409
    assert failures(blocked)
    assert client.post(dicom("1.20", "1.20.3", "7")).status_code == 200, (
        "another study whose UID begins the same"
    )
    deadline = time.monotonic() + 20
    while not client.operation(name).get("done"):
        assert time.monotonic() < deadline
    assert client.post(dicom(instance="6")).status_code == 200


def test_5_5_and_3_1_japanese_and_arabic_names(store: Client) -> None:
    japanese = dicom(
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
    )
    arabic = dicom(
        "2.2", "2.3", "2.4", SpecificCharacterSet="ISO_IR 127", PatientName="قباني^لنزار"
    )
    store.stored(japanese, arabic)
    names = {
        uid: item["00100010"]["Value"][0] for item in store.found("studies") for uid in uids([item])
    }
    assert names["1.2"] == {
        "Alphabetic": "Yamada^Tarou",
        "Ideographic": "山田^太郎",
        "Phonetic": "やまだ^たろう",
    }
    assert names["2.2"] == {"Alphabetic": "قباني^لنزار"}
    assert uids(store.found("studies", PatientName="قباني^لنزار")) == ["2.2"]
    assert uids(store.found("studies", PatientName="山田^太郎")) == ["1.2"]
    assert uids(store.found("studies", PatientName="山田", fuzzymatching="true")) == ["1.2"]


def test_3_1_every_bundled_file_that_is_dicom_comes_back_as_it_was(store: Client) -> None:
    refused = []
    for path in sorted(BUNDLED.rglob("*.dcm")):
        file = path.read_bytes()
        answer = store.post(file, Accept="application/dicom+json")
        if answer.status_code != 200:
            refused.append((path.name, failures(answer)[0][1]))
            continue
        url = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
        assert store.get(url, "application/dicom; transfer-syntax=*").content == file, path.name
        assert store.get(f"{url}/metadata").status_code == 200, path.name
        assert store.http.delete(url).json() == {}
    broken = {name for name, detail in refused if "UID is missing" not in detail}
    assert broken == {
        "rtplan_truncated.dcm",
        "MR_truncated.dcm",
        "no_meta.dcm",
        "ExplVR_BigEndNoMeta.dcm",
    }

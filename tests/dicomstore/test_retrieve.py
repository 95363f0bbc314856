"""Retrieve (WADO-RS): instances, metadata, bulk data and negotiation, sections 5.1, 5.4, 5.5, 5.7
and 5.8."""

import io
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.dicomstore.kit import (
    AS_STORED,
    BUNDLED,
    ELE,
    ONE,
    Client,
    dataset,
    dicom,
    gradient,
    image,
    part10,
    parts_of,
)


def test_5_1_study_series_and_instance_as_stored_are_byte_identical(store: Client) -> None:
    files = [dicom(instance="1"), dicom(instance="2"), dicom(series="1.2.4", instance="3")]
    store.stored(*files)
    for path, expected in (
        ("studies/1.2", files),
        ("studies/1.2/series/1.2.3", files[:2]),
        (f"{ONE[:-7]}2", files[1:2]),
    ):
        answer = store.get(path, AS_STORED)
        assert answer.headers["Content-Type"].startswith("multipart/related; ")
        assert 'type="application/dicom"' in answer.headers["Content-Type"]
        parts = parts_of(answer)
        assert [body for _, body in parts] == expected
        assert {kind for kind, _ in parts} == {f"application/dicom; transfer-syntax={ELE}"}


def test_5_1_single_part_is_for_instances_alone_and_names_the_actual_syntax(store: Client) -> None:
    store.stored(dicom())
    answer = store.get(ONE, "application/dicom; transfer-syntax=*")
    assert answer.headers["Content-Type"] == f"application/dicom; transfer-syntax={ELE}"
    assert store.get("studies/1.2", "application/dicom; transfer-syntax=*").status_code == 406


def test_5_1_the_default_is_explicit_little_endian_not_as_stored(store: Client) -> None:
    file = (BUNDLED / "JPEG2000.dcm").read_bytes()
    ds = pydicom.dcmread(io.BytesIO(file))
    store.stored(file)
    path = (
        f"studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    )
    for accept in ("*/*", "", 'multipart/related; type="application/dicom"', "multipart/related"):
        ((kind, body),) = parts_of(store.get(path, accept))
        got = pydicom.dcmread(io.BytesIO(body))
        assert kind == f"application/dicom; transfer-syntax={ELE}"
        assert got.file_meta.TransferSyntaxUID == ELE
        assert np.array_equal(got.pixel_array, ds.pixel_array)
    assert (
        store.get(path, "application/dicom").headers["Content-Type"]
        == f"application/dicom; transfer-syntax={ELE}"
    )


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (
            "application/dicom+json;q=0.1, application/dicom; transfer-syntax=*;q=0.9",
            "application/dicom;",
        ),
        (f"application/dicom; transfer-syntax=*;q=0.2, {AS_STORED}", "multipart/related"),
        ("text/html, */*;q=0.1", "multipart/related"),
        ("application/*; transfer-syntax=*", "application/dicom;"),
        (f"{AS_STORED};q=0, application/dicom; transfer-syntax=*", "application/dicom;"),
    ],
)
def test_5_7_quality_values_and_wildcards(store: Client, accept: str, kind: str) -> None:
    store.stored(dicom())
    assert store.get(ONE, accept).headers["Content-Type"].startswith(kind)


@pytest.mark.parametrize(
    "accept",
    [
        # The syntax inside the quoted type.
        'multipart/related; type="application/dicom; transfer-syntax=*"',
        "application/dicom; transfer-syntax=1.2.3",
        "image/jpeg",
        'multipart/related; type="image/jp2"',
    ],
)
def test_5_7_unsupported_types_are_406_with_the_supported_ones(store: Client, accept: str) -> None:
    store.stored(dicom())
    answer = store.get(ONE, accept)
    assert answer.status_code == 406
    start = f"no supported media type found in [{accept}], accept-header must include one of "
    first = f'multipart/related; transfer-syntax={ELE}; type="application/dicom",'
    assert answer.text.startswith(start + first + "multipart/related; ")


@pytest.mark.parametrize(
    "path", ["studies/9", "studies/1.2/series/9", "studies/1.2/series/1.2.3/instances/9"]
)
def test_5_8_a_missing_resource_is_404_with_a_bare_json_string(store: Client, path: str) -> None:
    store.stored(dicom())
    for url in (path, f"{path}/metadata"):
        answer = store.get(url)
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
        assert answer.json().startswith("DICOM ")
        assert answer.json().endswith(" does not exist.")


@pytest.mark.parametrize("syntax", ["*", "1.2.840.10008.1.2"])
def test_5_1_an_instance_deleted_while_its_study_is_sent_has_no_part(
    store: Client, syntax: str
) -> None:
    store.stored(
        dicom(instance="1", EncapsulatedDocument=bytes(32 << 20))
    )  # more than sockets hold: the rest waits
    store.stored(dicom(instance="2"), dicom(instance="3"))
    accept = {"Accept": f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'}
    with store.http.get(
        f"{store.web}/studies/1.2", headers=accept, stream=True, timeout=60
    ) as answer:
        assert store.delete(ONE[:-7] + "2").status_code == 200
        found = [pydicom.dcmread(io.BytesIO(body)).SOPInstanceUID for _, body in parts_of(answer)]
    assert found == ["1", "3"]


def test_5_4_metadata_has_the_file_meta_group_but_no_lengths(store: Client) -> None:
    store.stored(dicom())
    (item,) = store.get(ONE + "/metadata").json()
    group = {tag for tag in item if tag.startswith("0002")}
    assert group == {"00020002", "00020003", "00020010", "00020012", "00020013"}
    assert item["00020010"]["Value"] == [ELE]


def test_5_4_metadata_of_study_and_series_is_one_object_an_instance(store: Client) -> None:
    store.stored(dicom(instance="1"), dicom(instance="2"), dicom(series="1.2.4", instance="3"))
    assert len(store.get("studies/1.2/metadata").json()) == 3
    assert len(store.get("studies/1.2/series/1.2.3/metadata").json()) == 2
    answer = store.get(ONE[:-7] + "1/metadata")
    assert answer.headers["Content-Type"] == "application/dicom+json; charset=utf-8"


def test_5_4_metadata_as_xml(store: Client) -> None:
    store.stored(dicom(instance="1", ImageComments="a < b & c"), dicom(instance="2"))
    parts = parts_of(
        store.get("studies/1.2/metadata", 'multipart/related; type="application/dicom+xml"')
    )
    assert len(parts) == 2
    root = ElementTree.fromstring(parts[0][1])
    assert root.tag == "NativeDicomModel"
    assert root.findtext("./DicomAttribute[@tag='00204000']/Value") == "a < b & c"


def test_5_4_xml_leaves_out_the_characters_that_xml_cannot_hold(store: Client) -> None:
    store.stored(
        dicom(
            ImageComments="page 1\x0c\r\npage 2\ufffe",
            PatientName="Doe\x01^Jane",
            SpecificCharacterSet="ISO_IR 192",
        )
    )
    ((_, body),) = parts_of(
        store.get(ONE + "/metadata", 'multipart/related; type="application/dicom+xml"')
    )
    root = ElementTree.fromstring(body)
    assert root.findtext("./DicomAttribute[@tag='00204000']/Value") == "page 1\r\npage 2"
    assert root.findtext(".//FamilyName") == "Doe"


def test_5_4_values_of_every_kind_are_dicom_json(store: Client) -> None:
    ds = dataset(
        ImageType=["ORIGINAL", "PRIMARY"],
        PatientWeight="72.5",
        InstanceNumber=3,
        PixelSpacing=["0.5", "0.25"],
        FrameIncrementPointer=[0x00181063],
        RecommendedDisplayFrameRateInFloat=1.5,
        PatientName="A^B=\u5c71",
        SpecificCharacterSet="ISO_IR 192",
        SimpleFrameList=[1, 2, 4000000000],
        TextValue="one\\two",
        PatientComments="line\r\nnext",
        SelectorSLValue=[-5],
        ReferencedSOPInstanceUID="1.2.9",
    )
    ds.RequestAttributesSequence = Sequence([Dataset(), Dataset()])
    ds.RequestAttributesSequence[0].ScheduledProcedureStepID = "S1"
    ds.add_new(0x00091001, "LO", "private")
    ds.private_block(0x0009, "GOOGLE", create=True)
    store.stored(part10(ds))
    (item,) = store.get(ONE + "/metadata").json()
    assert item["00080008"] == {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY"]}
    assert item["00101030"] == {"vr": "DS", "Value": [72.5]}
    assert item["00200013"] == {
        "vr": "IS",
        "Value": [3],
    }
    assert item["00280030"] == {"vr": "DS", "Value": [0.5, 0.25]}
    assert item["00280009"] == {"vr": "AT", "Value": ["00181063"]}
    assert item["00100010"] == {
        "vr": "PN",
        "Value": [{"Alphabetic": "A^B", "Ideographic": "\u5c71"}],
    }
    assert item["00081161"] == {"vr": "UL", "Value": [1, 2, 4000000000]}
    assert item["00104000"] == {"vr": "LT", "Value": ["line\r\nnext"]}
    assert item["00400275"] == {
        "vr": "SQ",
        "Value": [{"00400009": {"vr": "SH", "Value": ["S1"]}}, {}],
    }
    assert item["00091001"]["vr"] == "LO"
    assert item["00090010"]["Value"] == ["GOOGLE"]


def test_5_4_a_sequence_over_a_mebibyte_is_left_out_of_metadata_but_stays_in_the_file(
    store: Client,
) -> None:
    ds = dataset()
    ds.ReferencedImageSequence = Sequence([Dataset() for _ in range(3)])
    for item in ds.ReferencedImageSequence:
        item.TextValue = "x" * 400_000
    ds.ReferencedStudySequence = Sequence([Dataset()])
    file = part10(ds)
    store.stored(file)
    (item,) = store.get(ONE + "/metadata").json()
    assert "00081140" not in item
    assert item["00081110"] == {"vr": "SQ", "Value": [{}]}
    assert store.get(ONE, "application/dicom; transfer-syntax=*").content == file


def test_1_v1beta1_is_the_same_and_other_versions_are_not_there(store: Client) -> None:
    store.stored(dicom())
    beta = Client(store.url, store.name, "v1beta1")
    (item,) = beta.get(ONE + "/metadata").json()
    assert item["0020000D"]["Value"] == ["1.2"]
    assert Client(store.url, store.name, "v2").get("studies").status_code == 404


def test_baselines_each_part_header_is_a_separate_http_chunk(store: Client) -> None:
    """Google's dcmweb drops every chunk in which it sees the boundary, so data must never share one
    with it."""
    first = dicom(instance="1")
    second = dicom(instance="2")
    store.stored(first, second)
    accept = {"Accept": AS_STORED}
    answer = store.http.get(f"{store.web}/studies/1.2", headers=accept, stream=True)
    content_type = answer.headers["Content-Type"].lower()
    boundary = content_type.split("boundary=")[1].split(";")[0].encode()
    chunks = list(answer.raw.read_chunked(decode_content=False))
    with_boundary = [chunk for chunk in chunks if boundary in chunk]
    data = [chunk for chunk in chunks if boundary not in chunk]
    # Two heads of parts, and the end.
    assert [b"Content-Type" in chunk for chunk in with_boundary] == [True, True, False]
    assert b"".join(data) == first + second


@pytest.mark.parametrize("path", ["studies", f"{ONE}/metadata"])
def test_17_application_json_is_not_application_dicom_json(store: Client, path: str) -> None:
    store.stored(dicom())
    answer = store.get(path, "application/json")
    assert answer.status_code == 406
    assert store.get(path, "application/json, */*;q=0.1").status_code == 200


def test_17_parts_of_frames_have_no_location(store: Client) -> None:
    store.stored(part10(image(gradient())))
    answer = store.get(f"{ONE}/frames/1")
    assert b"content-location" not in answer.content.lower()


@pytest.mark.parametrize("path", ["studies/1.2", "studies/1.2/series/1.2.3", ONE])
def test_5_7_and_17_whole_resources_come_as_the_images_of_their_frames(
    store: Client, path: str
) -> None:
    store.stored(part10(image(gradient())), dicom(instance="1.2.3.5"))
    parts = parts_of(store.get(path, 'multipart/related; type="image/png"'))
    assert [kind for kind, _ in parts] == ["image/png"]


def test_5_7_and_17_images_of_instances_without_pixels_are_400(store: Client) -> None:
    store.stored(dicom())
    answer = store.get("studies/1.2", 'multipart/related; type="image/png"')
    assert answer.status_code == 400

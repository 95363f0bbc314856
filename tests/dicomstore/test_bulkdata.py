"""Bulk data, and files in other byte orders: sections 5.2, 5.4, 5.5 and 5.6."""

import base64
import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian

from tests.dicomstore.kit import (
    BUNDLED,
    ELE,
    ONE,
    Client,
    dataset,
    gradient,
    image,
    part10,
    parts_of,
)


def test_5_5_which_values_are_bulk_data_and_which_are_inline(store: Client) -> None:
    ds = dataset()
    ds.add_new(0x00420011, "OB", b"%PDF")  # OB: always
    ds.add_new(0x00091010, "UN", b"abcd")  # UN: always
    ds.add_new(0x00660016, "OF", bytes(2048))  # up to 2 KiB inline
    ds.add_new(0x00660040, "OL", bytes(2052))
    ds.add_new(0x00720075, "OV", bytes(8))
    ds.SelectorUSValue = list(range(512))  # up to 512 values inline
    ds.SelectorULValue = list(range(513))
    ds.SelectorSSValue = [-1] * 600  # SS is not in the list
    store.stored(part10(ds))
    (item,) = store.get(ONE + "/metadata").json()
    bulk = {tag for tag, attribute in item.items() if "BulkDataURI" in attribute}
    assert bulk == {"00420011", "00091010", "00660040", "00720078"}
    assert "InlineBinary" in item["00660016"]
    assert len(item["0072007A"]["Value"]) == 512
    assert len(item["0072007E"]["Value"]) == 600
    assert item["00420011"]["BulkDataURI"] == f"{store.web}/{ONE}/bulkdata/00420011"


def test_5_5_bulkdata_in_both_forms_and_nested(store: Client) -> None:
    ds = image(gradient(dtype=np.uint16))
    ds.IconImageSequence = Sequence([Dataset(), image(gradient(2, 2))])
    store.stored(part10(ds))
    raw = store.get(ONE + "/bulkdata/7FE00010", "application/octet-stream; transfer-syntax=*")
    assert raw.content == ds.PixelData
    assert raw.headers["Content-Type"] == "application/octet-stream; transfer-syntax=*"
    ((kind, body),) = parts_of(store.get(ONE + "/bulkdata/7FE00010"))
    assert body == ds.PixelData
    assert kind.startswith("application/octet-stream")
    (item,) = store.get(ONE + "/metadata").json()
    nested = item["00880200"]["Value"][1]["7FE00010"]["BulkDataURI"]
    assert nested == f"{store.web}/{ONE}/bulkdata/00880200/1/7FE00010"
    assert store.get(nested, "application/octet-stream").content == bytes([0, 1, 2, 3])
    for path, status in (
        ("00420011", 404),
        ("00880200/7/7FE00010", 404),
        ("x", 400),
        ("00880200/1", 404),
    ):
        assert store.get(f"{ONE}/bulkdata/{path}").status_code == status


def test_5_5_exactly_the_uris_in_metadata_have_bulk_data(
    store: Client,
) -> None:
    ds = dataset(EncapsulatedDocument=b"")
    ds.file_meta.PrivateInformationCreatorUID = UID("1.2.9")
    ds.file_meta.PrivateInformation = b"abcd"
    ds.FloatPixelData = bytes(8)
    ds.ReferencedStudySequence = Sequence([Dataset()])
    ds.IconImageSequence = Sequence([image(gradient(2, 2))])
    ds.AnatomicRegionSequence = Sequence([Dataset()])
    ds.AnatomicRegionSequence[0].add_new(0x00091001, "OB", bytes(2_000_000))
    store.stored(part10(ds))
    (item,) = store.get(ONE + "/metadata").json()
    for tag, value in (("00020102", b"abcd"), ("7FE00008", bytes(8))):
        assert store.get(item[tag]["BulkDataURI"], "application/octet-stream").content == value
    assert "00082218" not in item, "larger than a sequence in metadata may be"
    inside = ("00082218", "00082218/0/00091001", "00880200/-1/7FE00010", "00880200/0/00280010")
    for path in ("00100010", "00080060", "00081110", "00020001", "00420011", *inside):
        assert store.get(f"{ONE}/bulkdata/{path}").status_code == 404, path


def test_5_5_bulkdata_of_compressed_pixels_is_their_encoded_bytes(store: Client) -> None:
    ds = pydicom.dcmread(BUNDLED / "JPEG2000.dcm")
    store.stored((BUNDLED / "JPEG2000.dcm").read_bytes())
    (item,) = store.get(f"studies/{ds.StudyInstanceUID}/metadata").json()
    data = store.get(item["7FE00010"]["BulkDataURI"], "application/octet-stream").content
    assert data[:2] == b"\xff\x4f"


def test_5_4_and_5_5_big_endian_and_deflated_files(store: Client) -> None:
    for name in ("MR_small_bigendian.dcm", "image_dfl.dcm"):
        file = (BUNDLED / name).read_bytes()
        ds = pydicom.dcmread(io.BytesIO(file))
        store.stored(file)
        (item,) = store.get(f"studies/{ds.StudyInstanceUID}/metadata").json()
        assert item["00280010"]["Value"] == [ds.Rows]
        data = store.get(item["7FE00010"]["BulkDataURI"], "application/octet-stream").content
        little = ds.pixel_array.astype(ds.pixel_array.dtype.newbyteorder("<"))
        assert data[: little.nbytes] == little.tobytes()
        ((_, body),) = parts_of(store.get(f"studies/{ds.StudyInstanceUID}"))
        got = pydicom.dcmread(io.BytesIO(body))
        assert got.file_meta.TransferSyntaxUID == ELE
        assert np.array_equal(got.pixel_array, ds.pixel_array)


def big_endian(ds: Dataset) -> bytes:
    """A data set as a file in Explicit VR big endian; pydicom writes binary values as they are."""
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    return part10(ds, implicit_vr=False, little_endian=False)


@pytest.mark.parametrize(
    "name", ["rtdose_expb.dcm", "SC_rgb_small_odd_big_endian.dcm", "ExplVR_BigEnd.dcm"]
)
def test_5_2_5_5_and_5_6_big_endian_pixels_of_every_size(store: Client, name: str) -> None:
    """Of 32 bits, of 8 bits in words, and of 8 bits in bytes."""
    file = (BUNDLED / name).read_bytes()
    ds = pydicom.dcmread(io.BytesIO(file))
    store.stored(file)
    path = (
        f"studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    )
    frames = ds.pixel_array if ds.get("NumberOfFrames", 1) > 1 else ds.pixel_array[np.newaxis]
    if ds.get("PlanarConfiguration"):
        frames = np.moveaxis(frames, -1, 1)
    little = frames.astype(frames.dtype.newbyteorder("<"))
    got = pydicom.dcmread(
        io.BytesIO(store.get(path, f"application/dicom; transfer-syntax={ELE}").content)
    )
    assert np.array_equal(got.pixel_array, ds.pixel_array)
    bulk = store.get(path + "/bulkdata/7FE00010", "application/octet-stream").content
    assert bulk[: little.nbytes] == little.tobytes()
    ((_, first),) = parts_of(store.get(path + "/frames/1"))
    assert first == little[0].tobytes()


def test_5_2_big_endian_frames_that_begin_inside_a_word(store: Client) -> None:
    frames = np.stack([gradient(3, 5), gradient(3, 5) + 100])
    ds = image(frames)
    ds.PixelData = np.frombuffer(ds.PixelData, np.uint16).byteswap().tobytes()
    ds["PixelData"].VR = "OW"
    store.stored(big_endian(ds))
    assert [body for _, body in parts_of(store.get(ONE + "/frames/2,1"))] == [
        frames[1].tobytes(),
        frames[0].tobytes(),
    ]


def test_5_4_and_5_5_numbers_and_icons_of_a_big_endian_file_are_little_endian(
    store: Client,
) -> None:
    ds = dataset(
        SelectorUSValue=list(range(600)),
        SelectorATValue=[0x00280010] * 600,
        SelectorFDValue=[0.5] * 600,
    )
    ds.IconImageSequence = Sequence([image(gradient(2, 2, np.uint32))])
    icon = ds.IconImageSequence[0]
    icon.PixelData = gradient(2, 2, ">u4").tobytes()
    ds.add_new(0x00660016, "OF", np.array([1.5], ">f4").tobytes())
    store.stored(big_endian(ds))
    (item,) = store.get(ONE + "/metadata").json()
    assert (
        item["00660016"]["InlineBinary"]
        == base64.b64encode(np.array([1.5], "<f4").tobytes()).decode()
    )
    expected = {
        "0072007A": np.arange(600, dtype="<u2"),
        "00720060": np.array([0x28, 0x10] * 600, "<u2"),
        "00720074": np.full(600, 0.5, "<f8"),
    }
    for tag, array in expected.items():
        assert (
            store.get(item[tag]["BulkDataURI"], "application/octet-stream").content
            == array.tobytes()
        )
    pixels = item["00880200"]["Value"][0]["7FE00010"]["BulkDataURI"]
    assert store.get(pixels, "application/octet-stream").content == gradient(2, 2, "<u4").tobytes()
    got = pydicom.dcmread(
        io.BytesIO(store.get(ONE, f"application/dicom; transfer-syntax={ELE}").content)
    )
    assert got.IconImageSequence[0].PixelData == gradient(2, 2, "<u4").tobytes()
    assert list(got.SelectorUSValue) == list(range(600))


def test_5_5_and_17_a_bulkdata_uri_is_answered_with_a_slash_behind_it_too(store: Client) -> None:
    """Discovery's pattern for the path is `bulkdata/[^/]+/.*`: generated clients insist on it."""
    store.stored(part10(image(gradient())))
    octets = "application/octet-stream; transfer-syntax=*"
    answer = store.get(f"{ONE}/bulkdata/7FE00010/", octets)
    assert answer.content == gradient().tobytes()
    (item,) = store.get(f"{ONE}/metadata").json()
    assert item["7FE00010"]["BulkDataURI"].endswith("/bulkdata/7FE00010")

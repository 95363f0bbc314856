"""Instances in another transfer syntax: section 5.6."""

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from infra.local.dicomstore import decode, transcode
from tests.dicomstore.kit import (
    ELE,
    OCTETS,
    ONE,
    Client,
    bundled,
    dicom,
    gradient,
    image,
    part10,
    stack,
)

JPEG = "1.2.840.10008.1.2.4."
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"


@pytest.mark.parametrize("syntax", [IMPLICIT, DEFLATED, RLE, JPEG + "80", JPEG + "90"])
def test_5_6_transcoding_keeps_every_pixel(store: Client, syntax: str) -> None:
    array = stack()
    store.stored(part10(image(array)))
    answer = store.get(ONE, f"application/dicom; transfer-syntax={syntax}")
    assert answer.status_code == 200, answer.text
    got = pydicom.dcmread(io.BytesIO(answer.content))
    assert got.file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(got.pixel_array, array)
    assert got.SOPInstanceUID == "1.2.3.4"


@pytest.mark.parametrize("syntax", [IMPLICIT, RLE, JPEG + "80", JPEG + "90"])
def test_5_6_transcoding_keeps_colours_that_come_plane_by_plane(store: Client, syntax: str) -> None:
    path, ds = bundled(store, "ExplVR_BigEnd.dcm")
    assert ds.PlanarConfiguration == 1
    got = pydicom.dcmread(
        io.BytesIO(store.get(path, f"application/dicom; transfer-syntax={syntax}").content)
    )
    assert np.array_equal(got.pixel_array, ds.pixel_array)


def test_5_6_to_jpeg_baseline(store: Client) -> None:
    array = gradient(64, 64)
    store.stored(part10(image(array)))
    got = pydicom.dcmread(
        io.BytesIO(store.get(ONE, f"application/dicom; transfer-syntax={JPEG}50").content)
    )
    assert got.file_meta.TransferSyntaxUID == JPEG + "50"
    assert np.abs(got.pixel_array.astype(int) - array).max() < 40
    sixteen = image(stack())
    sixteen.SOPInstanceUID = "1.2.3.5"
    store.stored(part10(sixteen))
    assert store.get(
        f"{ONE[:-1]}5", f"application/dicom; transfer-syntax={JPEG}50"
    ).status_code in (400, 406)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "MR_small_RLE.dcm",
            "SC_rgb_jpeg_dcmtk.dcm",
            "SC_rgb_jpeg_gdcm.dcm",
            "JPGExtended.dcm",
            "MR_small_jp2klossless.dcm",
        ),
        *(
            "MR_small_jpeg_ls_lossless.dcm",
            "examples_jpeg2k.dcm",
            "MR_small_expb.dcm",
            "rtdose_rle.dcm",
        ),
    ],
)
def test_5_6_compressed_files_can_be_retrieved_as_explicit_little_endian(
    store: Client, name: str
) -> None:
    path, ds = bundled(store, name)
    answer = store.get(path, f"application/dicom; transfer-syntax={ELE}")
    assert answer.status_code == 200, answer.text
    got = pydicom.dcmread(io.BytesIO(answer.content))
    assert got.file_meta.TransferSyntaxUID == ELE
    assert np.array_equal(got.pixel_array, ds.pixel_array)


def test_5_6_transcoding_an_unsupported_file_is_406_and_it_is_still_returned_as_stored(
    store: Client,
) -> None:
    ds = image(gradient())
    ds.file_meta.TransferSyntaxUID = UID(JPEG + "100")  # MPEG2
    ds.PixelData = encapsulate([b"\0\0\1\xb3" + bytes(40)])
    ds["PixelData"].VR = "OB"
    file = part10(ds)
    store.stored(file)
    assert store.get(ONE).status_code == 406
    assert store.get(ONE, f"application/dicom; transfer-syntax={JPEG}50").status_code == 406
    assert store.get(ONE, "application/dicom; transfer-syntax=*").content == file
    assert store.get(ONE + "/rendered").status_code == 406


def test_5_6_pixels_that_do_not_decode_are_406_wherever_they_are_asked_for(store: Client) -> None:
    path, _ = bundled(
        store, "JPEG-lossy.dcm"
    )  # 12 bit, by an encoder that no decoder here understands
    asked = ("/rendered", "/frames/1", "", "/frames/1/rendered")
    assert [store.get(path + what).status_code for what in asked] == [406] * 4
    assert store.get(path, "application/dicom").status_code == 406


RLE_FRAMES = f'multipart/related; type="image/dicom-rle"; transfer-syntax={RLE}'


TRANSCODED = (
    ("/frames/1", RLE_FRAMES),
    ("", f"application/dicom; transfer-syntax={IMPLICIT}"),
)


def limited(store: Client, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> bytes:
    """Store a file of 64 by 64 bytes of pixels, and make its size the limit."""
    array = gradient(64, 64)
    file = part10(image(array))
    store.stored(file)
    sizes = {"MAX_FILE": len(file), "MAX_FRAME": array.nbytes}
    monkeypatch.setattr(module, name, sizes[name])
    return file


LIMITS = [(transcode, "MAX_FILE"), (decode, "MAX_FRAME")]


def test_9_the_limits_of_transcoding_are_the_documented_ones() -> None:
    assert transcode.MAX_FILE == 1 << 30
    assert decode.MAX_FRAME == 150 << 20


@pytest.mark.parametrize(("module", "name"), LIMITS)
def test_5_6_and_9_a_file_or_frame_at_the_limit_is_transcoded(
    store: Client, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    limited(store, monkeypatch, module, name)
    for path, accept in TRANSCODED:
        assert store.get(ONE + path, accept).status_code == 200


@pytest.mark.parametrize(("module", "name"), LIMITS)
def test_5_6_and_9_too_large_a_file_or_frame_is_not_transcoded(
    store: Client, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    file = limited(store, monkeypatch, module, name)
    monkeypatch.setattr(module, name, getattr(module, name) - 1)
    for path, accept in TRANSCODED:
        assert store.get(ONE + path, accept).status_code == 406
    # Nothing is transcoded here.
    for syntax in ("*", ELE):
        assert store.get(ONE, f"application/dicom; transfer-syntax={syntax}").content == file
    assert store.get(ONE + "/frames/1", OCTETS + ELE).status_code == 200


def test_5_6_instances_without_pixels_are_rewritten(store: Client) -> None:
    ds = pydicom.dcmread(io.BytesIO(dicom(PatientComments="text")))
    store.stored(part10(ds))
    got = pydicom.dcmread(
        io.BytesIO(store.get(ONE, f"application/dicom; transfer-syntax={IMPLICIT}").content)
    )
    assert got.file_meta.TransferSyntaxUID == IMPLICIT
    assert got.PatientComments == "text"

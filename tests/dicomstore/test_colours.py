"""Colours of frames, pictures and transcoded instances: sections 5.2, 5.3, 5.6 and 17.

The reference is pydicom, which decodes each file itself: on every file of its own test data whose
colours are not RGB, as far as they come with the package. These are not in it, and are not fetched:
`color3d_jpeg_baseline.dcm` and `SC_ybr_full_uncompressed.dcm`.
"""

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import pixel_array

from tests.dicomstore.kit import BUNDLED, ELE, OCTETS, ONE, Client, part10, parts_of

JPEG = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
JPEG_FRAMES = f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}50'
RLE_FRAMES = f'multipart/related; type="image/dicom-rle"; transfer-syntax={RLE}'
PNG_FRAMES = 'multipart/related; type="image/png"'

COMPRESSED = (
    "GDCMJ2K_TextGBR.dcm",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+n2.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "examples_jpeg2k.dcm",
    "examples_ybr_color.dcm",
)
NATIVE = "SC_ybr_full_422_uncompressed.dcm"
UIDS = {
    "StudyInstanceUID": "1.2",
    "SeriesInstanceUID": "1.2.3",
    "SOPInstanceUID": "1.2.3.4",
}


def stored(store: Client, ds: Dataset) -> Any:
    """Store a data set; the RGB of its first frame, by pydicom."""
    for name, uid in UIDS.items():
        setattr(ds, name, uid)
    file = part10(ds)
    store.stored(file)
    return first_frame(file)


def first_frame(file: bytes) -> Any:
    """The RGB of a file's first frame, by pydicom."""
    return pixel_array(io.BytesIO(file), index=0)


def bundled(store: Client, name: str) -> Any:
    """Store one of pydicom's files; the RGB of its first frame, by pydicom."""
    return stored(store, pydicom.dcmread(BUNDLED / name))


def rle_ybr(rgb: Any) -> Dataset:
    """A data set whose pixels are YBR_FULL in RLE."""
    ds = pydicom.dcmread(BUNDLED / "SC_rgb_rle.dcm")
    ds.decompress()
    ds.PixelData = convert_color_space(rgb, "RGB", "YBR_FULL").tobytes()
    ds.Rows, ds.Columns = rgb.shape[:2]
    ds.PhotometricInterpretation = "YBR_FULL"
    ds.compress(RLE, generate_instance_uid=False)
    return ds


def colours() -> Any:
    """Stripes of strong colours."""
    stripes = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 240, 20)]
    return np.repeat(np.array([stripes], np.uint8), 16, axis=1).repeat(64, axis=0)


def picture(body: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB")).astype(int)


def error(found: Any, expected: Any) -> float:
    """The mean difference of two images, of 255."""
    return float(np.abs(found.astype(int) - expected.astype(int)).mean())


def test_every_ybr_file_that_comes_with_pydicom_is_tried_here() -> None:
    found = set()
    for path in BUNDLED.glob("*.dcm"):
        ds = pydicom.dcmread(path, force=True, specific_tags=["PhotometricInterpretation"])
        if str(ds.get("PhotometricInterpretation", "")).startswith("YBR"):
            found.add(path.name)
    assert found == {*COMPRESSED, NATIVE}


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("accept", ["*/*", OCTETS + ELE])
def test_5_2_frames_of_compressed_colours_are_rgb(store: Client, name: str, accept: str) -> None:
    expected = bundled(store, name)
    ((kind, body),) = parts_of(store.get(f"{ONE}/frames/1", accept))
    assert kind == f"application/octet-stream; transfer-syntax={ELE}"
    assert body == expected.tobytes()


@pytest.mark.parametrize("name", COMPRESSED)
def test_5_6_the_transcoded_instance_holds_the_pixels_of_the_frames_and_says_rgb(
    store: Client, name: str
) -> None:
    bundled(store, name)
    answer = store.get(ONE, f"application/dicom; transfer-syntax={ELE}")
    ds = pydicom.dcmread(io.BytesIO(answer.content))
    ((_, frame),) = parts_of(store.get(f"{ONE}/frames/1"))
    assert ds.PixelData[: len(frame)] == frame
    assert ds.PhotometricInterpretation == "RGB"
    assert ds.PlanarConfiguration == 0


def test_5_4_metadata_describes_the_stored_instance(store: Client) -> None:
    bundled(store, "SC_rgb_jpeg_dcmtk.dcm")
    (item,) = store.get(f"{ONE}/metadata").json()
    assert item["00280004"]["Value"] == ["YBR_FULL"]
    assert item["00020010"]["Value"] == [JPEG + "50"]


def test_5_2_native_ybr_that_stays_native_is_not_touched(store: Client) -> None:
    bundled(store, NATIVE)
    raw = pydicom.dcmread(BUNDLED / NATIVE).PixelData
    for accept in (OCTETS + ELE, OCTETS + "*"):
        ((_, body),) = parts_of(store.get(f"{ONE}/frames/1", accept))
        assert body == raw
    answer = store.get(ONE, "application/dicom; transfer-syntax=1.2.840.10008.1.2")
    ds = pydicom.dcmread(io.BytesIO(answer.content))
    assert ds.PixelData == raw
    assert ds.PhotometricInterpretation == "YBR_FULL_422"


@pytest.mark.parametrize("name", [*COMPRESSED, NATIVE])
def test_5_2_png_frames_are_rgb(store: Client, name: str) -> None:
    expected = bundled(store, name)
    ((_, body),) = parts_of(store.get(f"{ONE}/frames/1", PNG_FRAMES))
    assert error(picture(body), expected) == 0


@pytest.mark.parametrize("name", [*COMPRESSED, NATIVE])
def test_5_3_rendered_pictures_are_rgb(store: Client, name: str) -> None:
    expected = bundled(store, name)
    body = store.get(f"{ONE}/rendered", "image/png").content
    assert error(picture(body), expected) == 0


def test_5_2_jpeg_frames_of_native_ybr_show_its_colours(store: Client) -> None:
    expected = bundled(store, NATIVE)
    ((kind, body),) = parts_of(store.get(f"{ONE}/frames/1", JPEG_FRAMES))
    assert kind == f"image/jpeg; transfer-syntax={JPEG}50"
    assert error(picture(body), expected) < 4


def test_5_2_jpeg_frames_of_rle_ybr_show_its_colours(store: Client) -> None:
    rgb = colours()
    expected = stored(store, rle_ybr(rgb))
    assert error(expected, rgb) < 2
    ((_, body),) = parts_of(store.get(f"{ONE}/frames/1", JPEG_FRAMES))
    assert error(picture(body), rgb) < 6


@pytest.mark.parametrize("syntax", [RLE, JPEG + "80", JPEG + "90"])
def test_5_6_native_ybr_encoded_without_loss_is_rgb(store: Client, syntax: str) -> None:
    expected = bundled(store, NATIVE)
    answer = store.get(ONE, f"application/dicom; transfer-syntax={syntax}")
    assert answer.status_code == 200, answer.text
    ds = pydicom.dcmread(io.BytesIO(answer.content))
    assert ds.PhotometricInterpretation == "RGB"
    assert np.array_equal(first_frame(answer.content), expected)


@pytest.mark.parametrize("name", [NATIVE, "SC_rgb_rle.dcm", "examples_rgb_color.dcm"])
def test_5_6_jpeg_baseline_says_ybr_and_decodes_to_the_same_colours(
    store: Client, name: str
) -> None:
    expected = bundled(store, name)
    answer = store.get(ONE, f"application/dicom; transfer-syntax={JPEG}50")
    ds = pydicom.dcmread(io.BytesIO(answer.content))
    assert ds.PhotometricInterpretation == "YBR_FULL_422"
    assert error(first_frame(answer.content), expected) < 4


def test_5_2_frames_in_another_syntax_are_those_of_the_transcoded_instance(store: Client) -> None:
    bundled(store, "SC_rgb_jpeg_dcmtk.dcm")
    ((_, frame),) = parts_of(store.get(f"{ONE}/frames/1", RLE_FRAMES))
    whole = store.get(ONE, f"application/dicom; transfer-syntax={RLE}").content
    assert frame in whole


def test_5_7_every_frame_of_an_instance_as_png(store: Client) -> None:
    bundled(store, "examples_ybr_color.dcm")
    parts = parts_of(store.get(ONE, PNG_FRAMES))
    assert len(parts) == 30
    assert {kind for kind, _ in parts} == {"image/png"}
    ((_, third),) = parts_of(store.get(f"{ONE}/frames/3", PNG_FRAMES))
    assert parts[2][1] == third

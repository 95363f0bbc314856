"""Frames: section 5.2."""

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import UID

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
    parts_of,
    stack,
)

JPEG = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"


def encapsulated(codestreams: list[bytes], **options: Any) -> bytes:
    """A multi-frame file of 8 bit frames that are these code streams."""
    ds = image(np.zeros((len(codestreams), 64, 64), np.uint8))
    ds.file_meta.TransferSyntaxUID = UID(JPEG + "50")
    if options.pop("extended", False):
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(
            codestreams
        )
    else:
        ds.PixelData = encapsulate(codestreams, **options)
    ds["PixelData"].VR = "OB"
    return part10(ds)


def jpegs(count: int) -> list[bytes]:
    """Code streams of different frames."""
    found = []
    for n in range(count):
        file = io.BytesIO()
        Image.fromarray(gradient(64, 64) // (n + 1)).save(file, "JPEG")
        found.append(file.getvalue() + b"\0" * (file.tell() % 2))
    return found


def test_5_2_native_frames_one_part_each_in_the_order_asked(store: Client) -> None:
    array = stack()
    store.stored(part10(image(array)))
    for accept in ("*/*", OCTETS + ELE, OCTETS + "*"):
        parts = parts_of(store.get(ONE + "/frames/3,1", accept))
        assert [body for _, body in parts] == [array[2].tobytes(), array[0].tobytes()]
        assert {kind for kind, _ in parts} == {f"application/octet-stream; transfer-syntax={ELE}"}


@pytest.mark.parametrize(
    "options",
    [
        {"has_bot": True},
        {"has_bot": False},
        {"extended": True},
        {"has_bot": True, "fragments_per_frame": 3},
        {"has_bot": False, "fragments_per_frame": 3},
    ],
)
def test_5_2_encapsulated_frames_with_and_without_offset_tables(
    store: Client, options: dict[str, Any]
) -> None:
    frames = jpegs(3)
    store.stored(encapsulated(frames, **options))
    for accept in (OCTETS + "*", f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}50'):
        parts = parts_of(store.get(ONE + "/frames/2,3", accept))
        assert [kind for kind, _ in parts] == [f"image/jpeg; transfer-syntax={JPEG}50"] * 2, (
            "the native type"
        )
        assert [body for _, body in parts] == frames[1:]


def test_5_2_frames_are_decoded_by_default(store: Client) -> None:
    path, ds = bundled(store, "JPEG2000.dcm")
    ((kind, body),) = parts_of(store.get(path + "/frames/1"))
    assert kind == f"application/octet-stream; transfer-syntax={ELE}"
    assert body == ds.pixel_array.tobytes()


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [("image/jls", "80"), ("image/jp2", "90"), ("image/dicom-rle", ""), ("image/png", None)],
)
def test_5_2_native_frames_encoded_on_demand_without_loss(
    store: Client, kind: str, syntax: str | None
) -> None:
    array = gradient(64, 64)
    store.stored(part10(image(array)))
    uid = "" if syntax is None else "; transfer-syntax=" + (JPEG + syntax if syntax else RLE)
    ((got, body),) = parts_of(
        store.get(ONE + "/frames/1", f'multipart/related; type="{kind}"{uid}')
    )
    assert got == kind + uid
    if syntax is None:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(body))), array)
        return
    ds = image(array)
    ds.file_meta.TransferSyntaxUID = UID(uid.partition("=")[2])
    ds.PixelData = encapsulate([body])
    ds["PixelData"].VR = "OB"
    assert np.array_equal(pydicom.dcmread(io.BytesIO(part10(ds))).pixel_array, array)


PNG = 'multipart/related; type="image/png"'


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16])
def test_5_2_png_frames_hold_signed_pixels_raised_by_half_their_range(
    store: Client, dtype: Any
) -> None:
    array = gradient(64, 64, dtype) - dtype(100)
    store.stored(part10(image(array)))
    ((_, body),) = parts_of(store.get(ONE + "/frames/1", PNG))
    shown = np.asarray(Image.open(io.BytesIO(body))).astype(int)
    assert np.array_equal(shown + min(0, np.iinfo(dtype).min), array)


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "SC_rgb_small_odd_big_endian.dcm"])
def test_5_2_png_frames_of_big_endian_files(store: Client, name: str) -> None:
    path, ds = bundled(store, name)
    ((_, body),) = parts_of(store.get(path + "/frames/1", PNG))
    shown = np.asarray(Image.open(io.BytesIO(body))).astype(int)
    assert np.array_equal(shown - (1 << 15) * ds.PixelRepresentation, ds.pixel_array)


@pytest.mark.parametrize("name", ["rtdose_1frame.dcm", "SC_rgb_rle_16bit.dcm"])
def test_5_2_pixels_that_do_not_fit_in_png_are_406(store: Client, name: str) -> None:
    path, _ = bundled(store, name)
    assert store.get(path + "/frames/1", PNG).status_code == 406


@pytest.mark.parametrize("frames", ["4", "0", "1,9", "x", "1-2"])
def test_5_2_a_frame_that_is_not_there_is_400(store: Client, frames: str) -> None:
    store.stored(part10(image(stack())))
    assert store.get(f"{ONE}/frames/{frames}").status_code == 400


@pytest.mark.parametrize("what", ["frames/1", "rendered", "frames/1/rendered"])
def test_5_2_and_5_8_no_pixel_data_is_400(store: Client, what: str) -> None:
    store.stored(dicom())
    assert store.get(f"{ONE}/{what}").status_code == 400


def test_5_2_single_bit_frames_that_do_not_start_at_a_byte(store: Client) -> None:
    bits = (np.arange(3 * 15) % 4 == 0).astype(np.uint8).reshape(3, 3, 5)
    ds = image(bits, BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    store.stored(part10(ds))
    ((_, body),) = parts_of(store.get(ONE + "/frames/2"))
    assert body == np.packbits(bits[1].ravel(), bitorder="little").tobytes()

"""Frames, rendered images and transcoding: sections 5.2, 5.3 and 5.6."""

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence
from pydicom.uid import UID

from infra.local.dicomstore import decode, rendered, transcode
from tests.dicomstore.kit import BUNDLED, ELE, Client, dicom, gradient, image, part10, parts_of

ONE = "studies/1.2/series/1.2.3/instances/1.2.3.4"
JPEG = "1.2.840.10008.1.2.4."
OCTETS = 'multipart/related; type="application/octet-stream"; transfer-syntax='
IMPLICIT, DEFLATED, RLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"


def stack(frames: int = 3, dtype: Any = np.uint16) -> Any:
    """Frames that differ."""
    return np.stack([gradient(64, 64, dtype) + dtype(n) for n in range(frames)])


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


def bundled(store: Client, name: str) -> tuple[str, Dataset]:
    """Store one of pydicom's files; its URL and data set."""
    file = (BUNDLED / name).read_bytes()
    store.stored(file)
    ds = pydicom.dcmread(io.BytesIO(file))
    return (
        f"studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}",
        ds,
    )


def test_5_2_native_frames_one_part_each_in_the_order_asked(store: Client) -> None:
    array = stack()
    store.stored(part10(image(array)))
    for accept in ("*/*", OCTETS + ELE, OCTETS + "*"):
        parts = parts_of(store.get(ONE + "/frames/3,1", accept))
        assert [body for _, body in parts] == [array[2].tobytes(), array[0].tobytes()]
        assert {kind for kind, _ in parts} == {f"application/octet-stream; transfer-syntax={ELE}"}


@pytest.mark.parametrize(
    "options", [{"has_bot": True}, {"has_bot": False}, {"extended": True}, {"has_bot": True, "fragments_per_frame": 3},
                {"has_bot": False, "fragments_per_frame": 3}]
)  # fmt: skip
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
    assert (
        kind == f"application/octet-stream; transfer-syntax={ELE}"
        and body == ds.pixel_array.tobytes()
    )


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
def test_5_2_what_png_cannot_hold_is_406(store: Client, name: str) -> None:
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


def test_5_3_a_file_without_meta_information_is_rendered_too(store: Client) -> None:
    path, ds = bundled_without_meta(store)
    assert Image.open(io.BytesIO(store.get(path + "/rendered").content)).size == (
        ds.Columns,
        ds.Rows,
    )
    ((_, body),) = parts_of(store.get(path + "/frames/1"))
    assert body == ds.PixelData[: len(body)] and len(body) == ds.Rows * ds.Columns * 2


def bundled_without_meta(store: Client) -> tuple[str, Dataset]:
    """A CT as a bare data set: no preamble, no group 0002."""
    ds = image(gradient(dtype=np.uint16))
    file = part10(ds)
    start = file.index(b"\x08\x00\x16\x00UI")
    store.stored(file[start:])
    return ONE, ds


def test_5_3_jpeg_is_the_default_and_the_type_is_the_accepted_one(store: Client) -> None:
    store.stored(part10(image(gradient())))
    for accept, kind in (
        ("*/*", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/png", "image/png"),
    ):
        answer = store.get(ONE + "/rendered", accept)
        assert answer.headers["Content-Type"] == kind
        assert Image.open(io.BytesIO(answer.content)).size == (24, 16)
    assert store.get(ONE + "/rendered", "image/gif").status_code == 406


def shown(store: Client, ds: Dataset, path: str = "rendered", **params: Any) -> Any:
    """The PNG of a data set as an array."""
    store.delete(ONE)
    store.stored(part10(ds))
    answer = store.get(f"{ONE}/{path}", "image/png", **params)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)


def test_5_3_window_rescale_and_inversion_as_a_viewer_shows_them(store: Client) -> None:
    values = np.array([[0, 924, 1024, 1064, 1224, 4000]], np.uint16)
    about = {
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "WindowCenter": ["40", "400"],
        "WindowWidth": ["400", "1"],
    }
    grey = shown(store, image(values, **about))
    expected = (values.astype(float) - 1024 - 39.5) / 399 + 0.5  # PS3.3 C.11.2.1.2.1
    assert np.abs(grey - np.clip(expected * 255, 0, 255).round()).max() <= 1
    inverted = shown(store, image(values, **about, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(inverted, 255 - grey)


def test_5_3_without_a_window_the_whole_range_is_shown_padding_apart(store: Client) -> None:
    values = np.array([[-2000, -10, 0, 90]], np.int16)
    assert shown(store, image(values, PixelPaddingValue=-2000)).tolist() == [[0, 0, 26, 255]]
    ds = image(values)
    ds.add_new(0x00280120, "SS", -2000)
    assert shown(store, ds).tolist() == [[0, 0, 26, 255]]
    assert shown(store, image(np.full((2, 2), 7, np.uint16))).shape == (2, 2)


@pytest.mark.parametrize(
    ("function", "middle"), [("SIGMOID", [2, 127, 253]), ("LINEAR_EXACT", [0, 128, 255])]
)
def test_5_3_other_window_functions(store: Client, function: str, middle: list[int]) -> None:
    values = np.array([[0, 100, 200]], np.uint16)
    grey = shown(
        store,
        image(
            values,
            WindowCenter=100,
            WindowWidth=88 if function == "SIGMOID" else 200,
            VOILUTFunction=function,
        ),
    )
    assert np.abs(grey - np.array([middle])).max() <= 2


def test_5_3_window_of_the_frame_in_an_enhanced_image(store: Client) -> None:
    ds = image(np.stack([np.full((2, 2), 100, np.uint16)] * 2))
    groups = []
    for center in (100, 1000):
        window = Dataset()
        window.WindowCenter, window.WindowWidth = center, 100
        group = Dataset()
        group.FrameVOILUTSequence = Sequence([window])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    assert shown(store, ds, "frames/1/rendered")[0, 0] in range(126, 131)
    assert shown(store, ds, "frames/2/rendered")[0, 0] == 0


def test_5_3_a_multi_frame_instance_shows_its_first_frame_and_a_list_is_400(store: Client) -> None:
    array = np.stack([np.full((4, 4), 10, np.uint8), np.full((4, 4), 200, np.uint8)])
    ds = image(array, WindowCenter=127.5, WindowWidth=256)
    assert abs(shown(store, ds)[0, 0] - 10) <= 1
    assert abs(shown(store, ds, "frames/2/rendered")[0, 0] - 200) <= 1
    assert store.get(ONE + "/frames/1,2/rendered").status_code == 400


@pytest.mark.parametrize(
    "name",
    [
        "examples_palette.dcm",
        "examples_rgb_color.dcm",
        "examples_ybr_color.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
    ],
)
def test_5_3_colour_comes_out_as_rgb(store: Client, name: str) -> None:
    path, ds = bundled(store, name)
    answer = store.get(path + "/rendered", "image/png")
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.mode == "RGB" and picture.size == (ds.Columns, ds.Rows)


@pytest.mark.parametrize(
    ("viewport", "size"),
    [
        ("12,8", (12, 8)),
        ("100,8", (12, 8)),
        ("48,48", (48, 32)),
        ("10,10,0,0,10,10", (10, 10)),
        ("6,4,12,8,,", (6, 4)),
    ],
)
def test_5_3_viewport_scales_a_region_with_its_proportions(
    store: Client, viewport: str, size: tuple[int, int]
) -> None:
    store.stored(part10(image(gradient())))
    answer = store.get(ONE + "/rendered", "image/png", viewport=viewport)
    assert Image.open(io.BytesIO(answer.content)).size == size


@pytest.mark.parametrize(
    "viewport", ["x", "1", "0,5", "10001,10", "1,2,3", "5,5,100,100,1,1", "-1,5", "nan,nan"]
)
def test_5_3_a_bad_viewport_is_400(store: Client, viewport: str) -> None:
    store.stored(part10(image(gradient())))
    assert store.get(ONE + "/rendered", viewport=viewport).status_code == 400


def test_5_3_and_9_a_viewport_of_too_large_a_frame_is_400(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rendered.MAX_VIEWED == 50 << 20
    store.stored(part10(image(gradient())))
    monkeypatch.setattr(rendered, "MAX_VIEWED", 16 * 24 - 1)
    assert store.get(ONE + "/rendered", viewport="12,8").status_code == 400
    assert store.get(ONE + "/rendered").status_code == 200


def test_5_3_negative_region_sizes_flip(store: Client) -> None:
    ds = image(gradient(4, 4), WindowCenter=8, WindowWidth=16)
    plain = shown(store, ds)
    assert np.array_equal(shown(store, ds, viewport="4,4,0,0,-4,4"), plain[:, ::-1])
    assert np.array_equal(shown(store, ds, viewport="4,4,0,0,4,-4"), plain[::-1])


@pytest.mark.parametrize("syntax", [IMPLICIT, DEFLATED, RLE, JPEG + "80", JPEG + "90"])
def test_5_6_transcoding_keeps_every_pixel(store: Client, syntax: str) -> None:
    array = stack()
    store.stored(part10(image(array)))
    answer = store.get(ONE, f"application/dicom; transfer-syntax={syntax}")
    assert answer.status_code == 200, answer.text
    got = pydicom.dcmread(io.BytesIO(answer.content))
    assert got.file_meta.TransferSyntaxUID == syntax and np.array_equal(got.pixel_array, array)
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
def test_5_6_what_comes_compressed_can_be_had_as_explicit_little_endian(
    store: Client, name: str
) -> None:
    path, ds = bundled(store, name)
    answer = store.get(path, f"application/dicom; transfer-syntax={ELE}")
    assert answer.status_code == 200, answer.text
    got = pydicom.dcmread(io.BytesIO(answer.content))
    assert got.file_meta.TransferSyntaxUID == ELE and np.array_equal(
        got.pixel_array, ds.pixel_array
    )


def test_5_6_what_cannot_be_transcoded_is_406_and_still_comes_as_stored(store: Client) -> None:
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
    assert (transcode.MAX_FILE, decode.MAX_FRAME) == (1 << 30, 150 << 20)


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
    assert got.file_meta.TransferSyntaxUID == IMPLICIT and got.PatientComments == "text"

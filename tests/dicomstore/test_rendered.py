"""Rendered images: section 5.3."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from infra.local.dicomstore import rendered
from tests.dicomstore.kit import ONE, Client, bundled, gradient, image, part10, parts_of


def test_5_3_a_file_without_meta_information_is_rendered_too(store: Client) -> None:
    path, ds = bundled_without_meta(store)
    assert Image.open(io.BytesIO(store.get(path + "/rendered").content)).size == (
        ds.Columns,
        ds.Rows,
    )
    ((_, body),) = parts_of(store.get(path + "/frames/1"))
    assert body == ds.PixelData[: len(body)]
    assert len(body) == ds.Rows * ds.Columns * 2


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
    assert picture.mode == "RGB"
    assert picture.size == (ds.Columns, ds.Rows)


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

"""What a JPEG's markers say, in whatever pieces it comes, and whether it is whole."""

import io
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.common.errors import PermanentError
from functions.store import jpeg
from functions.store.jpeg import Frame, Markers, frame_of
from functions.store.source import Source
from tests import scans


def in_pieces(data: bytes, cuts: list[int]) -> Source:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})

    def read() -> Iterator[bytes]:
        for begin, end in itertools.pairwise(places):
            yield data[begin:end]

    return Source(read, len(data))


def is_whole(source: Source) -> bool:
    markers = Markers()
    for chunk in source.chunks():
        markers.add(chunk)
    try:
        markers.end()
    except PermanentError:
        return False
    return True


def picture(mode: str = "RGB", **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.frombytes("RGB", (40, 24), scans.noise(1, 2880)).convert(mode).save(
        file, "JPEG", **options
    )
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (picture(), Frame(0xC0, 8, 24, 40, 3, 0, "YBR")),
        (picture("L"), Frame(0xC0, 8, 24, 40, 1, 0, "")),
        (picture(progressive=True), Frame(0xC2, 8, 24, 40, 3, 0, "YBR")),
        (picture(keep_rgb=True), Frame(0xC0, 8, 24, 40, 3, 0, "RGB")),
        (picture("CMYK"), Frame(0xC0, 8, 24, 40, 4, 0, "")),
    ],
)
@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4, 5, 20, 21, 22, 100]])
def test_the_frame_is_read_from_the_markers(data: bytes, frame: Frame, cuts: list[int]) -> None:
    assert frame_of(in_pieces(data, cuts)) == frame
    assert is_whole(in_pieces(data, cuts))


def test_a_frame_far_from_the_start_is_found() -> None:
    data = scans.jpeg(comment=b"x" * 65_000)
    assert frame_of(Source.of(data)).rows == 16
    assert frame_of(in_pieces(data, [70_000, 140_000])).rows == 16


@settings(max_examples=200)
@given(st.integers(0, 2**16), st.lists(st.integers(0, 2**16), max_size=8))
def test_whatever_is_cut_is_not_whole(end: int, cuts: list[int]) -> None:
    data = picture(restart_marker_blocks=1, optimize=True)
    end = end % (len(data) - 1)
    assert not is_whole(in_pieces(data[:end], cuts))
    assert is_whole(in_pieces(data, cuts))
    assert is_whole(in_pieces(data + b"\0\0 more", cuts))


@settings(max_examples=200)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_have_a_frame_or_are_refused(data: bytes, begins_well: bool) -> None:
    if begins_well:
        data = b"\xff\xd8\xff" + data
    try:
        frame_of(Source.of(data))
    except PermanentError as error:
        assert error.reason == "rejected"


@pytest.mark.parametrize(
    ("process", "predictor", "syntaxes"),
    [
        (0xC0, 0, (jpeg.BASELINE, jpeg.EXTENDED)),
        (0xC1, 0, (jpeg.EXTENDED,)),
        (0xC3, 1, (jpeg.LOSSLESS_FIRST_ORDER, jpeg.LOSSLESS)),
        (0xC3, 6, (jpeg.LOSSLESS,)),
        (0xC2, 0, ()),
        (0xC9, 0, ()),
        (0xF7, 0, ()),
    ],
)
def test_the_transfer_syntaxes_of_a_process(
    process: int, predictor: int, syntaxes: tuple[str, ...]
) -> None:
    assert Frame(process, 8, 1, 1, 1, predictor, "").transfer_syntaxes == syntaxes

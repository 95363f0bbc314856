"""One frame decoded: the only place that calls pydicom's decoders and the codecs behind them.

For damaged files they raise errors of any type; all become one answer (fact sheet 5.6), and a line
on stderr with the kind of error and no value.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import UID

from infra.local.dicomstore import choices, codestream, slices
from infra.local.dicomstore.codestream import ClaimError
from infra.local.dicomstore.frames import KEYWORDS, Image, fragments_of, native_frame
from infra.local.dicomstore.media import ApiError
from infra.local.dicomstore.scan import EXPLICIT_LE, File

MAX_FRAME = 150 << 20  # bytes of a frame that is decoded (fact sheet section 9)
BLOCK = 1 << 20  # pixels of which colours or grey values are computed at a time
YBR = ("YBR_FULL", "YBR_FULL_422")
_LIBC = ctypes.CDLL(None)
NATIVE_COST = 3  # bytes of memory for each byte of a native frame


def untranscodable(message: str) -> ApiError:
    """The answer for what cannot be decoded or encoded; the message holds no values."""
    return ApiError(choices.NOT_TRANSCODABLE, message, "array")


def failed(error: Exception, doing: str) -> ApiError:
    """The answer for an error of a codec; the place where it was raised goes to stderr, without its
    text."""
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    place = ""
    if where:
        code = where.tb_frame.f_code
        place = f" at {Path(code.co_filename).name}:{where.tb_lineno}"
    print(f"pixels: {type(error).__name__}{place}", file=sys.stderr)
    return untranscodable(f"{doing}: {type(error).__name__}")


def decoded(file: File, image: Image, number: int, as_rgb: bool = True) -> tuple[Any, str]:
    """A frame's pixels, with the photometric interpretation that they have now.

    YBR_FULL and YBR_FULL_422 come as RGB, unless as_rgb is False; other pixels as they are stored.
    Pixels of several samples come with the samples of a pixel side by side, single bits as one
    byte each.

    Raises:
        ApiError: 400, there is no such frame; 406, it cannot be decoded here.
    """
    check_frame(image)
    give_back_memory()
    if image.pixels.encapsulated:
        syntax = file.transfer_syntax
        source = _codestream(file, image, number)
    else:
        _check_native(image)
        syntax = EXPLICIT_LE
        source = native_frame(file, image, number)
    try:
        decoder = get_decoder(UID(syntax))
        array, about = decoder.as_array(source, index=0, raw=True, **_options(image))
        photometric = str(about["photometric_interpretation"])
        if as_rgb and image.samples == 3 and photometric in YBR:
            return _as_rgb(array), "RGB"
    except Exception as error:  # noqa: BLE001 - codecs raise anything for damaged data
        raise failed(error, "the pixel data cannot be decoded") from None
    return array, photometric


def give_back_memory() -> None:
    """Return memory that codecs have freed to the system, before the next one allocates.

    The C library keeps it for the thread that used it, and each connection has a thread: without
    this some hundred MiB would not be freed.
    """
    if sys.platform == "linux":
        _LIBC.malloc_trim(0)


def check_frame(image: Image) -> None:
    """Raises ApiError 406: the frames are too large to be transcoded."""
    if image.frame_bytes > MAX_FRAME:
        raise untranscodable(f"cannot transcode frames of more than {MAX_FRAME} bytes")


def _codestream(file: File, image: Image, number: int) -> bytes:
    """A compressed frame for pydicom, checked before it is decoded."""
    ranges = fragments_of(file, image, number)
    size = sum(length for _, length in ranges)
    if size > MAX_FRAME:
        raise untranscodable(f"cannot transcode frames of more than {MAX_FRAME} bytes")
    data = slices.joined(file.data, ranges)
    try:
        data = codestream.checked(file.transfer_syntax, data, image.claim, image.allocated)
    except ClaimError as error:
        raise untranscodable(f"the pixel data cannot be decoded: {error}") from None
    return bytes(encapsulate([data], has_bot=False))


def _check_native(image: Image) -> None:
    """Raises ApiError 406: reading the frame would take too much memory."""
    samples = image.rows * image.columns * image.samples
    bits = max(8, image.allocated)
    size = samples * bits // 8
    if size * NATIVE_COST > codestream.MEMORY:
        raise untranscodable("decoding the frame would take too much memory")


def _options(image: Image) -> dict[str, Any]:
    return {
        "rows": image.rows,
        "columns": image.columns,
        "samples_per_pixel": image.samples,
        "bits_allocated": image.allocated,
        "bits_stored": image.stored,
        "pixel_representation": image.signed,
        "photometric_interpretation": image.photometric,
        "planar_configuration": image.planar,
        "number_of_frames": 1,
        "pixel_keyword": KEYWORDS[image.pixels.tag],
    }


def _as_rgb(array: Any) -> Any:
    """YBR_FULL as RGB, a block of rows at a time: the conversion takes eight times its pixels."""
    if not array.flags.writeable:
        array = array.copy()
    for at, end in blocks(array):
        array[at:end] = convert_color_space(array[at:end], "YBR_FULL", "RGB")
    return array


def blocks(array: Any) -> list[tuple[int, int]]:
    """Rows to work on at a time, as (first, end)."""
    rows, columns = array.shape[:2]
    step = max(1, BLOCK // max(1, columns))
    return [(at, min(rows, at + step)) for at in range(0, rows, step)]


def little_endian(array: Any) -> memoryview:
    """A decoded frame's bytes as native pixel data has them; single bits are packed again."""
    if array.dtype.itemsize > 1 and array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).data.cast("B")

"""A frame as a viewer shows it: rescaled, windowed, in colour, cut to a viewport (fact sheet 5.3).

Grey values and colours are computed for a block of rows at a time, so that memory contains only the
frame and its 8 bit form.
"""

import io
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Picture
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

from infra.local.dicomstore import choices, codestream, rewrite
from infra.local.dicomstore.decode import blocks, decoded, failed, untranscodable
from infra.local.dicomstore.encode import saved
from infra.local.dicomstore.frames import REPRESENTATION, Image, image_of, refuse
from infra.local.dicomstore.media import ApiError
from infra.local.dicomstore.scan import EXPLICIT_LE, Element, Elements, File

MAX_SIDE = 10_000  # pixels of a viewport (fact sheet section 9)
MAX_VIEWED = 50 << 20  # bytes of the frame that a viewport is of (fact sheet section 9)
COLOUR_COST = 7  # bytes of memory for each pixel of a coloured picture
PALETTE_COLOR = "PALETTE COLOR"
MAX_TABLE = 1 << 20  # bytes of a lookup table that is read

SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
WINDOW_GROUP, VALUES_GROUP = 0x00289132, 0x00289145
CENTER, WIDTH, FUNCTION = 0x00281050, 0x00281051, 0x00281056
INTERCEPT, SLOPE = 0x00281052, 0x00281053
PADDING = 0x00280120
MODALITY_TABLE, VOI_TABLE = 0x00283000, 0x00283010
PALETTE = (
    *(0x00281101, 0x00281102, 0x00281103),
    *(0x00281201, 0x00281202, 0x00281203),
    *(0x00281221, 0x00281222, 0x00281223),
)
ABOUT_PIXELS = (0x00280100, 0x00280101, 0x00280102, REPRESENTATION)

Grey = Callable[[Any], Any]  # values of some rows to 8 bits


def rendered(file: File, number: int, kind: str, viewport: str) -> bytes:
    """A frame as `image/jpeg` or `image/png`.

    Raises:
        ApiError: 400, there is no such frame or viewport; 406, it cannot be decoded.
    """
    image = image_of(file)
    array, photometric = decoded(file, image, number)
    if viewport and array.nbytes > MAX_VIEWED:
        raise refuse(f"a viewport is for frames of at most {MAX_VIEWED} bytes")
    colour = array.ndim > 2 or photometric == PALETTE_COLOR
    if colour and image.rows * image.columns * COLOUR_COST > codestream.MEMORY:
        raise untranscodable("rendering the frame would take too much memory")
    try:
        array = _shown(file, image, array, photometric, number)
        shown = Picture.fromarray(array)
        del array
        if viewport:
            shown = _viewport(shown, viewport)
        if kind.endswith("png"):
            return saved(shown, "PNG")
        return saved(shown, "JPEG")
    except ApiError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy, Pillow and pydicom raise anything for odd data
        raise failed(error, "the frame cannot be rendered") from None


def _shown(file: File, image: Image, array: Any, photometric: str, number: int) -> Any:
    """The frame in 8 bit grey or RGB."""
    if photometric == PALETTE_COLOR:
        return _coloured(file, array)
    if array.ndim > 2:
        if array.dtype == np.uint8:
            return np.ascontiguousarray(array)
        shift = max(0, image.stored - 8)
        return _by_blocks(array, lambda rows: (rows >> shift).astype(np.uint8))
    grey = _grey(file, array, number)
    if photometric == "MONOCHROME1":
        return _by_blocks(array, lambda rows: 255 - grey(rows))
    return _by_blocks(array, grey)


def _by_blocks(array: Any, of_rows: Grey) -> Any:
    """Compute 8 bit values for some rows at a time."""
    result = np.empty(array.shape, np.uint8)
    for at, end in blocks(array):
        result[at:end] = of_rows(array[at:end])
    return result


def _coloured(file: File, array: Any) -> Any:
    """Palette colours as RGB."""
    palette = _tables(file, (*PALETTE, *ABOUT_PIXELS))
    result = np.empty((*array.shape, 3), np.uint8)
    for at, end in blocks(array):
        colours = apply_color_lut(array[at:end], palette)
        if colours.dtype.itemsize > 1:
            colours = colours >> 8
        result[at:end] = colours
    return result


def _tables(file: File, tags: tuple[int, ...]) -> Dataset:
    """Lookup tables and their descriptors, for pydicom."""
    found: Elements = {}
    for tag in tags:
        element = file.elements.get(tag)
        if element and element.length <= MAX_TABLE:
            found[tag] = element
    data = b"".join(rewrite.Writer(file, EXPLICIT_LE).elements(found))
    return read_dataset(io.BytesIO(data), is_implicit_VR=False, is_little_endian=True)


# --- grey ---


class _Window(NamedTuple):
    center: float
    width: float
    function: str


def _grey(file: File, array: Any, number: int) -> Grey:
    """8 bit values after rescale and window; without a window from darkest to brightest."""
    values = _values(file, number)
    fractions = _fractions(file, array, number, values)

    def grey(rows: Any) -> Any:
        return _scaled(fractions(values(rows)))

    return grey


def _fractions(file: File, array: Any, number: int, values: Grey) -> Grey:
    """From a value to a number of 0 (black) to 1 (white); what is outside is cut off later."""
    if VOI_TABLE in file.elements:
        table = _tables(file, (VOI_TABLE, *ABOUT_PIXELS))
        bits = table.VOILUTSequence[0].LUTDescriptor[2]
        most = (1 << bits) - 1
        return lambda found: apply_voi(found.astype(np.int64), table) / most
    window = _window(file, number)
    if window is None:
        low, high = _range(file, array, values)
        span = high - low or 1
        return lambda found: (found - low) / span
    center = window.center
    width = window.width
    if window.function == "SIGMOID":
        return lambda found: 1 / (1 + np.exp(-4 * (found - center) / width))
    if window.function == "LINEAR_EXACT":
        return lambda found: (found - center) / width + 0.5
    # PS3.3 C.11.2.1.2.1
    inner = max(width - 1, 1e-6)
    return lambda found: (found - (center - 0.5)) / inner + 0.5


def _scaled(fractions: Any) -> Any:
    return (fractions * 255).round().clip(0, 255).astype(np.uint8)


def _values(file: File, number: int) -> Grey:
    """The conversion of stored values to those of the window."""
    if MODALITY_TABLE in file.elements:
        table = _tables(file, (MODALITY_TABLE, *ABOUT_PIXELS))
        return lambda rows: apply_modality_lut(rows, table).astype(np.float64)
    group = _functional(file, number, VALUES_GROUP)
    slope = _decimal(file.text(SLOPE, group))
    intercept = _decimal(file.text(INTERCEPT, group)) or 0.0
    return lambda rows: rows * (slope or 1.0) + intercept


def _window(file: File, number: int) -> _Window | None:
    group = _functional(file, number, WINDOW_GROUP)
    center = _decimal(file.text(CENTER, group))
    width = _decimal(file.text(WIDTH, group))
    if center is None or width is None or width < 1:
        return None
    return _Window(center, width, file.text(FUNCTION, group) or "LINEAR")


def _decimal(text: str) -> float | None:
    """The first value of a DS; None when there is none."""
    try:
        value = float(text.partition("\\")[0])
    except ValueError:
        return None
    if math.isfinite(value):
        return value
    return None


def _range(file: File, array: Any, values: Grey) -> tuple[float, float]:
    """The darkest and brightest value, without padding."""
    padding = _padding(file.elements.get(PADDING), file, array)
    lows, highs = [], []
    for at, end in blocks(array):
        rows = array[at:end]
        if padding is not None:
            rows = rows[rows != padding]
        if rows.size:
            found = values(rows)
            lows.append(float(np.min(found)))
            highs.append(float(np.max(found)))
    if not lows:  # nothing but padding
        lows = highs = [float(np.min(values(array[:1])))]
    return min(lows), max(highs)


def _padding(element: Element | None, file: File, array: Any) -> Any:
    """PixelPaddingValue, read as the pixels are."""
    if not element or element.length < 2:
        return None
    order = "<"
    if file.big_endian:
        order = ">"
    kind = "i" if array.dtype.kind == "i" else "u"
    return np.frombuffer(file.raw(element)[:2], f"{order}{kind}2")[0]


def _functional(file: File, number: int, name: int) -> Elements:
    """Where a frame's attributes are: its functional group, the shared one, or the data set."""
    for groups, index in ((FRAME_GROUPS, number), (SHARED_GROUPS, 0)):
        sequence = file.elements.get(groups)
        items = (sequence and sequence.items) or []
        if index < len(items) and name in items[index]:
            inner = items[index][name].items
            if inner:
                return inner[0]
    return file.elements


# --- viewport ---

_VIEWPORT = "viewport is width,height or width,height,x,y,width,height"


def _viewport(image: Picture.Image, text: str) -> Picture.Image:
    """`width,height[,x,y,w,h]`: the region, scaled to fit the size with its proportions kept
    (PS3.18 8.3.5.1.3)."""
    parts = _numbers(text)
    if len(parts) not in (2, 6):
        raise refuse(_VIEWPORT)
    most_wide, most_high, *region = parts
    if not most_wide or not most_high:
        raise refuse(_VIEWPORT)
    if min(most_wide, most_high) < 1 or max(most_wide, most_high) > MAX_SIDE:
        raise refuse(f"a viewport has 1 to {MAX_SIDE} pixels a side")
    if region:
        image = _region(image, region)
    scale = min(most_wide / image.width, most_high / image.height)
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    if width * height > choices.MAX_VIEWPORT_PIXELS:
        raise refuse(f"a viewport has at most {choices.MAX_VIEWPORT_PIXELS} pixels")
    return image.resize((width, height), Picture.Resampling.BILINEAR)


def _numbers(text: str) -> list[float | None]:
    """The numbers of a viewport; an empty place is None. Empty when one is not a number."""
    found: list[float | None] = []
    for part in text.split(","):
        number = None
        if part:
            number = _decimal(part)
            if number is None:
                return []
        found.append(number)
    return found


def _region(image: Picture.Image, parts: list[float | None]) -> Picture.Image:
    """A part of the image; a negative width or height flips it."""
    x, y = parts[0] or 0, parts[1] or 0
    width = parts[2] or image.width - x
    height = parts[3] or image.height - y
    is_inside = 0 <= x < image.width and 0 <= y < image.height
    is_empty = abs(width) < 1 or abs(height) < 1
    if is_empty or not is_inside:
        raise refuse("the viewport's region lies outside the image")
    right = min(image.width, int(x + abs(width)))
    bottom = min(image.height, int(y + abs(height)))
    image = image.crop((int(x), int(y), right, bottom))
    if width < 0:
        image = image.transpose(Picture.Transpose.FLIP_LEFT_RIGHT)
    if height < 0:
        image = image.transpose(Picture.Transpose.FLIP_TOP_BOTTOM)
    return image

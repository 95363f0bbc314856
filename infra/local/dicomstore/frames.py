"""The frames of an instance: how many there are, and where each lies (fact sheet section 5.2)."""

import math
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from infra.local.dicomstore import choices, model, slices
from infra.local.dicomstore.codestream import Claim
from infra.local.dicomstore.media import ApiError
from infra.local.dicomstore.scan import BITS_ALLOCATED, PIXEL_DATA, Element, File

ROWS, COLUMNS, SAMPLES, PHOTOMETRIC = 0x00280010, 0x00280011, 0x00280002, 0x00280004
PLANAR, FRAMES, BITS_STORED, REPRESENTATION = 0x00280006, 0x00280008, 0x00280101, 0x00280103
FLOAT_PIXELS, DOUBLE_PIXELS = model.FLOAT_PIXELS
OFFSETS, OFFSET_LENGTHS = 0x7FE00001, 0x7FE00002  # the extended offset table
KEYWORDS = {
    PIXEL_DATA: "PixelData",
    FLOAT_PIXELS: "FloatPixelData",
    DOUBLE_PIXELS: "DoubleFloatPixelData",
}
CODESTREAM_STARTS = (b"\xff\xd8", b"\xff\x4f")  # of JPEG and JPEG-LS, of JPEG 2000


class Image(NamedTuple):
    """A data set's description of its pixels (PS3.3 C.7.6.3), and the element that contains
    them."""

    pixels: Element
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    signed: int
    photometric: str
    planar: int
    frames: int

    @property
    def claim(self) -> Claim:
        """The dimensions of a frame."""
        return Claim(self.rows, self.columns, self.samples)

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame as it is stored."""
        bits = self.rows * self.columns * self.samples * self.allocated
        if self.photometric == "YBR_FULL_422" and not self.pixels.encapsulated:
            return bits * 2 // 3
        return bits

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame, its bits packed."""
        return -(-self.rows * self.columns * self.samples * self.allocated // 8)


def refuse(message: str) -> ApiError:
    """A 400 for a request that does not fit the instance's pixels."""
    return ApiError(400, message, "array")


def image_of(file: File) -> Image:
    """A file's description of its pixels. Raises ApiError 400: it has none (fact sheet 5.8)."""
    found = [file.elements[tag] for tag in KEYWORDS if tag in file.elements]
    if not found:
        raise refuse("the instance has no pixel data")
    allocated = file.number(BITS_ALLOCATED)
    frames = file.text(FRAMES).partition("\\")[0].strip()
    return Image(
        pixels=found[0],
        rows=file.number(ROWS),
        columns=file.number(COLUMNS),
        samples=file.number(SAMPLES),
        allocated=allocated,
        stored=file.number(BITS_STORED) or allocated,
        signed=file.number(REPRESENTATION),
        photometric=file.text(PHOTOMETRIC),
        planar=file.number(PLANAR),
        frames=_whole(frames),
    )


def _whole(text: str) -> int:
    """NumberOfFrames; 1 when it is missing or not a number."""
    if not text.isdecimal() or len(text) > 12:
        return 1
    return max(1, int(text))


def numbers(text: str, image: Image) -> list[int]:
    """The frames of a URL such as `1,3`, counted from 0. Raises ApiError 400."""
    if not text.replace(",", "").isdecimal():
        raise refuse("frames must be numbers from 1, separated by commas")
    parts = [part for part in text.split(",") if 0 < len(part) < 12]
    found = [int(part) - 1 for part in parts]
    are_there = all(0 <= number < image.frames for number in found)
    if not found or not are_there:
        message = f"the instance has {image.frames} frames"
        raise ApiError(choices.FRAME_OUT_OF_RANGE, message, "array")
    return found


def stored_pieces(file: File, image: Image, number: int, swap: bool = False) -> Iterable[bytes]:
    """One frame in its stored encoding, read without the others.

    Args:
        file: the file.
        image: its description of the pixels.
        number: which frame, from 0.
        swap: native pixels of a big endian file come in little endian.

    Raises:
        ApiError: 400, there is no such frame in the pixel data.
    """
    if image.pixels.encapsulated:
        return slices.pieces(file.data, fragments_of(file, image, number))
    if image.frame_bits % 8 or (file.big_endian and swap):
        return [native_frame(file, image, number)]
    return slices.pieces(file.data, [_native_range(image, number)])


def native_frame(file: File, image: Image, number: int) -> bytes:
    """One native frame in little endian. Raises ApiError 400: there is no such frame."""
    if image.frame_bits % 8:
        return _packed(file, image, number)
    start, size = _native_range(image, number)
    word = 1
    if file.big_endian:
        word = model.word_bytes(image.pixels.tag, image.pixels.vr, image.allocated)
    if word < 2:
        return file.data[start : start + size]
    # A frame may begin and end inside a word.
    lead = (start - image.pixels.start) % word
    end = start + size
    end += -(end - image.pixels.start) % word
    return model.little_endian(file.data[start - lead : end], word)[lead : lead + size]


def _native_range(image: Image, number: int) -> slices.Range:
    """Where a native frame of whole bytes lies."""
    size = image.frame_bits // 8
    start = number * size
    if start + size > image.pixels.length:
        raise refuse("the pixel data is shorter than its frames")
    return image.pixels.start + start, size


def _packed(file: File, image: Image, number: int) -> bytes:
    """A frame of single bits that does not begin or end at a byte.

    The bits of an element are in little endian words of its VR; a big endian file has them swapped.
    """
    first = number * image.frame_bits
    last = first + image.frame_bits
    if (last + 7) // 8 > image.pixels.length:
        raise refuse("the pixel data is shorter than its frames")
    word = 1
    if file.big_endian:
        word = model.word_bytes(image.pixels.tag, image.pixels.vr, image.allocated)
    start = first // 8 - first // 8 % word
    end = -(-last // 8)
    end += -end % word
    raw = file.data[image.pixels.start + start : image.pixels.start + end]
    bits = int.from_bytes(model.little_endian(raw, word), "little")
    bits >>= first - start * 8
    bits &= (1 << image.frame_bits) - 1
    return bits.to_bytes(-(-image.frame_bits // 8), "little")


def fragments_of(file: File, image: Image, number: int) -> list[slices.Range]:
    """The fragments of one frame (PS3.5 A.4).

    They are found by the extended or the basic offset table; without one, by their number, or by
    the beginnings of codestreams.

    Raises:
        ApiError: 400, the frames cannot be separated, or there are fewer.
    """
    items = list(fragments(file, image.pixels))
    if len(items) < 2:
        raise refuse("the pixel data holds no frame")
    table, parts = items[0], items[1:]
    if image.frames == 1:
        return parts
    offsets = _offsets(file, table)
    if len(offsets) >= image.frames:
        base = parts[0][0] - 8
        end = math.inf
        if number + 1 < len(offsets):
            end = offsets[number + 1]
        found = [part for part in parts if offsets[number] <= part[0] - 8 - base < end]
    elif len(parts) == image.frames:
        found = [parts[number]]
    else:
        found = _by_starts(file, parts, image.frames, number)
    if not found:
        raise refuse("the pixel data is shorter than its frames")
    return found


def _offsets(file: File, table: slices.Range) -> tuple[int, ...]:
    """The extended offset table, or the basic one."""
    extended = file.elements.get(OFFSETS)
    if extended:
        count = extended.length // 8
        return struct.unpack_from(f"<{count}Q", file.data, extended.start)
    start, length = table
    return struct.unpack_from(f"<{length // 4}I", file.data, start)


def _by_starts(
    file: File, parts: list[slices.Range], count: int, number: int
) -> list[slices.Range]:
    starts = [
        index for index, (at, _) in enumerate(parts) if file.data[at : at + 2] in CODESTREAM_STARTS
    ]
    if len(starts) != count:
        raise refuse("the frames of this instance cannot be told apart: no offset table")
    ends = [*starts[1:], len(parts)]
    return parts[starts[number] : ends[number]]


def fragments(file: File, element: Element) -> Iterator[slices.Range]:
    """Where each item of encapsulated pixel data lies, the basic offset table first."""
    at, end = element.start, element.start + element.length - 8
    while at < end:
        length = int.from_bytes(file.data[at + 4 : at + 8], "little")
        yield at + 8, length
        at += 8 + length

"""The headers of compressed pixels, read before anything is decoded.

A decoder allocates what the codestream claims, not what the data set says: a JPEG 2000 file of 4 KB
can claim an image of 21 GB. Here the header is compared with Rows, Columns and SamplesPerPixel, and
the memory for decoding is limited.

`checked` is the way in; below it are the readers of JPEG and JPEG-LS (ITU-T T.81 annex B, T.87
annex C), of JPEG 2000 (ITU-T T.800 annex A) and of RLE (PS3.5 annex G).
"""

import itertools
import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

RLE = "1.2.840.10008.1.2.5"
JPEG = "1.2.840.10008.1.2.4."
JPEG_SYNTAXES = frozenset(JPEG + number for number in ("50", "51", "57", "70"))
JPEG_LS_SYNTAXES = frozenset(JPEG + number for number in ("80", "81"))
JPEG_2000_SYNTAXES = frozenset(JPEG + number for number in ("90", "91", "201", "202", "203"))

MEMORY = 300 << 20  # bytes that decoding or encoding one frame may take, the frame included
STRUCTURES = 96 << 20  # bytes of that for tiles, precincts and code-blocks

# Bytes that the decoders take for each sample beside the frame itself (measured, rounded up).
JPEG_COST, JPEG_DEEP_COST, JPEG_LS_COST, JPEG_2000_COST = 4, 8, 8, 5
# The same for OpenJPEG's structures for each tile, each component of a tile, precinct, code-block.
TILE, TILE_COMPONENT, PRECINCT, CODE_BLOCK = 6_000, 1_200, 400, 250

DHP, SOS, PROGRESSIVE, LOSSLESS, JPEG_LS = 0xDE, 0xDA, 0xC2, 0xC3, 0xF7
SEQUENTIAL = frozenset((0xC0, 0xC1))
SOF = frozenset((*range(0xC0, 0xD0), JPEG_LS)) - {0xC4, 0xC8, 0xCC}
STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
SOC, SIZ, COD, COC, SOT, SOD = 0xFF4F, 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
JP2_SIGNATURE = b"\0\0\0\x0cjP  "
RLE_COST, RLE_SEGMENT_COST = 3, 2  # bytes for each byte of the frame, and of a segment
MAX_RLE_GAIN = 64  # two bytes of RLE become 128 at most


class Claim(NamedTuple):
    """The dimensions of one image, and the bytes that decoding it takes beside the frame itself."""

    rows: int
    columns: int
    samples: int
    cost: int = 0

    @property
    def size(self) -> tuple[int, int, int]:
        """Rows, columns and samples a pixel."""
        return self.rows, self.columns, self.samples


class ClaimError(Exception):
    """The codestream does not fit the data set, or is too large; the message contains no values."""


def checked(syntax: str, data: bytes, expected: Claim, allocated: int) -> bytes:
    """One frame's codestream, fit for a decoder.

    Args:
        syntax: its transfer syntax.
        data: the codestream; the wrapper of a JP2 file is taken off.
        expected: what the data set says.
        allocated: BitsAllocated.

    Raises:
        ClaimError: it claims other dimensions, or its decoding would take more than MEMORY.
    """
    if syntax == RLE:
        _check_rle(data, expected, allocated)
        return data
    if syntax in JPEG_2000_SYNTAXES:
        data = _without_jp2(data)
        claim = _jpeg_2000(data)
    elif syntax in JPEG_SYNTAXES or syntax in JPEG_LS_SYNTAXES:
        claim = _jpeg(data)
    else:
        raise ClaimError("no decoder for this transfer syntax")
    if claim.size != expected.size:
        raise ClaimError("the codestream has other dimensions than the data set")
    if claim.cost + math.prod(expected.size) * max(8, allocated) // 8 > MEMORY:
        raise ClaimError("decoding the codestream would take too much memory")
    return data


# --- JPEG and JPEG-LS ---


def _jpeg(data: bytes) -> Claim:
    """What the frame header of a JPEG or JPEG-LS codestream claims."""
    if data[:2] != b"\xff\xd8":
        raise ClaimError("the codestream does not start as JPEG")
    for marker, at in _jpeg_segments(data):
        if marker == DHP:
            raise ClaimError("hierarchical JPEG is not part of DICOM")
        if marker in SOF:
            if at + 8 > len(data):
                break
            bits, rows, columns, samples = struct.unpack_from(">BHHB", data, at + 2)
            cost = rows * columns * samples * _jpeg_cost(marker, bits)
            return Claim(rows, columns, samples, cost)
    raise ClaimError("the codestream has no frame header")


def jpeg_syntax(data: bytes, declared: str) -> str:
    """The transfer syntax of a JPEG codestream.

    Args:
        data: its start, the header included.
        declared: its declared transfer syntax. It is kept if it is right or cannot be checked: a
            codestream may be baseline in a file that allows the extended process.
    """
    try:
        markers = {marker: at for marker, at in _jpeg_segments(data) if marker in (*SOF, SOS)}
    except ClaimError:
        return declared
    if PROGRESSIVE in markers:
        return JPEG + "55"
    if LOSSLESS in markers:
        return _lossless_syntax(data, markers.get(SOS), declared)
    if markers.keys() & SEQUENTIAL and declared not in (JPEG + "50", JPEG + "51"):
        return JPEG + "50"
    return declared


def _lossless_syntax(data: bytes, scan: int | None, declared: str) -> str:
    """Lossless of first order prediction (PS3.5 A.4.2), or of any."""
    if declared == JPEG + "57" or scan is None:
        return JPEG + "57"
    components = data[scan + 2]
    predictor = data[scan + 3 + 2 * components : scan + 4 + 2 * components]
    if predictor == b"\x01":
        return JPEG + "70"
    return JPEG + "57"


def _jpeg_cost(marker: int, bits: int) -> int:
    if marker == JPEG_LS:
        return JPEG_LS_COST
    if bits > 8 or marker == LOSSLESS:
        return JPEG_DEEP_COST
    return JPEG_COST


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of the header with where its segment starts."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ClaimError("the codestream's header is damaged")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in STANDALONE:
            at += 2
            continue
        yield marker, at + 2
        if marker == SOS:
            return
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


# --- JPEG 2000 ---


def _without_jp2(data: bytes) -> bytes:
    """The codestream alone: the boxes of a JP2 file can blow an image up, and PS3.5 A.4.4 forbids
    them."""
    if not data.startswith(JP2_SIGNATURE):
        return data
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1 and at + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if kind == b"jp2c":
            return data[at + head : at + length] if length else data[at + head :]
        if length < head:
            break
        at += length
    raise ClaimError("the JP2 file holds no codestream")


class _Grid(NamedTuple):
    """The image and its tiles, as SIZ gives them."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    tiles: int
    components: int


def _jpeg_2000(data: bytes) -> Claim:
    """What the headers of a JPEG 2000 codestream claim.

    Its main header and the header of each tile-part are read: each may divide the image anew.
    """
    if len(data) < 42 or data[:4] != b"\xff\x4f\xff\x51":
        raise ClaimError("the codestream does not start as JPEG 2000")
    grid = _grid(data)
    cost = grid.width * grid.height * grid.components * JPEG_2000_COST
    structures = grid.tiles * (TILE + TILE_COMPONENT * grid.components)
    for marker, at, end in _jpeg_2000_segments(data):
        structures += _structures(marker, data[at:end], grid)
        if structures > STRUCTURES:
            raise ClaimError("the codestream is divided into too many parts")
    return Claim(grid.height, grid.width, grid.components, cost + structures)


def _structures(marker: int, segment: bytes, grid: _Grid) -> int:
    """Bytes that the divisions of one marker segment take (T.800 A.6.1, A.6.2).

    `segment` begins with its length field.
    """
    if len(segment) < 9:  # too short for a coding style
        return 0
    if marker == COD:
        own_precincts = segment[2] & 1
        layers = int.from_bytes(segment[4:6], "big")
        return _divisions(segment[7:], grid, own_precincts, layers)
    if marker == COC:
        # The number of the component takes one byte or two.
        style = 3
        if grid.components > 256:
            style = 4
        own_precincts = segment[style] & 1
        return _divisions(segment[style + 1 :], grid, own_precincts, layers=1)
    return 0


def _grid(data: bytes) -> _Grid:
    """As the SIZ segment has it (T.800 A.5.1): ends and starts of the image, sizes and start of the
    tiles."""
    x1, y1, x0, y0, width, height, left, top = struct.unpack_from(">8I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    has_tiles = width > 0 and height > 0
    has_image = x1 > x0 and y1 > y0
    starts_in_tile = left <= x0 and top <= y0
    if not (has_tiles and has_image and starts_in_tile):
        raise ClaimError("the codestream's size is not possible")
    across = math.ceil((x1 - left) / width)
    down = math.ceil((y1 - top) / height)
    return _Grid(
        width=x1 - x0,
        height=y1 - y0,
        tile_width=width,
        tile_height=height,
        tiles=across * down,
        components=components,
    )


def _jpeg_2000_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Each marker segment of the headers: the marker, where its length field is, where it ends."""
    at, part, part_length = 2, 0, 0
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == SOD:
            if not part_length:  # the last tile-part continues to the end
                return
            at = part + part_length
            continue
        if marker < 0xFF00 or length < 2 or at + 2 + length > len(data):
            return
        if marker == SOT and length >= 10:
            part, part_length = at, int.from_bytes(data[at + 6 : at + 10], "big")
            if part_length and part_length < 14:
                return
        yield marker, at + 2, at + 2 + length
        at += 2 + length


def _divisions(style: bytes, grid: _Grid, own_precincts: int, layers: int) -> int:
    """Bytes that the precincts and code-blocks of a coding style take (T.800 A.6.1, B.6, B.7).

    `style` starts at the number of decomposition levels. One tile is decoded after the other.
    """
    if len(style) < 5:
        return 0
    levels = min(style[0], 32)
    block_width, block_height = style[1] + 2, style[2] + 2
    precincts = blocks = 0
    for level in range(levels + 1):
        scale = 2 ** (levels - level)
        width = math.ceil(min(grid.width, grid.tile_width) / scale)
        height = math.ceil(min(grid.height, grid.tile_height) / scale)
        size = 0xFF
        if own_precincts and 5 + level < len(style):
            size = style[5 + level]
        across, down = size & 0xF, size >> 4
        precincts += math.ceil(width / 2**across) * math.ceil(height / 2**down)
        block_area = 2 ** min(block_width, across) * 2 ** min(block_height, down)
        blocks += math.ceil(width * height / block_area)
    # For each layer, a mark of two bytes says whether a precinct's packet has been read.
    each = precincts * (PRECINCT + 2 * layers) + blocks * CODE_BLOCK
    return each * grid.components


# --- RLE ---


def _check_rle(data: bytes, expected: Claim, allocated: int) -> None:
    """Check the header, and that no segment holds far more than its share of the frame.

    Raises ClaimError.
    """
    if len(data) < 64:
        raise ClaimError("the RLE header is cut")
    count, *offsets = struct.unpack_from("<16I", data)
    if count > 15 or count != expected.samples * allocated // 8:
        raise ClaimError("the RLE data has another number of segments than samples")
    starts = [*offsets[:count], len(data)]
    if starts != sorted(starts) or starts[0] < 64:
        raise ClaimError("the RLE header is damaged")
    plane = expected.rows * expected.columns
    if plane * (count * RLE_COST + RLE_SEGMENT_COST) > MEMORY:
        raise ClaimError("decoding the frame would take too much memory")
    for start, end in itertools.pairwise(starts):
        may_be_long = (end - start) * MAX_RLE_GAIN > 2 * plane
        if may_be_long and _is_longer(data[start:end], 2 * plane):
            raise ClaimError("an RLE segment is longer than its frame")


def _is_longer(segment: bytes, limit: int) -> bool:
    """Whether a segment decodes to more than `limit` bytes."""
    total = at = 0
    while at < len(segment) and total <= limit:
        header = segment[at]
        if header > 128:
            total += 257 - header
            at += 2
        elif header < 128:
            total += header + 1
            at += header + 2
        else:
            at += 1
    return total > limit

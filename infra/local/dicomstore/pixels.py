"""The forms in which an instance's pixels can be returned, and one frame in the requested form
(fact sheet section 5.2)."""

from collections.abc import Iterable
from typing import NamedTuple

from infra.local.dicomstore import choices, frames, slices, transcode
from infra.local.dicomstore.codestream import JPEG, RLE
from infra.local.dicomstore.decode import decoded
from infra.local.dicomstore.encode import encoded, native, png
from infra.local.dicomstore.frames import Image
from infra.local.dicomstore.media import Media
from infra.local.dicomstore.scan import EXPLICIT_LE, File

TYPES = {
    "image/jpeg": ("50", "51", "57", "70"),
    "image/jls": ("80", "81"),
    "image/jp2": ("90", "91"),
    "image/jphc": ("201", "202", "203"),
    "image/jxl": ("110", "111", "112"),
}
KIND_OF = {JPEG + number: kind for kind, numbers in TYPES.items() for number in numbers}
KIND_OF[RLE] = "image/dicom-rle"
OCTETS = "application/octet-stream"

FRAMES = (
    Media("multipart/related", OCTETS, EXPLICIT_LE),
    Media("multipart/related", OCTETS, "*"),
    *(Media("multipart/related", kind, syntax) for syntax, kind in KIND_OF.items()),
    Media("multipart/related", "image/png"),
    Media("multipart/related", "application/x-deflate", "1.2.840.10008.1.2.8.1"),
)
# Of whole instances, every frame a part: what the service listed in 2019 (fact sheet 5.7).
OF_INSTANCES = (
    *FRAMES[:2],
    Media("multipart/related", "image/jpeg", JPEG + "70"),
    Media("multipart/related", "image/jpeg", JPEG + "50"),
    Media("multipart/related", "image/png"),
)
RENDERED = (Media("image/jpeg"), Media("image/png"))


class Part(NamedTuple):
    """One frame as a part of an answer."""

    kind: str
    pieces: Iterable[bytes]


def frame(file: File, image: Image, number: int, wanted: Media) -> Part:
    """One frame in the requested form.

    Stored frames are unchanged if that is requested. Decoded frames have the colours of the
    transcoded instance: RGB, not YBR_FULL (`choices.py`).

    Raises:
        ApiError: 400, there is no such frame; 406, it cannot be returned in that form.
    """
    stored = file.transfer_syntax
    is_native = stored in transcode.NATIVE
    is_unchanged = wanted.syntax in ("*", stored)
    if is_unchanged and (wanted.part == OCTETS or not is_native):
        kind = KIND_OF.get(stored, OCTETS)
        pieces = frames.stored_pieces(file, image, number)
        return Part(f"{kind}; transfer-syntax={stored}", pieces)
    kind = wanted.part
    if wanted.syntax:
        kind = f"{wanted.part}; transfer-syntax={wanted.syntax}"
    if wanted.syntax == EXPLICIT_LE and is_native:
        pieces = frames.stored_pieces(file, image, number, swap=True)
        return Part(kind, pieces)
    transcode.check(stored, len(file.data), wanted.syntax or EXPLICIT_LE)
    return Part(kind, _decoded_pieces(file, image, number, wanted.syntax))


def _decoded_pieces(file: File, image: Image, number: int, syntax: str) -> Iterable[bytes]:
    """A frame that was decoded: as native pixels, encoded anew, or as PNG without a syntax."""
    if syntax == EXPLICIT_LE:
        as_rgb = choices.DECODED_COLOURS == "RGB"
        array, _ = decoded(file, image, number, as_rgb)
        return slices.cut(native(image, array))
    array, photometric = decoded(file, image, number)
    if not syntax:
        return [png(array)]
    return [encoded(image, array, photometric, syntax)]

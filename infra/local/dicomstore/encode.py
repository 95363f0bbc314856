"""One frame encoded: into a transfer syntax, or as a PNG or JPEG picture (fact sheet 5.2, 5.6)."""

import io
from typing import Any

import numpy as np
from PIL import Image as Picture
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID

from infra.local.dicomstore import choices, codestream
from infra.local.dicomstore.codestream import JPEG, RLE
from infra.local.dicomstore.decode import failed, give_back_memory, little_endian, untranscodable
from infra.local.dicomstore.frames import Image
from infra.local.dicomstore.scan import DEFLATED_LE, EXPLICIT_LE, IMPLICIT_LE

BASELINE = JPEG + "50"
NATIVE_TARGETS = (EXPLICIT_LE, IMPLICIT_LE, DEFLATED_LE)
ENCODED = frozenset((*NATIVE_TARGETS, RLE, BASELINE, *(JPEG + n for n in ("80", "81", "90", "91"))))
JPEG_QUALITY = 92
SUBSAMPLING = "4:2:2"  # YBR_FULL_422 (PS3.3 C.7.6.3.1.2)
# Bytes that the encoders take for each sample of 8 and of more bits, beside the frame (measured).
COSTS = {RLE: (3, 6), JPEG + "80": (5, 10), JPEG + "81": (5, 10)}
JPEG_2000_COST = (8, 9)


def _check_memory(array: Any, syntax: str) -> None:
    """Raises ApiError 406: encoding the frame would take too much memory."""
    shallow, deep = COSTS.get(syntax, JPEG_2000_COST)
    each = shallow
    if array.dtype.itemsize > 1:
        each = deep
    if array.size * each + array.nbytes > codestream.MEMORY:
        raise untranscodable("encoding the frame would take too much memory")


def encoded(image: Image, array: Any, photometric: str, syntax: str) -> bytes:
    """A decoded frame as a codestream.

    Args:
        image: the data set's description of its pixels.
        array: the frame.
        photometric: its photometric interpretation.
        syntax: one of ENCODED that is compressed.

    Raises:
        ApiError: 400, the pixels do not fit the syntax; 406, they cannot be encoded here.
    """
    if syntax == BASELINE:
        if array.dtype != np.uint8:
            raise untranscodable("only 8 bit pixels can go to JPEG baseline")
        return picture(array, "JPEG")
    _check_memory(array, syntax)
    give_back_memory()
    try:
        data = get_encoder(UID(syntax)).encode(
            array,
            rows=image.rows,
            columns=image.columns,
            samples_per_pixel=image.samples,
            bits_allocated=image.allocated,
            bits_stored=image.stored,
            pixel_representation=image.signed,
            photometric_interpretation=photometric,
            planar_configuration=0,
            number_of_frames=1,
        )
    except Exception as error:  # noqa: BLE001 - codecs raise anything
        raise failed(error, f"cannot encode as {syntax}") from None
    return bytes(data)


def png(array: Any) -> bytes:
    """A frame's pixels without loss.

    PNG is unsigned: half their range is added to signed pixels.

    Raises:
        ApiError: 406, PNG cannot hold them.
    """
    if array.dtype.kind == "i" and choices.SIGNED_PNG_RAISED:
        unsigned = array.dtype.str.replace("i", "u")
        half = np.array(1 << array.dtype.itemsize * 8 - 1, unsigned)
        array = array.view(unsigned) ^ half
    colour = array.ndim > 2
    if array.dtype != np.uint8 and (array.dtype != np.uint16 or colour):
        raise untranscodable("PNG holds grey of 16 bits and colour of 8")
    return picture(array, "PNG")


def picture(array: Any, form: str) -> bytes:
    """An array of grey or RGB as `PNG` or `JPEG`. Raises ApiError 406: Pillow cannot write it."""
    try:
        return saved(Picture.fromarray(np.ascontiguousarray(array)), form)
    except Exception as error:  # noqa: BLE001 - Pillow raises anything
        raise failed(error, f"cannot encode as {form}") from None


def saved(image: Picture.Image, form: str) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    if form == "JPEG":
        options: dict[str, Any] = {"quality": JPEG_QUALITY}
        if image.mode == "RGB":
            options["subsampling"] = SUBSAMPLING
        image.save(file, form, **options)
    else:
        image.save(file, form)
    return file.getvalue()


def native(image: Image, array: Any) -> memoryview:
    """A decoded frame as native little endian pixels; single bits packed."""
    if image.allocated == 1:
        packed = np.packbits(array, bitorder="little")
        return little_endian(packed)
    return little_endian(array)

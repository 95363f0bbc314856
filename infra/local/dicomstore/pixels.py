"""Pixels: frames stored or decoded, other transfer syntaxes, images as a viewer shows them (sheet
5.2, 5.3, 5.6)."""

import contextlib
import io
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import compress, decompress, pixel_array
from pydicom.uid import UID

from infra.local.dicomstore import choices, model, wado
from infra.local.dicomstore.media import ApiError, Media
from infra.local.dicomstore.scan import (
    BITS_ALLOCATED,
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    PIXEL_DATA,
    Element,
    File,
)

JPEG = "1.2.840.10008.1.2.4."
RLE, BASELINE = "1.2.840.10008.1.2.5", JPEG + "50"
NATIVE = (EXPLICIT_LE, IMPLICIT_LE, DEFLATED_LE, EXPLICIT_BE)
DECODED = frozenset(
    (
        *NATIVE,
        RLE,
        *(JPEG + n for n in ("50", "51", "57", "70", "80", "81", "90", "91", "201", "202", "203")),
    )
)
ENCODED = frozenset(
    (
        EXPLICIT_LE,
        IMPLICIT_LE,
        DEFLATED_LE,
        RLE,
        BASELINE,
        *(JPEG + n for n in ("80", "81", "90", "91")),
    )
)
TYPES = {
    "image/jpeg": ("50", "51", "57", "70"),
    "image/jls": ("80", "81"),
    "image/jp2": ("90", "91"),
    "image/jphc": ("201", "202", "203"),
    "image/jxl": ("110", "111", "112"),
}
KIND_OF = {JPEG + number: kind for kind, numbers in TYPES.items() for number in numbers} | {
    RLE: "image/dicom-rle"
}
FRAMES = (
    Media("multipart/related", "application/octet-stream", EXPLICIT_LE),
    Media("multipart/related", "application/octet-stream", "*"),
    *(Media("multipart/related", kind, syntax) for syntax, kind in KIND_OF.items()),
    Media("multipart/related", "image/png"),
    Media("multipart/related", "application/x-deflate", "1.2.840.10008.1.2.8.1"),
)
RENDERED = (Media("image/jpeg"), Media("image/png"))
FRAME_SIZE = (0x00280010, 0x00280011, 0x00280002, BITS_ALLOCATED)  # rows, columns, samples, bits
MAX_FILE, MAX_FRAME = 1 << 30, 150 << 20  # bytes of what is transcoded (sheet section 9)
MAX_SIDE, MAX_VIEWED = (
    10_000,
    50 << 20,
)  # pixels of a viewport, bytes of the frame it is of (the same)


def refuse(message: str) -> ApiError:
    """A 400 for what an instance's pixels do not allow."""
    return ApiError(400, message, "array")


def frame_numbers(text: str, file: File) -> list[int]:
    """The frames of a URL such as `1,3`, counted from 0. Raises ApiError 400."""
    count = frame_count(file)
    if not text.replace(",", "").isdecimal():
        raise refuse("frames are numbers from 1, separated by commas")
    numbers = [int(part) - 1 for part in text.split(",") if part]
    if not all(0 <= number < count for number in numbers):
        raise ApiError(choices.FRAME_OUT_OF_RANGE, f"the instance has {count} frames", "array")
    return numbers


def frame_count(file: File) -> int:
    """How many frames there are. Raises ApiError 400 when there is no pixel data."""
    if not any(tag in file.elements for tag in (PIXEL_DATA, 0x7FE00008, 0x7FE00009)):
        raise refuse("the instance has no pixel data")
    text = file.text(0x00280008).partition("\\")[0].strip()
    return max(1, int(text)) if text.isdecimal() else 1


def stored_frame(file: File, number: int, little_endian: bool = False) -> bytes:
    """One frame in its stored encoding, or in little endian when its pixels are native, read
    without the others."""
    pixels = (
        file.elements.get(PIXEL_DATA) or file.elements.get(0x7FE00008) or file.elements[0x7FE00009]
    )
    if pixels.encapsulated:
        return b"".join(
            file.data[at : at + size] for at, size in _frame_fragments(file, pixels, number)
        )
    allocated = file.number(BITS_ALLOCATED)
    bits = math.prod(map(file.number, FRAME_SIZE))
    word = (
        model.word_bytes(pixels.tag, pixels.vr, allocated)
        if file.big_endian and little_endian
        else 1
    )
    if file.text(0x00280004) == "YBR_FULL_422":
        bits = bits * 2 // 3
    if bits % 8:
        return _packed_frame(model.little_endian(file.raw(pixels), word), bits, number)
    start, size = number * bits // 8, bits // 8
    if start + size > pixels.length:
        raise refuse("the pixel data is shorter than its frames")
    lead, end = start % word, start + size  # a frame may begin and end inside a word
    raw = file.data[pixels.start + start - lead : pixels.start + end + -end % word]
    return model.little_endian(raw, word)[lead : lead + size]


def _packed_frame(raw: bytes, bits: int, number: int) -> bytes:
    """A frame of single bits that does not start at a byte."""
    every = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    return np.packbits(every[number * bits : (number + 1) * bits], bitorder="little").tobytes()


def _frame_fragments(file: File, pixels: Element, number: int) -> list[tuple[int, int]]:
    """The fragments of one frame, by the extended or basic offset table, or one to a frame (PS3.5
    A.4)."""
    items = list(wado.fragments(file, pixels))
    table, parts = items[0], items[1:]
    count = frame_count(file)
    if count == 1:
        return parts
    extended = file.elements.get(0x7FE00001)
    if extended:
        offsets = struct.unpack(f"<{extended.length // 8}Q", file.raw(extended))
    else:
        offsets = struct.unpack(
            f"<{table[1] // 4}I", file.data[table[0] : table[0] + table[1] // 4 * 4]
        )
    if len(offsets) >= count:
        base = parts[0][0] - 8
        end = offsets[number + 1] if number + 1 < len(offsets) else math.inf
        return [part for part in parts if offsets[number] <= part[0] - 8 - base < end]
    if len(parts) == count:
        return [parts[number]]
    starts = [
        i for i, (at, _) in enumerate(parts) if file.data[at : at + 2] in (b"\xff\xd8", b"\xff\x4f")
    ]
    if len(starts) != count:
        raise refuse("the frames of this instance cannot be told apart: no offset table")
    return parts[starts[number] : [*starts, len(parts)][number + 1]]


def frame(path: Path, file: File, number: int, wanted: Media) -> tuple[str, bytes]:
    """One frame as asked for, and its part's content type. Raises ApiError 400, 406."""
    stored = file.transfer_syntax
    if wanted.syntax in ("*", stored) and not (
        stored in NATIVE and wanted.part != "application/octet-stream"
    ):
        kind = KIND_OF.get(stored, "application/octet-stream")
        return f"{kind}; transfer-syntax={stored}", stored_frame(file, number)
    kind = f"{wanted.part}; transfer-syntax={wanted.syntax}" if wanted.syntax else wanted.part
    if wanted.syntax == EXPLICIT_LE and stored in NATIVE:
        return kind, stored_frame(file, number, little_endian=True)
    check_transcoding(stored, len(file.data), wanted.syntax or EXPLICIT_LE)
    _check_frame(map(file.number, FRAME_SIZE))
    ds = dcmread(path, force=True, stop_before_pixels=True)
    array = _decoded(path, number, raw=bool(wanted.syntax))
    if not wanted.syntax:
        return kind, _png(array)
    if wanted.syntax == EXPLICIT_LE:
        return kind, np.packbits(
            array, bitorder="little"
        ).tobytes() if ds.BitsAllocated == 1 else array.tobytes()
    return kind, _encode(ds, array, wanted.syntax)


def _png(array: Any) -> bytes:
    """A frame's pixels without loss: PNG has no sign, so signed ones are raised by half their
    range."""
    if array.dtype.kind == "i" and choices.SIGNED_PNG_RAISED:
        unsigned = array.dtype.str.replace("i", "u")
        array = array.view(unsigned) ^ np.array(1 << array.dtype.itemsize * 8 - 1, unsigned)
    if array.dtype != np.uint8 and (array.dtype != np.uint16 or array.ndim > 2):
        raise ApiError(
            choices.NOT_TRANSCODABLE, "PNG holds grey of 16 bits and colour of 8", "text"
        )
    return _image(array, "PNG")


UNDECODABLE = (
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
)  # what pydicom raises


def _decoded(path: Path, number: int, raw: bool) -> Any:
    """One frame's pixels, read without the others; deflated and odd files, which that way fail, are
    read whole."""
    with contextlib.suppress(*UNDECODABLE):
        return pixel_array(path, index=number, raw=raw)
    try:
        whole = dcmread(path, force=True)
        if "TransferSyntaxUID" not in whole.file_meta:
            whole.file_meta.TransferSyntaxUID = UID(
                IMPLICIT_LE if whole.original_encoding[0] else EXPLICIT_LE
            )
        return pixel_array(whole, index=number, raw=raw)
    except UNDECODABLE as error:
        raise ApiError(
            choices.NOT_TRANSCODABLE, "the pixel data cannot be decoded", "text"
        ) from error


def _encode(ds: Dataset, array: Any, syntax: str) -> bytes:
    if syntax == BASELINE:
        if array.dtype != np.uint8:
            raise refuse("only 8 bit pixels can go to JPEG baseline")
        return _image(array, "JPEG")
    names = (
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
    )
    keys = (
        "rows",
        "columns",
        "samples_per_pixel",
        "bits_allocated",
        "bits_stored",
        "pixel_representation",
    )
    about = {key: ds[name].value for key, name in zip(keys, names, strict=True)}
    photometric = ds.PhotometricInterpretation
    encoder = get_encoder(UID(syntax))
    try:
        return bytes(
            encoder.encode(
                array, number_of_frames=1, photometric_interpretation=photometric, **about
            )
        )
    except UNDECODABLE as error:
        raise ApiError(choices.NOT_TRANSCODABLE, f"cannot encode as {syntax}", "text") from error


def check_transcoding(stored: str, size: int, wanted: str) -> None:
    """Raises ApiError 406 when a file of this transfer syntax and size in bytes cannot have the
    wanted one."""
    if wanted in ("*", stored):
        return
    if wanted not in ENCODED or stored not in DECODED or size > MAX_FILE:
        message = f"cannot transcode {size} bytes from {stored} to {wanted}"
        raise ApiError(choices.NOT_TRANSCODABLE, message, "text")


def _check_frame(size: Iterable[int]) -> None:
    if math.prod(size) // 8 > MAX_FRAME:
        raise ApiError(
            choices.NOT_TRANSCODABLE, f"cannot transcode frames over {MAX_FRAME} bytes", "text"
        )


def transcode(path: Path, stored: str, wanted: str) -> Iterator[bytes]:
    """A stored file in another transfer syntax; as it is when that is its own.

    Raises ApiError 406: it cannot be had in that syntax; FileNotFoundError: it has just been
    deleted.
    """
    try:
        if wanted in ("*", stored):
            return wado.file_pieces(path.open("rb", buffering=0))
        return iter([_transcoded(path, stored, wanted)])
    except UNDECODABLE as error:
        message = f"cannot transcode from {stored} to {wanted}: {type(error).__name__}"
        raise ApiError(choices.NOT_TRANSCODABLE, message, "text") from error


def _transcoded(path: Path, stored: str, wanted: str) -> bytes:
    ds = dcmread(path, force=True)
    ds.file_meta = getattr(ds, "file_meta", None) or FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(stored)
    _check_frame(int(ds[tag].value or 0) for tag in FRAME_SIZE if tag in ds)
    if stored == EXPLICIT_BE:
        ds.walk(_swap_words)
    if "PixelData" in ds and stored not in NATIVE:
        decompress(ds, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT_LE)
    if "PixelData" in ds and wanted not in NATIVE:
        _compress(ds, wanted)
    ds.file_meta.TransferSyntaxUID = UID(wanted)
    file = io.BytesIO()
    dcmwrite(
        file, ds, implicit_vr=wanted == IMPLICIT_LE, little_endian=True, enforce_file_format=True
    )
    return file.getvalue()


def _compress(ds: Dataset, wanted: str) -> None:
    if ds.get(
        "PlanarConfiguration"
    ):  # pydicom encodes as if the samples of a pixel were side by side
        ds.PixelData, ds.PlanarConfiguration = ds.pixel_array.tobytes(), 0
    if wanted != BASELINE:
        compress(ds, UID(wanted), generate_instance_uid=False)
        return
    array = ds.pixel_array
    several = int(ds.get("NumberOfFrames", 1) or 1) > 1
    ds.PixelData = encapsulate(
        [_encode(ds, one, BASELINE) for one in (array if several else [array])]
    )
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    if ds.SamplesPerPixel == 3:
        ds.PhotometricInterpretation, ds.PlanarConfiguration = "YBR_FULL_422", 0


def _swap_words(ds: Dataset, element: DataElement) -> None:
    """A binary value of a big endian file in little endian; pydicom itself turns round numbers
    only."""
    if isinstance(element.value, bytes):
        word = model.word_bytes(element.tag, element.VR, int(ds.get("BitsAllocated") or 0))
        element.value = model.little_endian(element.value, word)


def rendered(path: Path, number: int, kind: str, viewport: str) -> bytes:
    """A frame as a viewer shows it, as `image/jpeg` or `image/png`. Raises ApiError 400, 406."""
    ds = dcmread(path, force=True, stop_before_pixels=True)
    array = _decoded(path, number, raw=False)
    if viewport and array.nbytes > MAX_VIEWED:
        raise refuse(f"a viewport is for frames of up to {MAX_VIEWED} bytes")
    photometric = str(ds.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        array = apply_color_lut(array, ds)
        array = (array >> 8 if array.dtype.itemsize > 1 else array).astype(np.uint8)
    elif array.ndim == 2:
        array = _grey(array, ds, number)
        array = 255 - array if photometric == "MONOCHROME1" else array
    elif array.dtype != np.uint8:
        array = (array >> max(0, int(ds.BitsStored) - 8)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(array))
    return _save(
        _viewport(image, viewport) if viewport else image, "PNG" if kind.endswith("png") else "JPEG"
    )


def _grey(array: Any, ds: Dataset, number: int) -> Any:
    """8 bit grey values after rescale and window, or from darkest to brightest when there is no
    window."""
    if "ModalityLUTSequence" in ds:
        values = apply_modality_lut(array, ds).astype(np.float64)
    else:
        transform = _functional(ds, number, "PixelValueTransformationSequence")
        values = array * float(transform.get("RescaleSlope", 1) or 1) + float(
            transform.get("RescaleIntercept", 0) or 0
        )
    window = _functional(ds, number, "FrameVOILUTSequence")
    if "VOILUTSequence" in ds:
        bits = ds.VOILUTSequence[0].LUTDescriptor[2]
        return (
            (apply_voi(values.astype(np.int64), ds) / ((1 << bits) - 1) * 255)
            .clip(0, 255)
            .astype(np.uint8)
        )
    center, width = (_one(window.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(window.get("VOILUTFunction", "LINEAR") or "LINEAR")
    if center is None or width is None or width < 1:
        padding = ds.get("PixelPaddingValue")
        shown = (
            values[array != padding] if padding is not None and (array != padding).any() else values
        )
        low, high = float(np.min(shown)), float(np.max(shown))
        scaled = (values - low) / ((high - low) or 1)
    elif function == "SIGMOID":
        scaled = 1 / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR_EXACT":
        scaled = (values - center) / width + 0.5
    else:  # PS3.3 C.11.2.1.2.1
        scaled = (values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    return (scaled * 255).round().clip(0, 255).astype(np.uint8)


def _functional(ds: Dataset, number: int, name: str) -> Dataset:
    """Where a frame's attributes are: its functional group, the shared one, or the data set
    itself."""
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*per_frame[number : number + 1], *(ds.get("SharedFunctionalGroupsSequence") or [])]
    return next((group[name].value[0] for group in groups if group.get(name)), ds)


def _one(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value)


def _viewport(image: Image.Image, text: str) -> Image.Image:
    """`width,height[,x,y,w,h]`: the region, scaled to fit the size with its proportions kept
    (PS3.18 8.3.5.1.3)."""
    parts = [float(part) if part else None for part in text.split(",")] if _numeric(text) else []
    if len(parts) not in (2, 6) or not parts[0] or not parts[1]:
        raise refuse("viewport is width,height or width,height,x,y,width,height")
    if not 1 <= min(parts[:2]) <= max(parts[:2]) <= MAX_SIDE:  # type: ignore[type-var,operator]
        raise refuse(f"a viewport has 1 to {MAX_SIDE} pixels a side")
    if len(parts) == 6:
        x, y = parts[2] or 0, parts[3] or 0
        width, height = parts[4] or image.width - x, parts[5] or image.height - y
        if not (
            0 <= x < image.width and 0 <= y < image.height and abs(width) >= 1 and abs(height) >= 1
        ):
            raise refuse("the viewport's region lies outside the image")
        image = image.crop(
            (
                int(x),
                int(y),
                min(image.width, int(x + abs(width))),
                min(image.height, int(y + abs(height))),
            )
        )
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if width < 0 else image
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if height < 0 else image
    scale = min(parts[0] / image.width, parts[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


def _numeric(text: str) -> bool:
    try:
        return all(math.isfinite(float(part)) for part in text.split(",") if part)
    except ValueError:
        return False


def _image(array: Any, form: str) -> bytes:
    return _save(Image.fromarray(np.ascontiguousarray(array)), form)


def _save(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **({"quality": 92} if form == "JPEG" else {}))
    return file.getvalue()

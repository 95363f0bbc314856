"""An instance in another transfer syntax (fact sheet section 5.6).

Frames are decoded and encoded one after the other into a file on the disk, which is then sent: a
status can be chosen until the last frame is done, and memory holds one frame, whatever the file.

Colours: decoding and encoding go through RGB, so YBR_FULL and YBR_FULL_422 become RGB, or
YBR_FULL_422 inside of JPEG baseline. Native pixels in another native syntax stay as they are.
"""

import contextlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from infra.local.dicomstore import codestream, rewrite, slices, wado
from infra.local.dicomstore.codestream import RLE
from infra.local.dicomstore.decode import check_frame, decoded, untranscodable
from infra.local.dicomstore.encode import BASELINE, ENCODED, NATIVE_TARGETS, encoded, native
from infra.local.dicomstore.frames import (
    KEYWORDS,
    OFFSET_LENGTHS,
    OFFSETS,
    PHOTOMETRIC,
    PLANAR,
    Image,
    image_of,
)
from infra.local.dicomstore.scan import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    ITEM,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    File,
)

NATIVE = (EXPLICIT_LE, IMPLICIT_LE, DEFLATED_LE, EXPLICIT_BE)
DECODED = frozenset((*NATIVE, RLE)) | codestream.JPEG_SYNTAXES | codestream.JPEG_LS_SYNTAXES
DECODED |= codestream.JPEG_2000_SYNTAXES
MAX_FILE = 1 << 30  # bytes of a file that is transcoded (fact sheet section 9), and of the result


def check(stored: str, size: int, wanted: str) -> None:
    """Raises ApiError 406 when a file of this transfer syntax and size in bytes cannot have the
    wanted one."""
    if wanted in ("*", stored):
        return
    if wanted not in ENCODED or stored not in DECODED or size > MAX_FILE:
        raise untranscodable(f"cannot transcode {size} bytes from {stored} to {wanted}")


def instance(path: Path, stored: str, wanted: str) -> tuple[int, Iterator[bytes]]:
    """A stored file in another transfer syntax: its size in bytes and its content.

    The unchanged file for its own syntax and for `*`.

    Raises:
        ApiError: 406, it cannot be returned in that syntax; 404, it has just been deleted.
    """
    if wanted in ("*", stored):
        stored_file = wado.opened(path)
        return os.fstat(stored_file.fileno()).st_size, wado.file_pieces(stored_file)
    with contextlib.ExitStack() as stack:
        result = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
        with wado.scanned(path) as file:
            _write(result, _content(file, wanted), wanted == DEFLATED_LE)
        size = result.tell()
        result.seek(0)
        # From here on, the sender of the file closes it.
        stack.pop_all()
    return size, wado.file_pieces(result)


def _write(result: IO[bytes], content: Iterator[bytes], deflated: bool) -> None:
    """Write the pieces of `_content`; the meta information, its first piece, is never deflated."""
    result.write(next(content))
    if not deflated:
        for piece in content:
            result.write(piece)
        return
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    for piece in content:
        result.write(deflater.compress(piece))
    result.write(deflater.flush())
    if result.tell() % 2:
        result.write(b"\0")


def _content(file: File, wanted: str) -> Iterator[bytes]:
    """The meta information, then the data set."""
    yield rewrite.meta_information(file, wanted)
    writer = rewrite.Writer(file, wanted)
    if not any(tag in file.elements for tag in KEYWORDS):
        yield from writer.elements(file.elements)
        return
    image = image_of(file)
    check_frame(image)
    if file.transfer_syntax in NATIVE and wanted in NATIVE:
        yield from writer.elements(file.elements)
        return
    if image.allocated == 1 or image.pixels.tag != PIXEL_DATA:
        # Fact sheet 5.6: only between native transfer syntaxes.
        raise untranscodable("single bits and floating point pixels have no compressed form")
    frames = _Frames(file, image, wanted)
    for tag in sorted({*file.elements, *frames.changes}):
        if tag in frames.changes:
            yield writer.small(tag, *frames.changes[tag])
        elif tag == PIXEL_DATA:
            yield from frames.pixel_data(writer)
        elif tag & 0xFFFF and tag not in (OFFSETS, OFFSET_LENGTHS):
            yield from writer.element(file.elements[tag])


class _Frames:
    """The frames of an instance in their new form.

    The first is made at once: it determines the photometric interpretation, which comes before the
    pixels.
    """

    def __init__(self, file: File, image: Image, wanted: str) -> None:
        self._file = file
        self._image = image
        self._wanted = wanted
        if image.frames * image.frame_bytes > MAX_FILE:
            raise untranscodable(f"cannot make a file of more than {MAX_FILE} bytes")
        self._first, photometric = self._frame(0)
        if wanted == BASELINE and image.samples == 3:
            photometric = "YBR_FULL_422"
        self.changes: dict[int, tuple[str, bytes]] = {
            PHOTOMETRIC: ("CS", _even(photometric.encode("latin-1", "replace"), b" "))
        }
        if image.samples > 1:
            self.changes[PLANAR] = ("US", bytes(2))

    def _frame(self, number: int) -> tuple[bytes | memoryview, str]:
        array, photometric = decoded(self._file, self._image, number)
        if self._wanted in NATIVE_TARGETS:
            return native(self._image, array), photometric
        return encoded(self._image, array, photometric, self._wanted), photometric

    def _each(self) -> Iterator[bytes | memoryview]:
        yield self._first
        self._first = b""
        for number in range(1, self._image.frames):
            yield self._frame(number)[0]

    def pixel_data(self, writer: rewrite.Writer) -> Iterator[bytes]:
        """The element (7FE0,0010)."""
        if self._wanted in NATIVE_TARGETS:
            return self._native(writer)
        return self._encapsulated(writer)

    def _native(self, writer: rewrite.Writer) -> Iterator[bytes]:
        size = self._image.frames * self._image.frame_bytes
        vr = "OW"
        if self._image.allocated <= 8:
            vr = "OB"
        yield writer.header(PIXEL_DATA, vr, size + size % 2)
        for frame in self._each():
            if len(frame) != self._image.frame_bytes:
                raise untranscodable("a decoded frame has another size than the data set says")
            yield from slices.cut(memoryview(frame))
        yield b"\0" * (size % 2)

    def _encapsulated(self, writer: rewrite.Writer) -> Iterator[bytes]:
        """Each frame as one fragment, behind an empty basic offset table (PS3.5 A.4)."""
        yield writer.header(PIXEL_DATA, "OB", UNDEFINED)
        yield rewrite.mark(ITEM, 0)
        for frame in self._each():
            fragment = _even(bytes(frame), b"\0")
            yield rewrite.mark(ITEM, len(fragment))
            yield fragment
        yield rewrite.mark(SEQUENCE_END, 0)


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)

"""The header of a JPEG, and whether it is complete (ITU-T T.81 annex B).

Only the markers are read; nothing is decoded.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from functions.store.refusals import rejected
from functions.store.source import Source

BASELINE: Final = "1.2.840.10008.1.2.4.50"
EXTENDED: Final = "1.2.840.10008.1.2.4.51"
LOSSLESS: Final = "1.2.840.10008.1.2.4.57"
LOSSLESS_FIRST_ORDER: Final = "1.2.840.10008.1.2.4.70"

_END: Final = 0xD9
_SCAN: Final = 0xDA
_ADOBE: Final = 0xEE
_JFIF: Final = 0xE0
_SOF_BASELINE: Final = 0xC0
_SOF_EXTENDED: Final = 0xC1
_SOF_LOSSLESS: Final = 0xC3
# SOF0 to SOF15, except the three that are tables; and SOF55 of JPEG-LS.
_FRAMES: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# Markers without a segment.
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
# The marker after a scan. In a scan FF is followed by 00 (a byte of the image), by a restart marker
# or by another FF.
_AFTER_SCAN: Final = re.compile(rb"\xff(?=[^\x00\xd0-\xd7\xff])")
_DAMAGED: Final = "the JPEG is damaged"

Colour = Literal["", "RGB", "YBR"]


@dataclass(frozen=True)
class Frame:
    """The image in a JPEG.

    Args:
        process: the number of its start-of-frame marker, 0xC0 for baseline.
        precision: bits of a sample.
        rows: 0 if the number comes only after the scan.
        columns: of the image.
        samples: of a pixel.
        predictor: of a lossless JPEG, 1 to 7.
        colour: the meaning of three samples, if a marker says it.
    """

    process: int
    precision: int
    rows: int
    columns: int
    samples: int
    predictor: int
    colour: Colour

    @property
    def is_lossless(self) -> bool:
        """Whether it is coded without the cosine transform."""
        return self.process == _SOF_LOSSLESS

    @property
    def transfer_syntaxes(self) -> tuple[str, ...]:
        """The transfer syntaxes that describe it, the best first, of the four that the DICOM store
        accepts (fact sheet section 3.1); none for progressive and other kinds."""
        if self.process == _SOF_BASELINE:
            return (BASELINE, EXTENDED)
        if self.process == _SOF_EXTENDED:
            return (EXTENDED,)
        if self.is_lossless and self.predictor == 1:
            return (LOSSLESS_FIRST_ORDER, LOSSLESS)
        if self.is_lossless:
            return (LOSSLESS,)
        return ()


class Markers:
    """Follows the markers while the bytes arrive."""

    def __init__(self) -> None:
        self.frame: Frame | None = None
        # The last bytes that are not parsed yet, at most one segment.
        self._rest = b""
        self._in_scan = False
        self._ended = False
        # The segment that starts the frame.
        self._start = b""
        self._process = 0
        self._adobe = b""
        self._is_jfif = False

    def add(self, chunk: bytes) -> None:
        """Read the next bytes.

        Raises:
            PermanentError: rejected, when the JPEG is damaged.
        """
        if self._ended:
            return
        data = self._rest + chunk
        at = 0
        while not self._ended:
            at = self._skip_to_marker(data, at)
            following = self._after_marker(data, at)
            if following is None:
                break
            at = following
        self._rest = data[at:]

    def end(self) -> None:
        """Raises PermanentError: rejected, when the end of the image is missing."""
        if not self._ended:
            raise rejected("the JPEG is truncated: the end marker is missing")

    def _skip_to_marker(self, data: bytes, at: int) -> int:
        """The place of the next marker, after a scan and fill bytes; if it is not there yet, that
        of the last byte, which may be its first."""
        if self._in_scan:
            found = _AFTER_SCAN.search(data, at)
            if found is None:
                return max(at, len(data) - 1)
            self._in_scan = False
            at = found.start()
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        return at

    def _after_marker(self, data: bytes, at: int) -> int | None:
        """The place after the marker and its segment; None when more bytes are needed."""
        if len(data) < at + 2:
            return None
        if data[at] != 0xFF:
            raise rejected(_DAMAGED)
        marker = data[at + 1]
        if marker == _END:
            self._ended = True
            return at + 2
        if marker in _ALONE:
            return at + 2
        if len(data) < at + 4:
            return None
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if len(data) < end:
            return None
        self._take(marker, data[at + 4 : end])
        return end

    def _take(self, marker: int, segment: bytes) -> None:
        if marker in _FRAMES and not self._process:
            self._process = marker
            self._start = segment
        elif marker == _ADOBE and segment.startswith(b"Adobe"):
            self._adobe = segment
        elif marker == _JFIF and segment.startswith(b"JFIF\0"):
            self._is_jfif = True
        elif marker == _SCAN:
            self._in_scan = True
            if self.frame is None:
                self.frame = self._read_frame(segment)

    def _read_frame(self, scan: bytes) -> Frame:
        """The frame, from two segments.

        Its start: precision (1 byte), rows (2), columns (2), samples (1), and 3 bytes for each
        sample, the first of which is its name. The scan: samples (1 byte), 2 bytes for each sample,
        and the predictor (1).
        """
        start = self._start
        predictor_at = 1
        if scan:
            predictor_at += 2 * scan[0]
        if len(start) < 6 or len(scan) <= predictor_at:
            raise rejected(_DAMAGED)
        return Frame(
            process=self._process,
            precision=start[0],
            rows=int.from_bytes(start[1:3], "big"),
            columns=int.from_bytes(start[3:5], "big"),
            samples=start[5],
            predictor=scan[predictor_at],
            colour=self._colour(),
        )

    def _colour(self) -> Colour:
        """JFIF means YCbCr; Adobe's marker says it in its last byte, after the name (5 bytes),
        version (2) and flags (4); else the components' names may say it."""
        components = self._start[6::3]
        adobe = self._adobe[11:12]
        if len(components) != 3:
            return ""
        if self._is_jfif and adobe == b"\0":
            # They contradict each other.
            return ""
        if self._is_jfif or adobe == b"\1":
            return "YBR"
        if adobe == b"\0" or components == b"RGB":
            return "RGB"
        return ""


def frame_of(source: Source) -> Frame:
    """The image of a JPEG, which must begin within its first 4 MiB.

    Raises:
        PermanentError: rejected, when there is none: the file is cut off or damaged before it.
    """
    for head in source.heads():
        markers = Markers()
        markers.add(head)
        if markers.frame is not None:
            return markers.frame
    raise rejected("the JPEG is truncated or damaged before its image")

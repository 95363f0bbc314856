"""A synthetic scan: a small valid Part 10 file with new UIDs, made with the standard library
only."""

import argparse
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
_EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
_LONG: Final = {"OB", "OW", "UN"}  # PS3.5 section 7.1.2: two reserved bytes, then a length of four
_PADDING: Final = {"UI": b"\x00", "OB": b"\x00"}  # of the others a space


@dataclass(frozen=True)
class Scan:
    """A file and its UIDs."""

    study: str
    series: str
    instance: str
    data: bytes

    @property
    def path(self) -> str:
        """`studies/…/series/…/instances/…`."""
        return f"studies/{self.study}/series/{self.series}/instances/{self.instance}"


def make(patient: str = "SYNTHETIC^PROBE") -> Scan:
    """A scan of 8 x 8 pixels with new UIDs (PS3.5 annex B.2: `2.25.` and a UUID)."""
    study, series, instance = (f"2.25.{uuid.uuid4().int}" for _ in range(3))
    meta = b"".join(
        (
            _element(0x0002, 0x0001, "OB", b"\x00\x01"),
            _element(0x0002, 0x0002, "UI", SECONDARY_CAPTURE),
            _element(0x0002, 0x0003, "UI", instance),
            _element(0x0002, 0x0010, "UI", _EXPLICIT_LITTLE),
            _element(0x0002, 0x0012, "UI", "2.25.177893301370"),
        )
    )
    elements = (
        (0x0008, 0x0016, "UI", SECONDARY_CAPTURE),
        (0x0008, 0x0018, "UI", instance),
        (0x0008, 0x0020, "DA", ""),
        (0x0008, 0x0060, "CS", "OT"),
        (0x0008, 0x0064, "CS", "SYN"),
        (0x0010, 0x0010, "PN", patient),
        (0x0010, 0x0020, "LO", "SYNTHETIC"),
        (0x0020, 0x000D, "UI", study),
        (0x0020, 0x000E, "UI", series),
        (0x0020, 0x0011, "IS", "1"),
        (0x0020, 0x0013, "IS", "1"),
        (0x0028, 0x0002, "US", struct.pack("<H", 1)),
        (0x0028, 0x0004, "CS", "MONOCHROME2"),
        (0x0028, 0x0010, "US", struct.pack("<H", 8)),
        (0x0028, 0x0011, "US", struct.pack("<H", 8)),
        (0x0028, 0x0100, "US", struct.pack("<H", 8)),
        (0x0028, 0x0101, "US", struct.pack("<H", 8)),
        (0x0028, 0x0102, "US", struct.pack("<H", 7)),
        (0x0028, 0x0103, "US", struct.pack("<H", 0)),
        (0x7FE0, 0x0010, "OB", bytes(range(0, 256, 4))),
    )
    length = _element(0x0002, 0x0000, "UL", struct.pack("<I", len(meta)))
    body = b"".join(_element(*element) for element in elements)
    return Scan(study, series, instance, bytes(128) + b"DICM" + length + meta + body)


def _element(group: int, element: int, vr: str, value: str | bytes) -> bytes:
    """One data element, explicit VR, little endian (PS3.5 section 7.1.2), padded to an even length
    (section 6.2)."""
    if isinstance(value, str):
        value = value.encode("ascii")
    if len(value) % 2:
        value += _PADDING.get(vr, b" ")
    tag = struct.pack("<HH", group, element)
    length = struct.pack("<H", len(value))
    if vr in _LONG:
        length = struct.pack("<HI", 0, len(value))
    return tag + vr.encode() + length + value


def main() -> None:
    """`python3 -m cli.scan FILE`: write a scan and print its study, series and instance UID."""
    parser = argparse.ArgumentParser(prog="python3 -m cli.scan", description=main.__doc__)
    parser.add_argument("file", type=Path)
    scan = make()
    parser.parse_args().file.write_bytes(scan.data)
    print(scan.study, scan.series, scan.instance)


if __name__ == "__main__":
    main()

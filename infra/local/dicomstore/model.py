"""A data set as DICOM JSON attributes (PS3.18 annex F).

A data set is kept as sorted lines, one attribute each: `"00080060":{"vr":"CS","Value":["CT"]}`. An
answer is made of lines picked and joined, never of parsed JSON. In a kept line a BulkDataURI is a
path such as `7FE00010`; `absolute` puts the instance's URL before it when it leaves.
"""

import base64
import json
import struct
from collections.abc import Callable, Iterable
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes

from infra.local.dicomstore.scan import PIXEL_DATA, Element, Elements, File

CHARACTER_SET, META_VERSION = 0x00080005, 0x00020001
SEQUENCE_MAX = (
    1 << 20
)  # bytes; a longer sequence is left out of metadata, without a URI (sheet 5.5)
INLINE_MAX = 2 << 10  # bytes; OD, OF, OL and OV beyond it are bulk data (sheet 5.5)
VM_MAX = 512  # values; AT, FD, FL, UL, US, SV and UV beyond it are bulk data (sheet 5.5)

FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
BULK_ALWAYS = frozenset(("OB", "OW", "UN"))
BULK_BY_SIZE = frozenset(("OD", "OF", "OL", "OV"))
BULK_BY_VM = frozenset(("AT", "FD", "FL", "UL", "US", "SV", "UV"))
NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
WORDS = {
    "OW": 2,
    "OF": 4,
    "OL": 4,
    "OD": 8,
    "OV": 8,
    "AT": 2,
    **{vr: struct.calcsize(NUMBERS[vr]) for vr in NUMBERS},
}
IN_CHARACTER_SET = frozenset(("SH", "LO", "ST", "LT", "UC", "UT", "PN"))
ONE_VALUE = frozenset(("ST", "LT", "UT", "UR"))
NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def elements(file: File) -> Elements:
    """The elements that metadata shows: the data set, and group 0002 without its version."""
    return {
        tag: element for tag, element in (file.meta | file.elements).items() if tag != META_VERSION
    }


def lines(file: File) -> list[str]:
    """Every attribute that metadata shows, sorted by tag."""
    return _Encoder(file, []).lines(elements(file))


class _Encoder:
    def __init__(self, file: File, encodings: list[str]) -> None:
        self.file = file
        self.encodings = encodings
        self.order = ">" if file.big_endian else "<"

    def lines(self, elements: Elements, path: str = "") -> list[str]:
        if charset := elements.get(CHARACTER_SET):
            names = self.file.raw(charset).decode("latin-1").strip(" \0").split("\\")
            self.encodings = _encodings(names)
        found = []
        for tag in sorted(elements):
            if tag & 0xFFFF:  # group lengths say nothing here
                line = self.line(elements[tag], path)
                if line:
                    found.append(line)
        return found

    def line(self, element: Element, path: str) -> str:
        tag = f"{element.tag:08X}"
        head = f'"{tag}":{{"vr":"{element.vr}"'
        if element.items is not None:
            if element.length > SEQUENCE_MAX:
                return ""
            items = [self._item(item, f"{path}{tag}/{i}/") for i, item in enumerate(element.items)]
            return f'{head},"Value":[{",".join(items)}]}}' if items else head + "}"
        if element.length == 0:
            return head + "}"
        if is_bulk(element):
            return f'{head},"BulkDataURI":"{path}{tag}"}}'
        if element.vr in BULK_BY_SIZE:
            inline = base64.b64encode(
                little_endian(self.file.raw(element), self.file.big_endian * WORDS[element.vr])
            )
            return f'{head},"InlineBinary":"{inline.decode()}"}}'
        values = self.values(element)
        return f'{head},"Value":{_encode(values)}}}' if values else head + "}"

    def _item(self, item: Elements, path: str) -> str:
        outer = self.encodings
        text = "{" + ",".join(self.lines(item, path)) + "}"
        self.encodings = outer
        return text

    def values(self, element: Element) -> list[Any]:
        raw, vr = self.file.raw(element), element.vr
        if vr in NUMBERS:
            found = struct.unpack_from(f"{self.order}{len(raw) // WORDS[vr]}{NUMBERS[vr]}", raw)
            return [v if v - v == 0 else None for v in found]  # JSON has no NaN and no infinity
        if vr == "AT":
            pairs = struct.unpack_from(f"{self.order}{len(raw) // 4 * 2}H", raw)
            return [f"{g:04X}{e:04X}" for g, e in zip(pairs[::2], pairs[1::2], strict=True)]
        text = self.text(raw, vr)
        if not text:
            return []
        if element.tag == CHARACTER_SET:
            return (
                ["ISO_IR 192"] if text != "ISO_IR 6" else [text]
            )  # JSON and XML are UTF-8 (PS3.18 F.2)
        parts = [text] if vr in ONE_VALUE else text.split("\\")
        convert = _CONVERT.get(vr, _plain)
        return [convert(part) for part in parts]

    def text(self, raw: bytes, vr: str) -> str:
        if vr in IN_CHARACTER_SET and not (raw.isascii() and b"\x1b" not in raw):
            delimiters = {0x0D, 0x0A, 0x0C, 0x5C} | ({0x5E, 0x3D} if vr == "PN" else set())
            text = str(decode_bytes(raw, self.encodings or ["iso8859"], delimiters))
        else:
            text = raw.decode("latin-1")
        return text.rstrip(" \0")


def _encodings(names: list[str]) -> list[str]:
    try:
        return list(convert_encodings(names))
    except (LookupError, ValueError):
        return ["iso8859"]


def _plain(text: str) -> Any:
    return text.strip(" \0") or None


def _number(text: str) -> Any:
    text = text.strip(" \0")
    try:
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return text or None
    return value if value - value == 0 else text


def _name(text: str) -> Any:
    groups = (group.strip(" \0") for group in text.split("=", 2))
    return {key: group for key, group in zip(NAME_GROUPS, groups, strict=False) if group} or None


_CONVERT: dict[str, Callable[[str], Any]] = {"IS": _number, "DS": _number, "PN": _name}


def is_bulk(element: Element) -> bool:
    """Whether metadata gives a URI instead of the value (sheet 5.5)."""
    vr, length = element.vr, element.length
    if vr in BULK_ALWAYS or element.encapsulated or element.tag in FLOAT_PIXELS:
        return length > 0
    if vr in BULK_BY_SIZE:
        return length > INLINE_MAX
    if vr in BULK_BY_VM:
        return length > VM_MAX * (4 if vr == "AT" else WORDS[vr])
    return False


def word_bytes(tag: int, vr: str, bits_allocated: int) -> int:
    """How many bytes of a binary value its byte order turns round together; of pixels at least a
    whole sample."""
    return max(WORDS.get(vr, 1), bits_allocated // 8 if tag == PIXEL_DATA else 1)


def little_endian(raw: bytes, word: int) -> bytes:
    """A big endian value of such words in little endian, as every answer has it; word 0 or 1: as it
    is."""
    if word < 2 or len(raw) % word:
        return raw
    swapped = bytearray(raw)
    for i in range(word):
        swapped[i::word] = raw[word - 1 - i :: word]
    return bytes(swapped)


def pick(found: Iterable[str], tags: set[str] | frozenset[str]) -> list[str]:
    """The lines of these tags."""
    return [line for line in found if line[1:9] in tags]


def merge(*parts: Iterable[str]) -> list[str]:
    """Lines of several levels as one sorted data set; of equal tags the last wins."""
    return sorted({line[:10]: line for part in parts for line in part if line}.values())


def join(found: Iterable[str], instance_url: str = "") -> str:
    """Lines as one JSON object; BulkDataURIs absolute when instance_url is given."""
    text = "{" + ",".join(found) + "}"
    return (
        text.replace('"BulkDataURI":"', f'"BulkDataURI":"{instance_url}/bulkdata/')
        if instance_url
        else text
    )

"""A data set as DICOM JSON attributes (PS3.18 annex F).

A data set is kept as sorted lines, one attribute each: `"00080060":{"vr":"CS","Value":["CT"]}`. An
answer joins selected lines, without parsing JSON. In a kept line, a BulkDataURI is a path such as
`7FE00010`; `absolute` puts the instance's URL before it in answers.
"""

import base64
import json
import struct
from collections.abc import Callable, Iterable
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes

from infra.local.dicomstore.scan import PIXEL_DATA, Element, Elements, File

CHARACTER_SET, META_VERSION = 0x00080005, 0x00020001
# What metadata has inline (fact sheet 5.5):
SEQUENCE_MAX = 1 << 20  # bytes; a longer sequence is left out, without a URI
INLINE_MAX = 2 << 10  # bytes of OD, OF, OL and OV
VM_MAX = 512  # values of AT, FD, FL, UL, US, SV and UV

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
    found = file.meta | file.elements
    found.pop(META_VERSION, None)
    return found


def lines(file: File) -> list[str]:
    """Every attribute that metadata shows, sorted by tag."""
    return _Encoder(file, []).lines(elements(file))


class _Encoder:
    def __init__(self, file: File, encodings: list[str]) -> None:
        self.file = file
        self.encodings = encodings
        self.order = "<"
        if file.big_endian:
            self.order = ">"

    def lines(self, elements: Elements, path: str = "") -> list[str]:
        """The attributes of a data set or item, sorted; those without a place are left out."""
        charset = elements.get(CHARACTER_SET)
        if charset:
            names = self.file.raw(charset).decode("latin-1").strip(" \0").split("\\")
            self.encodings = _encodings(names)
        found = []
        for tag in sorted(elements):
            if not tag & 0xFFFF:  # group lengths have no meaning here
                continue
            line = self.line(elements[tag], path)
            if line:
                found.append(line)
        return found

    def line(self, element: Element, path: str) -> str:
        """One attribute; empty for a sequence that is too long to be shown."""
        tag = f"{element.tag:08X}"
        head = f'"{tag}":{{"vr":"{element.vr}"'
        if element.items is not None:
            if element.length > SEQUENCE_MAX:
                return ""
            items = [
                self._item(item, f"{path}{tag}/{number}/")
                for number, item in enumerate(element.items)
            ]
            if items:
                head += f',"Value":[{",".join(items)}]'
        elif element.length == 0:
            pass
        elif is_bulk(element):
            head += f',"BulkDataURI":"{path}{tag}"'
        elif element.vr in BULK_BY_SIZE:
            head += f',"InlineBinary":"{self._inline(element)}"'
        else:
            values = self.values(element)
            if values:
                head += f',"Value":{_encode(values)}'
        return head + "}"

    def _inline(self, element: Element) -> str:
        raw = self.file.raw(element)
        if self.file.big_endian:
            raw = little_endian(raw, WORDS[element.vr])
        return base64.b64encode(raw).decode()

    def _item(self, item: Elements, path: str) -> str:
        outer = self.encodings
        text = "{" + ",".join(self.lines(item, path)) + "}"
        self.encodings = outer
        return text

    def values(self, element: Element) -> list[Any]:
        """The values of an attribute, as JSON has them."""
        raw, vr = self.file.raw(element), element.vr
        if vr in NUMBERS:
            count = len(raw) // WORDS[vr]
            numbers = struct.unpack_from(f"{self.order}{count}{NUMBERS[vr]}", raw)
            return [_finite(number) for number in numbers]
        if vr == "AT":
            words = struct.unpack_from(f"{self.order}{len(raw) // 4 * 2}H", raw)
            pairs = zip(words[::2], words[1::2], strict=True)
            return [f"{group:04X}{number:04X}" for group, number in pairs]
        text = self.text(raw, vr)
        if not text:
            return []
        if element.tag == CHARACTER_SET and text != "ISO_IR 6":
            return ["ISO_IR 192"]  # JSON and XML are UTF-8 (PS3.18 F.2)
        parts = [text]
        if element.tag != CHARACTER_SET and vr not in ONE_VALUE:
            parts = text.split("\\")
        convert = _CONVERT.get(vr, _plain)
        return [convert(part) for part in parts]

    def text(self, raw: bytes, vr: str) -> str:
        """A value's characters, without padding."""
        in_ascii = raw.isascii() and b"\x1b" not in raw
        if vr not in IN_CHARACTER_SET or in_ascii:
            return raw.decode("latin-1").rstrip(" \0")
        delimiters = {0x0D, 0x0A, 0x0C, 0x5C}
        if vr == "PN":
            delimiters |= {0x5E, 0x3D}
        text = str(decode_bytes(raw, self.encodings or ["iso8859"], delimiters))
        return text.rstrip(" \0")


def _finite(number: Any) -> Any:
    """A number; None for values that JSON does not have: NaN and the infinities."""
    if number - number == 0:
        return number
    return None


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
        if text.lstrip("+-").isdecimal():
            value: float = int(text)
        else:
            value = float(text)
    except ValueError:
        return text or None
    if _finite(value) is None:
        return text
    return value


def _name(text: str) -> Any:
    groups = zip(NAME_GROUPS, text.split("=", 2), strict=False)
    found = {name: group.strip(" \0") for name, group in groups if group.strip(" \0")}
    return found or None


_CONVERT: dict[str, Callable[[str], Any]] = {"IS": _number, "DS": _number, "PN": _name}


def is_bulk(element: Element) -> bool:
    """Whether metadata has a URI instead of the value (fact sheet 5.5)."""
    vr, length = element.vr, element.length
    if vr in BULK_ALWAYS or element.encapsulated or element.tag in FLOAT_PIXELS:
        return length > 0
    if vr in BULK_BY_SIZE:
        return length > INLINE_MAX
    if vr == "AT":
        return length > VM_MAX * 4
    if vr in BULK_BY_VM:
        return length > VM_MAX * WORDS[vr]
    return False


def word_bytes(tag: int, vr: str, bits_allocated: int) -> int:
    """The number of bytes of a binary value that change their order together; for pixels at least a
    whole sample."""
    word = WORDS.get(vr, 1)
    if tag == PIXEL_DATA:
        return max(word, bits_allocated // 8)
    return word


def little_endian(raw: bytes, word: int) -> bytes:
    """A big endian value of such words in little endian, as in every answer; word 0 or 1:
    unchanged."""
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
    if not instance_url:
        return text
    return text.replace('"BulkDataURI":"', f'"BulkDataURI":"{instance_url}/bulkdata/')

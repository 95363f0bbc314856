"""Whether the DICOM store's metadata of an instance is what was uploaded.

The store makes its answer from the stored file, so the same value may be spelled differently, and
some values are replaced or left out. What one of the two does not have is a difference.
"""

import json
import struct
from decimal import Decimal
from typing import Any, Final

from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import DataSet

# The file's own header, which the store writes (fact sheet section 3.1), and the pixel data.
_OTHER_GROUPS: Final = ("0002", "7FE0")
# PS3.5 section 7.2: retired, and a writer may leave them out.
_GROUP_LENGTH: Final = "0000"
# SpecificCharacterSet says how text is encoded in the file; JSON is always UTF-8, whatever it says.
# InstanceAvailability and RetrieveURL are about the copy in a server (PS3.18 section 10.6.3.3). The
# service adds neither (fact sheet section 4.4); another server may.
_OF_THE_SERVER: Final = ("00080005", "00080056", "00081190")
# The store leaves out sequences over about 1 MiB (fact sheet section 5.4). A value takes at most
# four times as many bytes in the file as in JSON: "1," is a number of eight bytes.
_LEFT_OUT_CHARACTERS: Final = 256 * 1024
_NUMBERS: Final = ("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV")
# The parts of a person's name (PS3.18 section F.2.2).
_NAME_PARTS: Final = ("Alphabetic", "Ideographic", "Phonetic")


def is_same(ours: DataSet, stored: DataSet) -> bool:
    """Whether two data sets have the same attributes with the same values.

    Args:
        ours: as it was sent.
        stored: of the DICOM store; a value that is only a reference to bulk data counts as the
            same, because it would have to be retrieved.
    """
    tags = filter(_is_compared, ours.keys() | stored.keys())
    return all(_has_same(tag, ours, stored) for tag in tags)


def _is_compared(tag: str) -> bool:
    is_other = tag.startswith(_OTHER_GROUPS) or tag.endswith(_GROUP_LENGTH)
    return not is_other and tag not in _OF_THE_SERVER


def _has_same(tag: str, ours: DataSet, stored: DataSet) -> bool:
    """Whether both have the same value of this attribute; no value is the same as no attribute."""
    mine, theirs = ours.get(tag), stored.get(tag)
    if isinstance(theirs, dict) and "BulkDataURI" in theirs:
        # Fact sheet section 5.5: binary values, and long lists of numbers.
        return tag in ours
    if "SQ" not in (_vr(mine), _vr(theirs)):
        return _content(mine) == _content(theirs)
    if theirs is None and len(json.dumps(mine)) >= _LEFT_OUT_CHARACTERS:
        return True
    my_items, their_items = dicomjson.items(ours, tag), dicomjson.items(stored, tag)
    return len(my_items) == len(their_items) and all(map(is_same, my_items, their_items))


def _vr(attribute: Any) -> Any:
    if not isinstance(attribute, dict):
        return None
    return attribute.get("vr")


def _content(attribute: Any) -> tuple[Any, str, Any] | None:
    """The VR and the value, in one spelling; None if there is no value."""
    if not isinstance(attribute, dict):
        return None
    vr = _vr(attribute)
    values = attribute.get("Value")
    if not isinstance(values, list):
        values = []
    # As in a file, where a backslash in a value cannot be told from one between two values.
    text = "\\".join(_text(value, vr) for value in values)
    inline = attribute.get("InlineBinary")
    if not text and not inline:
        return None
    return vr, text, inline


def _text(value: Any, vr: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        parts = [str(value.get(part) or "").strip() for part in _NAME_PARTS]
        return "=".join(parts).rstrip("=")
    text = str(value).strip()
    if vr == "AT":
        return text.upper()
    if vr in _NUMBERS:
        return _number(text, is_single=vr == "FL")
    return text


def _number(text: str, *, is_single: bool) -> str:
    """A number in one spelling; other text as it is.

    Args:
        text: such as 007 or 70.50.
        is_single: whether the file has 32 bits of it.
    """
    try:
        if is_single:
            (single,) = struct.unpack("<f", struct.pack("<f", float(text)))
            text = repr(single)
        # Plus 0, because -0 is 0.
        return str(Decimal(text).normalize() + 0)
    except (ArithmeticError, ValueError):
        return text

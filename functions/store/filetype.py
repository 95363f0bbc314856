"""The kind of a file, by its first bytes, never by its name."""

import re
from typing import Final, Literal

from functions.common.dicom import part10

Kind = Literal["dicom", "zip", "tar", "gzip", "json", "jpeg", "multipart", "other"]

ARCHIVES: Final = frozenset({"zip", "tar", "gzip"})

# A member, or the end of an archive that has none.
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP: Final = b"\x1f\x8b"
_TAR: Final = b"ustar"
_JPEG: Final = b"\xff\xd8\xff"
_JSON: Final = (b"{", b"[")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_IMPLICIT_LENGTH_MAX: Final = 256  # of a data set's first element
# A multipart/related body whose first part is DICOM JSON: what the how-to calls
# multipart-request.file. RFC 2046 section 5.1.1 allows a boundary of 70 characters.
_MULTIPART: Final = re.compile(
    rb'(?:\r\n)?--[^\s";\\]{1,70}\r\n'
    rb"(?:[\w-]+:[^\r\n]*\r\n)*?"
    rb"Content-Type:[ \t]*application/dicom\+json",
    re.IGNORECASE,
)


def sniff(head: bytes) -> Kind:
    """The kind of a file that begins with these bytes.

    A file without its preamble, or a bare data set, counts as DICOM: the DICOM store decides
    whether to accept it. DICM is checked first, because a preamble may look like the beginning of
    another format (PS3.10 section 7.1).
    """
    if part10.is_part10(head):
        return "dicom"
    if head.startswith(_ZIP):
        return "zip"
    if head.startswith(_GZIP):
        return "gzip"
    if head[257:262] == _TAR:
        return "tar"
    if head.startswith(_JPEG):
        return "jpeg"
    if _MULTIPART.match(head):
        return "multipart"
    text = head.removeprefix(_BYTE_ORDER_MARK).lstrip(b" \t\r\n")
    if text.startswith(_JSON):
        return "json"
    if _is_data_set(head):
        return "dicom"
    return "other"


def _is_data_set(head: bytes) -> bool:
    """Whether it may be a Part 10 file without its preamble, or a bare data set: group 2 or 8 in
    little endian."""
    # head[1] and head[3]: the high bytes of the group and of the element, which are 0.
    if len(head) < 8 or head[0] not in (0x02, 0x08) or head[1] or head[3]:
        return False
    return part10.is_vr(head[4:6]) or int.from_bytes(head[4:8], "little") < _IMPLICIT_LENGTH_MAX

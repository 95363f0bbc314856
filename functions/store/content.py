"""What a file is: its first bytes decide, never its name."""

from typing import Final, Literal

from functions.common.dicom import part10

Kind = Literal["dicom", "zip", "tar", "gzip", "json", "jpeg", "other"]

ARCHIVES: Final = frozenset({"zip", "tar", "gzip"})
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")  # a member, or the end of an archive without any
_BOM: Final = b"\xef\xbb\xbf"


def sniff(head: bytes) -> Kind:
    """What begins so.

    A file that has lost its preamble, or is a bare data set, counts as DICOM: the DICOM store
    decides whether it takes it. DICM goes before all else: a preamble may look like the beginning
    of another format.
    """
    if part10.is_part10(head):
        return "dicom"
    if head.startswith(_ZIP):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.removeprefix(_BOM).lstrip(b" \t\r\n")[:1] in (b"{", b"["):
        return "json"
    return "dicom" if part10.is_data_set(head) else "other"

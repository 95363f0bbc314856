"""Reading answers: multipart parts, store reports, error envelopes, the first pixel of a PNG."""

import email.message
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

from cli.conformance.client import Reply

REASON: Final = "00081197"
FAILED: Final = "00081198"
STORED: Final = "00081199"
RETRIEVE_URL: Final = "00081190"
SOP_INSTANCE: Final = "00081155"
DETAIL_JSON: Final = "00091097"
PRIVATE_CREATOR: Final = "00090010"
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Part:
    """A part of a multipart body."""

    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """The Content-Type, or an empty text."""
        return self.headers.get("content-type", "")


def parameter(header: str, name: str) -> str:
    """A parameter of a header such as Content-Type, without quotes; empty when it is missing."""
    message = email.message.Message()
    message["Content-Type"] = header
    value = message.get_param(name)
    return value if isinstance(value, str) else ""


def essence(header: str) -> str:
    """The media type of a Content-Type, in lower case, without its parameters."""
    return header.partition(";")[0].strip().lower()


def parts(reply: Reply) -> list[Part]:
    """The parts of a multipart answer; none when it is not one."""
    boundary = parameter(reply.kind, "boundary")
    if not boundary:
        return []
    found = []
    pieces = (b"\r\n" + reply.body).split(f"\r\n--{boundary}".encode())
    for piece in pieces[1:-1]:
        head, _, body = piece.lstrip(b"\r\n").partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = [line.partition(":") for line in lines]
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        found.append(Part(headers, body))
    return found


def multipart(
    bodies: list[tuple[dict[str, str], bytes]], kind: str, closed: bool = True
) -> tuple[bytes, str]:
    """A multipart/related body with these parts, and its Content-Type; `kind` is its type."""
    boundary = "conformance-4f1c8e2b7a"
    pieces = []
    for headers, body in bodies:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        pieces.append(f"--{boundary}\r\n{lines}\r\n".encode() + body + b"\r\n")
    if closed:
        pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f'multipart/related; type="{kind}"; boundary={boundary}'


def value(item: Any, tag: str) -> Any:
    """The first value of an attribute in DICOM JSON; None when there is none."""
    if not isinstance(item, dict):
        return None
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]


def first(reply: Reply) -> dict[str, Any]:
    """A JSON object, or the first of an array of them; empty when the answer is neither."""
    found = reply.json()
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, dict):
        return found
    return {}


def items(reply: Reply, tag: str) -> list[Any]:
    """The items of a sequence of a store report, such as FAILED."""
    return list(first(reply).get(tag, {}).get("Value") or [])


def failure(reply: Reply) -> dict[str, Any]:
    """The first failed item of a store report; empty when there is none."""
    for item in items(reply, FAILED):
        return dict(item)
    return {}


def envelope(reply: Reply) -> str:
    """The form of an error: array, object, string, text or empty (fact sheet section 8)."""
    if not reply.body:
        return "empty"
    found = reply.json()
    if isinstance(found, list):
        return "array"
    if isinstance(found, dict):
        return "object"
    if isinstance(found, str):
        return "string"
    return "text"


def message(reply: Reply) -> str:
    """The text of an error, whatever its form."""
    error = first(reply).get("error")
    if isinstance(error, dict):
        return str(error.get("message", ""))
    found = reply.json()
    if isinstance(found, str):
        return found
    return reply.body.decode("utf-8", "replace")


def png_pixel(data: bytes) -> list[int] | None:
    """The samples of the first pixel of a PNG; None if it is not a PNG with whole bytes.

    No row filter changes the first pixel of the first row (PNG section 9).
    """
    if not data.startswith(_PNG):
        return None
    bits, colour = data[24], data[25]
    samples = {0: 1, 2: 3, 4: 2, 6: 4}.get(colour)
    if samples is None or bits not in (8, 16):
        return None
    row = zlib.decompress(b"".join(_png_chunks(data, b"IDAT")))
    sample = {8: "B", 16: "H"}[bits]
    return list(struct.unpack_from(f">{samples}{sample}", row, 1))


def _png_chunks(data: bytes, wanted: bytes) -> list[bytes]:
    found = []
    at = len(_PNG)
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == wanted:
            found.append(data[at + 8 : at + 8 + length])
        at += length + 12
    return found

"""Small inputs, made without a DICOM library, so that tests do not depend on the code that they
test."""

import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
LONG = ("OB", "OW", "SQ", "UN", "UT")
Uids = tuple[str, str, str]  # study, series, instance


def element(
    tag: int, vr: str, value: bytes, syntax: str = EXPLICIT, *, undefined: bool = False
) -> bytes:
    """One element; with `undefined` its length is not said and the value ends in a delimiter of its
    own."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    length = 0xFFFFFFFF if undefined else len(value)
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    long_length = struct.pack(f"{order}I", length)
    if syntax == IMPLICIT:
        return head + long_length + value
    head += vr.encode()
    if vr in LONG:
        return head + b"\0\0" + long_length + value
    return head + struct.pack(f"{order}H", length) + value


def meta(syntax: str = EXPLICIT, sop_class: str = CT, instance: str = "1.2.3") -> bytes:
    """Preamble and group 2."""
    body = element(0x00020001, "OB", b"\0\1")
    body += element(0x00020002, "UI", sop_class.encode())
    body += element(0x00020003, "UI", instance.encode())
    body += element(0x00020010, "UI", syntax.encode())
    body += element(0x00020012, "UI", b"1.2.826.0.1.3680043.10.1462.0")
    length = element(0x00020000, "UL", struct.pack("<I", len(body)))
    return bytes(128) + b"DICM" + length + body


def dicom(
    uids: Uids, pixels: bytes = b"\1\2\3\4", *, syntax: str = EXPLICIT, private: bytes = b""
) -> bytes:
    """A Part 10 file; `private` is put before the study UID as it is."""
    study, series, instance = (uid.encode() for uid in uids)
    data = element(0x00080005, "CS", b"ISO_IR 192", syntax)
    data += element(0x00080016, "UI", CT.encode(), syntax)
    data += element(0x00080018, "UI", instance, syntax)
    data += element(0x00080060, "CS", b"CT", syntax)
    data += private
    data += element(0x00100010, "PN", b"Doe^Jane", syntax)
    data += element(0x00100020, "LO", b"PAT1", syntax)
    data += element(0x0020000D, "UI", study, syntax)
    data += element(0x0020000E, "UI", series, syntax)
    data += element(0x7FE00010, "OW", pixels, syntax)
    if syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-15)
        data = deflate.compress(data) + deflate.flush()
    return meta(syntax, instance=uids[2]) + data


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def jpeg(
    seed: int = 1, *, progressive: bool = False, grey: bool = False, comment: bytes = b""
) -> bytes:
    """A real JPEG of 16 by 16 pixels; with a comment, its image begins later."""
    from PIL import Image

    file = io.BytesIO()
    picture = Image.frombytes("RGB", (16, 16), noise(seed, 768))
    if grey:
        picture = picture.convert("L")
    picture.save(file, "JPEG", progressive=progressive)
    data = file.getvalue()
    if not comment:
        return data
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    return data[:2] + 3 * segment + data[2:]


def metadata(uids: Uids, **more: object) -> bytes:
    """DICOM JSON for such a JPEG, as the how-to's template has it."""
    values = {
        "00020010": ("UI", "1.2.840.10008.1.2.4.50"),
        "00080005": ("CS", "ISO_IR 192"),
        "00080016": ("UI", "1.2.840.10008.5.1.4.1.1.7"),
        "00080018": ("UI", uids[2]),
        "0020000D": ("UI", uids[0]),
        "0020000E": ("UI", uids[1]),
        "00280002": ("US", 3),
        "00280004": ("CS", "YBR_FULL_422"),
        "00280006": ("US", 0),
        "00280010": ("US", 16),
        "00280011": ("US", 16),
        "00280100": ("US", 8),
        "00280101": ("US", 8),
        "00280102": ("US", 7),
        "00280103": ("US", 0),
    }
    document: dict[str, object] = {
        tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in values.items()
    }
    document["7FE00010"] = {"vr": "OB", "BulkDataURI": "jpeg-image"}
    return json.dumps([{**document, **more}]).encode()


def multipart_request(text: bytes, picture: bytes) -> bytes:
    """The how-to's multipart-request.file, byte for byte as its commands make it."""
    opening = b"--DICOMwebBoundary\r\nContent-Type: application/dicom+json\r\n\r\n"
    middle = (
        b"\r\n--DICOMwebBoundary\r\nContent-Location: jpeg-image\r\n"
        b"Content-Type: image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50\r\n\r\n"
    )
    closing = b"\r\n--DICOMwebBoundary--"
    return opening + text + middle + picture + closing


def zipped(files: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return file.getvalue()


def tarred(files: Iterable[tuple[str, bytes]], mode: str = "w") -> bytes:
    """A tar of these files; `w:gz` for a tar.gz."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()

"""Synthetic DICOM instances: small, of no real patient, each with new UIDs."""

import base64
import io
import struct
from typing import Any, Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless, generate_uid

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
MPEG2: Final = "1.2.840.10008.1.2.4.100"
SIDE: Final = 16  # pixels
RED: Final = (200, 30, 60)  # as RGB
RED_YBR: Final = (84, 114, 211)  # the same in YBR_FULL (PS3.3 C.7.6.3.1.2)
SHADES: Final = (40, 120, 200)  # of the frames of a multi-frame instance
DARK: Final = -100  # the pixels of a signed instance
# 16 by 16 pixels of RED in YBR_FULL_422, as JPEG baseline and as progressive JPEG.
JPEG: Final = base64.b64decode(
    "/9j/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsKDAkK"
    "Cgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoK"
    "Cgr/wAARCAAQABADASEAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAj/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QA"
    "FgEBAQEAAAAAAAAAAAAAAAAAAAYJ/8QAFBEBAAAAAAAAAAAAAAAAAAAAAP/aAAwDAQACEQMRAD8Ak8Q7UwAf/9k="
)
PROGRESSIVE_JPEG: Final = base64.b64decode(
    "/9j/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsKDAkK"
    "Cgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoK"
    "Cgr/wgARCAAQABADASEAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAf/xAAWAQEBAQAAAAAAAAAAAAAAAAAABQj/"
    "2gAMAwEAAhADEAAAAZOh6mD/xAAUEAEAAAAAAAAAAAAAAAAAAAAg/9oACAEBAAEFAh//xAAUEQEAAAAAAAAAAAAAAAAA"
    "AAAQ/9oACAEDAQE/AT//xAAUEQEAAAAAAAAAAAAAAAAAAAAQ/9oACAECAQE/AT//xAAUEAEAAAAAAAAAAAAAAAAAAAAg"
    "/9oACAEBAAY/Ah//xAAUEAEAAAAAAAAAAAAAAAAAAAAg/9oACAEBAAE/IR//2gAMAwEAAgADAAAAEAD/xAAUEQEAAAAA"
    "AAAAAAAAAAAAAAAQ/9oACAEDAQE/ED//xAAUEQEAAAAAAAAAAAAAAAAAAAAQ/9oACAECAQE/ED//xAAUEAEAAAAAAAAA"
    "AAAAAAAAAAAg/9oACAEBAAE/EB//2Q=="
)


def plain(**attributes: Any) -> Dataset:
    """An instance without pixels in a new study; attributes given by keyword are added."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = SECONDARY_CAPTURE
    ds.SOPInstanceUID = generate_uid()
    ds.StudyDate = "20200102"
    ds.StudyTime = "030405"
    ds.AccessionNumber = "CONFORMANCE"
    ds.Modality = "OT"
    ds.ReferringPhysicianName = "Nobody^At^All"
    ds.SeriesDescription = "Conformance probe"
    ds.PatientName = "Conformance^Probe"
    ds.PatientID = f"CONFORMANCE-{ds.SOPInstanceUID[-12:]}"
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.StudyID = "1"
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def grey(frames: int = 1, **attributes: Any) -> Dataset:
    """An instance of unsigned 8 bit pixels; each frame is filled with one of SHADES."""
    ds = _image(bits=8, samples=1, photometric="MONOCHROME2", **attributes)
    if frames > 1:
        ds.NumberOfFrames = frames
    # A window that leaves 8 bit values as they are.
    ds.WindowCenter, ds.WindowWidth = 128, 256
    ds.PixelData = b"".join(bytes([shade]) * SIDE * SIDE for shade in SHADES[:frames])
    ds["PixelData"].VR = "OB"
    return ds


def signed() -> Dataset:
    """An instance of signed 16 bit pixels, all of the value DARK."""
    ds = _image(bits=16, samples=1, photometric="MONOCHROME2", PixelRepresentation=1)
    ds.PixelData = struct.pack("<h", DARK) * SIDE * SIDE
    ds["PixelData"].VR = "OW"
    return ds


def rle() -> Dataset:
    """An RLE instance in YBR_FULL, RED throughout."""
    ds = _image(bits=8, samples=3, photometric="YBR_FULL")
    _encapsulate(ds, _rle_frame(RED_YBR), RLELossless)
    return ds


def jpeg() -> Dataset:
    """A JPEG baseline instance in YBR_FULL_422, RED throughout."""
    ds = _image(bits=8, samples=3, photometric="YBR_FULL_422")
    _encapsulate(ds, JPEG, JPEGBaseline8Bit)
    return ds


def video() -> Dataset:
    """An instance with the transfer syntax MPEG2, which the service does not transcode."""
    ds = _image(bits=8, samples=3, photometric="YBR_PARTIAL_420")
    _encapsulate(ds, b"\x00\x00\x01\xb3" + bytes(60), UID(MPEG2))
    return ds


def waveform() -> Dataset:
    """An instance with binary data inside a sequence."""
    item = Dataset()
    item.WaveformBitsAllocated = 16
    item.add_new("WaveformData", "OW", bytes(64))
    return plain(WaveformSequence=[item])


def part10(ds: Dataset) -> bytes:
    """A data set as a Part 10 file."""
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _image(bits: int, samples: int, photometric: str, **attributes: Any) -> Dataset:
    ds = plain(
        SamplesPerPixel=samples,
        PhotometricInterpretation=photometric,
        Rows=SIDE,
        Columns=SIDE,
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=0,
    )
    if samples > 1:
        ds.PlanarConfiguration = 0
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def _encapsulate(ds: Dataset, frame: bytes, syntax: UID) -> None:
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def _rle_frame(pixel: tuple[int, int, int]) -> bytes:
    """A frame of one colour: a segment for each sample, in runs of 128 (PS3.5 G)."""
    runs = SIDE * SIDE // 128
    segments = [bytes([257 - 128, sample]) * runs for sample in pixel]
    offsets = [64]
    for segment in segments[:-1]:
        offsets.append(offsets[-1] + len(segment))
    header = struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(offsets)))
    return header + b"".join(segments)

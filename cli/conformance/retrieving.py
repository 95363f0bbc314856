"""Questions about retrieving (WADO-RS), fact sheet section 5."""

import re
from typing import Any

from pydicom.uid import generate_uid

from cli.conformance import answers, scans
from cli.conformance.client import Probe, Reply, series_of, study_of
from cli.conformance.question import Answer, NotSeenError, asks

EXPLICIT = "1.2.840.10008.1.2.1"
FRAME = 'multipart/related; type="application/octet-stream"; transfer-syntax='


def _missing_paths(probe: Probe) -> dict[str, str]:
    """Paths of a study, series and instance that are not there; the study of the last two is."""
    ds = scans.plain()
    probe.stored(ds)
    return {
        "study": f"studies/{generate_uid()}",
        "series": f"{study_of(ds)}/series/{generate_uid()}",
        "instance": f"{series_of(ds)}/instances/{generate_uid()}",
    }


def _first_part(reply: Reply) -> answers.Part:
    """The first part of a multipart answer.

    Raises:
        NotSeenError: the answer has none.
    """
    for part in answers.parts(reply):
        return part
    raise NotSeenError(f"no multipart answer (status {reply.status})")


# Instances


@asks("5.1", {"type": "multipart/related", "syntax": EXPLICIT}, "DEFAULT_INSTANCE_SYNTAX")
def no_accept(probe: Probe) -> Answer:
    """An RLE instance without Accept: media type and the part's transfer syntax."""
    path = probe.stored(scans.rle())
    reply = probe.get(path, accept=None)
    syntax = answers.parameter(_first_part(reply).kind, "transfer-syntax")
    return {"type": answers.essence(reply.kind), "syntax": syntax}


@asks("5.1", "application/dicom; transfer-syntax=1.2.840.10008.1.2.5")
def single_part_as_stored(probe: Probe) -> Answer:
    """Content-Type of an RLE instance as a single part with transfer-syntax=*."""
    path = probe.stored(scans.rle())
    return probe.get(path, "application/dicom; transfer-syntax=*").kind


@asks("5.1", True)
def bytes_as_stored(probe: Probe) -> Answer:
    """Whether transfer-syntax=* gives the stored bytes."""
    ds = scans.grey()
    path = probe.stored(ds)
    reply = probe.get(path, "application/dicom; transfer-syntax=*")
    return reply.body == scans.part10(ds)


@asks("5.6", 406, "NOT_TRANSCODABLE")
def not_transcodable(probe: Probe) -> Answer:
    """Status of an MPEG2 instance in Explicit VR little endian."""
    path = probe.stored(scans.video())
    return probe.get(path, f"application/dicom; transfer-syntax={EXPLICIT}").status


@asks("5.7", {"status": 406, "text": True})
def not_acceptable(probe: Probe) -> Answer:
    """An Accept that nothing fits: status, and whether the text lists what does."""
    path = probe.stored(scans.plain())
    reply = probe.get(path, "text/plain")
    text = "no supported media type found in [" in answers.message(reply)
    return {"status": reply.status, "text": text}


@asks("5.7", 406)
def transfer_syntax_inside_the_type(probe: Probe) -> Answer:
    """Status of an Accept whose transfer-syntax is inside the quoted type."""
    path = probe.stored(scans.plain())
    accept = 'multipart/related; type="application/dicom; transfer-syntax=*"'
    return probe.get(path, accept).status


@asks("5.1", {"status": 200, "parts": 3}, "PIXELS_OF_INSTANCES")
def instance_as_png(probe: Probe) -> Answer:
    """An instance of three frames as `multipart/related; type="image/png"`: status and parts."""
    path = probe.stored(scans.grey(frames=3))
    reply = probe.get(path, 'multipart/related; type="image/png"')
    return {"status": reply.status, "parts": len(answers.parts(reply))}


# What is missing


@asks("5.8", {"study": 404, "series": 404, "instance": 404}, "MISSING")
def missing(probe: Probe) -> Answer:
    """Status of retrieving what is not there, at each level."""
    paths = _missing_paths(probe)
    return {level: probe.get(path).status for level, path in paths.items()}


@asks("5.8", "string")
def missing_form(probe: Probe) -> Answer:
    """Form of the error when an instance is not there."""
    paths = _missing_paths(probe)
    reply = probe.get(paths["instance"])
    return answers.envelope(reply)


@asks("5.4", {"study": 404, "series": 404, "instance": 404}, "MISSING")
def missing_metadata(probe: Probe) -> Answer:
    """Status of the metadata of what is not there, at each level."""
    paths = _missing_paths(probe)
    return {level: probe.get(f"{path}/metadata").status for level, path in paths.items()}


@asks("5.5", 404, "MISSING")
def missing_bulkdata(probe: Probe) -> Answer:
    """Status of the bulk data of an attribute that metadata holds inline."""
    path = probe.stored(scans.plain())
    return probe.get(f"{path}/bulkdata/00100010").status


# Frames


@asks("5.2", {"0": 400, "2": 400}, "FRAME_OUT_OF_RANGE")
def frame_out_of_range(probe: Probe) -> Answer:
    """Status of frames 0 and 2 of an instance with one frame."""
    path = probe.stored(scans.grey())
    return {
        "0": probe.get(f"{path}/frames/0").status,
        "2": probe.get(f"{path}/frames/2").status,
    }


@asks("5.2", 400)
def frame_without_pixels(probe: Probe) -> Answer:
    """Status of frame 1 of an instance without pixel data."""
    path = probe.stored(scans.plain())
    return probe.get(f"{path}/frames/1").status


@asks("5.2", "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50")
def frame_as_stored(probe: Probe) -> Answer:
    """Content-Type of the part when a JPEG frame is asked for as octet-stream, as stored."""
    path = probe.stored(scans.jpeg())
    reply = probe.get(f"{path}/frames/1", f"{FRAME}*")
    return _first_part(reply).kind


@asks("5.2", [], "PART_LOCATIONS")
def frame_headers(probe: Probe) -> Answer:
    """Further headers of a frame's part, besides Content-Type."""
    path = probe.stored(scans.grey())
    reply = probe.get(f"{path}/frames/1", f"{FRAME}*")
    part = _first_part(reply)
    return sorted(set(part.headers) - {"content-type"})


@asks("5.2", [32668], "SIGNED_PNG_RAISED")
def signed_frame_as_png(probe: Probe) -> Answer:
    """First sample of a PNG frame whose signed 16 bit pixels are -100."""
    path = probe.stored(scans.signed())
    reply = probe.get(f"{path}/frames/1", 'multipart/related; type="image/png"')
    part = _first_part(reply)
    return answers.png_pixel(part.body)


def _colours(reply: Reply) -> str:
    """Whether a decoded frame of RED is in RGB or in YCbCr."""
    pixel = tuple(_first_part(reply).body[:3])
    for name, wanted in (("RGB", scans.RED), ("YCbCr", scans.RED_YBR)):
        if len(pixel) == 3 and _near(pixel, wanted):
            return name
    return f"first bytes {list(pixel)}"


def _near(pixel: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    pairs = zip(pixel, wanted, strict=True)
    return all(abs(one - other) <= 6 for one, other in pairs)


@asks("5.2", "RGB", "DECODED_COLOURS")
def colours_of_rle(probe: Probe) -> Answer:
    """Colours of an RLE YBR_FULL frame as octet-stream in Explicit VR little endian."""
    path = probe.stored(scans.rle())
    reply = probe.get(f"{path}/frames/1", f"{FRAME}{EXPLICIT}")
    return _colours(reply)


@asks("5.2", "RGB", "DECODED_COLOURS")
def colours_of_jpeg(probe: Probe) -> Answer:
    """Colours of a JPEG YBR_FULL_422 frame as octet-stream in Explicit VR little endian."""
    path = probe.stored(scans.jpeg())
    reply = probe.get(f"{path}/frames/1", f"{FRAME}{EXPLICIT}")
    return _colours(reply)


# Rendered


@asks("5.3", 1, "RENDERED_MULTI_FRAME")
def rendered_multi_frame(probe: Probe) -> Answer:
    """Which frame `/rendered` of a multi-frame instance shows."""
    path = probe.stored(scans.grey(frames=3))
    reply = probe.get(f"{path}/rendered", "image/png")
    pixel = answers.png_pixel(reply.body)
    if pixel is None:
        raise NotSeenError("the service gave no PNG of 8 or 16 bits")
    distances = [abs(pixel[0] - shade) for shade in scans.SHADES]
    return distances.index(min(distances)) + 1


@asks("5.3", 400, "RENDERED_MULTI_FRAME")
def rendered_frame_list(probe: Probe) -> Answer:
    """Status of `/frames/1,2/rendered`."""
    path = probe.stored(scans.grey(frames=3))
    return probe.get(f"{path}/frames/1,2/rendered", "image/jpeg").status


@asks("9", 400, "MAX_VIEWPORT_PIXELS")
def large_viewport(probe: Probe) -> Answer:
    """Status of `/rendered` with a viewport of 9000 by 9000 pixels."""
    path = probe.stored(scans.grey())
    return probe.get(f"{path}/rendered?viewport=9000,9000", "image/jpeg").status


# Metadata and bulk data


def _metadata(probe: Probe, path: str) -> dict[str, Any]:
    return answers.first(probe.get(f"{path}/metadata"))


def _bulk_path(item: dict[str, Any], tag: str) -> str:
    """What follows the instance's path in an attribute's BulkDataURI."""
    uri = str(item.get(tag, {}).get("BulkDataURI", ""))
    return re.sub(r".*/instances/[^/]+/", "", uri)


@asks("5.4", ["00020002", "00020003", "00020010", "00020012", "00020013"])
def metadata_of_group_2(probe: Probe) -> Answer:
    """File meta information that metadata holds."""
    path = probe.stored(scans.grey())
    item = _metadata(probe, path)
    return sorted(tag for tag in item if tag.startswith("0002"))


@asks("5.4", 406, "JSON_IS_DICOM_JSON")
def metadata_as_json(probe: Probe) -> Answer:
    """Status of metadata with `Accept: application/json`."""
    path = probe.stored(scans.plain())
    return probe.get(f"{path}/metadata", "application/json").status


@asks("5.4", '<NativeDicomModel xml:space="preserve">', "METADATA_XML_ROOT")
def metadata_in_xml(probe: Probe) -> Answer:
    """How a part of metadata in XML begins."""
    path = probe.stored(scans.plain())
    accept = 'multipart/related; type="application/dicom+xml"'
    reply = probe.get(f"{path}/metadata", accept)
    part = _first_part(reply)
    text = part.body.decode("utf-8", "replace")
    return text.partition("<DicomAttribute")[0]


@asks("5.5", "bulkdata/7FE00010", "BULK_TRAILING_SLASH")
def bulkdata_uri(probe: Probe) -> Answer:
    """Path of the BulkDataURI of Pixel Data."""
    path = probe.stored(scans.grey())
    item = _metadata(probe, path)
    return _bulk_path(item, "7FE00010")


@asks("5.5", {"without": 200, "with": 200}, "BULK_TRAILING_SLASH")
def bulkdata_path_with_slash(probe: Probe) -> Answer:
    """Status of the bulk data of Pixel Data without and with a `/` at the end of the path."""
    instance = probe.stored(scans.grey())
    path = f"{instance}/bulkdata/7FE00010"
    return {
        "without": probe.get(path).status,
        "with": probe.get(f"{path}/").status,
    }


@asks("5.5", "bulkdata/54000100/0/54001010", "BULK_ITEM_BASE")
def bulkdata_uri_in_a_sequence(probe: Probe) -> Answer:
    """Path of the BulkDataURI of Waveform Data in the first item of its sequence."""
    path = probe.stored(scans.waveform())
    item = _metadata(probe, path)
    first = answers.value(item, "54000100") or {}
    return _bulk_path(first, "54001010")


@asks("5.5", "multipart/related")
def bulkdata_type(probe: Probe) -> Answer:
    """Media type of bulk data with `Accept: */*`."""
    path = probe.stored(scans.grey())
    reply = probe.get(f"{path}/bulkdata/7FE00010")
    return answers.essence(reply.kind)


@asks("5.5", "the frame's JPEG stream")
def bulkdata_of_compressed_pixels(probe: Probe) -> Answer:
    """What bulk data of a JPEG instance's Pixel Data is."""
    path = probe.stored(scans.jpeg())
    accept = "application/octet-stream; transfer-syntax=*"
    reply = probe.get(f"{path}/bulkdata/7FE00010", accept)
    if reply.status != 200:
        return f"status {reply.status}"
    if reply.body.startswith(b"\xff\xd8"):
        return "the frame's JPEG stream"
    if reply.body.startswith(b"\xfe\xff\x00\xe0"):
        return "items, as in the file"
    if len(reply.body) == scans.SIDE * scans.SIDE * 3:
        return "decoded pixels"
    return f"{len(reply.body)} other bytes"

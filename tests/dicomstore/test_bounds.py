"""No file makes the store use much memory or time beyond its documented limits: section 9.

The headers of a small file are checked before it is decoded, and its memory is limited: a request
on any file of at most 10 MB keeps the whole process below 512 MiB.
"""

import io
import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from infra.local.dicomstore import codestream
from infra.local.dicomstore.codestream import Claim, ClaimError
from tests.dicomstore.kit import (
    BUNDLED,
    ELE,
    OCTETS,
    ONE,
    Client,
    dataset,
    gradient,
    image,
    part10,
    process,
)

JPEG = "1.2.840.10008.1.2.4."
BASELINE = JPEG + "50"
JPEG_LS = JPEG + "80"
JPEG_2000 = JPEG + "90"
RLE = "1.2.840.10008.1.2.5"
XML = 'multipart/related; type="application/dicom+xml"'
LIMIT_MIB = 512
# Everything that reads pixels or attributes: a path, and what it accepts.
Reads = tuple[tuple[str, str], ...]
READS: Reads = (
    ("", f"application/dicom; transfer-syntax={ELE}"),
    ("", f"application/dicom; transfer-syntax={RLE}"),
    ("", f"application/dicom; transfer-syntax={BASELINE}"),
    ("", f"application/dicom; transfer-syntax={JPEG_LS}"),
    ("", f"application/dicom; transfer-syntax={JPEG_2000}"),
    ("", f"application/dicom; transfer-syntax={ELE}.99"),
    ("/frames/1", OCTETS + ELE),
    ("/frames/1", OCTETS + "*"),
    ("/frames/1", 'multipart/related; type="image/png"'),
    ("/rendered", "image/png"),
    ("/rendered", "image/jpeg"),
    ("/rendered?viewport=10000,10000", "image/jpeg"),
    ("/metadata", "*/*"),
    ("/metadata", XML),
    ("/bulkdata/7FE00010", "*/*"),
)
# The most expensive of each kind; a large file is scanned again for each.
SOME_READS: Reads = (
    ("", f"application/dicom; transfer-syntax={ELE}"),
    ("/frames/1", 'multipart/related; type="image/png"'),
    ("/rendered", "image/png"),
    ("/metadata", XML),
    ("/bulkdata/7FE00010", "*/*"),
)


class Watched:
    """A store in a separate process, whose memory is measured."""

    def __init__(self, client: Client, running: "subprocess.Popen[str]") -> None:
        self.client = client
        self._running = running

    def peak_mib(self) -> int:
        """The most memory that it has had, since `forget`."""
        status = Path(f"/proc/{self._running.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    def forget(self) -> None:
        """Start to measure again."""
        Path(f"/proc/{self._running.pid}/clear_refs").write_text("5")

    def statuses(self, file: bytes, reads: Reads) -> dict[tuple[str, str], int]:
        """Store a file and read it in these ways; the status of each answer."""
        found = {("POST", ""): self.client.post(file).status_code}
        for path, accept in reads:
            url = f"{self.client.web}/{ONE}{path}"
            with self.client.http.get(
                url, headers={"Accept": accept}, stream=True, timeout=120
            ) as answer:
                for _ in answer.iter_content(1 << 20):
                    pass
                found[path, accept] = answer.status_code
        self.client.delete(ONE)
        assert self._running.poll() is None, "the process ended"
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One process for all tests here: what one request leaves behind counts for the next."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory is read from /proc")
    with process(tmp_path_factory.mktemp("bounds"), stderr=subprocess.DEVNULL) as (client, running):
        yield Watched(client, running)


def damaged() -> bytes:
    """A file whose codestream is cut behind its header."""
    _, data = first_codestream("MR_small_jp2klossless.dcm")
    return compressed(data[:150], JPEG_2000, 64, 64, PatientName="Planted^Name")


def compressed(data: bytes, syntax: str, rows: int, columns: int, **attributes: Any) -> bytes:
    """A file whose only frame is this codestream."""
    ds = image(gradient(8, 8), **{"Rows": rows, "Columns": columns, **attributes})
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.PixelData = encapsulate([data])
    ds["PixelData"].VR = "OB"
    return part10(ds)


def jpeg(rows: int, columns: int) -> bytes:
    """A small JPEG that claims these dimensions."""
    file = io.BytesIO()
    Image.fromarray(gradient(64, 64)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", rows, columns)
    return bytes(data)


def segment(marker: int, content: bytes) -> bytes:
    """A marker segment of JPEG 2000; its length counts itself."""
    return struct.pack(">HH", marker, len(content) + 2) + content


def j2k(rows: int, columns: int, tile: int = 0, precincts: bytes = b"", layers: int = 1) -> bytes:
    """A JPEG 2000 codestream without data, which claims these dimensions and divisions."""
    size = struct.pack(">II", columns, rows)
    offset = bytes(8)
    tile_size = struct.pack(">II", tile or columns, tile or rows)
    component = bytes([7, 1, 1])  # 8 bits, not subsampled
    siz = bytes(2) + size + offset + tile_size + offset + struct.pack(">H", 1) + component
    levels = max(0, len(precincts) - 1)
    cod = bytes([bool(precincts), 0]) + struct.pack(">HB", layers, 0)
    cod += bytes([levels, 4, 4, 0, 1]) + precincts
    subbands = 1 + 3 * levels
    qcd = b"\x40" + b"\x48" * subbands
    start_of_tile = struct.pack(">HIBB", 0, 0, 0, 1)
    return b"".join(
        [
            b"\xff\x4f",
            segment(0xFF51, siz),
            segment(0xFF52, cod),
            segment(0xFF5C, qcd),
            segment(0xFF90, start_of_tile),
            b"\xff\x93",
            bytes(64),
            b"\xff\xd9",
        ]
    )


def rle(segment: bytes) -> bytes:
    """RLE data of one segment."""
    return struct.pack("<16I", 1, 64, *([0] * 14)) + segment


def deflated(size: int) -> bytes:
    """A file of about a thousandth of its inflated size."""
    ds = image(gradient(8, 8))
    ds.PixelData = bytes(8)
    head = part10(ds)
    start = head.index(b"\x08\x00\x16\x00UI")
    pixels = head.index(b"\xe0\x7f\x10\x00")
    meta = head[:start].replace(ELE.encode() + b"\0", (ELE + ".99").encode())
    # Group 0002 is two bytes longer: the length of the transfer syntax, and that of the group.
    at = meta.index(b"\x02\x00\x10\x00UI") + 6
    meta = meta[:at] + struct.pack("<H", 22) + meta[at + 2 :]
    group = struct.unpack_from("<I", meta, 140)[0] + 2
    meta = meta[:140] + struct.pack("<I", group) + meta[144:]
    deflater = zlib.compressobj(wbits=-15)
    body = deflater.compress(
        head[start:pixels] + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", size)
    )
    for _ in range(size >> 20):
        body += deflater.compress(bytes(1 << 20))
    return meta + body + deflater.flush()


def items(count: int) -> bytes:
    """A file with a sequence of empty items."""
    body = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    head = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, len(body))
    return part10(dataset()) + head + body


def elements(sequences: int, each: int) -> bytes:
    """A file with private sequences of one item of many empty elements."""
    inner = b"".join(
        struct.pack("<HH2sH", 0x0041 + 2 * (n >> 15), n & 0x7FFF | 0x1000, b"LO", 0)
        for n in range(each)
    )
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    found = [part10(dataset())]
    for n in range(sequences):
        found.append(struct.pack("<HH2sHI", 0x0041, 0x1000 + n, b"SQ", 0, len(item)) + item)
    return b"".join(found)


HUGE = 60_000
CLAIMS: dict[str, Callable[[], bytes]] = {
    "JPEG 2000 larger than the data set": lambda: compressed(j2k(HUGE, HUGE), JPEG_2000, 8, 8),
    "JPEG 2000 as large as the data set": lambda: compressed(
        j2k(HUGE, HUGE), JPEG_2000, HUGE, HUGE
    ),
    "JPEG 2000 of one pixel a tile": lambda: compressed(j2k(256, 250, 1), JPEG_2000, 256, 250),
    "JPEG 2000 of one pixel a precinct": lambda: compressed(
        j2k(5000, 5000, 0, bytes(6)), JPEG_2000, 5000, 5000
    ),
    "JPEG larger than the data set": lambda: compressed(jpeg(HUGE, HUGE), BASELINE, 8, 8),
    "JPEG as large as the data set": lambda: compressed(jpeg(HUGE, HUGE), BASELINE, HUGE, HUGE),
    "RLE longer than its frame": lambda: compressed(rle(b"\x81\0" * 4_900_000), RLE, 8, 8),
    "RLE as long as its frame": lambda: compressed(rle(b"\x81\0" * 4_900_000), RLE, HUGE, 10_453),
    "RLE of four samples where three are": lambda: compressed(
        struct.pack("<16I", 4, 64, 66, 68, 70, *([0] * 11)) + b"\x81\0" * 4,
        RLE,
        8,
        8,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
    ),
}


@pytest.mark.parametrize("what", sorted(CLAIMS))
def test_a_codestream_that_claims_too_much_is_406_and_costs_nothing(
    watched: Watched, what: str
) -> None:
    file = CLAIMS[what]()
    assert len(file) < 10_000_000
    watched.forget()
    found = watched.statuses(file, READS)
    assert found["POST", ""] == 200
    assert found["/frames/1", OCTETS + "*"] == 200
    decoding = {found[path, accept] for path, accept in READS if path.startswith("/rendered")}
    assert decoding <= {400, 406}
    assert watched.peak_mib() < 300


LARGE: dict[str, Callable[[], bytes]] = {
    "deflated to 300 MB": lambda: deflated(300 << 20),
    "native": lambda: part10(image(np.zeros((3000, 3000), np.uint8))),
    "JPEG": lambda: compressed(_jpeg_of(7700), BASELINE, 7700, 7700),
    "RLE": lambda: compressed(rle(b"\x81\0" * 450_000), RLE, 7200, 8000),
    "empty items": lambda: items(1_200_000),
    "empty elements": lambda: elements(27, 45_000),
    "many frames": lambda: _many_frames(60_000),
}


def _jpeg_of(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), 90, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def _many_frames(count: int) -> bytes:
    """RLE frames of 16 KB decoded and 256 bytes stored."""
    ds: Dataset = image(np.zeros((2, 128, 128), np.uint8), NumberOfFrames=count)
    ds.file_meta.TransferSyntaxUID = UID(RLE)
    ds.PixelData = encapsulate([rle(b"\x81\0" * 128)] * 12_000, has_bot=False)
    ds["PixelData"].VR = "OB"
    return part10(ds)


@pytest.mark.serial
@pytest.mark.parametrize("what", sorted(LARGE))
def test_9_a_file_of_10_mb_never_takes_more_than_512_mib(watched: Watched, what: str) -> None:
    file = LARGE[what]()
    assert len(file) < 10_000_000
    watched.forget()
    found = watched.statuses(file, SOME_READS)
    assert set(found.values()) <= {200, 400, 404, 406, 409}
    assert watched.peak_mib() < LIMIT_MIB


def mutated(random_: random.Random, file: bytes) -> bytes:
    """A file with some bytes changed or left out, most of them around its pixels."""
    data = bytearray(file)
    pixels = max(132, data.find(b"\xe0\x7f\x10\x00"))
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        at = random_.randrange(132, len(data))
        if random_.random() < 0.6:
            at = min(len(data) - 8, pixels + random_.randrange(400))
        kind = random_.randrange(5)
        if kind == 0:
            data[at] = random_.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << random_.randrange(8)
        elif kind == 2:
            data[at : at + 4] = b"\xff\xff\xff\x7f"
        elif kind == 3:
            data[at : at + 2] = b"\xff\xff"
        else:
            del data[at : at + random_.randrange(1, 9)]
    return bytes(data)


def seeds() -> list[bytes]:
    """Files of every transfer syntax, small enough to be changed many times."""
    return [
        path.read_bytes() for path in sorted(BUNDLED.glob("*.dcm")) if path.stat().st_size < 300_000
    ]


def test_no_damaged_file_is_answered_with_another_status_or_much_memory(watched: Watched) -> None:
    random_ = random.Random(20_261_124)
    originals = seeds()
    stored = 0
    watched.forget()
    for number in range(150):
        file = mutated(random_, random_.choice(originals))
        answer = watched.client.post(file, Accept="application/dicom+json")
        assert answer.status_code in (200, 409), number
        if answer.status_code != 200:
            continue
        stored += 1
        (item,) = answer.json()["00081199"]["Value"]
        url = item["00081190"]["Value"][0]
        for path, accept in READS:
            status = watched.client.get(url + path, accept).status_code
            assert status in (200, 400, 404, 406), (number, path, accept)
        watched.client.http.delete(url, timeout=60)
    assert stored > 30
    assert watched.peak_mib() < LIMIT_MIB


@pytest.mark.parametrize("name", ["frames/1", "rendered", ""])
def test_5_8_undecodable_pixels_are_406_in_the_form_of_the_api(store: Client, name: str) -> None:
    store.stored(damaged())
    accept = "application/dicom" if not name else "*/*"
    answer = store.get(f"{ONE}/{name}".rstrip("/"), accept)
    assert answer.status_code == 406
    (body,) = answer.json()
    assert body["error"]["code"] == 406
    assert body["error"]["status"] == "INVALID_ARGUMENT"
    assert "Planted" not in answer.text


def test_a_codec_that_fails_is_one_line_on_stderr_without_values(tmp_path: Path) -> None:
    with process(tmp_path, stderr=subprocess.STDOUT) as (client, running):
        client.stored(damaged())
        assert client.get(f"{ONE}/rendered").status_code == 406
        running.terminate()
        assert running.stdout
        lines = running.stdout.read().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pixels: ")
    assert "Planted" not in lines[0]


# --- the readers of claims ---


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (BASELINE, "SC_rgb_jpeg_dcmtk.dcm"),
        (JPEG + "70", "SC_rgb_jpeg_gdcm.dcm"),
        (JPEG_LS, "MR_small_jpeg_ls_lossless.dcm"),
        (JPEG_2000, "MR_small_jp2klossless.dcm"),
        (RLE, "SC_rgb_rle_16bit.dcm"),
    ],
)
def test_headers_of_real_codestreams_match_their_data_sets(syntax: str, name: str) -> None:
    ds, data = first_codestream(name)
    claim = Claim(ds.Rows, ds.Columns, ds.SamplesPerPixel)
    assert codestream.checked(syntax, data, claim, ds.BitsAllocated) == data


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (BASELINE, "SC_rgb_jpeg_dcmtk.dcm"),
        (JPEG_LS, "MR_small_jpeg_ls_lossless.dcm"),
        (JPEG_2000, "MR_small_jp2klossless.dcm"),
        (RLE, "SC_rgb_rle_16bit.dcm"),
    ],
)
def test_a_codestream_cut_anywhere_in_its_header_is_refused(syntax: str, name: str) -> None:
    ds, data = first_codestream(name)
    claim = Claim(ds.Rows, ds.Columns, ds.SamplesPerPixel)
    for length in range(12):
        with pytest.raises(ClaimError):
            codestream.checked(syntax, data[:length], claim, ds.BitsAllocated)


def first_codestream(name: str) -> tuple[Dataset, bytes]:
    """A data set of pydicom's, and its first frame as it is stored."""
    ds = pydicom.dcmread(BUNDLED / name)
    return ds, next(generate_frames(ds.PixelData, number_of_frames=1))


def test_the_wrapper_of_a_jp2_file_is_taken_off() -> None:
    inner = j2k(64, 64)
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 8 + len(inner), b"jp2c") + inner
    assert codestream.checked(JPEG_2000, boxes, Claim(64, 64, 1), 8) == inner


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(ClaimError):
        data = j2k(2000, 2000, precincts=b"\x55", layers=65_535)
        codestream.checked(JPEG_2000, data, Claim(2000, 2000, 1), 8)

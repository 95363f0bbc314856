"""Headers of pydicom's own files and of made ones, cut, damaged and hostile."""

import io
import struct
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.common.dicom import part10
from functions.common.errors import NothingToStoreError, PermanentError, RetryableError
from functions.common.resources import is_uid
from tests import scans

UIDS = ("1.2", "1.2.3", "1.2.3.4")
DATA = Path(pydicom.__file__).parent / "data"
FILES = sorted((*(DATA / "test_files").rglob("*.dcm"), *(DATA / "charset_files").rglob("*.dcm")))
SYNTAXES = (scans.EXPLICIT, scans.IMPLICIT, scans.BIG_ENDIAN, scans.DEFLATED)
KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def by_pydicom(data: bytes) -> tuple[str, ...] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    uids = tuple(str(found.get(keyword, "")) for keyword in KEYWORDS)
    return uids if all(map(is_uid, uids)) else None


def by_us(data: bytes, size: int) -> tuple[str, ...] | None:
    try:
        resource = part10.read_header(pieces(data, size)).resource
    except PermanentError as error:
        assert error.reason == "unsupported_input"
        return None
    return resource.study, resource.series, resource.instance


# Big endian without group 2 and without preamble: nothing in it says what it is, and pydicom
# guesses.
@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name != "ExplVR_BigEndNoMeta.dcm"], ids=lambda p: p.name
)
def test_it_agrees_with_pydicom(path: Path) -> None:
    data = path.read_bytes()
    assert by_us(data, 1 << 16) == by_us(data, 997) == by_pydicom(data)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_every_encoding_in_pieces_of_any_size(syntax: str, size: int) -> None:
    header = part10.read_header(pieces(scans.dicom(UIDS, syntax=syntax), size))
    assert (header.resource.study, header.resource.series, header.resource.instance) == UIDS
    assert header.transfer_syntax == syntax


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_cut_file_needs_more_bytes_or_is_unreadable(syntax: str) -> None:
    data = scans.dicom(UIDS, syntax=syntax)
    for end in range(len(data) - 30):
        with pytest.raises((part10.MoreNeededError, PermanentError)):
            if part10.read_header([data[:end]], whole=False).resource:
                raise part10.MoreNeededError  # found before the cut: as good
        assert by_us(data[:end], 1 << 20) in (None, UIDS)


def nested(depth: int, syntax: str) -> bytes:
    """A private sequence in a sequence, `depth` times; no length is said."""
    order = ">" if syntax == scans.BIG_ENDIAN else "<"
    begin = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end_of_item = struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0)
    end_of_sequence = struct.pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0)
    inner = b""
    if depth > 0:
        inner = nested(depth - 1, syntax)
    value = begin + inner + end_of_item + end_of_sequence
    return scans.element(0x00091001, "SQ", value, syntax, undefined=True)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_sequences_of_undefined_length_are_read_up_to_a_depth(syntax: str) -> None:
    assert by_us(scans.dicom(UIDS, syntax=syntax, private=nested(20, syntax)), 4096) == UIDS
    assert by_us(scans.dicom(UIDS, syntax=syntax, private=nested(400, syntax)), 4096) is None


def test_a_sequence_of_countless_items_is_given_up_before_it_takes_memory() -> None:
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    begin = scans.dicom(UIDS)
    begin = begin[: begin.index(b"\x10\x00\x10\x00PN")]
    taken = 0

    def read() -> Iterator[bytes]:
        nonlocal taken
        yield begin + b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff"
        for _ in range(10_000):
            taken += 1
            yield item * 1000

    with pytest.raises(PermanentError, match="unsupported_input"):
        part10.read_header(read())
    assert taken < 100


def bomb(size: int) -> bytes:
    """A deflated file with a private element of this size before its UIDs."""
    private = b"\x09\x00\x01\x10OB\0\0" + size.to_bytes(4, "little") + bytes(size)
    return scans.dicom(UIDS, syntax=scans.DEFLATED, private=private)


def test_a_deflated_file_is_inflated_up_to_a_limit() -> None:
    assert by_us(bomb(1_000_000), 1 << 16) == UIDS
    hostile = bomb(200_000_000)
    taken = 0

    def read() -> Iterator[bytes]:
        nonlocal taken
        for piece in pieces(hostile, 4096):
            taken += len(piece)
            yield piece

    tracemalloc.start()
    with pytest.raises(PermanentError, match="unsupported_input"):
        part10.read_header(read())
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert taken < len(hostile) / 20


TWICE = {"study": 0x0020000D, "series": 0x0020000E, "instance": 0x00080018}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("tag", TWICE.values(), ids=TWICE.keys())
@pytest.mark.parametrize("size", [7, 1 << 20])
def test_an_identifying_element_that_occurs_twice_is_refused(
    syntax: str, tag: int, size: int
) -> None:
    again = scans.element(tag, "UI", b"1.9", syntax)
    data = scans.dicom(UIDS, syntax=syntax, private=again)
    with pytest.raises(PermanentError) as caught:
        part10.read_header(pieces(data, size))
    assert caught.value.reason == "unsupported_input"
    assert caught.value.detail == "a UID occurs twice"


def test_the_uids_of_other_instances_in_a_sequence_are_not_this_one_s() -> None:
    reference = scans.element(0x00080018, "UI", b"1.9") + scans.element(0x0020000D, "UI", b"1.9")
    item = b"\xfe\xff\x00\xe0" + len(reference).to_bytes(4, "little") + reference
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    sequence = scans.element(0x00081140, "SQ", item + end, undefined=True)
    assert by_us(scans.dicom(UIDS, private=sequence), 1 << 16) == UIDS


@pytest.mark.parametrize("inside_a_sequence", [False, True])
def test_an_error_of_the_source_is_not_reported_as_one_of_the_file(inside_a_sequence: bool) -> None:
    def read() -> Iterator[bytes]:
        private = b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff" if inside_a_sequence else b""
        data = scans.dicom(UIDS, private=private)
        yield data[: data.index(b"\x10\x00\x10\x00PN")]
        raise RetryableError("unavailable")

    with pytest.raises(RetryableError, match="unavailable"):
        part10.read_header(read())


def test_nothing_of_a_file_is_printed() -> None:
    code = (
        "import sys; from functions.common.dicom import part10;"
        " print(part10.read_header([sys.stdin.buffer.read()]).resource.instance)"
    )
    bad = scans.element(0x00080005, "CS", b"DOE JANE") + scans.element(0x00080020, "DA", b"DOEJANE")
    data = scans.dicom(UIDS, private=bad)
    data = data.replace(b"ISO_IR 192", b"DOE_JANE  ").replace(b"1.2.3.4\0", b"1.2.3.4 ", 1)
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        cwd=Path(__file__).parents[2],
        input=data,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"1.2.3.4\n"
    assert done.stderr == b""


def test_an_unknown_of_undefined_length_holds_implicit_items() -> None:
    inner = nested(3, scans.IMPLICIT)[8:]
    private = b"\x09\x00\x01\x10UN\0\0\xff\xff\xff\xff" + inner
    assert by_us(scans.dicom(UIDS, private=private), 100) == UIDS


def test_a_private_element_of_many_megabytes_is_not_kept() -> None:
    head = scans.dicom(UIDS)
    at = head.index(b"\x10\x00\x10\x00PN")
    big = 64 * 1024 * 1024

    def read() -> Iterator[bytes]:
        yield head[:at] + b"\x09\x00\x01\x10OB\0\0" + big.to_bytes(4, "little")
        for _ in range(big // 65536):
            yield bytes(65536)
        yield head[at:]

    tracemalloc.start()
    assert part10.read_header(read()).resource.instance == UIDS[2]
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_dicomdir_is_nothing_to_store() -> None:
    with pytest.raises(NothingToStoreError):
        part10.read_header([scans.meta(sop_class="1.2.840.10008.1.3.10")])


@settings(max_examples=150)
@given(st.binary(max_size=600), st.sampled_from(SYNTAXES), st.integers(1, 50))
def test_any_bytes_end_in_a_header_or_one_reason(data: bytes, syntax: str, size: int) -> None:
    by_us(data, size)
    by_us(scans.meta(syntax) + data, size)


@settings(max_examples=150)
@given(st.data(), st.sampled_from(SYNTAXES))
def test_damage_never_returns_other_uids_than_written(data: st.DataObject, syntax: str) -> None:
    file = bytearray(scans.dicom(UIDS, syntax=syntax, private=nested(2, syntax)))
    at = data.draw(st.integers(132, len(file) - 1))
    file[at] = data.draw(st.integers(0, 255))
    found = by_us(bytes(file), 64)
    if found is None:
        return
    assert all(map(is_uid, found))
    if syntax != scans.DEFLATED:
        assert all(uid.encode() in file for uid in found)

"""multipart/related as it arrives: cut anywhere, with any boundary, broken off."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.common.dicom import multipart
from functions.common.errors import RetryableError

TYPE = 'multipart/related; type="application/dicom"; boundary={}'


def body(
    parts: list[bytes],
    boundary: str,
    head: bytes = b"Content-Type: application/dicom",
    tail: bytes = b"",
) -> bytes:
    mark = b"--" + boundary.encode()
    return (
        b"".join(mark + b"\r\n" + head + b"\r\n\r\n" + part + b"\r\n" for part in parts)
        + mark
        + b"--"
        + tail
    )


def read(data: bytes, sizes: list[int], boundary: str) -> list[bytes]:
    chunks = list[bytes]()
    at = 0
    while at < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[at : at + size])
        at += size
    found: list[bytes] = []
    ended = 0
    for piece in multipart.read(chunks, TYPE.format(boundary)):
        if isinstance(piece, multipart.PartStart):
            found.append(b"")
        elif isinstance(piece, bytes):
            found[-1] += piece
        else:
            ended += 1
    assert ended == len(found)
    return found


@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=5),
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
    st.sampled_from(["b", "a" * 48, "--x--", "0123456789abcdef"]),
)
def test_parts_come_whole_however_the_body_is_cut(
    parts: list[bytes], sizes: list[int], boundary: str
) -> None:
    delimiter = b"\r\n--" + boundary.encode()
    parts = [part.replace(delimiter, b"").replace(b"--" + boundary.encode(), b"") for part in parts]
    assert read(body(parts, boundary), sizes, boundary) == parts


def test_almost_boundaries_inside_a_part_are_data() -> None:
    boundary = "a" * 20
    tricky = b"\r\n--" + b"a" * 19 + b"\r\n-" + b"\r\n--aaa\r" + b"-" * 30 + b"\r\n\r\n"
    data = body([tricky, tricky * 50, b""], boundary)
    for size in range(1, 60):
        assert read(data, [size], boundary) == [tricky, tricky * 50, b""]


def test_a_preamble_and_an_epilogue_are_passed_over() -> None:
    data = b"something\r\n" + body([b"one"], "xyz", tail=b"\r\nsomething else --xyz")
    for size in (1, 3, 7, 1000):
        assert read(data, [size], "xyz") == [b"one"]


def test_a_boundary_within_a_line_of_the_preamble_is_text() -> None:
    data = b"one --xyz in a line, --xyz\r\n" + body([b"one"], "xyz")
    for size in (1, 7, 1000):
        assert read(data, [size], "xyz") == [b"one"]


def test_a_body_that_ends_anywhere_before_its_closing_boundary_is_broken() -> None:
    data = body([b"one" * 30, b"two" * 30], "xyz")
    for end in range(len(data) - 2):
        with pytest.raises(RetryableError):
            read(data[:end], [13], "xyz")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "multipart/related",
        "text/html; charset=utf-8",
        "",
        f"multipart/related; boundary={'b' * 300}",
    ],
)
def test_what_is_not_multipart_is_broken(content_type: str) -> None:
    with pytest.raises(RetryableError):
        list(multipart.read([b"<html>"], content_type))


def test_a_part_may_have_more_and_longer_headers_than_a_form() -> None:
    lines = [f"X-{number}: y".encode() for number in range(20)]
    head = b"\r\n".join([*lines, b"Content-Location: " + b"z" * 10_000])
    assert read(body([b"one"], "xyz", head), [100], "xyz") == [b"one"]


def test_a_header_without_end_is_broken() -> None:
    with pytest.raises(RetryableError):
        list(multipart.read([b"--b\r\nX: " + b"y" * 100_000], TYPE.format("b")))


def test_headers_without_number_are_broken() -> None:
    with pytest.raises(RetryableError):
        list(multipart.read([b"--b\r\n", *[b"X: y\r\n"] * 100], TYPE.format("b")))


def test_a_preamble_without_end_is_broken() -> None:
    with pytest.raises(RetryableError):
        list(multipart.read([b"x" * 30_000] * 10, TYPE.format("b")))


def test_many_parts_of_random_bytes() -> None:
    chance = random.Random(1)
    parts = [chance.randbytes(chance.randrange(100_000)) for _ in range(60)]
    boundary = multipart.new_boundary()
    assert read(body(parts, boundary), [65_536, 1, 4096], boundary) == parts


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Multipart/Related; type="application/dicom"; boundary="a;b c"',
            ("multipart/related", "a;b c"),
        ),
        ("multipart/related; boundary=abc; type=application/dicom", ("multipart/related", "abc")),
        ("multipart/related;BOUNDARY=abc;x=y", ("multipart/related", "abc")),
    ],
)
def test_media_types(header: str, expected: tuple[str, str]) -> None:
    kind, parameters = multipart.media_type(header)
    assert (kind, parameters["boundary"]) == expected

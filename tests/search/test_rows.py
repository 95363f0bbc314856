"""Rows of DICOM JSON, read wherever the answer is cut into pieces."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.search.rows import MalformedError, Urls, joined, rewritten, split, spreadsheet

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=6)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@given(ROWS, st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_rows_are_read_wherever_the_pieces_are_cut(
    rows: list[dict[str, Any]], size: int, escaped: bool, indent: int | None
) -> None:
    data = json.dumps(rows, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    found = list(split(pieces(data, size)))
    assert [row for _, row in found] == rows
    assert json.loads(b"".join(joined(text for text, _ in found))) == rows


@pytest.mark.parametrize(
    "data",
    [
        b'[{"a":1}',
        b'[{"a":1},',
        b'[{"a":1},]',
        b"[1]",
        b'{"a":1}',
        b"[]]",
        b"<html>",
        b'[{"a":1} {"b":2}]',
        b'[{"a":',
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_no_array_of_objects_is_malformed(data: bytes, size: int) -> None:
    with pytest.raises(MalformedError):
        list(split(pieces(data, size)))


def test_text_that_is_not_utf8_is_malformed_and_nothing_is_an_empty_array() -> None:
    for data in (b'[{"a":"\xff"}]', b'[{"a":"\xc3'):
        with pytest.raises(MalformedError):
            list(split([data]))
    for data in (b"", b" \n", b"[]", b"[ ]"):
        assert list(split([data])) == []
        assert b"".join(joined([])) == b"[]"


@given(st.integers(1, 30), st.text('ab/http:." s1v', max_size=60))
def test_urls_are_replaced_wherever_the_pieces_are_cut(size: int, text: str) -> None:
    between = text.encode() + b'"'
    beginnings = (
        b"http://a/v1/s/dicomWeb/",
        b"https://b.example:8443/v1beta1/s/dicomWeb/",
        b"http://a/v1/t/dicomWeb/",
    )
    data = between.join([b"", *(beginning + b"x" for beginning in beginnings), b""])
    expected = between.join([b"", b"https://me/x", b"https://me/x", beginnings[2] + b"x", b""])
    assert (
        b"".join(rewritten(pieces(data, size), Urls(("/v1", "/v1beta1"), "s"), b"https://me/"))
        == expected
    )


def test_a_url_may_have_the_longest_host_there_is() -> None:
    url = b"https://" + b"h" * 254 + b":65535/v1beta1/s/dicomWeb/"
    data = b"x" * 1000 + url + b"y" * 1000
    for size in (1, 7, 500, 5000):
        urls = Urls(("/v1", "/v1beta1"), "s")
        assert (
            b"".join(rewritten(pieces(data, size), urls, b"/")) == b"x" * 1000 + b"/" + b"y" * 1000
        )


def test_a_spreadsheet_opens_as_text() -> None:
    rows: list[dict[str, Any]] = [
        {
            "1": {"vr": "PN", "Value": [{"Alphabetic": "Müller^J"}]},
            "2": {"vr": "CS", "Value": ["A", "B"]},
        },
        {"1": {"vr": "LO", "Value": ["=cmd()"]}, "2": {"vr": "LO", "Value": ['say "hi", you\n']}},
        {"1": {"vr": "LO", "Value": ["-5"]}, "2": {"vr": "LO"}},
        {
            "1": {"vr": "LO", "Value": ["@x"]},
            "2": {"vr": "SQ", "Value": [{"3": {"vr": "LO"}}, None]},
        },
    ]
    data = b"".join(spreadsheet(rows, [("1", "First"), ("2", "Second")]))
    assert data.startswith(b"\xef\xbb\xbf")
    assert list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))) == [
        ["First", "Second"],
        ["Müller^J", "A\\B"],
        ["'=cmd()", 'say "hi", you\n'],
        ["-5", ""],
        ["'@x", "…\\"],
    ]

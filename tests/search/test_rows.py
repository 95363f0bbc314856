"""Rows of DICOM JSON, read wherever the answer is cut into pieces."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from functions.search.rows import Urls, joined, rewritten, spreadsheet


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def test_rows_are_joined_to_an_array() -> None:
    assert b"".join(joined([])) == b"[]"
    assert b"".join(joined(['{"a":1}', '{"b":2}'])) == b'[{"a":1},{"b":2}]'


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

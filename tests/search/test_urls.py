"""The store's URLs, replaced wherever an answer is cut into pieces."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.search.urls import StoreUrls

URLS = StoreUrls(("/v1", "/v1beta1"), "s")


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


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
    assert b"".join(URLS.replaced_in_chunks(pieces(data, size), b"https://me/")) == expected


@pytest.mark.parametrize("size", [1, 7, 500, 5000])
def test_a_url_may_have_the_longest_host_there_is(size: int) -> None:
    url = b"https://" + b"h" * 254 + b":65535/v1beta1/s/dicomWeb/"
    data = b"x" * 1000 + url + b"y" * 1000
    expected = b"x" * 1000 + b"/" + b"y" * 1000
    assert b"".join(URLS.replaced_in_chunks(pieces(data, size), b"/")) == expected

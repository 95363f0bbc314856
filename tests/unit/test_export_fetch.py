"""Metadata as it arrives: an array cut anywhere gives its objects as they were sent, or is
broken."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.common.errors import RetryableError
from functions.export.fetch import _bulkdata_paths, split_array

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), _VALUES, max_size=4), max_size=6),
    st.integers(1, 40),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_objects_come_whole_however_the_body_is_cut(
    items: list[Any], size: int, indent: int | None, ascii_: bool
) -> None:
    data = json.dumps(items, indent=indent, ensure_ascii=ascii_).encode(errors="surrogatepass")
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(RetryableError):
            list(split_array(iter(chunks)))
        return
    assert [json.loads(text) for text in split_array(iter(chunks))] == items


def test_an_array_that_is_cut_is_broken() -> None:
    data = json.dumps([{"a": [1, {"b": "}]"}]}, {"c": "é"}], ensure_ascii=False).encode()
    for end in range(len(data)):
        with pytest.raises(RetryableError):
            list(split_array(iter([data[:end]])))


@pytest.mark.parametrize(
    "data", [b"", b"<html></html>", b"null", b'{"a": 1}', b"[1, 2]", b'"x"', b"\xff\xfe"]
)
def test_what_is_no_array_of_objects_is_broken(data: bytes) -> None:
    with pytest.raises(RetryableError):
        list(split_array(iter([data])))


def test_only_the_checked_path_of_a_bulk_data_uri_is_used() -> None:
    base = "https://elsewhere.example/v1/projects/p/dicomStores/s/dicomWeb/studies/1/series/2/instances/3/bulkdata"
    dataset = {
        "7FE00010": {"vr": "OW", "BulkDataURI": f"{base}/7FE00010"},
        "00400100": {
            "vr": "SQ",
            "Value": [{"00100010": {"vr": "OB", "BulkDataURI": f"{base}/00400100/0/00100010"}}],
        },
        "00420011": {"vr": "OB", "BulkDataURI": f"{base}/../../4/metadata"},
        "00420012": {"vr": "OB", "BulkDataURI": 7},
        "00420013": {"vr": "OB", "BulkDataURI": "7FE00010"},
    }
    assert sorted(_bulkdata_paths(dataset)) == ["", "", "", "00400100/0/00100010", "7FE00010"]

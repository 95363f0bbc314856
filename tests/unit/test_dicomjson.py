"""DICOM JSON: an array read wherever it is cut, and values of a data set that may hold anything."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import data_sets
from functions.common.errors import RetryableError
from functions.common.resources import Resource

LIMIT = 1_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FINITE_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DATA_SETS = st.lists(st.dictionaries(st.text(), FINITE_JSON, max_size=4), max_size=6)
DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@given(DATA_SETS, st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_an_array_is_read_wherever_the_pieces_are_cut(
    expected: list[dict[str, Any]], size: int, escaped: bool, indent: int | None
) -> None:
    data = json.dumps(expected, ensure_ascii=escaped, indent=indent)
    encoded = data.encode("utf-8", "surrogatepass")
    try:
        encoded.decode()
    except UnicodeDecodeError:
        with pytest.raises(RetryableError):
            list(data_sets(pieces(encoded, size), LIMIT))
        return
    found = list(data_sets(pieces(encoded, size), LIMIT))
    assert [value for _, value in found] == expected
    assert [json.loads(text) for text, _ in found] == expected


def test_each_text_is_the_sent_one() -> None:
    first = '{"a" : "\\u00e9"}'
    second = '{"b":1.50}'
    found = data_sets([f" [ {first} ,{second}]\n".encode()], LIMIT)
    assert [text for text, _ in found] == [first, second]


@pytest.mark.parametrize("data", [b"", b" \n", b"[]", b"[ ]"])
def test_nothing_is_an_empty_array(data: bytes) -> None:
    assert list(data_sets([data], LIMIT)) == []


@pytest.mark.parametrize(
    "data",
    [
        b'[{"a":1},',
        b'[{"a":1},]',
        b"[1]",
        b'{"a":1}',
        b"[]]",
        b"[] {}",
        b"null",
        b'"x"',
        b"<html>",
        b'[{"a":1} {"b":2}]',
        b'[{"a":1,}]',
        b'[{"a":"\xff"}]',
        b'[{"a":"\xc3',
        b"[" + DEEP + b"]",
        b'[{"a":' + b"9" * 5000 + b"}]",
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1_000_000])
def test_what_is_not_an_array_of_objects_is_broken(data: bytes, size: int) -> None:
    with pytest.raises(RetryableError):
        list(data_sets(pieces(data[:400_000], size), LIMIT))


def test_an_array_that_is_cut_is_broken_wherever_the_cut_is() -> None:
    data = json.dumps([{"a": [1, {"b": "}]"}]}, {"c": "é"}], ensure_ascii=False).encode()
    for end in range(1, len(data)):
        with pytest.raises(RetryableError):
            list(data_sets([data[:end]], LIMIT))


def test_an_object_over_the_limit_is_refused_before_more_of_it_is_read() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield b'[{"a":"'
        while True:
            taken += 1000
            yield b"x" * 1000

    with pytest.raises(RetryableError):
        list(data_sets(endless(), 100_000))
    assert taken <= 102_000


def test_the_objects_before_a_broken_one_are_given() -> None:
    found = data_sets(pieces(b'[{"a":1},{"b":2}' + b" oops", 7), LIMIT)
    assert [next(found)[1], next(found)[1]] == [{"a": 1}, {"b": 2}]
    with pytest.raises(RetryableError):
        next(found)


def test_a_large_object_is_not_read_again_for_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    decode = json.JSONDecoder.raw_decode

    def counting(self: json.JSONDecoder, text: str, at: int = 0) -> tuple[Any, int]:
        nonlocal tried
        tried += len(text) - at
        return decode(self, text, at)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counting)
    data = b'[{"a":"' + b"x" * 4_000_000 + b'"}]'
    assert len(list(data_sets(pieces(data, 1000), 8_000_000))) == 1
    assert tried < 4 * len(data)


@given(JSON)
def test_no_value_makes_a_reader_fail(value: Any) -> None:
    for data_set in (value, {"00080018": value}, {"00080018": {"Value": value}}):
        dicomjson.values(data_set, "00080018")
        dicomjson.text(data_set, "00080018")
        dicomjson.uid(data_set, "00080018")
        dicomjson.number(data_set, "00080018")
        dicomjson.items(data_set, "00080018")
        assert dicomjson.instance(data_set) is None


def test_values_nested_deeper_than_any_reader_goes_are_no_text() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert dicomjson.text({"1": {"Value": deep}}, "1") == ""
    assert dicomjson.number({"1": {"Value": deep}}, "1") == 0
    assert dicomjson.items({"1": {"Value": deep}}, "1") == []


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [
        (7, "7", 7),
        ("12 ", "12 ", 12),
        (3.0, "3.0", 3),
        (2.5, "2.5", 0),
        ("-4", "-4", -4),
        (None, "", 0),
        ({"Alphabetic": "A"}, "", 0),
        (["1"], "", 0),
        ("9" * 40, "9" * 40, 0),
        (float("inf"), "inf", 0),
    ],
)
def test_the_first_value_is_text_or_a_number(value: object, text: str, number: int) -> None:
    data_set = {"00200013": {"vr": "IS", "Value": [value, "other"]}}
    assert dicomjson.text(data_set, "00200013") == text
    assert dicomjson.number(data_set, "00200013") == number


def test_an_instance_is_known_by_three_uids() -> None:
    data_set = {
        "0020000D": {"vr": "UI", "Value": ["1.2"]},
        "0020000E": {"vr": "UI", "Value": ["1.3"]},
        "00080018": {"vr": "UI", "Value": ["1.4"]},
    }
    assert dicomjson.instance(data_set) == Resource("1.2", "1.3", "1.4")
    for tag in data_set:
        assert dicomjson.instance({**data_set, tag: {"vr": "UI", "Value": ["no uid"]}}) is None


def test_the_items_of_a_sequence_are_data_sets() -> None:
    data_set = {"00081199": {"vr": "SQ", "Value": [{"a": 1}, None, "x", {}]}}
    assert dicomjson.items(data_set, "00081199") == [{"a": 1}, {}]

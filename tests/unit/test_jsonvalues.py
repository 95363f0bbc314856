"""Values that others have sent are taken only where they are what they should be."""

import pytest

from functions.common import jsonvalues


@pytest.mark.parametrize(
    ("value", "number"),
    [(7, 7), ("7", 7), (0, 0), ("9223372036854775807", 2**63 - 1)],
)
def test_a_whole_number_is_taken_as_it_is_or_as_its_digits(value: object, number: int) -> None:
    assert jsonvalues.int64(value) == number


@pytest.mark.parametrize(
    "value",
    [None, True, 7.0, -1, "-1", "7.0", " 7", "", "٧", [7], {"7": 7}, 2**63, "9223372036854775808"],
)
def test_what_is_no_whole_number_of_64_bits_is_none(value: object) -> None:
    assert jsonvalues.int64(value) is None


@pytest.mark.parametrize("value", [None, 7, ["a"], {"a": "a"}, True])
def test_what_is_no_text_is_empty(value: object) -> None:
    assert jsonvalues.text(value) == ""


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", b"[" * 100_000, '{"a": 1} b'])
def test_what_is_no_json_says_nothing(document: bytes | str) -> None:
    assert jsonvalues.parsed(document) is None

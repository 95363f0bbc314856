"""Rows as a spreadsheet: everything is text, and nothing is run."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.search.spreadsheet import csv_of

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def cells(*values: Any) -> bytes:
    row = {"1": {"vr": "LO", "Value": list(values)}}
    return b"".join(csv_of([row], [("1", "First")]))


def read(data: bytes, delimiter: str = ",") -> list[list[str]]:
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    return list(csv.reader(text, delimiter=delimiter))


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
    data = b"".join(csv_of(rows, [("1", "First"), ("2", "Second")]))
    assert data.startswith(b"\xef\xbb\xbf")
    assert read(data) == [
        ["First", "Second"],
        ["Müller^J", "A\\B"],
        ["'=cmd()", 'say "hi", you\n'],
        ["-5", ""],
        ["'@x", "…\\"],
    ]


def test_every_cell_is_quoted() -> None:
    assert cells("a") == b'\xef\xbb\xbf"First"\r\n"a"\r\n'


@pytest.mark.parametrize(
    "value",
    [
        "=1+1",
        "＝1+1",
        "＋1",
        "－1-x",
        "＠SUM(A1)",
        " =1+1",
        "\t=1+1",
        "x;=1+1",
        'x;"=1+1"',
        "x\t=1+1",
        "x|@SUM(A1)",
        "x\r\n=1+1",
        "x; ＝1+1",
        "5;-3;=1",
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_no_cell_is_a_formula_in_any_locale(value: str, delimiter: str) -> None:
    for line in read(cells(value), delimiter):
        for cell in line:
            assert not cell.strip(' "\t').startswith(FORMULA), cell


@given(st.text('=+-@＝;,|\t\r\n" x1', max_size=12), st.sampled_from([",", ";", "\t", "|"]))
def test_whatever_a_value_is_no_cell_is_a_formula(value: str, delimiter: str) -> None:
    for line in read(cells(value, "x"), delimiter):
        for cell in line:
            assert not cell.strip(' "\t\r\n').startswith(FORMULA), cell


@pytest.mark.parametrize("run", ["\t", "\n", "\r", ";", ' "', "\t;"])
def test_a_long_run_of_separators_is_written(run: str) -> None:
    # In quadratic time this would take minutes.
    value = run * 300_000 + "x"
    assert len(cells(value)) > len(value)


def test_a_number_stays_a_number() -> None:
    assert read(cells(-5))[1] == ["-5"]
    assert read(cells("+1.5"))[1] == ["+1.5"]


def test_half_of_a_surrogate_pair_does_not_break_the_answer() -> None:
    assert read(cells("a\ud800b"))[1] == ["a?b"]


@pytest.mark.parametrize("value", [None, [["deep"]], True, {}, {"Alphabetic": None}])
def test_a_value_of_another_type_does_not_break_the_answer(value: Any) -> None:
    assert len(read(cells(value))) == 2

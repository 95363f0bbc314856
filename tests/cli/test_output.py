"""Results: data is printed as text in every format; fields are chosen, sorted and counted."""

import csv
import io
import json
from typing import Any

import pytest

from cli.app import main
from cli.errors import CliError
from cli.options import OUTCOME_COLUMNS, outcome_item
from cli.output import Format, FormatType, Item, Listing, Stream, note, print_table
from cli.text import amount, counted, local_time, shown, size_text

# Markup, and characters that move the cursor or change the direction of the text.
HOSTILE = ("[/x]", "[red]2", "\x1b[31mred\x1b]0;title\x07", "a\nb\rc\td", "\u202egpj.exe", "\x9b2J")
CONTROLS = ("\x1b", "\x07", "\x9b", "\r", "\t", "\u202e")
UID = "1.2.826.0.1.3680043.8.498.12406831542731051035295345080039845114"


def outcome(text: str) -> dict[str, Any]:
    """A record with this text wherever others' text can be."""
    return {
        "time": "2026-01-31T08:00:00.123456Z",
        "outcome": "rejected",
        "name": text,
        "member": text,
        "reason": "rejected",
        "detail": text,
        "study": text,
        "request_id": text,
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_shows_markup_and_control_characters_as_text(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Listing(Format()).print([outcome_item(outcome(text))], OUTCOME_COLUMNS)
    headings, line = capsys.readouterr().out.splitlines()
    assert headings.startswith("time")
    assert f"{shown(text)} : {shown(text)}" in line
    assert not any(control in line for control in CONTROLS)


@pytest.mark.parametrize("text", HOSTILE)
def test_single_values_stay_on_their_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    listing = Listing(Format("value", ("name", "study")))
    listing.print([outcome_item(outcome(text))], OUTCOME_COLUMNS)
    assert capsys.readouterr().out == f"{shown(text)}\t{shown(text)}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_csv_has_one_row_for_each_result(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    items = [outcome_item(outcome(text)), outcome_item(outcome("plain"))]
    Listing(Format("csv", ("name", "detail"))).print(items, OUTCOME_COLUMNS)
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [["name", "detail"], [shown(text), shown(text)], ["plain", "plain"]]


@pytest.mark.parametrize("kind", ["json", "ndjson"])
@pytest.mark.parametrize("text", [*HOSTILE, "a\x7fb"])
def test_json_has_the_text_itself_and_no_control_character(
    kind: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Listing(Format(kind)).print([outcome_item(outcome(text))], OUTCOME_COLUMNS)
    printed = capsys.readouterr().out
    found = json.loads(printed)
    record = found[0] if kind == "json" else found
    assert record == outcome(text)
    assert not any(control in printed for control in (*CONTROLS, "\x7f"))


@pytest.mark.parametrize("text", HOSTILE)
def test_one_outcome_is_one_line_as_it_comes(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    stream = Stream(Format(), OUTCOME_COLUMNS)
    stream.add(outcome_item(outcome(text)))
    (line,) = capsys.readouterr().out.splitlines()
    assert shown(text) in line


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_shows_the_typed_value(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--format", text]) == 2
    printed = capsys.readouterr().err
    assert shown(text) in printed
    assert not any(control in printed for control in CONTROLS)


@pytest.mark.parametrize("text", HOSTILE)
def test_an_unknown_command_is_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([text]) == 2
    printed = capsys.readouterr().err
    assert f"No such command {text!r}" in printed
    assert not any(control in printed for control in CONTROLS)


def test_a_note_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    note("a\nb")
    assert capsys.readouterr().err == "a\\nb\n"


def test_characters_of_every_script_are_printed_unchanged() -> None:
    assert shown("Müller^Ägidius=山田^太郎") == "Müller^Ägidius=山田^太郎"


def test_a_long_value_is_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    items = [Item.of({"study": UID, "name": "n" * 300})]
    Listing(Format()).print(items, ("name", "study"))
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_columns_are_aligned_by_their_visible_width(capsys: pytest.CaptureFixture[str]) -> None:
    items = [Item.of({"name": "山田", "id": "1"}), Item.of({"name": "Doe", "id": "2"})]
    print_table(items, ("name", "id"))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name  id", "山田  1", "Doe   2"]


@pytest.mark.parametrize(
    ("sort_by", "found"), [("n", [1, 2, 10]), ("~n", [10, 2, 1]), ("", [10, 1, 2])]
)
def test_numbers_are_sorted_as_numbers(sort_by: str, found: list[int]) -> None:
    items = [Item.of({"n": number}) for number in (10, 1, 2)]
    chosen = Listing(Format(), sort_by=sort_by).chosen(items)
    assert [item.fields["n"] for item in chosen] == found


def test_missing_values_are_sorted_first() -> None:
    items = [Item.of({"n": "b"}), Item.of({"m": 1}), Item.of({"n": "a"})]
    chosen = Listing(Format(), sort_by="n").chosen(items)
    assert [item.fields.get("n") for item in chosen] == [None, "a", "b"]


def test_a_limit_cuts_after_sorting() -> None:
    items = [Item.of({"n": number}) for number in (3, 1, 2)]
    chosen = Listing(Format(), limit=1, sort_by="~n").chosen(items)
    assert [item.fields["n"] for item in chosen] == [3]


def test_an_unknown_field_is_named_with_the_known_ones() -> None:
    listing = Listing(Format("value", ("nmae",)))
    with pytest.raises(CliError, match="no field nmae; the fields are id, name"):
        listing.print([Item.of({"name": "a", "id": 1})], ("name",))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("csv", Format("csv")),
        ("value(a, b)", Format("value", ("a", "b"))),
        ("table(a)", Format("table", ("a",))),
    ],
)
def test_a_format_is_read_as_gcloud_writes_it(text: str, wanted: Format) -> None:
    assert FormatType().convert(text, None, None) == wanted


@pytest.mark.parametrize("text", ["xml", "value", "value()", "json(a)", "value(a", "value(a(b))"])
def test_an_unknown_format_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--format", text]) == 2
    assert "Invalid value for '--format'" in capsys.readouterr().err


def test_a_time_has_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_time("2026-01-31T08:00:00Z").split()[2:] != []
    assert local_time("yesterday\n") == "yesterday\\n"
    assert local_time("2026-01-31") == "2026-01-31"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (3 * 10**15, "3000.0 TB"),
    ],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("count", "word", "text"),
    [
        (1, "studies", "1 study"),
        (2, "studies", "2 studies"),
        (0, "objects", "0 objects"),
        (1, "series", "1 series"),
        (1, "written", "1 written"),
    ],
)
def test_a_number_has_the_right_form_of_its_noun(count: int, word: str, text: str) -> None:
    assert amount(count, word) == text


def test_counts_of_zero_are_left_out() -> None:
    assert (
        counted(
            {
                "objects": 1,
                "written": 1,
                "failures": 0,
            }
        )
        == "1 object, 1 written"
    )


def test_an_empty_table_has_no_heading(capsys: pytest.CaptureFixture[str]) -> None:
    Listing(Format()).print([], ("name",))
    assert capsys.readouterr().out == ""

"""How results are printed: as a table, CSV, JSON, or single fields, as in gcloud.

All data goes through `shown`: it is never markup, and its control characters are visible.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cli.errors import CliError
from cli.numbers import Whole
from cli.text import local_time, shown, size_text

KINDS: Final = ("table", "csv", "json", "ndjson", "value")
_FORMAT: Final = re.compile(r"(\w+)(?:\(([^()]*)\))?")
_GAP: Final = "  "
_PIPE_WIDTH: Final = 250
# How fields of these names look in a table.
_AS_TEXT: Final[Mapping[str, Callable[[Any], str]]] = {
    "time": local_time,
    "since": local_time,
    "bytes": size_text,
}
STYLES: Final = {
    "stored": "green",
    "deleted": "green",
    "exported": "green",
    "ok": "green",
    "duplicate": "cyan",
    "superseded": "cyan",
    "skipped": "cyan",
    "dry_run": "cyan",
    "rejected": "red",
    "failed": "red",
    "conflict": "yellow",
    "partial": "yellow",
}


@dataclass(frozen=True)
class Format:
    """The value of `--format`.

    Args:
        kind: one of KINDS.
        fields: the fields to print, in this order; empty: the default ones.
    """

    kind: str = "table"
    fields: tuple[str, ...] = ()

    @property
    def for_people(self) -> bool:
        """Whether a person reads it: then there are summaries and a progress bar."""
        return self.kind == "table"


class FormatType(click.ParamType[Format]):
    """`table`, `csv`, `json`, `ndjson`, `value(FIELD)`."""

    name = "FORMAT"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Format:
        """The format that a text names."""
        if isinstance(value, Format):
            return value
        match = _FORMAT.fullmatch(str(value))
        if match is None or match[1] not in KINDS:
            self.fail(f"{shown(value)} is not one of {_choices()}", param, ctx)
        kind = match[1]
        names = [name.strip() for name in (match[2] or "").split(",")]
        fields = tuple(name for name in names if name)
        if kind == "value" and not fields:
            self.fail("value needs fields: value(FIELD) or value(FIELD,FIELD)", param, ctx)
        if kind in ("json", "ndjson") and fields:
            self.fail(f"{kind} takes no fields: it always prints all", param, ctx)
        return Format(kind, fields)


def _choices() -> str:
    return "table, csv, json, ndjson, value(FIELD); table(…) and csv(…) take fields too"


@dataclass(frozen=True)
class Item:
    """One result.

    Args:
        full: what JSON shows.
        fields: what the other formats show, by name.
    """

    full: Any
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any], **more: Any) -> "Item":
        """A record as an item, with more fields that JSON does not show."""
        return cls(record, {**record, **more})


@dataclass(frozen=True)
class Listing:
    """How to choose and print results.

    Args:
        format: of the output.
        limit: how many at most; None: all.
        sort_by: a field, or `~` and a field for reverse order; empty: as they come.
    """

    format: Format
    limit: int | None = None
    sort_by: str = ""

    def read(self, usual: int, most: int) -> int:
        """How many results to read: as many as are shown, or all if they are sorted first.

        Args:
            usual: the number without a limit.
            most: the number if they are sorted.
        """
        if self.sort_by:
            return most
        return self.limit or usual

    def chosen(self, items: Iterable[Item]) -> list[Item]:
        """The items, sorted and cut.

        Raises:
            CliError: none of them has the field to sort by.
        """
        found = list(items)
        if self.sort_by:
            field = self.sort_by.removeprefix("~")
            _check_fields((field,), found)
            found.sort(
                key=lambda item: _sort_key(item.fields.get(field)),
                reverse=self.sort_by.startswith("~"),
            )
        return found[: self.limit]

    def print(self, items: Sequence[Item], columns: Sequence[str]) -> None:
        """Print the items.

        Args:
            columns: the default fields of a table or CSV.

        Raises:
            CliError: a field in `--format` does not exist.
        """
        _check_fields(self.format.fields, items)
        fields = self.format.fields or tuple(columns)
        if self.format.kind == "json":
            print_json([item.full for item in items])
        elif self.format.kind == "ndjson":
            for item in items:
                print_json(item.full, indent=None)
        elif self.format.kind == "value":
            for item in items:
                print("\t".join(shown(item.fields.get(field)) for field in fields))
        elif self.format.kind == "csv":
            _print_csv(items, fields)
        elif items:
            print_table(items, fields)


class Stream:
    """Prints results one at a time, as they come.

    Args:
        format: of the output; `json` prints an object a line, as `ndjson`.
        columns: the default fields of a table or CSV.
    """

    def __init__(self, format: Format, columns: Sequence[str]) -> None:  # noqa: A002 (as --format)
        self._format = format
        self._fields = format.fields or tuple(columns)
        self._first = True

    def add(self, item: Item) -> None:
        """Print one result."""
        if self._format.kind == "csv":
            _print_csv([item], self._fields, headings=self._first)
        elif self._format.kind == "table":
            cells = [_cell(field, item.fields.get(field)) for field in self._fields]
            say(Text(_GAP).join(cell for cell in cells if cell.plain))
        else:
            kind = "ndjson" if self._format.kind == "json" else self._format.kind
            Listing(Format(kind, self._format.fields)).print([item], self._fields)
        self._first = False
        sys.stdout.flush()


def listing_options(limit: int | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--format`, `--limit` and `--sort-by`; the command gets them as one `listing`.

    Args:
        limit: the default number of results; None: all.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def call(
            *args: Any, output: Format, limit: int | None, sort_by: str, **options: Any
        ) -> Any:
            return command(*args, listing=Listing(output, limit, sort_by), **options)

        with_format = format_option(call)
        with_limit = click.option(
            "--limit",
            type=Whole(min=1),
            default=limit,
            show_default=limit is not None,
            metavar="N",
            help="Show at most N results.",
        )(with_format)
        return click.option(
            "--sort-by",
            default="",
            metavar="FIELD",
            help="Sort by this field; ~FIELD sorts in reverse.",
        )(with_limit)

    return decorate


def format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--format`; the command gets it as `output`."""
    return click.option(
        "--format",
        "output",
        type=FormatType(),
        default=Format(),
        metavar="FORMAT",
        help=f"The output: {_choices()}.",
    )(command)


def print_table(items: Sequence[Item], fields: Sequence[str]) -> None:
    """Print aligned columns; no value is folded or cut."""
    rows = [[_heading(field) for field in fields]]
    for item in items:
        row = [_cell(field, item.fields.get(field)) for field in fields]
        rows.append(row)
    columns = zip(*rows, strict=True)
    widths = [max(map(_width, column)) for column in columns]
    for row in rows:
        line = Text()
        for cell, width in zip(row, widths, strict=True):
            padding = width - _width(cell)
            line.append_text(cell)
            line.append(" " * padding + _GAP)
        line.rstrip()
        say(line)


def _width(cell: Text) -> int:
    """In columns of the terminal: some characters take two."""
    return cell_len(cell.plain)


def _heading(field: str) -> Text:
    return Text(field.replace("_", " "), style="bold")


def _cell(field: str, value: Any) -> Text:
    as_text = _AS_TEXT.get(field, shown)
    text = as_text(value)
    if field not in ("outcome", "status"):
        return Text(text)
    return Text(text, style=STYLES.get(text, ""))


def say(text: str | Text) -> None:
    """Print a line for a person on standard output. Data in it must have been `shown`."""
    if isinstance(text, str):
        text = Text(text)
    console().print(text, soft_wrap=True, highlight=False)


def note(text: str) -> None:
    """Print a line for a person on standard error, apart from the results."""
    print(shown(text), file=sys.stderr, flush=True)


def console() -> Console:
    """The console on standard output; lines are never folded."""
    return _console(sys.stdout)


@cache
def _console(stream: Any) -> Console:
    width = None
    if not stream.isatty():
        width = _PIPE_WIDTH  # nothing is folded at 80 characters
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def _print_csv(items: Iterable[Item], fields: Sequence[str], headings: bool = True) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if headings:
        writer.writerow(fields)
    for item in items:
        writer.writerow([shown(item.fields.get(field)) for field in fields])
    print(text.getvalue(), end="")


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON; without `indent` on one line."""
    # JSON escapes every control character except this one.
    print(json.dumps(value, indent=indent).replace("\x7f", "\\u007f"))


def _sort_key(value: Any) -> tuple[int, float, str]:
    """Missing values first, then numbers by size, then text."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (2, 0.0, shown(value))


def _check_fields(fields: Iterable[str], items: Sequence[Item]) -> None:
    """Check that each field occurs in one of the items.

    Raises:
        CliError: it does not; names the fields that occur.
    """
    there = sorted({field for item in items for field in item.fields})
    for field in fields:
        if items and field not in there:
            raise CliError(f"there is no field {field}; the fields are {', '.join(there)}")

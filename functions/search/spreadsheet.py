"""Rows of a search as a spreadsheet: CSV."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import DataSet

_PIECE_CHARACTERS: Final = 64 * 1024
_NUMBER: Final = re.compile(r"[+-]?[0-9.]+", re.ASCII)
# Where a cell begins, in whatever locale: a spreadsheet that separates by semicolons or tabs sees
# the beginning of a cell inside one of ours, and it skips white space and quotes. The signs that
# begin a formula exist in full width too.
_FORMULA: Final = re.compile(r'(^|[;,|\t\r\n])([\s"]*)(?=[=+\-@＝＋－＠])')


def csv_of(rows: Iterable[DataSet], columns: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """RFC 4180 with a byte order mark, so that spreadsheets read it as UTF-8. All cells are quoted,
    and none is taken for a formula.

    Args:
        columns: tag and heading of each.
    """
    text = io.StringIO("\ufeff")
    text.seek(1)
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow([heading for _, heading in columns])
    for row in rows:
        writer.writerow([_cell(row, tag) for tag, _ in columns])
        if text.tell() > _PIECE_CHARACTERS:
            yield _encoded(text)
            text.seek(0)
            text.truncate()
    yield _encoded(text)


def _encoded(text: io.StringIO) -> bytes:
    # JSON can hold half of a surrogate pair, which UTF-8 cannot.
    return text.getvalue().encode(errors="replace")


def _cell(row: DataSet, tag: str) -> str:
    cell = "\\".join(_plain(value) for value in dicomjson.values(row, tag))
    if _NUMBER.fullmatch(cell):
        return cell
    # An apostrophe makes it text.
    return _FORMULA.sub(r"\1\2'", cell)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return _name(value)
    if isinstance(value, str | int | float):
        return str(value)
    return ""


def _name(value: dict[str, Any]) -> str:
    """A person's name (PS3.18 section F.2.2); of a sequence only that it is there."""
    for group in ("Alphabetic", "Ideographic", "Phonetic"):
        name = value.get(group)
        if isinstance(name, str) and name:
            return name
    return "…" if value else ""

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
# Where a cell begins, in any locale: with semicolons or tabs as separators, a spreadsheet sees new
# cells inside these cells, and it skips white space and quotes. The characters that begin a formula
# also exist in full width. `*+` and `?`: each character is read once, whatever follows.
_BEGINNING: Final = re.compile(r'(?:^|[;,|\t\r\n])[\s"]*+([=+\-@＝＋－＠]?)')


def csv_of(rows: Iterable[DataSet], columns: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """RFC 4180 with a byte order mark, so that spreadsheets read it as UTF-8. All cells are quoted,
    and none is read as a formula.

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
    # JSON can contain half of a surrogate pair; UTF-8 cannot.
    return text.getvalue().encode(errors="replace")


def _cell(row: DataSet, tag: str) -> str:
    cell = "\\".join(_plain(value) for value in dicomjson.values(row, tag))
    if _NUMBER.fullmatch(cell):
        return cell
    return _BEGINNING.sub(_as_text, cell)


def _as_text(beginning: re.Match[str]) -> str:
    """The beginning of a cell, with an apostrophe if a formula follows: that makes it text."""
    if not beginning[1]:
        return beginning[0]
    return f"{beginning[0][:-1]}'{beginning[1]}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return _name(value)
    if isinstance(value, str | int | float):
        return str(value)
    return ""


def _name(value: dict[str, Any]) -> str:
    """The text of a value: of a person's name (PS3.18 section F.2.2) one representation, of a
    sequence only that it exists."""
    for group in ("Alphabetic", "Ideographic", "Phonetic"):
        name = value.get(group)
        if isinstance(name, str) and name:
            return name
    return "…" if value else ""

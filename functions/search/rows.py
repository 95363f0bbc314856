"""The rows of a DICOM JSON answer, one at a time: URLs
replaced, joined again, as a spreadsheet."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from functions.common.dicom.dicomjson import DataSet

_HOST_LENGTH: Final = 260  # of a host with its port
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_CSV_PIECE: Final = 64 * 1024


def joined(rows: Iterable[str]) -> Iterator[bytes]:
    """A JSON array of these objects' texts."""
    separator = "["
    for row in rows:
        yield (separator + row).encode()
        separator = ","
    yield b"[]" if separator == "[" else b"]"


class Urls:
    """How the URLs of a DICOM store begin, on whatever host: the API has more names than the one it
    is asked by.

    Args:
        roots: what may stand between the host and the store's name, such as `/v1`.
        store: `projects/…/dicomStores/…`.
    """

    def __init__(self, roots: Sequence[str], store: str) -> None:
        path = f"/{store}/dicomWeb/"
        self.path = path.encode()
        self.beginning = re.compile(
            rf'https?://[^/"\s]{{1,{_HOST_LENGTH}}}(?:{"|".join(map(re.escape, roots))}){re.escape(path)}'.encode()
        )
        self.longest = len("https://") + _HOST_LENGTH + max(map(len, roots)) + len(path)


def rewritten(chunks: Iterable[bytes], urls: Urls, base: bytes) -> Iterator[bytes]:
    """The chunks with `base` for the beginning of each of these URLs, wherever the chunks are
    cut."""
    hold = urls.longest - 1
    base = base.replace(b"\\", rb"\\")  # as a template
    rest = b""
    for chunk in chunks:
        piece = rest + chunk
        if urls.path in piece:
            piece = urls.beginning.sub(base, piece)
        cut = max(0, len(piece) - hold)
        rest = piece[cut:]
        if cut:
            yield piece[:cut]
    if rest:
        yield rest


def study_of(row: DataSet, tags: frozenset[str]) -> DataSet:
    """The study in a series' row: these attributes of it."""
    return {tag: element for tag, element in row.items() if tag in tags}


def spreadsheet(rows: Iterable[DataSet], columns: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """RFC 4180 with a byte order mark, so that spreadsheets read it as UTF-8; no cell is taken for
    a formula.

    Args:
        columns: tag and heading of each.
    """
    text = io.StringIO("\ufeff")
    text.seek(1)
    writer = csv.writer(text)
    writer.writerow([heading for _, heading in columns])
    for row in rows:
        writer.writerow([_cell(row.get(tag)) for tag, _ in columns])
        if text.tell() > _CSV_PIECE:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def _cell(element: Any) -> str:
    values = element.get("Value", []) if isinstance(element, dict) else []
    cell = "\\".join(_plain(value) for value in values) if isinstance(values, list) else ""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _is_number(cell) else cell


def _plain(value: Any) -> str:
    if isinstance(value, dict):  # a person's name; of a sequence only that it is there
        name = value.get("Alphabetic") or value.get("Ideographic") or value.get("Phonetic")
        return name if isinstance(name, str) else ("" if not value else "…")
    return "" if value is None else str(value)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9.]+", text, re.ASCII) is not None

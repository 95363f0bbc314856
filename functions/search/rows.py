"""The rows of a DICOM JSON answer, one at a time, in the memory of one row: read, rewritten, as a
spreadsheet."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

ROW_LIMIT: Final = (
    32 * 1024 * 1024
)  # characters; one instance with `includefield=all` stays far below
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_AFTER: Final = {"[": "{]", ",": "{", "]": ""}
_HOST_LENGTH: Final = 260  # of a host with its port
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_CSV_PIECE: Final = 64 * 1024

Row = dict[str, Any]


class MalformedError(ValueError):
    """What should be a JSON array of objects is not."""


def split(chunks: Iterable[bytes]) -> Iterator[tuple[str, Row]]:
    """Each object of a JSON array, as its text and as it reads. Nothing at all counts as an empty
    array.

    Args:
        chunks: UTF-8, cut anywhere.

    Raises:
        MalformedError: it is no array of objects, it ends too early, or one object is larger than
            ROW_LIMIT.
    """
    scanner = _Scanner()
    decoder = codecs.getincrementaldecoder("utf-8")()
    try_at = 0
    try:
        for chunk in chunks:
            scanner.buffer += decoder.decode(chunk)
            if len(scanner.buffer) >= try_at:
                yield from scanner.rows()
                # A row larger than the chunks is not read from its start for each of them.
                try_at = 2 * len(scanner.buffer)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise MalformedError("not UTF-8") from error
    yield from scanner.rows(final=True)


class _Scanner:
    """What has come in and is not a whole row yet, and which characters may come next."""

    def __init__(self) -> None:
        self.buffer = ""
        self._expect = "["
        self._raw_decode = json.JSONDecoder().raw_decode

    def rows(self, *, final: bool = False) -> Iterator[tuple[str, Row]]:
        """Those that are complete."""
        buffer, position = self.buffer, 0
        while (position := _SPACE.match(buffer, position).end()) < len(buffer):  # type: ignore[union-attr]
            mark = buffer[position]
            if mark not in self._expect:
                raise MalformedError("not an array of objects")
            if mark == "{":
                try:
                    row, end = self._raw_decode(buffer, position)
                except ValueError:
                    break  # the rest of it is still to come
                yield buffer[position:end], row
                position, self._expect = end, ",]"
            else:
                position, self._expect = position + 1, _AFTER[mark]
        self.buffer = buffer[position:]
        if len(self.buffer) > ROW_LIMIT or (
            final and (self.buffer or self._expect not in ("", "["))
        ):
            raise MalformedError("a row that is cut or too large")


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


def study_of(row: Row, tags: frozenset[str]) -> Row:
    """The study in a series' row: these attributes of it."""
    return {tag: element for tag, element in row.items() if tag in tags}


def spreadsheet(rows: Iterable[Row], columns: Sequence[tuple[str, str]]) -> Iterator[bytes]:
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

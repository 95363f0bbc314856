"""DICOM JSON (PS3.18 annex F): a long answer read one data set at a time, and the values of one
data set.

A server's answer is not trusted: a value may be null, a list instead of text, or nested too deeply.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from functions.common.errors import RetryableError
from functions.common.resources import Resource, is_uid

STUDY_UID: Final = "0020000D"
SERIES_UID: Final = "0020000E"
INSTANCE_UID: Final = "00080018"

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_WHOLE_NUMBER: Final = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?", re.ASCII)
# The marks between the objects of an array, and which may follow each.
_AFTER: Final = {"[": "{]", ",": "{", "]": ""}

DataSet = dict[str, Any]


def data_sets(chunks: Iterable[bytes], limit: int) -> Iterator[tuple[str, DataSet]]:
    """The objects of a JSON array as they arrive, each as text and as value.

    The time is linear in the size of each object. An empty body counts as an empty array: some
    servers answer so when a search finds nothing.

    Args:
        chunks: UTF-8, cut anywhere.
        limit: characters of one object; about twice as many are kept in memory.

    Raises:
        RetryableError: unavailable, when this is not an array of objects, it ends too early, or an
            object is larger than `limit` or nested too deeply.
    """
    array = _ArrayReader(limit)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in chunks:
            if array.add(decoder.decode(chunk)):
                yield from array.objects()
                array.check_rest()
        array.add(decoder.decode(b"", final=True))
    except UnicodeDecodeError:
        raise RetryableError("unavailable") from None
    yield from array.objects()
    array.check_end()


class _ArrayReader:
    """The text that is not read yet, and the marks that may come next.

    For each chunk: `add`; if it returns True, `objects` to its end, then `check_rest`. After the
    last chunk: `objects` to its end, then `check_end`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._expected = "["
        self._buffer = ""
        self._at = 0
        self._added: list[str] = []
        self._size = 0
        # An incomplete object is parsed again only when twice as much text has arrived, so that a
        # large one is not parsed for each chunk.
        self._try_at = 0
        self._raw_decode = json.JSONDecoder().raw_decode

    def add(self, text: str) -> bool:
        """Add text; returns whether to look for objects now."""
        self._added.append(text)
        self._size += len(text)
        return self._size >= self._try_at

    def objects(self) -> Iterator[tuple[str, DataSet]]:
        """The complete objects."""
        self._buffer = "".join([self._buffer[self._at :], *self._added])
        self._at = 0
        self._added.clear()
        for mark in iter(self._next_mark, ""):
            if mark not in self._expected:
                raise RetryableError("unavailable")
            if mark != "{":
                self._at += 1
                self._expected = _AFTER[mark]
                continue
            try:
                value, end = self._raw_decode(self._buffer, self._at)
            except RecursionError:
                raise RetryableError("unavailable") from None
            except ValueError:
                return  # the rest has not arrived yet
            text = self._buffer[self._at : end]
            self._at = end
            self._expected = ",]"
            yield text, value

    def _next_mark(self) -> str:
        """The character after white space; empty at the end of the buffer."""
        space = _SPACE.match(self._buffer, self._at)
        if space:
            self._at = space.end()
        return self._buffer[self._at : self._at + 1]

    def check_rest(self) -> None:
        """Raises RetryableError when the next object is too large."""
        self._size = len(self._buffer) - self._at
        if self._size > self._limit:
            raise RetryableError("unavailable")
        self._try_at = min(2 * self._size, self._limit + 1)

    def check_end(self) -> None:
        """Raises RetryableError when the array is not closed."""
        if self._at < len(self._buffer) or self._expected not in ("", "["):
            raise RetryableError("unavailable")


def values(data_set: object, tag: str) -> list[Any]:
    """The values of an attribute; empty when it has none or does not follow PS3.18 section F.2.2.

    Args:
        data_set: from JSON; a server may send anything.
        tag: eight hexadecimal digits.
    """
    try:
        found = data_set[tag]["Value"]  # type: ignore[index]
    except (TypeError, KeyError, IndexError):
        return []
    if not isinstance(found, list):
        return []
    return found


def text(data_set: object, tag: str) -> str:
    """The first value of an attribute as text; empty when it is neither text nor a number."""
    for value in values(data_set, tag)[:1]:
        if isinstance(value, str | int | float):
            return str(value)
    return ""


def uid(data_set: object, tag: str) -> str:
    """The first value of an attribute, empty when it is not a UID."""
    found = text(data_set, tag)
    if not is_uid(found):
        return ""
    return found


def number(data_set: object, tag: str) -> int:
    """The first value of an attribute, 0 when it is not a whole number of at most 18 digits."""
    found = _WHOLE_NUMBER.fullmatch(text(data_set, tag).strip())
    if not found:
        return 0
    return int(found[1])


def items(data_set: object, tag: str) -> list[DataSet]:
    """The items of a sequence; items that are not data sets are left out."""
    return [item for item in values(data_set, tag) if isinstance(item, dict)]


def instance(data_set: object) -> Resource | None:
    """The instance of a data set; None when one of its three UIDs is missing or malformed."""
    uids = [uid(data_set, tag) for tag in (STUDY_UID, SERIES_UID, INSTANCE_UID)]
    if not all(uids):
        return None
    return Resource(*uids)

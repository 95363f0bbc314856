"""A search whose rows are combined: from several searches of the store (a list of values), or from
rows of a lower level (studies by the modality of their series).

The docstring of searching.py says where the pages of every search end.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Final

from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import DataSet
from functions.common.errors import RetryableError
from functions.common.resources import LEVELS
from functions.search import attributes, qidors
from functions.search.asking import Asker, Row, rows_of
from functions.search.pages import Page, array_of
from functions.search.qidors import Filters, Query

_READ_ROWS: Final = 50_000  # of the store, for one answer
_PAGE_BYTES: Final = 4 * 1024 * 1024  # of an answer, which is complete before it is sent
# Rows of the store that are requested for one row of an answer: many studies have several series.
_ROWS_FOR_ONE: Final = 4


class MergedSearch:
    """One row for each study, series or instance.

    While `page` reads rows, it counts them, remembers which ones it has seen, and notes whether it
    stopped early; the query may lose attributes and get warnings.

    Args:
        asker: asks the store.
        query: of the caller.
        base: as for Searcher.search.
    """

    def __init__(self, asker: Asker, query: Query, base: str) -> None:
        self._asker = asker
        self._query = query
        self._base = base.encode()
        self._seen: set[bytes] = set()
        self._rows_read = 0
        self._stopped_early = False

    def page(self) -> Page:
        """The rows of this page, and whether more follow.

        Raises:
            RefusedError, RetryableError: the store refused, or did not answer as expected.
        """
        lines: list[bytes] = []
        size = 0
        for text in self._distinct():
            line = text.encode()
            size += len(line)
            is_full = len(lines) == self._query.limit
            if is_full or (lines and size > _PAGE_BYTES):
                # With the last reference to the generators goes the store's answer: it is closed.
                return self._page_of(lines, self._query.offset + len(lines))
            lines.append(line)
        if self._stopped_early:
            # There is no next page, because it would stop at the same row.
            self._warn(
                f"only {self._rows_read} rows of the DICOM store were looked at: narrow the search"
            )
        return self._page_of(lines, None)

    def _page_of(self, lines: list[bytes], following: int | None) -> Page:
        return Page(
            self._query,
            rows_of(array_of(lines)),
            following,
            array=array_of(lines),
        )

    def _distinct(self) -> Iterator[str]:
        """The rows from the offset on, each once."""
        for text, row in self._all():
            identity = self._identity(row)
            if identity in self._seen:
                continue
            self._seen.add(identity)
            if len(self._seen) <= self._query.offset:
                continue
            if self._query.store_level != self._query.level:
                yield _study_of(row)
            else:
                yield text

    def _all(self) -> Iterator[Row]:
        for filters in self._query.searches:
            yield from self._pages_of(filters)

    def _pages_of(self, filters: Filters) -> Iterator[Row]:
        """Every row of one search, page by page."""
        wanted = _ROWS_FOR_ONE * (self._query.end + 1)
        size = min(qidors.LIMIT_MAX[self._query.store_level], wanted)
        for offset in count(0, size):
            # Checked before each page: one that has begun is read to its end.
            if self._rows_read >= _READ_ROWS:
                self._stopped_early = True
                return
            before = self._rows_read
            yield from self._one_page(filters, size, offset)
            if self._rows_read - before < size:
                return

    def _one_page(self, filters: Filters, size: int, offset: int) -> Iterator[Row]:
        self._query, answer = self._asker.ask(
            self._query,
            filters,
            size,
            offset,
        )
        try:
            urls = self._asker.upstream.urls
            for row in rows_of(urls.replaced_in_chunks(answer.chunks(), self._base)):
                self._rows_read += 1
                yield row
        finally:
            answer.close()

    def _identity(self, row: DataSet) -> bytes:
        """What identifies a row: its UID and those above it, because a UID alone may occur twice. A
        digest, because many are remembered."""
        depth = LEVELS.index(self._query.level) + 1
        uids = "/".join(dicomjson.text(row, tag) for tag in attributes.UID_TAGS[:depth])
        return hashlib.blake2b(uids.encode(errors="replace"), digest_size=16).digest()

    def _warn(self, text: str) -> None:
        self._query = replace(
            self._query,
            warnings=(*self._query.warnings, text),
        )


def _study_of(series: DataSet) -> str:
    """The study of a series' row.

    Raises:
        RetryableError: unavailable, when it is nested too deeply.
    """
    study = {tag: value for tag, value in series.items() if tag in attributes.STUDY_TAGS}
    try:
        return json.dumps(study, separators=(",", ":"))
    except RecursionError:
        raise RetryableError("unavailable") from None

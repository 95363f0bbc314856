"""Answers a search: searches the DICOM store, and finds out whether there are more rows.

A small answer is read completely; a large one is streamed. Where a page ends and which row is next
(`Page.following`) is decided in one of two files, and a third tells the caller:

    searching.py   one search of the store, whose rows are passed on. Up to a limit of 100, one row
                   more is requested. Above that, or if the answer is large, a second search asks
                   for the row after the page. If it exists, or if the store does not say, there are
                   more rows.
    merging.py     rows combined from several searches or from a lower level. It reads the store
                   until it has one row more than the page takes; a page ends at the limit or after
                   4 MiB. After 50,000 rows of the store it stops, with a warning and without a next
                   page.
    pages.py       `following` becomes `Link: <...>; rel="next"` and a `Warning`; only the `Warning`
                   if it is an offset that the store does not take.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from functions.common import jsonvalues
from functions.common.errors import RetryableError
from functions.search import qidors
from functions.search.asking import Asker, rows_of
from functions.search.merging import MergedSearch
from functions.search.pages import Page
from functions.search.qidors import Filters, Query
from functions.search.refusals import RefusedError
from functions.search.replies import rejoined
from functions.search.upstream import Answer, Upstream

_WHOLE_BYTES: Final = 256 * 1024  # an answer up to this size is read completely
_SMALL_LIMIT: Final = 100  # up to this limit one more row is requested


class Searcher:
    """Searches one DICOM store."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._asker = Asker(upstream)

    def search(self, query: Query, base: str) -> Page:
        """The page of rows for a query.

        Args:
            query: translated.
            base: the function's own URL, which replaces the store's in the rows; with a trailing
                slash.

        Raises:
            RefusedError, RetryableError: the store refused, or did not answer as expected.
        """
        if query.is_merged:
            return MergedSearch(self._asker, query, base).page()
        return self._passed_on(query, base)

    def holds(self, study: str, filters: Filters) -> bool:
        """Whether this study exists and matches.

        By MergedSearch, because it closes the store's answer; a page of `_passed_on` may be a
        stream that its reader has to close.
        """
        if filters.get("StudyInstanceUID", study) != study:
            return False
        pairs = [("StudyInstanceUID", study), ("limit", "1")]
        query = qidors.translate("studies", None, pairs, filters)
        page = MergedSearch(self._asker, replace(query, include=()), "").page()
        return any(True for _ in page.rows)

    def _passed_on(self, query: Query, base: str) -> Page:
        """The rows of one search of the store.

            limit      answer  a page follows if                     what is sent
            up to 100  small   the row after the page is in it       all, or without that row
            up to 100  large   a second search finds that row        without that row
            above 100  small   full, and a second search finds one   all
            above 100  large   a second search finds one             all

        Small answers, which are read completely, have less than 256 KiB.
        """
        one_more = query.limit <= _SMALL_LIMIT
        limit = query.limit + 1 if one_more else query.limit
        query, answer = self._asker.ask(
            query,
            query.searches[0],
            limit,
            query.offset,
        )
        urls = self._upstream.urls
        chunks = answer.chunks()
        head = bytearray()
        for chunk in chunks:
            head += chunk
            if len(head) >= _WHOLE_BYTES:
                whole = rejoined(bytes(head), chunks)
                array = urls.replaced_in_chunks(whole, base.encode())
                return self._large(query, answer, array, one_more)
        return self._small(query, urls.replaced(bytes(head), base.encode()), one_more)

    def _small(self, query: Query, body: bytes, one_more: bool) -> Page:
        """The page of a small answer.

        Args:
            one_more: whether the row after the page was requested too.
        """
        count = _count_of(body)
        rows = islice(rows_of(iter([body])), query.limit)
        if count > query.limit:
            return Page(query, rows, query.end)
        following = None
        if count == query.limit and not one_more and self._has_more(query):
            following = query.end
        return Page(query, rows, following, array=body if count else b"[]")

    def _large(self, query: Query, answer: Answer, array: Iterator[bytes], one_more: bool) -> Page:
        """The page of a large answer; the arguments as for `_small` and Page."""
        following = query.end if self._has_more(query) else None
        if one_more:
            # It may have one row too many, so it cannot be passed on unchanged.
            rows = islice(rows_of(array), query.limit)
            return Page(query, rows, following, close=answer.close)
        # The caller's form decides which of the two is read: the rows, or all as sent.
        return Page(
            query,
            rows=rows_of(array),
            following=following,
            array=array,
            close=answer.close,
        )

    def _has_more(self, query: Query) -> bool:
        """Whether there is a row after this page. If the store does not answer, there may be
        one."""
        if query.end > qidors.OFFSET_MAX:
            return True
        parameters = query.parameters(
            query.searches[0],
            1,
            query.end,
            include=False,
        )
        try:
            answer = self._asker.get(query, parameters)
        except RefusedError:
            return True
        try:
            return any(True for _ in rows_of(answer.chunks()))
        except RetryableError:
            return True
        finally:
            answer.close()


def _count_of(body: bytes) -> int:
    """The number of rows of a whole answer; 0 also for an empty body. It takes half of the
    time of `rows_of`.

    Raises:
        RetryableError: unavailable, when this is not a JSON array of objects.
    """
    if not body.strip():
        return 0
    rows = jsonvalues.parsed(body)
    if not isinstance(rows, list):
        raise RetryableError("unavailable")
    for row in rows:
        if not isinstance(row, dict):
            raise RetryableError("unavailable")
    return len(rows)

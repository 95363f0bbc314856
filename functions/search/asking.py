"""One search of the DICOM store, without the attributes that it does not know."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from functions.common.dicom.dicomjson import DataSet, data_sets
from functions.search import attributes
from functions.search.qidors import Filters, Query
from functions.search.refusals import RefusedError
from functions.search.upstream import Answer, Upstream, refused_by_store

_ROW_LIMIT: Final = 32 * 1024 * 1024  # characters; one row with `includefield=all` is much smaller
_DOUBTS: Final = 20  # attributes of one query that are tested one by one
_REMEMBERED: Final = 4096

# A row as text, and as value.
Row = tuple[str, DataSet]


def rows_of(chunks: Iterator[bytes]) -> Iterator[Row]:
    """The rows of an answer.

    Raises:
        RetryableError: unavailable, when this is not a JSON array of objects.
    """
    return data_sets(chunks, _ROW_LIMIT)


class Asker:
    """Searches one DICOM store; the process remembers which attributes it knows."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._is_known: dict[str, bool] = {}

    def ask(self, query: Query, filters: Filters, limit: int, offset: int) -> tuple[Query, Answer]:
        """Search the store; if it refuses attributes, search again without them.

        Returns:
            The final query, with a warning for attributes that were left out, and the answer.

        Raises:
            RefusedError: as Upstream.get; unavailable for an answer that is not JSON.
        """
        try:
            return query, self.get(query, query.parameters(filters, limit, offset))
        except RefusedError as error:
            unknown = self._unknown(query) if error.reason == "rejected" else []
            if not unknown:
                raise
        known = tuple(name for name in query.include if name not in unknown)
        warning = f"the DICOM store cannot include {' '.join(unknown)}"
        query = replace(
            query,
            include=known,
            warnings=(*query.warnings, warning),
        )
        return query, self.get(query, query.parameters(filters, limit, offset))

    def get(self, query: Query, parameters: str) -> Answer:
        """The answer to a search with these parameters.

        Raises:
            RefusedError: as Upstream.get; unavailable for an answer that is not JSON, and if the
                store itself is missing.
        """
        accept = {"Accept": "application/dicom+json"}
        try:
            answer = self.upstream.get(query.path(), parameters, accept)
        except RefusedError as error:
            if error.reason == "not_found" and not query.resource:
                raise RefusedError(
                    "unavailable", "the DICOM store does not exist; tell its operator"
                ) from error
            raise
        is_empty = answer.status != 200 or answer.headers.get("Content-Length") == "0"
        if not is_empty and not answer.media_type.endswith("json"):
            answer.close()
            raise refused_by_store("unavailable")
        return answer

    def _unknown(self, query: Query) -> list[str]:
        """The included attributes that the store refuses, or that are not tested one by one."""
        doubtful = [
            name for name in query.include if name not in attributes.TAG_OF and name != "all"
        ]
        refused_ones = [name for name in doubtful[:_DOUBTS] if not self._can_include(query, name)]
        return refused_ones + doubtful[_DOUBTS:]

    def _can_include(self, query: Query, name: str) -> bool:
        known = self._is_known.get(name)
        if known is not None:
            return known
        try:
            self.upstream.get(query.store_level, f"limit=1&includefield={name}", {}).close()
            known = True
        except RefusedError as error:
            if error.reason != "rejected":
                raise
            known = False
        if len(self._is_known) >= _REMEMBERED:
            self._is_known.clear()
        self._is_known[name] = known
        return known

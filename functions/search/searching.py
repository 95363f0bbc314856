"""Answers a search: asks the DICOM store, and says when the answer is cut. Large ones stream, row
by row."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Final, Literal
from urllib.parse import quote, urlencode

from functions.common.dicom import dicomjson
from functions.common.dicom.dicomjson import DataSet, data_sets
from functions.common.errors import RetryableError
from functions.search import qidors
from functions.search.answers import RefusedError
from functions.search.qidors import Query
from functions.search.relay import Relay, Upstream, chain, head
from functions.search.rows import joined, rewritten, spreadsheet, study_of

Form = Literal["application/dicom+json", "application/json", "text/csv"]

_FORMS: Final[tuple[Form, ...]] = ("application/dicom+json", "application/json", "text/csv")
_HEAD_BYTES: Final = (
    256 * 1024
)  # an answer of this size is looked at as a whole, a larger one passes through
_SMALL_LIMIT: Final = 100  # up to here one row more is asked for, to see whether there are more
_MERGE_ROWS: Final = 50_000  # of the store's, for one answer that is put together
_MERGE_BYTES: Final = (
    4 * 1024 * 1024
)  # of the rows of such an answer: it is whole before it is sent
_DOUBTS: Final = 20  # attributes of one query that the store is asked about one by one
_REMEMBERED: Final = 4096
_ROW_LIMIT: Final = 32 * 1024 * 1024  # characters; one row with `includefield=all` is far smaller
_CUT: Final = "There are more results: ask for the next page"

_CSV_COLUMNS: Final = {
    "studies": "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyDescription"
    " AccessionNumber ReferringPhysicianName StudyID StudyInstanceUID",
    "series": "PatientName PatientID StudyDate AccessionNumber Modality SeriesNumber SeriesDescription"
    " PerformedProcedureStepStartDate PerformedProcedureStepStartTime StudyInstanceUID SeriesInstanceUID",
    "instances": "PatientName PatientID StudyDate Modality SeriesDescription InstanceNumber Rows Columns"
    " NumberOfFrames BitsAllocated SOPClassUID StudyInstanceUID SeriesInstanceUID SOPInstanceUID",
}


@dataclass
class Reply:
    """An answer to a caller.

    Args:
        body: whole, or in pieces as they come.
        close: lets go of what the pieces come from.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Page:
    """Rows of an answer, as text, and the offset of the rows after them (None: these are the
    last)."""

    rows: Iterable[str]
    following: int | None
    query: Query
    close: Callable[[], None] = lambda: None
    raw: bytes | Iterator[bytes] | None = None  # all of it, where no row has to be looked at


def form_of(accept: str) -> Form:
    """What to answer with, by the Accept header.

    Raises:
        RefusedError: not_acceptable.
    """
    best: tuple[float, Form] | None = None
    for item in (accept or "*/*").split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = _weight(parameters)
        for form in _FORMS:
            if (
                weight > 0
                and kind in (form, "*/*", form.split("/")[0] + "/*")
                and (not best or weight > best[0])
            ):
                best = (weight, form)
    if not best:
        raise RefusedError("not_acceptable", f"a search answers {', '.join(_FORMS)}")
    return best[1]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


class Searcher:
    """Searches one DICOM store.

    Args:
        relay: the store.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._includes: dict[str, bool] = {}

    def answer(self, query: Query, form: Form, base: str, own_url: Callable[[], str]) -> Reply:
        """The answer to a search.

        Args:
            query: translated.
            base: the function's own URL, which takes the place of the store's in the answer; with a
                slash at its end.
            own_url: gives this search's URL without limit and offset, for the link to the next
                page.

        Raises:
            RefusedError, RetryableError, ConnectionResetError: the store gave no good answer.
        """
        page = self._merged(query, base) if query.merged else self._direct(query, form, base)
        query = page.query
        warnings = [*query.warnings, *([] if page.following is None else [_CUT])]
        headers: dict[str, str] = {"Content-Type": form}
        if warnings:
            headers["Warning"] = ", ".join(f'299 dicom-functions "{text}"' for text in warnings)
        if page.following is not None and page.following <= qidors.OFFSET_MAX:
            url = own_url()
            joint = "&" if "?" in url else "?"
            headers["Link"] = (
                f'<{url}{joint}limit={query.limit}&offset={page.following}>; rel="next"'
            )
        if form != "text/csv":
            return Reply(200, headers, page.raw or joined(page.rows), page.close)
        headers["Content-Type"] = "text/csv; charset=utf-8; header=present"
        headers["Content-Disposition"] = f'attachment; filename="{query.level}.csv"'
        return Reply(
            200, headers, spreadsheet(map(json.loads, page.rows), _columns(query)), page.close
        )

    def holds(self, study: str, filters: dict[str, str]) -> bool:
        """Whether this study is there and matches."""
        query = qidors.translate(
            "studies", None, [("StudyInstanceUID", study), ("limit", "1")], filters
        )
        return any(True for _ in self._merged(replace(query, include=()), "").rows)

    def _direct(self, query: Query, form: Form, base: str) -> Page:
        small = query.limit <= _SMALL_LIMIT
        query, upstream = self._asked(query, query.searches[0], query.limit + small, query.offset)
        after = query.offset + query.limit
        chunks = rewritten(upstream.chunks(), self._relay.urls, base.encode())
        first, whole = head(chunks, _HEAD_BYTES)
        if not whole:
            more = self._more(query)
            rows = (text for text, _ in data_sets(chain(first, chunks), _ROW_LIMIT))
            raw = None if small or form == "text/csv" else chain(first, chunks)
            return Page(
                islice(rows, query.limit), after if more else None, query, upstream.close, raw
            )
        found = _count(first)
        more = found > query.limit or (not small and found == query.limit and self._more(query))
        following = after if more else None
        if form != "text/csv" and found <= query.limit:
            return Page((), following, query, upstream.close, first if found else b"[]")
        rows = (text for text, _ in data_sets([first], _ROW_LIMIT))
        return Page(islice(rows, query.limit), following, query, upstream.close)

    def _merged(self, query: Query, base: str) -> Page:
        """One row for each study, series or instance, from the rows of several searches or of a
        lower level."""
        seen: set[bytes] = set()
        rows: list[bytes] = []
        read = held = 0
        size = min(qidors.LIMIT_MAX[query.store_level], 4 * (query.offset + query.limit + 1))
        for filters in query.searches:
            for offset in count(0, size):
                if read >= _MERGE_ROWS:  # and so it will be for the next page
                    text = f"only {read} rows of the DICOM store were looked at: narrow the search"
                    return Page(
                        map(bytes.decode, rows),
                        None,
                        replace(query, warnings=(*query.warnings, text)),
                    )
                query, upstream = self._asked(query, filters, size, offset)
                before = read
                for text, row in data_sets(
                    rewritten(upstream.chunks(), self._relay.urls, base.encode()), _ROW_LIMIT
                ):
                    read += 1
                    if (key := _identity(row, query.level)) in seen:
                        continue
                    seen.add(key)
                    if len(seen) <= query.offset:
                        continue
                    if query.store_level != query.level:
                        text = json.dumps(study_of(row, qidors.STUDY_TAGS), separators=(",", ":"))
                    line = text.encode()
                    held += len(line)
                    if len(rows) == query.limit or (rows and held > _MERGE_BYTES):
                        upstream.close()
                        return Page(map(bytes.decode, rows), query.offset + len(rows), query)
                    rows.append(line)
                if read - before < size:
                    break
        return Page(map(bytes.decode, rows), None, query)

    def _asked(
        self, query: Query, filters: dict[str, str], limit: int, offset: int
    ) -> tuple[Query, Upstream]:
        """Ask the store; once more without the attributes that it turns out not to know."""
        try:
            return query, self._get(query, query.parameters(filters, limit, offset))
        except RefusedError as error:
            doubtful = [
                name for name in query.include if name not in qidors.TAG_OF and name != "all"
            ]
            if error.reason != "rejected" or not doubtful:
                raise
            unknown = [
                name for name in doubtful[:_DOUBTS] if not self._can_include(query, name)
            ] + doubtful[_DOUBTS:]
            if not unknown:
                raise
            known = tuple(name for name in query.include if name not in unknown)
            text = f"the DICOM store cannot include {' '.join(unknown)}"
            query = replace(query, include=known, warnings=(*query.warnings, text))
            return query, self._get(query, query.parameters(filters, limit, offset))

    def _can_include(self, query: Query, name: str) -> bool:
        """Whether the store knows this attribute: asked once, remembered while the process
        lives."""
        known = self._includes.get(name)
        if known is None:
            try:
                self._relay.get(query.store_level, f"limit=1&includefield={name}", {}).close()
                known = True
            except RefusedError as error:
                if error.reason != "rejected":
                    raise
                known = False
            if len(self._includes) >= _REMEMBERED:
                self._includes.clear()
            self._includes[name] = known
        return known

    def _more(self, query: Query) -> bool:
        """Whether a row follows this page. Where the store does not say, there may be one."""
        after = query.offset + query.limit
        if after > qidors.OFFSET_MAX:
            return True
        try:
            upstream = self._get(
                query, query.parameters(query.searches[0], 1, after, include=False)
            )
            return any(True for _ in data_sets(upstream.chunks(), _ROW_LIMIT))
        except (RefusedError, RetryableError, ConnectionResetError):
            return True

    def _get(self, query: Query, parameters: str) -> Upstream:
        try:
            upstream = self._relay.get(
                query.path(), parameters, {"Accept": "application/dicom+json"}
            )
        except RefusedError as error:
            if error.reason == "not_found" and not query.resource:
                raise RefusedError(
                    "unavailable", "the DICOM store does not exist; the operator has to look"
                ) from error
            raise
        kind = upstream.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if upstream.status == 200 and not kind.endswith("json") and not _is_empty(upstream):
            upstream.close()
            raise RefusedError("unavailable", "the DICOM store gave no answer that makes sense")
        return upstream


def _identity(row: DataSet, level: str) -> bytes:
    """What tells a row from others: its UID and those above it, since a UID alone may stand in two
    places.

    As a digest: of long answers many are remembered.
    """
    tags = list(qidors.UID_TAG.values())[: list(qidors.UID_TAG).index(level) + 1]
    uids = (dicomjson.text(row, tag) for tag in tags)
    return hashlib.blake2b("/".join(uids).encode(), digest_size=16).digest()


def _count(answer: bytes) -> int:
    """How many rows a whole answer has.

    Raises:
        RetryableError: unavailable, when it is not an array of objects.
    """
    return sum(1 for _ in data_sets([answer], _ROW_LIMIT))


def _is_empty(upstream: Upstream) -> bool:
    return upstream.headers.get("Content-Length") == "0"


def own_url(url: str, pairs: Iterable[tuple[str, str]]) -> str:
    """This search's URL with the caller's parameters, but without limit and offset."""
    query = urlencode(
        [pair for pair in pairs if pair[0] not in ("limit", "offset")], quote_via=quote
    )
    return f"{url}?{query}" if query else url


def _columns(query: Query) -> list[tuple[str, str]]:
    names = dict.fromkeys(
        [*_CSV_COLUMNS[query.level].split(), *(name for name in query.include if name != "all")]
    )
    tags = {**qidors.TAG_OF}
    return [(tags.get(name, name), name) for name in names]

"""A page of a search's rows, and how it becomes an answer with a link to the next page.

Which row is the next is decided in searching.py, whose docstring has the rules, and in merging.py.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote, urlencode

from functions.search import attributes, qidors
from functions.search.asking import Row
from functions.search.qidors import Pairs, Query
from functions.search.refusals import RefusedError
from functions.search.replies import Reply, do_nothing
from functions.search.spreadsheet import csv_of

Form = Literal["application/dicom+json", "application/json", "text/csv"]

_FORMS: Final[tuple[Form, ...]] = ("application/dicom+json", "application/json", "text/csv")
_MORE_FOLLOW: Final = "There are more results: ask for the next page"
_CSV_COLUMNS: Final = {
    "studies": (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyDescription",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyID",
        "StudyInstanceUID",
    ),
    "series": (
        "PatientName",
        "PatientID",
        "StudyDate",
        "AccessionNumber",
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "StudyInstanceUID",
        "SeriesInstanceUID",
    ),
    "instances": (
        "PatientName",
        "PatientID",
        "StudyDate",
        "Modality",
        "SeriesDescription",
        "InstanceNumber",
        "Rows",
        "Columns",
        "NumberOfFrames",
        "BitsAllocated",
        "SOPClassUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    ),
}


@dataclass(frozen=True)
class Page:
    """Rows of an answer.

    Args:
        query: the final query, with its warnings.
        rows: read once.
        following: the offset of the rows after them; None: these are the last.
        array: the same rows as a JSON array, if it can be sent as it is. It may share its source
            with `rows`: only one of the two is read.
        close: closes the source of the rows.
    """

    query: Query
    rows: Iterable[Row] = ()
    following: int | None = None
    array: bytes | Iterator[bytes] | None = None
    close: Callable[[], None] = do_nothing

    def reply(self, form: Form, url: str, pairs: Pairs) -> Reply:
        """The answer to a caller.

        Args:
            url: of this search, without a query; the link to the next page begins with it.
            pairs: the parameters in the URL.
        """
        headers: dict[str, str] = {"Content-Type": form}
        warnings = list(self.query.warnings)
        if self.following is not None:
            warnings.append(_MORE_FOLLOW)
            if self.following <= qidors.OFFSET_MAX:
                headers["Link"] = f'<{self._next(url, pairs)}>; rel="next"'
        if warnings:
            headers["Warning"] = ", ".join(f'299 dicom-functions "{text}"' for text in warnings)
        if form == "text/csv":
            return self._csv(headers)
        body = self.array
        if body is None:
            body = array_of(text.encode() for text, _ in self.rows)
        return Reply(200, headers, body, self.close)

    def _next(self, url: str, pairs: Pairs) -> str:
        """The URL of the next page: with the same parameters, except limit and offset."""
        kept = [pair for pair in pairs if pair[0] not in ("limit", "offset")]
        paging = [("limit", str(self.query.limit)), ("offset", str(self.following))]
        return f"{url}?{urlencode(kept + paging, quote_via=quote)}"

    def _csv(self, headers: dict[str, str]) -> Reply:
        headers["Content-Type"] = "text/csv; charset=utf-8; header=present"
        headers["Content-Disposition"] = f'attachment; filename="{self.query.level}.csv"'
        rows = (data_set for _, data_set in self.rows)
        return Reply(
            200,
            headers,
            csv_of(rows, _columns(self.query)),
            self.close,
        )


def form_of(accept: str) -> Form:
    """The type of the answer, by the Accept header.

    Raises:
        RefusedError: not_acceptable.
    """
    if accept in ("", "*/*"):
        return _FORMS[0]
    best: Form | None = None
    best_weight = 0.0
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = _weight(parameters)
        for form in _FORMS:
            family = form.partition("/")[0] + "/*"
            if kind in (form, "*/*", family) and weight > best_weight:
                best, best_weight = form, weight
    if best is None:
        raise RefusedError(
            "not_acceptable",
            f"a search answers {', '.join(_FORMS)}",
        )
    return best


def _weight(parameters: list[str]) -> float:
    """The quality value (RFC 9110 section 12.4.2)."""
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def array_of(objects: Iterable[bytes]) -> Iterator[bytes]:
    """A JSON array of these objects."""
    separator = b"["
    for one in objects:
        yield separator + one
        separator = b","
    yield b"[]" if separator == b"[" else b"]"


def _columns(query: Query) -> list[tuple[str, str]]:
    """Tag and heading of each column."""
    included = [name for name in query.include if name != "all"]
    names = dict.fromkeys([*_CSV_COLUMNS[query.level], *included])
    return [(attributes.TAG_OF.get(name, name), name) for name in names]

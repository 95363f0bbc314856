"""`search`: search the DICOM store through the search function.

Parameters are sent in the body of a POST: a patient's name in a URL would be logged.
"""

import concurrent.futures
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import click

from cli.clients import Answer, Clients
from cli.errors import CliError
from cli.options import system_option
from cli.output import Item, Listing, listing_options, note, print_table, say
from cli.text import amount, shown
from functions.common.dicom import dicomjson
from functions.common.errors import PermanentError
from functions.common.resources import Resource

LEVELS: Final = ("studies", "series", "instances")
# Field and attribute, by level, in the order of the columns.
_ATTRIBUTES: Final[Mapping[str, Mapping[str, str]]] = {
    "studies": {
        "date": "00080020",
        "patient_name": "00100010",
        "patient_id": "00100020",
        "accession": "00080050",
        "description": "00081030",
        "study": "0020000D",
    },
    "series": {
        "modality": "00080060",
        "number": "00200011",
        "description": "0008103E",
        "series": "0020000E",
        "study": "0020000D",
    },
    "instances": {
        "number": "00200013",
        "class": "00080016",
        "instance": "00080018",
        "series": "0020000E",
        "study": "0020000D",
    },
}
_COLUMNS: Final = {
    "studies": (
        "date",
        "patient_name",
        "patient_id",
        "accession",
        "modality",
        "description",
        "series",
        "instances",
        "study",
    ),
    "series": ("modality", "number", "description", "instances", "series", "study"),
    "instances": ("number", "class", "instance", "series"),
}
# What the service returns only on request (fact sheet section 4).
_NOT_DEFAULT: Final = {
    "studies": ("StudyDescription",),
    "series": ("SeriesNumber",),
    "instances": ("SeriesInstanceUID", "StudyInstanceUID"),
}
_METRICS: Final = {"studies": "getStudyMetrics", "series": "getSeriesMetrics"}
_PAGE: Final = 1000
_SORTED_MAX: Final = 20_000  # rows that are read to be sorted
_LIMIT: Final = 100
_STUDIES_AT_ONCE: Final = 50  # UIDs in one search
_THREADS: Final = 8
_TAG: Final = re.compile("[0-9A-Fa-f]{8}")
_NEXT: Final = re.compile(r'<([^>]*)>;\s*rel="?next"?')
_WARNING: Final = re.compile(r'299 \S+ "(.*)"')


@click.command()
@click.argument("parameters", nargs=-1, metavar="[KEY=VALUE …]")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="studies",
    show_default=True,
    help="What to search for.",
)
@click.option(
    "--in", "scope", metavar="PATH", help="Search only in this study or series: studies/UID[/…]."
)
@listing_options(limit=_LIMIT)
@system_option
def search(
    clients: Clients,
    parameters: tuple[str, ...],
    level: str,
    scope: str | None,
    listing: Listing,
) -> int:
    """Search the DICOM store through the search function.

    KEY=VALUE is as in QIDO-RS: PatientID=4MR1, StudyDate=20240101-, PatientName='Doe*'.
    With --format json, results are DICOM JSON. The fields of other formats are the columns of the
    table and DICOM keywords.
    """
    within = _scope(scope, level)
    wanted = dict(_parameter(text) for text in parameters)
    query = Query(clients, level, within, wanted)
    rows, more = query.rows(listing.read(_LIMIT, _SORTED_MAX))
    items = [_with_uids_of(within, _item(level, row)) for row in rows]
    if listing.format.kind not in ("json", "ndjson") or listing.sort_by:
        fields = _wanted(level, listing)
        items = _with_counts(clients, level, items, fields)
    if listing.format.fields or listing.sort_by:
        items = [_with_keywords(item) for item in items]
    chosen = listing.chosen(items)
    listing.print(chosen, _COLUMNS[level])
    if listing.format.for_people:
        say(amount(len(chosen), level))
    if more:
        note("there are more: use --limit N, or a narrower search")
    return 0


class Query:
    """One search.

    Args:
        clients: of the system.
        level: of LEVELS.
        scope: the study or series to search in; None: everything.
        parameters: QIDO-RS keys and values.
    """

    def __init__(
        self,
        clients: Clients,
        level: str,
        scope: Resource | None,
        parameters: Mapping[str, str],
    ) -> None:
        self._clients = clients
        self._body = {**parameters, "includefield": _included(level, parameters)}
        self._url = f"{_url(clients)}/{level}/_query"
        if scope:
            self._url = f"{_url(clients)}/{scope}/{level}/_query"

    def rows(self, most: int) -> tuple[list[Any], bool]:
        """Up to `most` results in DICOM JSON, and whether there are more.

        Raises:
            CliError: the search was refused, or there is no answer.
        """
        found: list[Any] = []
        limit = min(_PAGE, most)
        page: dict[str, str] | None = {"limit": str(limit)}
        while page and len(found) < most:
            answer = self._page(page)
            found += answer.json
            page = _next_page(answer)
        has_more = bool(page) or len(found) > most
        return found[:most], has_more

    def _page(self, page: Mapping[str, str]) -> Answer:
        function_url = _url(self._clients)
        answer = self._clients.call(
            method="POST",
            url=self._url,
            body=self._body,
            params=page,
            headers=self._clients.identity_header(function_url),
        )
        if answer.status != 200 or not isinstance(answer.json, list):
            raise CliError(_refusal(answer))
        warning = _WARNING.match(answer.headers.get("Warning", ""))
        link = _NEXT.search(answer.headers.get("Link", ""))
        # With a link, the rest is read from the next page.
        if warning and not link:
            note(f"warning: {warning[1]}")
        return answer


def _url(clients: Clients) -> str:
    if not clients.system.search_url:
        raise CliError("this system runs without the search function")
    return clients.system.search_url


def _refusal(answer: Answer) -> str:
    if answer.status in (401, 403):
        return (
            "you may not search: add yourself to search_callers in "
            "infra/gcp/terraform.tfvars, and run ./deploy.sh"
        )
    error = answer.part("error")
    words = [str(error[key]) for key in ("parameter", "message") if error.get(key)]
    text = " ".join(words) or error.get("reason", "see its log")
    return f"search answered {answer.status}: {text}"


def _next_page(answer: Answer) -> dict[str, str] | None:
    """`limit` and `offset` of the next page, from the link. The rest of the link is not used:
    requests go only to the URL in the system's file."""
    link = _NEXT.search(answer.headers.get("Link", ""))
    if link is None:
        return None
    found = dict(parse_qsl(urlsplit(link[1]).query))
    return {key: found[key] for key in ("limit", "offset") if key in found}


def _scope(text: str | None, level: str) -> Resource | None:
    if text is None:
        return None
    try:
        scope = Resource.parse(text)
    except PermanentError as error:
        raise CliError(f"--in must be studies/UID[/series/UID], not {text}") from error
    if scope.instance:
        raise CliError(f"--in must be studies/UID[/series/UID], not {text}")
    contents = ["series", "instances"]
    if scope.series:
        contents = ["instances"]
    if level not in contents:
        options = " or ".join(f"--level {name}" for name in contents)
        raise CliError(f"--in {text} does not contain {level}: use {options}")
    return scope


def _parameter(text: str) -> tuple[str, str]:
    key, mark, value = text.partition("=")
    if not mark:
        raise CliError(f"a search parameter is KEY=VALUE, such as PatientID=4MR1, not {text}")
    if key in ("limit", "offset"):
        raise CliError(f"{key} is not a search parameter here: use --limit N")
    return key, value


def _included(level: str, parameters: Mapping[str, str]) -> str:
    wanted = [*_NOT_DEFAULT[level], parameters.get("includefield", "")]
    return ",".join(filter(None, wanted))


def _item(level: str, data_set: Any) -> Item:
    fields = {field: _text(data_set, tag) for field, tag in _ATTRIBUTES[level].items()}
    return Item(data_set, fields)


def _with_uids_of(scope: Resource | None, item: Item) -> Item:
    """The item with the UIDs of `--in`, which the store leaves out of results within them."""
    if scope is None:
        return item
    known = {"study": scope.study, "series": scope.series}
    missing = {name: uid for name, uid in known.items() if item.fields.get(name) == ""}
    return Item(item.full, {**item.fields, **missing})


def _text(data_set: Any, tag: str) -> str:
    """An attribute's values as text; for a person's name, one of its representations."""
    return "/".join(map(_value_text, dicomjson.values(data_set, tag)))


def _value_text(value: Any) -> str:
    if isinstance(value, dict):
        return next((str(part) for part in value.values() if part), "")
    return str(value)


def _with_keywords(item: Item) -> Item:
    """The item with a field for each attribute, named by its DICOM keyword."""
    from pydicom.datadict import keyword_for_tag

    more = {}
    for tag in filter(_TAG.fullmatch, dict(item.full)):
        more[keyword_for_tag(tag) or tag] = _text(item.full, tag)
    return Item(item.full, {**more, **item.fields})


def _wanted(level: str, listing: Listing) -> set[str]:
    """The fields that are shown or sorted by."""
    fields = set(listing.format.fields or _COLUMNS[level])
    if listing.format.kind in ("json", "ndjson"):
        fields = set()
    return fields | {listing.sort_by.removeprefix("~")}


def _with_counts(
    clients: Clients,
    level: str,
    items: Sequence[Item],
    wanted: set[str],
) -> list[Item]:
    """The items with modalities and counts, which the service's searches lack (fact sheet section
    4)."""
    found = list(items)
    if level == "studies" and "modality" in wanted:
        found = _with_modalities(clients, found)
    if level in _METRICS and wanted & {"instances", "series"}:
        found = _with_metrics(clients, level, found)
    return found


def _with_metrics(clients: Clients, level: str, items: list[Item]) -> list[Item]:
    """Studies or series with the numbers of what they contain."""

    def with_metrics(item: Item) -> Item:
        metrics = _metrics(clients, level, item)
        return Item(item.full, {**item.fields, **metrics})

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(with_metrics, items))


def _with_modalities(clients: Clients, items: Sequence[Item]) -> list[Item]:
    """Studies with the modalities of their series."""
    modalities = _modalities(clients, items)
    found = []
    for item in items:
        of_study = modalities.get(item.fields["study"], set())
        fields = {**item.fields, "modality": "/".join(sorted(of_study))}
        found.append(Item(item.full, fields))
    return found


def _modalities(clients: Clients, items: Sequence[Item]) -> dict[str, set[str]]:
    """The modalities of each study's series."""
    uids = [item.fields["study"] for item in items if item.fields["study"]]
    found: dict[str, set[str]] = {}
    for start in range(0, len(uids), _STUDIES_AT_ONCE):
        some = uids[start : start + _STUDIES_AT_ONCE]
        query = Query(clients, "series", None, {"StudyInstanceUID": ",".join(some)})
        rows, _ = query.rows(_SORTED_MAX)
        for series in rows:
            study = dicomjson.uid(series, "0020000D")
            modality = _text(series, "00080060")
            if modality:
                found.setdefault(study, set()).add(modality)
    return found


def _metrics(clients: Clients, level: str, item: Item) -> dict[str, int | None]:
    """Counts of a study or series, from the DICOM store itself; none without permission."""
    try:
        resource = Resource(item.fields["study"], item.fields.get("series", ""))
    except PermanentError:
        return {}
    system = clients.system
    base = f"{system.endpoints.healthcare}/{system.store.name}/dicomWeb"
    found = clients.call("GET", f"{base}/{resource}:{_METRICS[level]}").object
    counts = {"instances": _whole(found.get("instanceCount"))}
    if level == "studies":
        counts["series"] = _whole(found.get("seriesCount"))
    return counts


def _whole(value: Any) -> int | None:
    text = str(value)
    if not re.fullmatch("[0-9]{1,15}", text):
        return None
    return int(text)


def studies(clients: Clients) -> dict[str, Item]:
    """Every study by its UID, for the demo."""
    rows, _ = Query(clients, "studies", None, {}).rows(_SORTED_MAX)
    items = [_item("studies", row) for row in rows]
    return {shown(item.fields["study"]): item for item in items}


def print_studies(clients: Clients, items: Sequence[Item]) -> None:
    """Print studies in the default columns."""
    columns = _COLUMNS["studies"]
    found = _with_counts(clients, "studies", items, set(columns))
    print_table(found, columns)

"""Search (QIDO-RS): one SQL statement, answers joined from kept lines (fact sheet section 4)."""

import functools
import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from infra.local.dicomstore import attributes, choices, model, nativexml, slices
from infra.local.dicomstore.index import Index
from infra.local.dicomstore.media import ApiError, Media
from infra.local.dicomstore.rows import Uids, scope

ANSWERS = (
    Media("application/dicom+json"),
    Media("multipart/related", "application/dicom+xml"),
)
LEVELS = ("studies", "series", "instances")
SINGULAR = {"studies": "study", "series": "series", "instances": "instance"}
DEFAULT_LIMIT = {"studies": 100, "series": 100, "instances": 1000}
MAX_LIMIT = {"studies": 5000, "series": 5000, "instances": 50_000}
MAX_OFFSET = 1_000_000
# Parameters of every Google API method, not DICOM attributes (fact sheet section 1).
GOOGLE = frozenset(
    (
        "alt",
        "$alt",
        "prettyPrint",
        "fields",
        "key",
        "access_token",
        "oauth_token",
        "$.xgafv",
        "quotaUser",
        "callback",
        "upload_protocol",
        "uploadType",
    )
)
# AvailableTransferSyntaxUID, seen refused as filter and includefield.
UNSUPPORTED = frozenset(("00083002",))
UID_COLUMNS = {
    attributes.STUDY_UID: "st.uid",
    attributes.SERIES_UID: "se.uid",
    attributes.INSTANCE_UID: "i.uid",
}
COLUMNS = ("st.uid", "se.uid", "i.uid")  # of the level itself and those above
LINES = ("st.lines", "se.lines", "i.lines")
STUDY_DATE, CHARSET = "00080020", "00080005"
LAST_DATE = "99999999"
LAST_CHARACTER = "\U0010ffff"

Match = tuple[list[str], Uids]  # the attributes of a match as lines, and its UIDs


class Query(NamedTuple):
    """A parsed search: filters by tag, extra attributes, and the page."""

    level: str
    scope: Uids
    filters: dict[str, str]
    include: frozenset[str]
    everything: bool
    fuzzy: bool
    limit: int
    offset: int

    @property
    def depth(self) -> int:
        """0 for studies, 1 for series, 2 for instances."""
        return LEVELS.index(self.level)


def refuse(message: str) -> ApiError:
    """A 400 of a search."""
    return ApiError(400, message, "array")


# --- reading the parameters ---


def parse(level: str, within: Uids, parameters: list[tuple[str, str]]) -> Query:
    """Read the parameters of a search.

    Raises:
        ApiError: 400, the service does not support one.
    """
    filters: dict[str, str] = {}
    fields: list[str] = []
    fuzzy = False
    limit, offset = DEFAULT_LIMIT[level], 0
    for name, value in parameters:
        if name == "limit":
            limit = _whole(name, value, MAX_LIMIT[level])
        elif name == "offset":
            offset = _whole(name, value, MAX_OFFSET)
        elif name == "fuzzymatching":
            fuzzy = value.lower() == "true"
        elif name == "includefield":
            fields += [field for field in value.split(",") if field]
        elif name not in GOOGLE:
            _add_filter(filters, level, name, value)
    return Query(
        level=level,
        scope=within,
        filters=filters,
        include=frozenset(_tag(field) for field in fields if field != "all"),
        everything="all" in fields,
        fuzzy=fuzzy,
        limit=limit,
        offset=offset,
    )


def _add_filter(filters: dict[str, str], level: str, name: str, value: str) -> None:
    tag = _filter_tag(level, name)
    if tag in filters:
        raise refuse(f"{name} is given more than once; multiple values are not supported")
    if value or not choices.EMPTY_VALUE_MATCHES_ALL:
        filters[tag] = value


def _whole(name: str, value: str, most: int) -> int:
    if not value.isdecimal():
        raise refuse(f"{name} must be a non-negative integer")
    if int(value) > most:
        raise ApiError(choices.OVER_LIMIT, f"{name} must not be greater than {most}", "array")
    return int(value)


def _tag(field: str) -> str:
    """The tag of a keyword, or of its eight digits. Raises ApiError 400: the service knows none."""
    shown = field
    if re.fullmatch(r"[0-9A-Fa-f]{8}", field):
        tag = field.upper()
        shown = keyword_for_tag(int(tag, 16))
    else:
        number = tag_for_keyword(field)
        tag = ""
        if number is not None:
            tag = f"{number:08X}"
    if not tag or tag in UNSUPPORTED:
        raise refuse(f"unknown/unsupported QIDO attribute: {shown}")
    return tag


def _filter_tag(level: str, name: str) -> str:
    """The tag of an attribute to match. Raises ApiError 400: searches at this level do not."""
    tag = _tag(name)
    if tag == CHARSET:
        message = "SpecificCharacterSet is not a supported attribute to match"
        raise ApiError(choices.CHARSET_AS_KEY, message, "array")
    if tag not in attributes.KEYS[level]:
        keyword = keyword_for_tag(int(tag, 16)) or name
        known = f"{SINGULAR[level]} or series/study level attribute"
        raise refuse(f"{keyword} is not a supported {known}")
    return tag


# --- finding ---


def run(index: Index, store: int, query: Query, stale_s: float) -> Iterator[Match]:
    """The matches in stable order, read while they are sent: there may be 50,000."""
    depth = query.depth
    sql, values = _sql(store, query, stale_s)
    with index.reading() as db:
        for row in db.execute(sql, values):
            uids = Uids(*row[: depth + 1])
            yield _attributes(query, row[depth + 1 :]), uids


def _sql(store: int, query: Query, stale_s: float) -> tuple[str, list[object]]:
    """The statement and its values.

    Tables are joined from the study down, in the order of their UIDs' indexes, so that LIMIT stops
    early. A search by a study key starts at the keys (the `+` keeps SQLite off the store's index),
    one by a lower UID at that UID.
    """
    depth = query.depth
    where, values = scope(store, query.scope)
    if attributes.STUDY_KEYS & query.filters.keys() and not query.scope.study:
        where = "+" + where
    if depth < 2:
        alive = ("st.gone", "se.gone")[depth]
        where += f" AND ({alive} IS NULL OR {alive} > ?)"
        values.append(time.time() - stale_s)
    for tag, value in query.filters.items():
        condition, more = _condition(tag, value, query.fuzzy)
        where += f" AND {condition}"
        if tag in attributes.STUDY_KEYS:
            values.append(store)
        values += more
    columns = [*COLUMNS[: depth + 1], *LINES[: depth + 1]]
    if depth == 2 and (query.everything or query.include):
        columns.append("(SELECT lines FROM metadata WHERE instance = i.id)")
    order = ", ".join(COLUMNS[: depth + 1])
    sql = (
        f"SELECT {', '.join(columns)} FROM {_tables(query)} WHERE {where}"  # noqa: S608
        f" ORDER BY {order} LIMIT ? OFFSET ?"
    )
    return sql, [*values, query.limit, query.offset]


def _tables(query: Query) -> str:
    lower = {attributes.SERIES_UID, attributes.INSTANCE_UID}
    join = "CROSS JOIN"  # SQLite keeps the order of these
    if lower & query.filters.keys() or query.scope.series:
        join = "JOIN"
    tables = "studies st"
    if query.depth > 0:
        tables += f" {join} series se ON se.study = st.id"
    if query.depth > 1:
        tables += f" {join} instances i ON i.series = se.id"
    return tables


def _condition(tag: str, value: str, fuzzy: bool) -> tuple[str, list[object]]:
    """A filter as SQL, with its values but for the store that study keys are looked up in."""
    if tag in UID_COLUMNS:
        return f"{UID_COLUMNS[tag]} = ?", [value]
    if tag == attributes.MODALITY:
        return "se.modality = ?", [value]
    if tag == attributes.NAME and fuzzy:
        return _fuzzy_condition(value)
    if tag == STUDY_DATE and "-" in value:
        first, _, last = value.partition("-")
        return _key_condition(tag, "value BETWEEN ? AND ?"), [first, last or LAST_DATE]
    return _key_condition(tag, "value = ?"), [value]


def _fuzzy_condition(name: str) -> tuple[str, list[object]]:
    """A name whose words begin with one of these."""
    conditions = []
    bounds: list[object] = []
    for token in sorted(attributes.tokens(name)):
        conditions.append("(value >= ? AND value < ?)")
        bounds += [token, token + LAST_CHARACTER]
    either = " OR ".join(conditions) or "0"
    return _key_condition(attributes.FUZZY, f"({either})"), bounds


def _key_condition(tag: str, condition: str) -> str:
    """The studies with a key that fulfils a condition."""
    keys = f"SELECT study FROM keys WHERE store = ? AND tag = '{tag}' AND {condition}"  # noqa: S608
    return f"st.id IN ({keys})"


# --- what is shown ---


def _attributes(query: Query, texts: tuple[str, ...]) -> list[str]:
    """The defaults of this level and of the parents that the URL does not fix, then those of
    includefield."""
    depth = query.depth
    fixed = min(sum(1 for uid in query.scope if uid), depth)
    parts = [_levels(texts[fixed : min(depth + 1, 2)], fixed, query.everything)]
    if depth == 2:
        parts.append(texts[2].split("\n"))
    if query.everything and depth == 2:
        parts.append(texts[3].split("\n"))
    elif query.include and depth == 2:
        parts.append(model.pick(texts[3].split("\n"), query.include))
    elif query.include:
        parts.append(model.pick("\n".join(texts).split("\n"), query.include))
    return model.merge(*parts)


@functools.lru_cache(maxsize=256)
def _levels(texts: tuple[str, ...], first: int, everything: bool) -> list[str]:
    """What a search shows of the study and series levels; the same for all instances of a series,
    hence kept."""
    shown = (attributes.STUDY_DEFAULT, attributes.SERIES_DEFAULT)
    if everything:
        shown = (attributes.STUDY_ALL, attributes.SERIES_ALL)
    parts = []
    for number, text in enumerate(texts, first):
        parts.append(model.pick(text.split("\n"), shown[number]))
    return model.merge(*parts)


def as_json(found: Iterable[Match], base: str) -> Iterator[bytes]:
    """The matches as a JSON array, one after the other."""
    return slices.gathered(_json_pieces(found, base))


def _json_pieces(found: Iterable[Match], base: str) -> Iterator[bytes]:
    before = "["
    for lines, uids in found:
        url = ""
        if uids.instance:
            url = f"{base}/{uids.path}"
        yield (before + model.join(lines, url)).encode()
        before = ","
    yield b"]"


def as_xml(found: Iterable[Match], base: str) -> Iterator[Iterator[bytes]]:
    """The matches as XML documents."""
    for lines, uids in found:
        yield nativexml.document(lines, f"{base}/{uids.path}")

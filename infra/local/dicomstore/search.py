"""Search (QIDO-RS): one SQL statement, answers joined from kept lines (sheet section 4)."""

import functools
import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from infra.local.dicomstore import attributes, choices, model, nativexml
from infra.local.dicomstore.index import Index
from infra.local.dicomstore.media import ApiError, Media
from infra.local.dicomstore.rows import Uids, scope

ANSWERS = (
    Media("application/dicom+json"),
    Media("multipart/related", "application/dicom+xml"),
)
LEVELS = ("studies", "series", "instances")
DEFAULT_LIMIT = {"studies": 100, "series": 100, "instances": 1000}
MAX_LIMIT = {"studies": 5000, "series": 5000, "instances": 50_000}
MAX_OFFSET = 1_000_000
GOOGLE = frozenset(  # parameters of every Google API method, not DICOM attributes (sheet section 1)
    (
        *(
            "alt",
            "prettyPrint",
            "fields",
            "key",
            "access_token",
            "oauth_token",
            "$.xgafv",
            "quotaUser",
        ),
        *("callback", "upload_protocol", "uploadType", "$alt"),
    )
)
UNSUPPORTED = frozenset(
    ("00083002",)
)  # AvailableTransferSyntaxUID, seen refused as filter and includefield
UID_COLUMNS = {"0020000D": "st.uid", "0020000E": "se.uid", "00080018": "i.uid"}
CHARSET = "00080005"


Match = tuple[list[str], Uids]  # the attributes of what was found as lines, and its UIDs


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


def refuse(message: str) -> ApiError:
    """A 400 as search answers it."""
    return ApiError(400, message, "array")


def parse(level: str, within: Uids, parameters: list[tuple[str, str]]) -> Query:
    """Read the parameters of a search. Raises ApiError 400 for what the service does not
    support."""
    filters: dict[str, str] = {}
    include: set[str] = set()
    everything = fuzzy = False
    page = {"limit": DEFAULT_LIMIT[level], "offset": 0}
    most = {"limit": MAX_LIMIT[level], "offset": MAX_OFFSET}
    for name, value in parameters:
        if name in page:
            page[name] = _whole(name, value, most[name])
        elif name == "fuzzymatching":
            fuzzy = value.lower() == "true"
        elif name == "includefield":
            for field in filter(None, value.split(",")):
                everything = everything or field == "all"
                include.update(() if field == "all" else (_tag(field),))
        elif name not in GOOGLE:
            tag = _filter_tag(level, name)
            if tag in filters:
                raise refuse(f"{name} is given more than once; multiple values are not supported")
            if value or not choices.EMPTY_VALUE_MATCHES_ALL:
                filters[tag] = value
    return Query(
        level, within, filters, frozenset(include), everything, fuzzy, page["limit"], page["offset"]
    )


def _whole(name: str, value: str, most: int) -> int:
    if not value.isdecimal():
        raise refuse(f"{name} must be a non-negative integer")
    if int(value) > most:
        raise ApiError(choices.OVER_LIMIT, f"{name} must not be greater than {most}", "array")
    return int(value)


def _tag(field: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", field):
        tag = field.upper()
    else:
        number = tag_for_keyword(field)
        tag = f"{number:08X}" if number is not None else ""
    if not tag or tag in UNSUPPORTED:
        raise refuse(
            f"unknown/unsupported QIDO attribute: {keyword_for_tag(int(tag, 16)) if tag else field}"
        )
    return tag


def _filter_tag(level: str, name: str) -> str:
    tag = _tag(name)
    allowed = set(attributes.STUDY_KEYS) | {"0020000D"}
    if level != "studies":
        allowed |= {"0020000E", attributes.MODALITY}
    if level == "instances":
        allowed.add("00080018")
    if tag == CHARSET:
        raise ApiError(
            choices.CHARSET_AS_KEY,
            "SpecificCharacterSet is not a supported attribute to match",
            "array",
        )
    if tag not in allowed:
        keyword = keyword_for_tag(int(tag, 16)) or name
        raise refuse(
            f"{keyword} is not a supported {level_name(level)} or series/study level attribute"
        )
    return tag


def level_name(level: str) -> str:
    """`study`, `series` or `instance`."""
    return {"studies": "study", "series": "series", "instances": "instance"}[level]


def run(index: Index, store: int, query: Query, stale_s: float) -> Iterator[Match]:
    """The matches in stable order, read while they are sent: there may be 50,000."""
    depth = LEVELS.index(query.level)
    sql, values = _sql(store, query, depth, stale_s)
    with index.reading() as db:
        for row in db.execute(sql, values):
            uids = Uids(*row[: depth + 1])
            yield _attributes(query, depth, row[depth + 1 :]), uids


def _sql(store: int, query: Query, depth: int, stale_s: float) -> tuple[str, list[object]]:
    """Tables are joined from the study down, in the order of their UIDs' indexes, so that LIMIT
    stops early. A search by a study key starts at the keys (the `+` keeps SQLite off the store's
    index), one by a lower UID at that UID."""
    low = bool({"0020000E", "00080018"} & query.filters.keys()) or bool(query.scope.series)
    join = "JOIN" if low else "CROSS JOIN"
    tables = "studies st"
    if depth > 0:
        tables += f" {join} series se ON se.study = st.id"
    if depth > 1:
        tables += f" {join} instances i ON i.series = se.id"
    where, values = scope(store, query.scope)
    if attributes.STUDY_KEYS & query.filters.keys() and not query.scope.study:
        where = "+" + where
    if depth < 2:
        alive = "se.gone" if depth else "st.gone"
        where += f" AND ({alive} IS NULL OR {alive} > ?)"
        values.append(time.time() - stale_s)
    for tag, value in query.filters.items():
        condition, more = _condition(tag, value, query.fuzzy)
        where += f" AND {condition}"
        values += [store, *more] if tag in attributes.STUDY_KEYS else more
    columns = ["st.uid", "se.uid", "i.uid"][: depth + 1] + ["st.lines", "se.lines", "i.lines"][
        : depth + 1
    ]
    if depth == 2 and (query.everything or query.include):
        columns.append("(SELECT lines FROM metadata WHERE instance = i.id)")
    order = ["st.uid", "se.uid", "i.uid"][: depth + 1]
    sql = f"SELECT {', '.join(columns)} FROM {tables} WHERE {where} ORDER BY {', '.join(order)} LIMIT ? OFFSET ?"  # noqa: S608
    return sql, [*values, query.limit, query.offset]


def _condition(tag: str, value: str, fuzzy: bool) -> tuple[str, list[object]]:
    if tag in UID_COLUMNS:
        return f"{UID_COLUMNS[tag]} = ?", [value]
    if tag == attributes.MODALITY:
        return "se.modality = ?", [value]
    start = "st.id IN (SELECT study FROM keys WHERE store = ? AND tag = "
    if tag == attributes.NAME and fuzzy:
        found = sorted(attributes.tokens(value))
        either = " OR ".join("(value >= ? AND value < ?)" for _ in found) or "0"
        bounds = [bound for token in found for bound in (token, token + "\U0010ffff")]
        return f"{start}'{attributes.FUZZY}' AND ({either}))", list(bounds)
    if tag == "00080020" and "-" in value:
        first, _, last = value.partition("-")
        return f"{start}'{tag}' AND value BETWEEN ? AND ?)", [first, last or "99999999"]
    return f"{start}'{tag}' AND value = ?)", [value]


def _attributes(query: Query, depth: int, texts: tuple[str, ...]) -> list[str]:
    """Defaults of this level and of the parents the URL does not fix, then what includefield asks
    for."""
    fixed = min(bool(query.scope.study) + bool(query.scope.series), depth)
    above = _levels(texts[fixed : min(depth + 1, 2)], fixed, query.everything)
    parts = [above, texts[2].split("\n")] if depth == 2 else [above]
    if query.include or query.everything:
        everywhere = (texts[3] if len(texts) > 3 else "\n".join(texts)).split("\n")
        parts.append(
            everywhere if query.everything and depth == 2 else model.pick(everywhere, query.include)
        )
    return model.merge(*parts)


@functools.lru_cache(maxsize=256)
def _levels(texts: tuple[str, ...], first: int, everything: bool) -> list[str]:
    """What a search shows of the study and series levels; the same for all instances of a series,
    hence kept."""
    shown = (attributes.STUDY_ALL, attributes.SERIES_ALL) if everything else _DEFAULTS
    return model.merge(
        *(model.pick(text.split("\n"), shown[first + at]) for at, text in enumerate(texts))
    )


_DEFAULTS = (attributes.STUDY_DEFAULT, attributes.SERIES_DEFAULT)


def as_json(found: Iterable[Match], base: str) -> Iterator[bytes]:
    """The matches as a JSON array, one after the other."""
    before = "["
    for lines, uids in found:
        url = f"{base}/{uids.path}" if uids.instance else ""
        yield (before + model.join(lines, url)).encode()
        before = ","
    yield b"]"


def as_xml(found: Iterable[Match], base: str) -> Iterator[Iterator[bytes]]:
    """The matches as XML documents."""
    for lines, uids in found:
        yield nativexml.document(lines, f"{base}/{uids.path}")

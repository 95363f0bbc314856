"""QIDO-RS parameters of callers, translated for the DICOM store (fact sheet section 4).

The store matches whole values of a few attributes and refuses everything else. A parameter with a
clear meaning is translated here, with a warning if the answer is not exactly as in PS3.18; the
others are refused by name. docs/search.md lists the translations.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlencode

from functions.common.resources import Resource, is_uid
from functions.common.values import DATES, is_line
from functions.search import attributes
from functions.search.refusals import RefusedError

LIMIT_DEFAULT: Final = {"studies": 100, "series": 100, "instances": 1000}
LIMIT_MAX: Final = {"studies": 5000, "series": 5000, "instances": 50_000}
OFFSET_MAX: Final = 1_000_000
_SEARCHES_MAX: Final = 50
_INCLUDE_MAX: Final = 100
_DROPPED_SHOWN: Final = 20
_PAIRS_MAX: Final = 200
_VALUE_LENGTH: Final = 1024
_UID_KEYS: Final = (attributes.STUDY_UID, attributes.SERIES_UID, attributes.INSTANCE_UID)
_ONCE: Final = ("limit", "offset", "fuzzymatching")

_NAME: Final = re.compile(r"[\w.]{1,64}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_MODALITY: Final = re.compile(r"[A-Z][A-Z0-9 _]{0,15}", re.ASCII)
_PART: Final = "([A-Za-z][A-Za-z0-9]{2,63}|[0-9A-Fa-f]{8})"
_ATTRIBUTE: Final = re.compile(rf"{_PART}(\.{_PART}){{0,5}}")

Pairs = Iterable[tuple[str, str]]
Filters = Mapping[str, str]


@dataclass(frozen=True)
class Query:
    """A search for the store.

    Args:
        level: studies, series or instances: the rows of the answer.
        resource: the study or series in the path.
        searches: the filters of one search, or of several whose rows are combined (a list of
            values).
        store_level: the level of the store's search; `series` for a modality at study level.
        include: keywords or tags, or `all`.
        limit, offset: rows.
        fuzzy: whether names match by the beginnings of their parts.
        warnings: what was translated or left out, for the Warning header.
    """

    level: str
    resource: Resource | None
    searches: tuple[Filters, ...]
    store_level: str
    include: tuple[str, ...]
    limit: int
    offset: int
    fuzzy: bool
    warnings: tuple[str, ...]

    @property
    def is_merged(self) -> bool:
        """Whether the answer combines several rows or searches of the store."""
        return len(self.searches) > 1 or self.store_level != self.level

    @property
    def end(self) -> int:
        """The offset of the first row after this page."""
        return self.offset + self.limit

    def path(self) -> str:
        """The path of the store's search, below `dicomWeb`."""
        if not self.resource:
            return self.store_level
        return f"{self.resource}/{self.store_level}"

    def parameters(self, filters: Filters, limit: int, offset: int, *, include: bool = True) -> str:
        """The query string of one of the store's searches."""
        pairs = list(filters.items())
        if self.fuzzy:
            pairs.append(("fuzzymatching", "true"))
        if include:
            pairs += [("includefield", name) for name in self.include]
        paging = f"limit={limit}"
        if offset:
            paging += f"&offset={offset}"
        if not pairs:
            return paging
        return urlencode(pairs, quote_via=quote) + "&" + paging


def decode(text: str) -> list[tuple[str, str]]:
    """The pairs of a query string or a form.

    Raises:
        RefusedError: invalid_parameter, for text that is not UTF-8.
    """
    pairs = []
    for item in filter(None, text.split("&")):
        name, _, value = item.replace("+", " ").partition("=")
        try:
            pairs.append((unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()))
        except UnicodeDecodeError:
            raise RefusedError(
                "invalid_parameter",
                "a parameter is not UTF-8",
            ) from None
    return pairs


def translate(
    level: str, resource: Resource | None, pairs: Pairs, fixed: Filters | None = None
) -> Query:
    """Read a caller's parameters.

    Args:
        level: studies, series or instances: the rows of the answer.
        resource: the study or series in the path.
        fixed: filters that this caller cannot leave out or change.

    Raises:
        RefusedError: invalid_parameter, which names it; forbidden, for a parameter that is fixed
            for this caller.
    """
    reader = _Reader(level, resource)
    reader.read(pairs)
    reader.fix(fixed or {})
    return reader.query()


class _Reader:
    """Collects the meaning of the parameters."""

    def __init__(self, level: str, resource: Resource | None) -> None:
        self._level = level
        self._resource = resource
        self._filters: dict[str, list[str]] = {}
        self._include: list[str] = []
        self._universal: list[str] = []
        self._once: dict[str, str] = {}
        self._warnings: list[str] = []
        self._has_wildcard = False

    def read(self, pairs: Pairs) -> None:
        """Read the parameters one by one."""
        for count, (name, value) in enumerate(pairs):
            if count >= _PAIRS_MAX:
                raise RefusedError(
                    "invalid_parameter",
                    f"more than {_PAIRS_MAX} parameters",
                )
            if not _NAME.fullmatch(name):
                raise RefusedError(
                    "invalid_parameter",
                    "a parameter's name must be a keyword or a tag of eight digits",
                )
            if len(value) > _VALUE_LENGTH or not is_line(value):
                raise _bad(
                    name,
                    f"takes up to {_VALUE_LENGTH} printable characters",
                )
            self._take(name, value)

    def _take(self, name: str, value: str) -> None:
        if name == "includefield":
            self._include += [item.strip() for item in value.split(",")]
            if len(self._include) > _INCLUDE_MAX:
                raise _bad(name, f"takes at most {_INCLUDE_MAX} attributes")
        elif name in _ONCE:
            if name in self._once:
                raise _bad(name, "is given more than once")
            self._once[name] = value
        else:
            self._filter(name, value)

    def fix(self, fixed: Filters) -> None:
        """Add the filters of all requests of this caller."""
        for keyword, value in fixed.items():
            if self._filters.get(keyword, [value]) != [value]:
                raise RefusedError(
                    "forbidden",
                    "this parameter is fixed for this caller",
                    keyword,
                )
            self._filters[keyword] = [value]

    def query(self) -> Query:
        """The query of all parameters."""
        store_level = self._level
        if self._level == "studies" and "Modality" in self._filters:
            store_level = "series"
        # These may add warnings, which the query has too.
        limit = self._limit()
        included = self._included(store_level)
        return Query(
            level=self._level,
            resource=self._resource,
            searches=self._searches(),
            store_level=store_level,
            include=included,
            limit=limit,
            offset=self._number("offset", 0, OFFSET_MAX, 0),
            fuzzy=self._fuzzy(),
            warnings=tuple(self._warnings),
        )

    def _filter(self, name: str, value: str) -> None:
        keyword = self._keyword(name)
        if keyword in self._filters:
            raise _bad(name, "is given more than once")
        if value.strip("*") == "":
            # Universal matching (PS3.4 section C.2.2.2.3): any value, or none.
            self._universal.append(keyword)
            return
        values = [value]
        if keyword in _UID_KEYS or keyword == "Modality":
            values = [item for item in re.split(r"[,\\]", value) if item]
        if not values:
            raise _bad(name, "takes at least one value between the commas")
        self._filters[keyword] = [self._value(name, keyword, item) for item in values]

    def _keyword(self, name: str) -> str:
        """The keyword of a key that can be searched for here."""
        keyword = attributes.KEYWORD_OF.get(name.upper(), name)
        searchable = attributes.KEYS[self._level]
        if self._level == "studies" and keyword in ("Modality", "ModalitiesInStudy"):
            return "Modality"
        if keyword not in searchable:
            raise _bad(
                name,
                f"cannot be searched for here; what can: {', '.join(searchable)}",
            )
        return keyword

    def _value(self, name: str, keyword: str, value: str) -> str:
        if keyword in _UID_KEYS and not is_uid(value):
            raise _bad(
                name,
                "takes UIDs: digits and dots, at most 64 characters",
            )
        if keyword == "StudyDate" and not DATES.fullmatch(value):
            raise _bad(
                name,
                "takes YYYYMMDD or a range: YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD",
            )
        if keyword == "Modality" and not _MODALITY.fullmatch(value):
            raise _bad(
                name,
                "takes modalities such as CT, separated by commas",
            )
        has_wildcard = "*" in value or "?" in value
        if keyword == "PatientName" and has_wildcard:
            return self._beginning_of_name(name, value)
        if has_wildcard:
            raise _bad(
                name,
                "is matched whole by the DICOM store: no * and no ?",
            )
        if "\\" in value:
            raise _bad(name, "takes one value")
        return value

    def _beginning_of_name(self, name: str, value: str) -> str:
        inner = value.strip("*")
        if not value.endswith("*") or "*" in inner or "?" in inner:
            raise _bad(name, "takes Doe* or *Doe*")
        self._has_wildcard = True
        self._warn("PatientName with * is matched fuzzily: any part of the name that begins so")
        return inner.rstrip("^") or inner

    def _searches(self) -> tuple[Filters, ...]:
        """One search for each combination of values."""
        if math.prod(map(len, self._filters.values())) > _SEARCHES_MAX:
            lists = [name for name, values in self._filters.items() if len(values) > 1]
            raise _bad(
                lists[0],
                f"a list of values may lead to {_SEARCHES_MAX} searches at most",
            )
        combinations = itertools.product(*self._filters.values())
        return tuple(dict(zip(self._filters, values, strict=True)) for values in combinations)

    def _limit(self) -> int:
        most = LIMIT_MAX[self._level]
        limit = self._number("limit", 1, 10**9, LIMIT_DEFAULT[self._level])
        if limit > most:
            self._warn(f"limit was lowered to {most}")
        return min(limit, most)

    def _number(self, name: str, least: int, most: int, default: int) -> int:
        text = self._once.get(name)
        if text is None:
            return default
        if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
            raise _bad(name, f"takes a whole number from {least} to {most}")
        return int(text)

    def _fuzzy(self) -> bool:
        text = self._once.get("fuzzymatching", "false").lower()
        if text not in ("true", "false"):
            raise _bad("fuzzymatching", "takes true or false")
        return self._has_wildcard or text == "true"

    def _included(self, store_level: str) -> tuple[str, ...]:
        # A dictionary keeps the order, and each name once.
        wanted: dict[str, None] = {}
        dropped: dict[str, None] = {}
        for item in filter(None, self._include + self._universal):
            if not _ATTRIBUTE.fullmatch(item):
                message = "takes keywords or tags of eight digits, separated by commas, or all"
                raise _bad("includefield", message)
            keyword = attributes.KEYWORD_OF.get(item.upper(), item)
            kept = wanted if keyword == "all" or self._can_include(keyword) else dropped
            kept[keyword] = None
        if dropped:
            names = " ".join(itertools.islice(dropped, _DROPPED_SHOWN))
            self._warn(f"the DICOM store cannot include {names}")
        if store_level != self._level:
            return _for_a_study(wanted)
        if "all" in wanted:
            return ("all",)
        return tuple(wanted)

    def _can_include(self, keyword: str) -> bool:
        known = attributes.INCLUDABLE.get(self._level)
        if known is not None:
            return keyword in known
        # Any attribute of an instance can be included; the store refuses those that it does not
        # know.
        is_keyword_or_tag = "." not in keyword and not keyword[0].islower()
        return keyword not in attributes.NEVER and is_keyword_or_tag

    def _warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)


def _for_a_study(wanted: dict[str, None]) -> tuple[str, ...]:
    """The attributes to include in series if one series represents its study."""
    if "all" in wanted:
        return tuple(attributes.INCLUDABLE["studies"])
    return tuple({**wanted, **dict.fromkeys(attributes.STUDY_DEFAULTS)})


def _bad(name: str, message: str) -> RefusedError:
    return RefusedError("invalid_parameter", message, name)

"""Commands in Pub/Sub messages, as JSON or in attributes, checked key by key."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode

from functions.common import values
from functions.common.deadline import parsed_rfc3339
from functions.common.errors import PermanentError
from functions.common.events.messages import FIRST_PUBLISHED, Message
from functions.common.resources import A_PATH, LEVELS, DicomStoreName, Resource
from functions.common.values import DATES, is_line

Parse = Callable[[object], Any]

# Of attributes that Pub/Sub, its client libraries and a replay of dead letters add to a message.
_TRANSPORT_PREFIXES: Final = (
    "googclient_",
    "CloudPubSubDeadLetter",
    FIRST_PUBLISHED,
    "traceparent",
    "tracestate",
)
_QUERY_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{1,63}|[0-9A-Fa-f]{8}", re.ASCII)
# The function itself sets paging and output; the others are parameters of every method of the API.
_RESERVED: Final = frozenset(
    {
        "limit",
        "offset",
        "includefield",
        "alt",
        "callback",
        "fields",
        "key",
        "prettyprint",
        "quotauser",
        "uploadtype",
    }
)
_QUERY_KEYS_MAX: Final = 20


def read(message: Message, keys: Mapping[str, Parse]) -> dict[str, Any]:
    """The values that the command has.

    Args:
        message: its data is a JSON object or empty; its attributes may have the same keys.
        keys: the reader for each key; it raises PermanentError for other values.

    Raises:
        PermanentError: invalid_event, when the data is not a JSON object; invalid_command, for an
            unknown key, a key given twice, or a wrong value.
    """
    data = message.json_or_nothing()
    attributes = {
        k: v for k, v in message.attributes.items() if not k.startswith(_TRANSPORT_PREFIXES)
    }
    given: dict[str, object] = {**data, **attributes}
    unknown = given.keys() - keys.keys()
    if unknown:
        # They are counted, not named: they may contain anything, and this text is logged.
        detail = f"unknown keys: {len(unknown)}; takes {', '.join(keys)}"
        raise PermanentError("invalid_command", detail)
    twice = data.keys() & attributes.keys()
    if twice:
        names = ", ".join(sorted(twice))
        raise PermanentError("invalid_command", f"given in data and attributes: {names}")
    return {key: _value(key, value, keys[key]) for key, value in given.items()}


def _value(key: str, value: object, parse: Parse) -> Any:
    try:
        return parse(value)
    except PermanentError as error:
        raise PermanentError("invalid_command", f"{key}: {error.detail}") from None


def text(value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise PermanentError("invalid_command", "takes text")
    return value


def flag(value: object) -> bool:
    """True or false; as text in an attribute."""
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        raise PermanentError("invalid_command", "takes true or false")
    return value == "true"


def whole(least: int, most: int) -> Parse:
    """A whole number from `least` to `most`; as text in an attribute."""

    parse_text = values.whole(least, most)

    def parse(value: object) -> int:
        if isinstance(value, int):
            value = str(value)
        try:
            return parse_text(text(value))
        except ValueError as error:
            raise PermanentError("invalid_command", str(error)) from None

    return parse


def matching(pattern: str, what: str) -> Parse:
    """A text that matches this pattern as a whole."""
    compiled = re.compile(pattern, re.ASCII)

    def parse(value: object) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise PermanentError("invalid_command", f"takes {what}")
        return value

    return parse


def one_of(*choices: str) -> Parse:
    """One of these words."""
    return matching("|".join(choices), f"one of {', '.join(choices)}")


def time(value: object) -> str:
    """An RFC 3339 time with its offset from UTC, unchanged."""
    if not isinstance(value, str) or parsed_rfc3339(value) is None:
        raise PermanentError("invalid_command", "takes a time such as 2026-01-31T08:00:00Z")
    return value


def resource(value: object) -> tuple[DicomStoreName | None, Resource]:
    """`studies/…`, or the full name of a resource with its store, as in the service's own
    notifications."""
    name, mark, rest = text(value).partition("/dicomWeb/")
    if not mark:
        return None, Resource.parse(name)
    try:
        return DicomStoreName(name), Resource.parse(rest)
    except ValueError:
        raise PermanentError("invalid_command", A_PATH) from None


@dataclass(frozen=True)
class Query:
    """A QIDO-RS search: the level, and the keys to match. There is at least one key, and no value
    that matches everything."""

    level: str
    params: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse `PatientID=1&StudyDate=20240101-`, optionally after `studies?`, `series?` or
        `instances?`, or a JSON object of keys and values (studies).

        Raises:
            PermanentError: invalid_command, for anything else.
        """
        level = "studies"
        pairs: list[Any] = []
        if isinstance(value, str):
            head, mark, tail = value.partition("?")
            if mark:
                level = head.removeprefix("/")
                value = tail
            pairs = _pairs(value)
        elif isinstance(value, dict):
            pairs = list(value.items())
        if level not in LEVELS or not 0 < len(pairs) <= _QUERY_KEYS_MAX:
            raise PermanentError("invalid_command", "a query must be KEY=VALUE&KEY=VALUE")
        for key, wanted in pairs:
            _check_pair(key, wanted)
        if all(key.lower() == "fuzzymatching" for key, _ in pairs):
            raise PermanentError("invalid_command", "a query matches at least one attribute")
        return cls(level, tuple(pairs))

    @property
    def text(self) -> str:
        """The text that `parse` reads."""
        return f"{self.level}?{urlencode(self.params)}"


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=_QUERY_KEYS_MAX,
        )
    except ValueError:
        raise PermanentError("invalid_command", "a query must be KEY=VALUE&KEY=VALUE") from None


def _check_pair(key: object, wanted: object) -> None:
    if not isinstance(key, str) or not _QUERY_KEY.fullmatch(key):
        raise _wrong_query("a key that is not a DICOM attribute")
    if key.lower() in _RESERVED:
        raise _wrong_query("a key that is not for matching")
    if not isinstance(wanted, str) or not is_line(wanted):
        raise _wrong_query("a value that is not printable text")
    if not is_selective(key, wanted):
        raise _wrong_query("a value that matches everything, or a wrong date")


def is_selective(key: str, wanted: str) -> bool:
    """Whether a value for matching does not match everything: it has a letter or a digit, beside
    wildcards, spaces and separators. A StudyDate is a date or a range."""
    if key.lower() in ("studydate", "00080020"):
        return DATES.fullmatch(wanted) is not None
    return any(map(str.isalnum, wanted))


def _wrong_query(what: str) -> PermanentError:
    return PermanentError("invalid_command", f"a query has {what}")

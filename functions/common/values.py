"""How the text of a setting becomes a value. Each function raises ValueError with the allowed
values."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from functions.common import jsonvalues
from functions.common.errors import PermanentError
from functions.common.resources import DicomStoreName, GcsPrefix, is_bucket

T = TypeVar("T")

_DIGITS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_URL: Final = re.compile(r"https?://[\w.-]+(:[0-9]+)?(/[\w./-]*)?", re.ASCII)
_QUERY: Final = re.compile(r"[\w.~=&{}%,:/-]*", re.ASCII)
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?", re.ASCII)
# A date, or a range with at least one end (PS3.4 section C.2.2.2.5).
DATES: Final = re.compile(r"-?[0-9]{8}|[0-9]{8}-([0-9]{8})?", re.ASCII)
# Control characters, ends of lines, and halves of surrogate pairs. Not the spaces and joiners of
# other scripts: names contain them, and str.isprintable refuses them.
_NOT_IN_A_LINE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# The attributes that can limit a caller of the search function. PatientName cannot: the caller can
# ask for fuzzy matching, which concerns only this attribute (fact sheet section 4.2).
LIMITING_ATTRIBUTES: Final = (
    "StudyInstanceUID",
    "PatientID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDate",
)

COMMAND_NAMES: Final = ("exports", "deletes")  # of the function `commands`


@dataclass(frozen=True)
class ByPrefix(Generic[T]):
    """A value that depends on the beginning of an object's name; the longest prefix decides. There
    is always a rule for the empty prefix."""

    rules: tuple[tuple[str, T], ...]

    def of(self, name: str) -> T:
        """The value for this object."""
        matching = [rule for rule in self.rules if name.startswith(rule[0])]
        _, value = max(matching, key=lambda rule: len(rule[0]))
        return value


def is_line(text: str) -> bool:
    """Whether a text is one line without control characters, in any script."""
    return not _NOT_IN_A_LINE.search(text)


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within these bounds."""

    def parse(text: str) -> int:
        if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError(f"takes a whole number from {least} to {most}")
        return int(text)

    return parse


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """Text that matches this pattern as a whole."""
    compiled = re.compile(pattern, re.ASCII)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"takes {what}")
        return text

    return parse


def optional(parse: Callable[[str], str]) -> Callable[[str], str]:
    """A value of `parse`, or an empty text."""
    return lambda text: text and parse(text)


host = matching(r"[\w.-]+(:[0-9]+)?", "a host, or host:port")
host_and_port = matching(r"[\w.-]+:[0-9]+", "host:port")
topic = matching(r"projects/[\w:.-]+/topics/[\w.~+%-]{3,255}", "projects/PROJECT/topics/TOPIC")


def switch(text: str) -> bool:
    """true or false."""
    if text not in ("true", "false"):
        raise ValueError("takes true or false")
    return text == "true"


def url(text: str) -> str:
    """An http or https URL, without a trailing slash."""
    if not _URL.fullmatch(text):
        raise ValueError("takes an http or https URL")
    return text.rstrip("/")


def viewer_url(text: str) -> str:
    """A URL that contains {study}, or nothing."""
    if not text:
        return ""
    place, _, query = text.partition("?")
    url(place.replace("{study}", "1.2"))
    if text.count("{study}") != 1 or not _QUERY.fullmatch(query):
        raise ValueError("takes an http or https URL with {study} in it")
    return text


def storage_emulator(text: str) -> str:
    """The URL of an emulator, with or without http://, or empty."""
    if text and "://" not in text:
        text = f"http://{text}"
    return optional(url)(text)


def bucket(text: str) -> str:
    """The name of a bucket."""
    if not is_bucket(text):
        raise ValueError("takes the name of a bucket, without gs://")
    return text


def destination(text: str) -> GcsPrefix | None:
    """gs://bucket/prefix, or empty."""
    return _prefix(text) if text else None


def destinations(text: str) -> tuple[GcsPrefix, ...]:
    """gs://bucket/prefix, several separated by commas."""
    return tuple(map(_prefix, words(text)))


def _prefix(text: str) -> GcsPrefix:
    try:
        return GcsPrefix.parse(text)
    except PermanentError:
        raise ValueError("takes gs://bucket/prefix") from None


def stores(text: str) -> tuple[DicomStoreName, ...]:
    """Names of DICOM stores, separated by commas."""
    return tuple(map(DicomStoreName, words(text)))


def origins(text: str) -> tuple[str, ...]:
    """Origins of web pages, separated by commas, or *."""
    found = words(text)
    for origin in found:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                "takes origins such as https://viewer.example.org, separated by commas, or *"
            )
    return found


def words(text: str) -> tuple[str, ...]:
    """Words, separated by commas."""
    items = (item.strip() for item in text.split(","))
    return tuple(item for item in items if item)


def callers(text: str) -> dict[str, dict[str, str]]:
    """The callers, in lower case: addresses, or JSON with the limits of each. Empty:
    everyone."""
    found: dict[str, Any] = {name: {} for name in words(text)}
    if text.lstrip().startswith("{"):
        found = json_object(text)
    if not all(map(_are_filters, found.values())):
        raise ValueError(
            'takes addresses separated by commas, or JSON {"ADDRESS": {"KEY": "VALUE"}} with '
            + ", ".join(LIMITING_ATTRIBUTES)
        )
    return _listed(text, found)


def command_callers(text: str) -> dict[str, list[str]]:
    """The callers, in lower case, with the commands that each may send. Empty: everyone."""
    found = json_object(text)
    for given in found.values():
        if not isinstance(given, list) or not all(name in COMMAND_NAMES for name in given):
            raise ValueError('takes JSON {"ADDRESS": [some of exports, deletes]}')
    return _listed(text, found)


def _listed(text: str, found: dict[str, T]) -> dict[str, T]:
    if text and not found:
        raise ValueError("lists nobody: name callers, or leave it empty for everyone")
    listed = {name.lower(): value for name, value in found.items()}
    if len(listed) < len(found):
        raise ValueError("lists a caller twice")
    return listed


def _are_filters(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return all(key in LIMITING_ATTRIBUTES and _is_plain(text) for key, text in value.items())


def _is_plain(text: object) -> bool:
    """Whether the store can match it exactly: one value, without wildcards."""
    if not isinstance(text, str) or not text or not is_line(text):
        return False
    return not any(mark in text for mark in "*?\\,")


def by_prefix(*choices: str) -> Callable[[str], ByPrefix[str]]:
    """`value`, or `prefix=value` several times, separated by commas. A value without a prefix is
    for all other names; without one, the default is the first choice."""

    def parse(text: str) -> ByPrefix[str]:
        rules = {"": choices[0]}
        for item in words(text):
            prefix, _, value = item.rpartition("=")
            if value not in choices:
                named = ", ".join(choice or "nothing" for choice in choices)
                raise ValueError(f"takes {named}, or a comma-separated list of PREFIX=VALUE")
            rules[prefix] = value
        return ByPrefix(tuple(rules.items()))

    return parse


def json_list(text: str) -> list[Any]:
    """A JSON list, or empty."""
    return _json(text, list, "a JSON list")


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, or empty."""
    return _json(text, dict, "a JSON object")


def _json(text: str, kind: type[T], what: str) -> T:
    value: object = jsonvalues.parsed(text) if text else kind()
    if not isinstance(value, kind):
        raise ValueError(f"takes {what}")  # noqa: TRY004 (every wrong value is a ValueError)
    return value

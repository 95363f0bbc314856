"""How the text of a setting becomes a value. Each function raises ValueError with what the setting
takes."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from functions.common.errors import PermanentError
from functions.common.resources import DicomStoreName, GcsPrefix, is_bucket

T = TypeVar("T")

# What a caller of the search function can be limited to. Names are not among them: the store
# matches them loosely.
FIXABLE: Final = (
    "StudyInstanceUID",
    "PatientID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDate",
)

COMMAND_NAMES: Final = ("exports", "deletes")  # of the function `commands`


@dataclass(frozen=True)
class ByPrefix(Generic[T]):
    """A value that depends on the beginning of an object's name; the longest prefix decides."""

    rules: tuple[tuple[str, T], ...]

    def of(self, name: str) -> T:
        """The value for this object."""
        return max((r for r in self.rules if name.startswith(r[0])), key=lambda r: len(r[0]))[1]


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within these bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"takes a whole number from {least} to {most}")
        return int(text)

    return parse


def switch(text: str) -> bool:
    """true or false."""
    if text not in ("true", "false"):
        raise ValueError("takes true or false")
    return text == "true"


def url(text: str) -> str:
    """An http or https URL, without a slash at its end."""
    if not re.fullmatch(r"https?://[\w.-]+(:[0-9]+)?(/[\w./-]*)?", text, re.ASCII):
        raise ValueError("takes an http or https URL")
    return text.rstrip("/")


def optional_url(text: str) -> str:
    """A URL, or nothing."""
    return url(text) if text else ""


def viewer_url(text: str) -> str:
    """A URL with {study} in it, or nothing."""
    if not text:
        return ""
    place, _, query = text.partition("?")
    url(place.replace("{study}", "1.2"))
    if text.count("{study}") != 1 or not re.fullmatch(r"[\w.~=&{}%,:/-]*", query, re.ASCII):
        raise ValueError("takes an http or https URL with {study} in it")
    return text


def storage_emulator(text: str) -> str:
    """The URL of an emulator, its http:// perhaps left out, or nothing."""
    return url(text if "://" in text else f"http://{text}") if text else ""


def optional_host(text: str) -> str:
    """host or host:port, or nothing."""
    if text and not re.fullmatch(r"[\w.-]+(:[0-9]+)?", text, re.ASCII):
        raise ValueError("takes a host, or host:port")
    return text


def pubsub_emulator(text: str) -> str:
    """host:port, or nothing."""
    if text and not re.fullmatch(r"[\w.-]+:[0-9]+", text, re.ASCII):
        raise ValueError("takes host:port")
    return text


def bucket(text: str) -> str:
    """The name of a bucket."""
    if not is_bucket(text):
        raise ValueError("takes the name of a bucket, without gs://")
    return text


def topic(text: str) -> str:
    """projects/PROJECT/topics/TOPIC."""
    if not re.fullmatch(r"projects/[\w:.-]+/topics/[\w.~+%-]{3,255}", text, re.ASCII):
        raise ValueError("takes projects/PROJECT/topics/TOPIC")
    return text


def optional_topic(text: str) -> str:
    """As `topic`, or empty."""
    return topic(text) if text else ""


def destinations(text: str) -> tuple[GcsPrefix, ...]:
    """gs://bucket/prefix, several with commas between."""
    try:
        return tuple(GcsPrefix.parse(item.strip()) for item in text.split(",") if item.strip())
    except PermanentError:
        raise ValueError("takes gs://bucket/prefix, several of them separated by commas") from None


def stores(text: str) -> tuple[DicomStoreName, ...]:
    """Names of DICOM stores, with commas between."""
    return tuple(DicomStoreName(item.strip()) for item in text.split(",") if item.strip())


def origins(text: str) -> tuple[str, ...]:
    """Origins of web pages, with commas between, or *."""
    origins = tuple(filter(None, (item.strip() for item in text.split(","))))
    if not all(
        o == "*" or re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]+)?", o, re.ASCII) for o in origins
    ):
        raise ValueError(
            "takes origins such as https://viewer.example.org, separated by commas, or *"
        )
    return origins


def words(text: str) -> tuple[str, ...]:
    """Words with commas between."""
    return tuple(filter(None, (item.strip() for item in text.split(","))))


def callers(text: str) -> dict[str, dict[str, str]]:
    """Who may call, as addresses or as JSON with what each is limited to; nothing at all:
    everyone."""
    callers: object
    try:
        callers = json.loads(text) if text.startswith("{") else {name: {} for name in words(text)}
    except ValueError:
        callers = None
    if text and callers == {}:
        raise ValueError("lists nobody: name who may ask, or leave it empty for everyone")
    if not isinstance(callers, dict) or not all(map(_is_fixed, callers.values())):
        keys = ", ".join(FIXABLE)
        raise ValueError(
            f'takes addresses separated by commas, or JSON {{"ADDRESS": {{"KEY": "VALUE"}}}} with {keys}'
        )
    return callers


def _is_fixed(value: object) -> bool:
    return isinstance(value, dict) and all(
        key in FIXABLE
        and isinstance(text, str)
        and text
        and text.isprintable()
        and not set("*?\\,") & set(text)
        for key, text in value.items()
    )


def destination(text: str) -> GcsPrefix | None:
    """gs://bucket/prefix, or nothing."""
    try:
        return GcsPrefix.parse(text) if text else None
    except PermanentError:
        raise ValueError("takes gs://bucket/prefix") from None


def by_prefix(*choices: str) -> Callable[[str], ByPrefix[str]]:
    """`value`, or `prefix=value` several times, separated by commas; the value alone is for all
    other names."""

    def parse(text: str) -> ByPrefix[str]:
        rules = {"": choices[0]}
        for item in filter(None, (i.strip() for i in text.split(","))):
            prefix, _, value = item.rpartition("=")
            if value not in choices:
                raise ValueError(
                    f"takes {', '.join(c or 'nothing' for c in choices)}, or PREFIX=one of these, …"
                )
            rules[prefix] = value
        return ByPrefix(tuple(rules.items()))

    return parse


def json_list(text: str) -> list[Any]:
    """A JSON list, or nothing."""
    value = _json(text, "[]")
    if not isinstance(value, list):
        raise ValueError("takes a JSON list")  # noqa: TRY004 (every wrong value is a ValueError)
    return value


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, or nothing."""
    value = _json(text, "{}")
    if not isinstance(value, dict):
        raise ValueError("takes a JSON object")  # noqa: TRY004 (every wrong value is a ValueError)
    return value


def command_callers(text: str) -> dict[str, tuple[str, ...]]:
    """Addresses with the commands that each may give, or nothing: everyone."""
    allowed = json_object(text)
    if text and not allowed:
        raise ValueError("lists nobody: name who may ask, or leave it empty for everyone")
    for given in allowed.values():
        if not isinstance(given, list) or not all(name in COMMAND_NAMES for name in given):
            raise ValueError(f'takes JSON {{"ADDRESS": [some of {", ".join(COMMAND_NAMES)}]}}')
    return {address: tuple(given) for address, given in allowed.items()}


def _json(text: str, default: str) -> object:
    try:
        value: object = json.loads(text or default)
    except (ValueError, RecursionError):
        return None
    return value

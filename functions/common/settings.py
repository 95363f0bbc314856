"""The only place that reads the environment. One table: it is read, checked, and shown in the README."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Self, TypeVar

from functions.common.errors import PermanentError, SettingsError
from functions.common.resources import DicomStoreName, GcsPrefix, is_bucket

T = TypeVar("T")

STORE: Final = "store_upload"
DELETE: Final = "delete_resource"
EXPORT: Final = "export_resource"
SEARCH: Final = "search"
_ALL: Final = (STORE, DELETE, EXPORT, SEARCH)
_EVENT: Final = (STORE, DELETE, EXPORT)

# What a caller of the search function can be limited to. Names are not among them: the store matches them loosely.
FIXABLE: Final = ("StudyInstanceUID", "PatientID", "AccessionNumber", "ReferringPhysicianName", "StudyDate")


@dataclass(frozen=True)
class ByPrefix(Generic[T]):
    """A value that depends on the beginning of an object's name; the longest prefix decides."""

    rules: tuple[tuple[str, T], ...]

    def of(self, name: str) -> T:
        """The value for this object."""
        return max((r for r in self.rules if name.startswith(r[0])), key=lambda r: len(r[0]))[1]


@dataclass(frozen=True)
class Setting:
    """One environment variable.

    `parse` raises ValueError with what the variable takes. A setting without a default is required by the
    functions in `functions`; the others leave it alone.
    """

    name: str
    parse: Callable[[str], Any]
    default: str | None
    help: str
    functions: tuple[str, ...] = _ALL


def _text(text: str) -> str:
    return text


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"takes a whole number from {least} to {most}")
        return int(text)

    return parse


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("takes true or false")
    return text == "true"


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[\w.-]+(:[0-9]+)?(/[\w./-]*)?", text, re.ASCII):
        raise ValueError("takes an http or https URL")
    return text.rstrip("/")


def _optional_url(text: str) -> str:
    return _url(text) if text else ""


def _storage_emulator(text: str) -> str:
    return _url(text if "://" in text else f"http://{text}") if text else ""


def _pubsub_emulator(text: str) -> str:
    if text and not re.fullmatch(r"[\w.-]+:[0-9]+", text, re.ASCII):
        raise ValueError("takes host:port")
    return text


def _bucket(text: str) -> str:
    if not is_bucket(text):
        raise ValueError("takes the name of a bucket, without gs://")
    return text


def _topic(text: str) -> str:
    if not re.fullmatch(r"projects/[\w:.-]+/topics/[\w.~+%-]{3,255}", text, re.ASCII):
        raise ValueError("takes projects/PROJECT/topics/TOPIC")
    return text


def _destinations(text: str) -> tuple[GcsPrefix, ...]:
    try:
        return tuple(GcsPrefix.parse(item.strip()) for item in text.split(",") if item.strip())
    except PermanentError:
        raise ValueError("takes gs://bucket/prefix, several of them separated by commas") from None


def _stores(text: str) -> tuple[DicomStoreName, ...]:
    return tuple(DicomStoreName(item.strip()) for item in text.split(",") if item.strip())


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(filter(None, (item.strip() for item in text.split(","))))
    if not all(o == "*" or re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]+)?", o, re.ASCII) for o in origins):
        raise ValueError("takes origins such as https://viewer.example.org, separated by commas, or *")
    return origins


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (item.strip() for item in text.split(","))))


def _callers(text: str) -> dict[str, dict[str, str]]:
    if not text.startswith("{"):
        return {name: {} for name in _words(text)}
    try:
        callers: object = json.loads(text)
    except ValueError:
        callers = None
    if not isinstance(callers, dict) or not all(map(_is_fixed, callers.values())):
        keys = ", ".join(FIXABLE)
        raise ValueError(f'takes addresses separated by commas, or JSON {{"ADDRESS": {{"KEY": "VALUE"}}}} with {keys}')
    return callers


def _is_fixed(value: object) -> bool:
    return isinstance(value, dict) and all(
        key in FIXABLE and isinstance(text, str) and text and text.isprintable() and not set("*?\\,") & set(text)
        for key, text in value.items()
    )


def _by_prefix(*choices: str) -> Callable[[str], ByPrefix[str]]:
    """`value`, or `prefix=value` several times, separated by commas; the value alone is for all other names."""

    def parse(text: str) -> ByPrefix[str]:
        rules = {"": choices[0]}
        for item in filter(None, (i.strip() for i in text.split(","))):
            prefix, _, value = item.rpartition("=")
            if value not in choices:
                raise ValueError(f"takes {', '.join(c or 'nothing' for c in choices)}, or PREFIX=one of these, …")
            rules[prefix] = value
        return ByPrefix(tuple(rules.items()))

    return parse


SETTINGS: Final = (
    Setting("DICOM_STORE", DicomStoreName, None, "`projects/P/locations/L/datasets/D/dicomStores/S`"),
    Setting(
        "HEALTHCARE_ENDPOINT",
        _url,
        "https://healthcare.googleapis.com/v1",
        "Base URL of the Healthcare API, with its version. Credentials are sent to https URLs only.",
    ),
    Setting(
        "STORAGE_EMULATOR_HOST",
        _storage_emulator,
        "",
        "URL of a Cloud Storage emulator; empty: Cloud Storage.",
        _EVENT,
    ),
    Setting(
        "PUBSUB_EMULATOR_HOST",
        _pubsub_emulator,
        "",
        "`host:port` of a Pub/Sub emulator; empty: Pub/Sub.",
        _ALL,
    ),
    Setting("OUTCOMES_TOPIC", _topic, None, "Where every outcome is published.", _EVENT),
    Setting(
        "BUDGET_S",
        _whole(1, 3600),
        "480",
        "Seconds one invocation may take: less than the function's timeout, which is less than the ack deadline.",
        _EVENT,
    ),
    Setting(
        "LANDING_BUCKET",
        _bucket,
        None,
        "The bucket whose objects are stored; events of others are refused.",
        (STORE,),
    ),
    Setting("QUARANTINE_BUCKET", _bucket, None, "Where objects go that can never be stored.", (STORE,)),
    Setting("UPLOADS_TOPIC", _topic, None, "Where a large archive's continuation is published.", (STORE,)),
    Setting(
        "STORAGE_CLASS",
        _by_prefix("", "STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"),
        "",
        "Storage class in the DICOM store, by prefix; an object's metadata `dicom-storage-class` goes before it.",
        (STORE,),
    ),
    Setting(
        "CONFLICT_POLICY",
        _by_prefix("reject", "keep", "overwrite"),
        "reject",
        "What to do when the store holds other bytes under the same UIDs, by prefix.",
        (STORE,),
    ),
    Setting(
        "SOURCE_DISPOSITION",
        _by_prefix("keep", "delete", "move"),
        "keep",
        "What becomes of an object once it is stored, by prefix.",
        (STORE,),
    ),
    Setting("DELETES_TOPIC", _topic, None, "Where a long delete's continuation is published.", (DELETE,)),
    Setting(
        "DELETE_STORES",
        _stores,
        "",
        "DICOM stores that may be deleted from, separated by commas; empty: `DICOM_STORE` alone.",
        (DELETE,),
    ),
    Setting(
        "DELETE_MAX_INSTANCES",
        _whole(1, 10**9),
        "100000",
        "A command that would delete more instances than this is refused.",
        (DELETE,),
    ),
    Setting(
        "DELETE_MIN_AGE_HOURS",
        _whole(0, 10**6),
        "0",
        "A command that would delete anything stored within so many hours is refused; 0: no such limit.",
        (DELETE,),
    ),
    Setting("EXPORTS_TOPIC", _topic, None, "Where the parts of a large export are published.", (EXPORT,)),
    Setting(
        "EXPORT_DESTINATIONS",
        _destinations,
        None,
        "`gs://bucket/prefix` that exports may write to, separated by commas.",
        (EXPORT,),
    ),
    Setting(
        "EXPORT_SLICE",
        _whole(1, 5000),
        "1000",
        "Instances (frames, where each becomes an object) in one part of a large export.",
        (EXPORT,),
    ),
    Setting(
        "EXPORT_GIVE_UP_ATTEMPT",
        _whole(1, 100),
        "5",
        "From this delivery on an instance that cannot be retrieved is left out, and the export ends as `partial`.",
        (EXPORT,),
    ),
    Setting(
        "SEARCH_RETRIEVE",
        _switch,
        "false",
        "Whether images and metadata can be retrieved too (WADO-RS, read only), for the page's pictures and viewers.",
        (SEARCH,),
    ),
    Setting("SEARCH_PAGE", _switch, "true", "Whether `/` shows the search page.", (SEARCH,)),
    Setting(
        "SEARCH_EXPORTS",
        _switch,
        "false",
        "Whether the page can ask for exports; needs EXPORTS_TOPIC and EXPORT_DESTINATIONS.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_CALLERS",
        _callers,
        "",
        "Who may ask: addresses separated by commas, or JSON with filters that are part of all they ask, such as"
        ' `{"a@b.org": {"PatientID": "7"}}`. Empty: everyone whom the platform lets through.',
        (SEARCH,),
    ),
    Setting(
        "SEARCH_AUDIENCE",
        _words,
        "",
        "What callers' ID tokens must be made for, such as the function's URL; several separated by commas.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_CERTS_URL",
        _url,
        "https://www.googleapis.com/oauth2/v1/certs",
        "Where the keys are published that ID tokens are signed with.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_ORIGINS",
        _origins,
        "",
        "Web origins that may read answers (CORS), separated by commas; `*`: all, without credentials.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_PUBLIC_URL",
        _optional_url,
        "",
        "The function's URL as callers see it; empty: as the request names it.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_TIMEOUT_S",
        _whole(1, 3600),
        "60",
        "Seconds the DICOM store may take to begin an answer, and between two pieces of it.",
        (SEARCH,),
    ),
)


@dataclass(frozen=True)
class Settings:
    """The values of SETTINGS; those that the function does not use have their default or are None."""

    dicom_store: DicomStoreName
    healthcare_endpoint: str
    storage_emulator_host: str
    pubsub_emulator_host: str
    outcomes_topic: str
    budget_s: int
    landing_bucket: str
    quarantine_bucket: str
    uploads_topic: str
    storage_class: ByPrefix[str]
    conflict_policy: ByPrefix[str]
    source_disposition: ByPrefix[str]
    deletes_topic: str
    delete_stores: tuple[DicomStoreName, ...]
    delete_max_instances: int
    delete_min_age_hours: int
    exports_topic: str
    export_destinations: tuple[GcsPrefix, ...]
    export_slice: int
    export_give_up_attempt: int
    search_retrieve: bool
    search_page: bool
    search_exports: bool
    search_callers: dict[str, dict[str, str]]
    search_audience: tuple[str, ...]
    search_certs_url: str
    search_origins: tuple[str, ...]
    search_public_url: str
    search_timeout_s: int

    @classmethod
    def load(cls, function: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Read what this function needs.

        Raises:
            SettingsError: a variable is missing or malformed; the message names it and says what it takes.
        """
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            text = environ.get(setting.name, setting.default)
            if text is None and function in setting.functions:
                raise SettingsError(f"{setting.name} is not set: {setting.help}")
            if text is None:
                values[setting.name.lower()] = None
                continue
            try:
                values[setting.name.lower()] = setting.parse(text)
            except ValueError as error:
                raise SettingsError(f"{setting.name} {error}") from None
        return cls(**values)

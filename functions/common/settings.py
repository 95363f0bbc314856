"""The only place that reads the environment. One table: it is read, checked, and shown in the
README."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from functions.common import values
from functions.common.errors import SettingsError
from functions.common.resources import DicomStoreName, GcsPrefix
from functions.common.values import ByPrefix

# google-cloud-storage asks for each bucket's metadata in the background unless this is set: a
# request that nobody needs, and a right that the functions do not have.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "1")

STORE: Final = "store_upload"
DELETE: Final = "delete_resource"
EXPORT: Final = "export_resource"
SEARCH: Final = "search"
COMMANDS: Final = "commands"
NOTIFY: Final = "notify"
WATCH: Final = "watch_studies"
ALL: Final = (STORE, DELETE, EXPORT, SEARCH, COMMANDS, NOTIFY, WATCH)
_PUBLISHING: Final = (STORE, DELETE, EXPORT, WATCH)
_EVENT: Final = (*_PUBLISHING, NOTIFY)
_SECRET_PREFIX: Final = "WEBHOOK_SECRET_"  # noqa: S105 (the beginning of a variable's name)
STORAGE_CLASSES: Final = (
    "",
    "STANDARD",
    "NEARLINE",
    "COLDLINE",
    "ARCHIVE",
)  # empty: the store's default


@dataclass(frozen=True)
class Setting:
    """One environment variable.

    `parse` raises ValueError with what the variable takes. A setting without a default is required
    by the functions in `functions`; the others leave it alone.
    """

    name: str
    parse: Callable[[str], Any]
    default: str | None
    help: str
    functions: tuple[str, ...] = ALL


SETTINGS: Final = (
    Setting(
        "DICOM_STORE", DicomStoreName, None, "`projects/P/locations/L/datasets/D/dicomStores/S`"
    ),
    Setting(
        "HEALTHCARE_ENDPOINT",
        values.url,
        "https://healthcare.googleapis.com/v1",
        "Base URL of the Healthcare API, with its version. Credentials are sent to https URLs only.",
    ),
    Setting(
        "STORAGE_ENDPOINT",
        values.url,
        "https://storage.googleapis.com",
        "Base URL of Cloud Storage: a regional endpoint, Private Service Connect, another universe.",
        _EVENT,
    ),
    Setting(
        "PUBSUB_ENDPOINT",
        values.optional_host,
        "",
        "`host` or `host:port` of a Pub/Sub endpoint: regional or Private Service Connect; empty:"
        " the library's own.",
        ALL,
    ),
    Setting(
        "STORAGE_EMULATOR_HOST",
        values.storage_emulator,
        "",
        "URL of a Cloud Storage emulator; empty: Cloud Storage.",
        _EVENT,
    ),
    Setting(
        "PUBSUB_EMULATOR_HOST",
        values.pubsub_emulator,
        "",
        "`host:port` of a Pub/Sub emulator; empty: Pub/Sub.",
        ALL,
    ),
    Setting("OUTCOMES_TOPIC", values.topic, None, "Where every outcome is published.", _PUBLISHING),
    Setting(
        "BUDGET_S",
        values.whole(1, 3600),
        "480",
        "Seconds one invocation may take: less than the function's timeout, which is less than the ack deadline.",
        _EVENT,
    ),
    Setting(
        "LANDING_BUCKET",
        values.bucket,
        None,
        "The bucket whose objects are stored; events of others are refused.",
        (STORE,),
    ),
    Setting(
        "QUARANTINE_BUCKET",
        values.bucket,
        None,
        "Where objects go that can never be stored.",
        (STORE,),
    ),
    Setting(
        "STATE_BUCKET",
        values.bucket,
        None,
        "Where work in progress is kept between messages; nobody but the functions writes there.",
        (STORE, EXPORT, COMMANDS, NOTIFY, WATCH),
    ),
    Setting(
        "UPLOADS_NEXT_TOPIC",
        values.topic,
        None,
        "Where an archive's follow-up messages are published.",
        (STORE,),
    ),
    Setting(
        "STORAGE_CLASS",
        values.by_prefix(*STORAGE_CLASSES),
        "",
        "Storage class in the DICOM store, by prefix; an object's metadata `dicom-storage-class` goes before it.",
        (STORE,),
    ),
    Setting(
        "CONFLICT_POLICY",
        values.by_prefix("reject", "keep", "overwrite"),
        "reject",
        "What to do when the store holds other bytes under the same UIDs, by prefix.",
        (STORE,),
    ),
    Setting(
        "SOURCE_DISPOSITION",
        values.by_prefix("keep", "delete", "move"),
        "keep",
        "What becomes of an object once it is stored, by prefix.",
        (STORE,),
    ),
    Setting(
        "MOVE_DESTINATION",
        values.destination,
        "",
        "`gs://bucket/prefix` that SOURCE_DISPOSITION `move` moves to; not in the landing bucket.",
        (STORE,),
    ),
    Setting(
        "PAIR_WAIT_S",
        values.whole(
            1, 7200
        ),  # redeliveries go on for 8,430 s (infra/topology.json); then it would be a dead letter
        "1800",
        "Seconds that metadata or a JPEG waits for its other half, from when it was written, before it is quarantined;"
        " at most 7200.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_MEMBERS",
        values.whole(1, 1_000_000),
        "20000",
        "Files in an archive, those of archives inside it included; a zip's list of 20,000 takes 20 MiB of memory.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_BYTES",
        values.whole(1, 10**15 - 1),
        str(100 * 1024**3),
        "Bytes of all files of an archive, unpacked.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_MEMBER_BYTES",
        values.whole(1, 10**15 - 1),
        str(8 * 1024**3),
        "Bytes of one file of an archive, unpacked.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_RATIO",
        values.whole(1, 10_000),
        "200",
        "How many times larger than the archive its files may be in all, unpacked.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_NESTING",
        values.whole(0, 8),
        "1",
        "How deep archives may lie inside an archive.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_NAME_BYTES",
        values.whole(1, 65_535),
        "1024",
        "Bytes of the name of a file in an archive, folders included.",
        (STORE,),
    ),
    Setting(
        "DELETES_NEXT_TOPIC",
        values.topic,
        None,
        "Where a delete's follow-up messages are published.",
        (DELETE,),
    ),
    Setting(
        "DELETE_STORES",
        values.stores,
        "",
        "DICOM stores that may be deleted from, separated by commas; empty: `DICOM_STORE` alone.",
        (DELETE,),
    ),
    Setting(
        "DELETE_MAX_INSTANCES",
        values.whole(1, 10**9),
        "100000",
        "A command that would delete more instances than this is refused.",
        (DELETE,),
    ),
    Setting(
        "DELETE_MIN_AGE_HOURS",
        values.whole(0, 10**6),
        "0",
        "A command that would delete anything stored within so many hours is refused; 0: no such limit.",
        (DELETE,),
    ),
    Setting(
        "EXPORTS_NEXT_TOPIC",
        values.topic,
        None,
        "Where an export's follow-up messages are published.",
        (EXPORT,),
    ),
    Setting(
        "EXPORT_DESTINATIONS",
        values.destinations,
        None,
        "`gs://bucket/prefix` that exports may write to, separated by commas.",
        (EXPORT,),
    ),
    Setting(
        "EXPORT_SLICE",
        values.whole(1, 5000),
        "1000",
        "Instances (frames, where each becomes an object) in one part of a large export.",
        (EXPORT,),
    ),
    Setting(
        "EXPORT_GIVE_UP_ATTEMPT",
        values.whole(1, 100),
        "8",
        "From this delivery on an instance that cannot be retrieved is left out, and the export ends as `partial`.",
        (EXPORT,),
    ),
    Setting(
        "SEARCH_RETRIEVE",
        values.switch,
        "false",
        "Whether images and metadata can be retrieved too (WADO-RS, read only), for the page's pictures and viewers.",
        (SEARCH,),
    ),
    Setting("SEARCH_PAGE", values.switch, "true", "Whether `/` shows the search page.", (SEARCH,)),
    Setting(
        "SEARCH_EXPORTS",
        values.switch,
        "false",
        "Whether the page can ask for exports; needs EXPORTS_TOPIC and EXPORT_DESTINATIONS;"
        " STATE_BUCKET shows their state.",
        (SEARCH,),
    ),
    Setting(
        "EXPORTS_TOPIC",
        values.optional_topic,
        "",
        "Where exports are published as commands: the page's, those of `commands`, and the orders of"
        " ON_STUDY_COMPLETE.",
        (SEARCH, COMMANDS, WATCH),
    ),
    Setting(
        "DELETES_TOPIC",
        values.optional_topic,
        "",
        "Where the deletes of `commands` are published.",
        (COMMANDS,),
    ),
    Setting(
        "SEARCH_VIEWER_URL",
        values.viewer_url,
        "",
        "URL of a viewer, with `{study}` for the study's UID; the page links to it.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_CALLERS",
        values.callers,
        "",
        "Who may ask: addresses separated by commas, or JSON with filters that are part of all they ask, such as"
        ' `{"a@b.org": {"PatientID": "7"}}`. Empty: everyone whom the platform lets through.',
        (SEARCH,),
    ),
    Setting(
        "SEARCH_AUDIENCE",
        values.words,
        "",
        "What callers' ID tokens must be made for, such as the function's URL; several separated by commas.",
        (SEARCH,),
    ),
    Setting(
        "ID_TOKEN_KEYS_URL",
        values.url,
        "https://www.googleapis.com/oauth2/v1/certs",
        "Where the keys are published that ID tokens are signed with.",
        (SEARCH, COMMANDS),
    ),
    Setting(
        "SEARCH_ORIGINS",
        values.origins,
        "",
        "Web origins that may read answers (CORS), separated by commas; `*`: all, without credentials.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_PUBLIC_URL",
        values.optional_url,
        "",
        "The function's URL as callers see it; empty: as the request names it.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_TIMEOUT_S",
        values.whole(1, 3600),
        "60",
        "Seconds the DICOM store may take to begin an answer, and between two pieces of it.",
        (SEARCH,),
    ),
    Setting(
        "STUDY_QUIET_S",
        values.whole(1, 86_400),
        "60",
        "Seconds without a new instance after which a study is complete.",
        (WATCH,),
    ),
    Setting(
        "STUDIES_NEXT_TOPIC",
        values.topic,
        None,
        "Where the follow-up messages of studies that are not complete are published.",
        (WATCH,),
    ),
    Setting(
        "ON_STUDY_COMPLETE",
        values.json_list,
        "",
        "Exports that a complete study asks for, as a JSON list of orders (docs/webhooks.md);"
        " needs EXPORTS_TOPIC and EXPORT_DESTINATIONS.",
        (WATCH,),
    ),
    Setting(
        "WEBHOOKS",
        values.json_object,
        "",
        "URLs that are called with outcomes, as JSON by name (docs/webhooks.md). The secret of"
        " `a-name` is in `WEBHOOK_SECRET_A_NAME`.",
        (NOTIFY,),
    ),
    Setting(
        "WEBHOOK_PRIVATE_ADDRESSES",
        values.switch,
        "false",
        "Whether webhooks may go to private networks and to this machine.",
        (NOTIFY,),
    ),
    Setting(
        "COMMANDS_CALLERS",
        values.command_callers,
        "",
        "Who may give commands, as JSON of addresses with their commands, such as"
        ' `{"a@b.org": ["exports"]}`. Empty: everyone whom the platform lets through, all commands.',
        (COMMANDS,),
    ),
    Setting(
        "COMMANDS_AUDIENCE",
        values.words,
        "",
        "What callers' ID tokens must be made for, such as the function's URL; several separated by"
        " commas.",
        (COMMANDS,),
    ),
    Setting(
        "COMMANDS_PER_MINUTE",
        values.whole(1, 100_000),
        "600",
        "Commands that one caller may give in a minute, counted in each instance.",
        (COMMANDS,),
    ),
)


@dataclass(frozen=True)
class Settings:
    """The values of SETTINGS; those that the function does not use have their default or are
    None."""

    dicom_store: DicomStoreName
    healthcare_endpoint: str
    storage_endpoint: str
    pubsub_endpoint: str
    storage_emulator_host: str
    pubsub_emulator_host: str
    outcomes_topic: str
    budget_s: int
    landing_bucket: str
    quarantine_bucket: str
    state_bucket: str
    uploads_next_topic: str
    storage_class: ByPrefix[str]
    conflict_policy: ByPrefix[str]
    source_disposition: ByPrefix[str]
    move_destination: GcsPrefix | None
    pair_wait_s: int
    archive_max_members: int
    archive_max_bytes: int
    archive_max_member_bytes: int
    archive_max_ratio: int
    archive_max_nesting: int
    archive_max_name_bytes: int
    deletes_next_topic: str
    delete_stores: tuple[DicomStoreName, ...]
    delete_max_instances: int
    delete_min_age_hours: int
    exports_next_topic: str
    export_destinations: tuple[GcsPrefix, ...]
    export_slice: int
    export_give_up_attempt: int
    search_retrieve: bool
    search_page: bool
    search_exports: bool
    exports_topic: str
    deletes_topic: str
    search_viewer_url: str
    search_callers: dict[str, dict[str, str]]
    search_audience: tuple[str, ...]
    id_token_keys_url: str
    search_origins: tuple[str, ...]
    search_public_url: str
    search_timeout_s: int
    study_quiet_s: int
    studies_next_topic: str
    on_study_complete: list[Any]
    webhooks: dict[str, Any]
    webhook_private_addresses: bool
    commands_callers: dict[str, tuple[str, ...]]
    commands_audience: tuple[str, ...]
    commands_per_minute: int
    webhook_secrets: dict[str, str] = field(repr=False)

    @classmethod
    def load(cls, function: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Read what this function needs.

        Raises:
            SettingsError: a variable is missing or malformed; the message names it and says what it
                takes.
        """
        found: dict[str, Any] = {}
        for setting in SETTINGS:
            text = environ.get(setting.name, setting.default)
            if text is None and function in setting.functions:
                raise SettingsError(f"{setting.name} is not set: {setting.help}")
            if text is None:
                found[setting.name.lower()] = None
                continue
            try:
                found[setting.name.lower()] = setting.parse(text)
            except ValueError as error:
                raise SettingsError(f"{setting.name} {error}") from None
        found["webhook_secrets"] = {
            name: text for name, text in environ.items() if name.startswith(_SECRET_PREFIX)
        }
        settings = cls(**found)
        if function == STORE:
            settings._check_places()
        if function == EXPORT:
            settings._check_destinations()
        return settings

    def _check_places(self) -> None:
        """What goes elsewhere must not come back as a new object of the landing bucket."""
        if self.state_bucket in (self.landing_bucket, self.quarantine_bucket):
            raise SettingsError(
                "STATE_BUCKET must be another one than LANDING_BUCKET and QUARANTINE_BUCKET"
            )
        if self.quarantine_bucket == self.landing_bucket:
            raise SettingsError("QUARANTINE_BUCKET must be another one than LANDING_BUCKET")
        moves = any(disposition == "move" for _, disposition in self.source_disposition.rules)
        if moves and self.move_destination is None:
            raise SettingsError(
                "MOVE_DESTINATION is not set: SOURCE_DISPOSITION has a move that needs it"
            )
        if self.move_destination and self.move_destination.bucket == self.landing_bucket:
            raise SettingsError("MOVE_DESTINATION must not be in LANDING_BUCKET")

    def _check_destinations(self) -> None:
        """Who orders exports must not choose what lies among the state."""
        if any(place.bucket == self.state_bucket for place in self.export_destinations):
            raise SettingsError("EXPORT_DESTINATIONS must not be in STATE_BUCKET")

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
# Empty: the store's default.
STORAGE_CLASSES: Final = ("", "STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")


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
        "DICOM_STORE",
        DicomStoreName,
        None,
        "The DICOM store: `projects/P/locations/L/datasets/D/dicomStores/S`.",
    ),
    Setting(
        "HEALTHCARE_ENDPOINT",
        values.url,
        "https://healthcare.googleapis.com/v1",
        "Base URL of the Healthcare API, with its version. Credentials are sent to https URLs "
        "only.",
    ),
    Setting(
        "STORAGE_ENDPOINT",
        values.url,
        "https://storage.googleapis.com",
        "Base URL of Cloud Storage, for regional endpoints, Private Service Connect or another "
        "universe.",
        _EVENT,
    ),
    Setting(
        "PUBSUB_ENDPOINT",
        values.optional_host,
        "",
        "`host` or `host:port` of Pub/Sub, for regional endpoints or Private Service Connect. "
        "Empty: the library's own.",
    ),
    Setting(
        "STORAGE_EMULATOR_HOST",
        values.storage_emulator,
        "",
        "URL of a Cloud Storage emulator. Empty: Cloud Storage.",
        _EVENT,
    ),
    Setting(
        "PUBSUB_EMULATOR_HOST",
        values.pubsub_emulator,
        "",
        "`host:port` of a Pub/Sub emulator. Empty: Pub/Sub.",
    ),
    Setting(
        "OUTCOMES_TOPIC",
        values.topic,
        None,
        "Topic on which every outcome is published.",
        _PUBLISHING,
    ),
    Setting(
        "BUDGET_S",
        values.whole(1, 3600),
        "480",
        "Seconds that one invocation may take. Less than the function's timeout, which is less "
        "than the ack deadline.",
        _EVENT,
    ),
    Setting(
        "LANDING_BUCKET",
        values.bucket,
        None,
        "Bucket whose objects are stored. Events of other buckets are refused.",
        (STORE,),
    ),
    Setting(
        "QUARANTINE_BUCKET",
        values.bucket,
        None,
        "Bucket for objects that can never be stored.",
        (STORE,),
    ),
    Setting(
        "STATE_BUCKET",
        values.bucket,
        None,
        "Bucket for work in progress between two messages. Only the functions may write to it.",
        (STORE, EXPORT, COMMANDS, NOTIFY, WATCH),
    ),
    Setting(
        "UPLOADS_NEXT_TOPIC",
        values.topic,
        None,
        "Topic for the follow-up messages of an archive.",
        (STORE,),
    ),
    Setting(
        "STORAGE_CLASS",
        values.by_prefix(*STORAGE_CLASSES),
        "",
        "Storage class in the DICOM store, by prefix. `dicom-storage-class` in an object's "
        "metadata takes precedence.",
        (STORE,),
    ),
    Setting(
        "CONFLICT_POLICY",
        values.by_prefix("reject", "keep", "overwrite"),
        "reject",
        "What to do when the DICOM store holds other bytes under the same UIDs, by prefix.",
        (STORE,),
    ),
    Setting(
        "SOURCE_DISPOSITION",
        values.by_prefix("keep", "delete", "move"),
        "keep",
        "What to do with an object after it was stored, by prefix.",
        (STORE,),
    ),
    Setting(
        "MOVE_DESTINATION",
        values.destination,
        "",
        "`gs://bucket/prefix` for objects that SOURCE_DISPOSITION moves. Not in the landing "
        "bucket.",
        (STORE,),
    ),
    Setting(
        "PAIR_WAIT_S",
        # Redeliveries go on for 8,430 s (infra/topology.json); later it would be a dead letter.
        values.whole(1, 7200),
        "1800",
        "Seconds that metadata or a JPEG waits for its other half, counted from its upload, "
        "before it is quarantined. At most 7200.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_MEMBERS",
        values.whole(1, 1_000_000),
        "20000",
        "Maximum number of files in an archive, with those of the archives in it. The list of a"
        " zip with 20,000 files takes 20 MiB of memory.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_BYTES",
        values.whole(1, 10**15 - 1),
        str(100 * 1024**3),
        "Maximum size of all files of an archive, unpacked, in bytes.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_MEMBER_BYTES",
        values.whole(1, 10**15 - 1),
        str(8 * 1024**3),
        "Maximum size of one file of an archive, unpacked, in bytes.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_RATIO",
        values.whole(1, 10_000),
        "200",
        "Maximum size of all files of an archive, unpacked, as a multiple of the archive's size.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_NESTING",
        values.whole(0, 8),
        "1",
        "Maximum depth of archives in archives.",
        (STORE,),
    ),
    Setting(
        "ARCHIVE_MAX_NAME_BYTES",
        values.whole(1, 65_535),
        "1024",
        "Maximum length of the name of a file in an archive, with its folders, in bytes.",
        (STORE,),
    ),
    Setting(
        "DELETES_NEXT_TOPIC",
        values.topic,
        None,
        "Topic for the follow-up messages of a delete.",
        (DELETE,),
    ),
    Setting(
        "DELETE_STORES",
        values.stores,
        "",
        "DICOM stores that may be deleted from, separated by commas. Empty: only `DICOM_STORE`.",
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
        "A command that would delete an instance stored in the last so many hours is refused. "
        "0: no limit.",
        (DELETE,),
    ),
    Setting(
        "EXPORTS_NEXT_TOPIC",
        values.topic,
        None,
        "Topic for the follow-up messages of an export.",
        (EXPORT,),
    ),
    Setting(
        "EXPORT_DESTINATIONS",
        values.destinations,
        None,
        "Each `gs://bucket/prefix` that exports may write to, separated by commas.",
        (EXPORT,),
    ),
    Setting(
        "EXPORT_SLICE",
        values.whole(1, 5000),
        "1000",
        "Instances in one slice of a large export (frames, where each frame becomes an object).",
        (EXPORT,),
    ),
    Setting(
        "EXPORT_GIVE_UP_ATTEMPT",
        values.whole(1, 100),
        "8",
        "The delivery from which on an instance that cannot be retrieved is left out. The "
        "export then ends as `partial`.",
        (EXPORT,),
    ),
    Setting(
        "SEARCH_RETRIEVE",
        values.switch,
        "false",
        "Whether images and metadata can be retrieved too (WADO-RS, read only), for viewers and"
        " the page's pictures.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_PAGE",
        values.switch,
        "true",
        "Whether `/` shows the search page.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_EXPORTS",
        values.switch,
        "false",
        "Whether the page can ask for exports. Needs EXPORTS_TOPIC and EXPORT_DESTINATIONS; "
        "STATE_BUCKET shows their state.",
        (SEARCH,),
    ),
    Setting(
        "EXPORTS_TOPIC",
        values.optional_topic,
        "",
        "Topic on which the exports of the page, of `commands` and of ON_STUDY_COMPLETE are "
        "published as commands.",
        (SEARCH, COMMANDS, WATCH),
    ),
    Setting(
        "DELETES_TOPIC",
        values.optional_topic,
        "",
        "Topic on which the deletes of `commands` are published.",
        (COMMANDS,),
    ),
    Setting(
        "SEARCH_VIEWER_URL",
        values.viewer_url,
        "",
        "URL of a viewer that the page links to, with `{study}` in place of the Study Instance "
        "UID.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_CALLERS",
        values.callers,
        "",
        "Who may ask: addresses separated by commas, or JSON with filters that apply to "
        'everything a caller asks, such as `{"a@b.org": {"PatientID": "7"}}`. Empty: everyone '
        "whom the platform lets through.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_AUDIENCE",
        values.words,
        "",
        "The audience that callers' ID tokens must have, such as the function's URL. Several "
        "are separated by commas.",
        (SEARCH,),
    ),
    Setting(
        "ID_TOKEN_KEYS_URL",
        values.url,
        "https://www.googleapis.com/oauth2/v1/certs",
        "URL of the keys that ID tokens are signed with.",
        (SEARCH, COMMANDS),
    ),
    Setting(
        "SEARCH_ORIGINS",
        values.origins,
        "",
        "Web origins that may read answers (CORS), separated by commas. `*`: all, without "
        "credentials.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_PUBLIC_URL",
        values.optional_url,
        "",
        "The function's URL as callers see it. Empty: as the request names it.",
        (SEARCH,),
    ),
    Setting(
        "SEARCH_TIMEOUT_S",
        values.whole(1, 3600),
        "60",
        "Seconds that the DICOM store may take to begin an answer, and between two pieces of it.",
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
        "Topic for the follow-up messages of studies that are not complete.",
        (WATCH,),
    ),
    Setting(
        "ON_STUDY_COMPLETE",
        values.json_list,
        "",
        "Exports to order when a study is complete, as a JSON list (docs/webhooks.md). Needs "
        "EXPORTS_TOPIC and EXPORT_DESTINATIONS.",
        (WATCH,),
    ),
    Setting(
        "WEBHOOKS",
        values.json_object,
        "",
        "URLs to call with outcomes, as JSON by name (docs/webhooks.md). The secret of `a-name`"
        " is in `WEBHOOK_SECRET_A_NAME`.",
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
        'Who may give commands, as JSON of addresses with their commands, such as `{"a@b.org": '
        '["exports"]}`. Empty: everyone whom the platform lets through, all commands.',
        (COMMANDS,),
    ),
    Setting(
        "COMMANDS_AUDIENCE",
        values.words,
        "",
        "The audience that callers' ID tokens must have, such as the function's URL. Several "
        "are separated by commas.",
        (COMMANDS,),
    ),
    Setting(
        "COMMANDS_PER_MINUTE",
        values.whole(1, 100_000),
        "600",
        "Maximum number of commands that one caller may give in a minute, counted in each "
        "instance.",
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

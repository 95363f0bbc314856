"""The only place that reads the environment. The fields of Settings are the table of all settings:
they are read, checked, and shown in docs/settings.md."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from functions.common import values
from functions.common.errors import SettingsError
from functions.common.resources import DicomStoreName, GcsPrefix
from functions.common.values import ByPrefix

# Unless this is set, google-cloud-storage requests each bucket's metadata in the background, which
# is not needed, and needs a permission that the functions do not have. It is set here because no
# other module touches the environment.
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

    `parse` raises ValueError with the allowed values. A setting without a default is required by
    the functions in `used_by`; for other functions it is None unless it is set.
    """

    name: str
    parse: Callable[[str], Any]
    default: str | None
    help: str
    used_by: tuple[str, ...]


def _setting(
    parse: Callable[[str], Any],
    default: str | None,
    help_: str,
    used_by: tuple[str, ...] = ALL,
) -> Any:
    """A field that is read from the environment variable of the same name in capitals."""
    setting = {"parse": parse, "default": default, "help": help_, "used_by": used_by}
    return field(metadata=setting)


@dataclass(frozen=True)
class Settings:
    """The settings of a function. Every variable that is set is read and checked, also one that the
    function does not use."""

    dicom_store: DicomStoreName = _setting(
        DicomStoreName,
        None,
        "The DICOM store: `projects/P/locations/L/datasets/D/dicomStores/S`.",
    )
    healthcare_endpoint: str = _setting(
        values.url,
        "https://healthcare.googleapis.com/v1",
        "Base URL of the Healthcare API, with its version. Credentials are sent to https URLs "
        "only.",
    )
    storage_endpoint: str = _setting(
        values.url,
        "https://storage.googleapis.com",
        "Base URL of Cloud Storage, for regional endpoints, Private Service Connect or another "
        "universe.",
    )
    pubsub_endpoint: str = _setting(
        values.optional(values.host),
        "",
        "`host` or `host:port` of Pub/Sub, for regional endpoints or Private Service Connect. "
        "Empty: the library's own.",
    )
    storage_emulator_host: str = _setting(
        values.storage_emulator,
        "",
        "URL of a Cloud Storage emulator. Empty: Cloud Storage.",
    )
    pubsub_emulator_host: str = _setting(
        values.optional(values.host_and_port),
        "",
        "`host:port` of a Pub/Sub emulator. Empty: Pub/Sub.",
    )
    outcomes_topic: str = _setting(
        values.topic,
        None,
        "Topic on which every outcome is published.",
        _PUBLISHING,
    )
    budget_s: int = _setting(
        values.whole(1, 3600),
        "480",
        "Seconds that one invocation may take. Less than the function's timeout, which is less "
        "than the ack deadline.",
        _EVENT,
    )
    landing_bucket: str = _setting(
        values.bucket,
        None,
        "Bucket whose objects are stored. Events of other buckets are refused.",
        (STORE,),
    )
    quarantine_bucket: str = _setting(
        values.bucket,
        None,
        "Bucket for objects that can never be stored.",
        (STORE,),
    )
    state_bucket: str = _setting(
        values.bucket,
        None,
        "Bucket for work in progress between two messages. Only the functions may write to it.",
        (STORE, EXPORT, COMMANDS, NOTIFY, WATCH),
    )
    uploads_next_topic: str = _setting(
        values.topic,
        None,
        "Topic for the follow-up messages of an archive.",
        (STORE,),
    )
    storage_class: ByPrefix[str] = _setting(
        values.by_prefix(*STORAGE_CLASSES),
        "",
        "Storage class in the DICOM store, by prefix. `dicom-storage-class` in an object's "
        "metadata takes precedence.",
        (STORE,),
    )
    conflict_policy: ByPrefix[str] = _setting(
        values.by_prefix("reject", "keep", "overwrite"),
        "reject",
        "What to do when the DICOM store holds other bytes under the same UIDs, by prefix.",
        (STORE,),
    )
    source_disposition: ByPrefix[str] = _setting(
        values.by_prefix("keep", "delete", "move"),
        "keep",
        "What to do with an object after it was stored, by prefix.",
        (STORE,),
    )
    move_destination: GcsPrefix | None = _setting(
        values.destination,
        "",
        "`gs://bucket/prefix` for objects that SOURCE_DISPOSITION moves. Not in the landing, "
        "quarantine or state bucket.",
        (STORE,),
    )
    pair_wait_s: int = _setting(
        # Redeliveries last 8,430 s (infra/topology.json); then the message would be a dead letter.
        values.whole(1, 7200),
        "1800",
        "Seconds that metadata or a JPEG waits for its other half, counted from its upload, "
        "before it is quarantined. At most 7200.",
        (STORE,),
    )
    archive_max_members: int = _setting(
        values.whole(1, 1_000_000),
        "20000",
        "Maximum number of files in an archive, with those of the archives in it. The list of a"
        " zip with 20,000 files takes 20 MiB of memory.",
        (STORE,),
    )
    archive_max_bytes: int = _setting(
        values.whole(1, 10**15 - 1),
        str(100 * 1024**3),
        "Maximum size of all files of an archive, unpacked, in bytes.",
        (STORE,),
    )
    archive_max_member_bytes: int = _setting(
        values.whole(1, 10**15 - 1),
        str(8 * 1024**3),
        "Maximum size of one file of an archive, unpacked, in bytes.",
        (STORE,),
    )
    archive_max_ratio: int = _setting(
        values.whole(1, 10_000),
        "200",
        "Maximum size of all files of an archive, unpacked, as a multiple of the archive's size.",
        (STORE,),
    )
    archive_max_nesting: int = _setting(
        values.whole(0, 8),
        "1",
        "Maximum depth of archives in archives.",
        (STORE,),
    )
    archive_max_name_bytes: int = _setting(
        values.whole(1, 65_535),
        "1024",
        "Maximum length of the name of a file in an archive, with its folders, in bytes.",
        (STORE,),
    )
    deletes_next_topic: str = _setting(
        values.topic,
        None,
        "Topic for the follow-up messages of a delete.",
        (DELETE,),
    )
    delete_stores: tuple[DicomStoreName, ...] = _setting(
        values.stores,
        "",
        "DICOM stores that may be deleted from, separated by commas. Empty: only `DICOM_STORE`.",
        (DELETE,),
    )
    delete_max_instances: int = _setting(
        values.whole(1, 10**9),
        "100000",
        "A command that would delete more instances than this is refused.",
        (DELETE,),
    )
    delete_min_age_hours: int = _setting(
        values.whole(0, 10**6),
        "0",
        "A command that would delete an instance stored in the last so many hours is refused. "
        "0: no limit.",
        (DELETE,),
    )
    exports_next_topic: str = _setting(
        values.topic,
        None,
        "Topic for the follow-up messages of an export.",
        (EXPORT,),
    )
    export_destinations: tuple[GcsPrefix, ...] = _setting(
        values.destinations,
        None,
        "Each `gs://bucket/prefix` that exports may write to, separated by commas.",
        (EXPORT, COMMANDS),
    )
    export_slice: int = _setting(
        values.whole(1, 5000),
        "1000",
        "Instances in one slice of a large export (frames, where each frame becomes an object).",
        (EXPORT,),
    )
    export_give_up_attempt: int = _setting(
        values.whole(1, 100),
        "8",
        "From this delivery on, an instance that cannot be retrieved is left out. The export "
        "then ends as `partial`.",
        (EXPORT,),
    )
    search_retrieve: bool = _setting(
        values.switch,
        "false",
        "Whether images and metadata can be retrieved too (WADO-RS, read only), for viewers and"
        " the page's pictures.",
        (SEARCH,),
    )
    search_page: bool = _setting(
        values.switch,
        "true",
        "Whether `/` shows the search page.",
        (SEARCH,),
    )
    search_exports: bool = _setting(
        values.switch,
        "false",
        "Whether the page can ask for exports. Needs EXPORTS_TOPIC and EXPORT_DESTINATIONS; "
        "STATE_BUCKET shows their state.",
        (SEARCH,),
    )
    search_uploads: bool = _setting(
        values.switch,
        "false",
        "Whether the page can upload files into LANDING_BUCKET, which it needs. STATE_BUCKET shows "
        "their outcomes.",
        (SEARCH,),
    )
    search_upload_max_bytes: int = _setting(
        values.whole(1, 5 * 1024**4),
        str(5 * 1024**3),
        "Maximum size of one file that the page uploads, in bytes.",
        (SEARCH,),
    )
    search_uploads_per_minute: int = _setting(
        values.whole(1, 100_000),
        "3000",
        "Maximum number of uploads that begin in a minute, counted in each instance.",
        (SEARCH,),
    )
    exports_topic: str = _setting(
        values.optional(values.topic),
        "",
        "Topic on which the exports of the page, of `commands` and of ON_STUDY_COMPLETE are "
        "published as commands.",
        (SEARCH, COMMANDS, WATCH),
    )
    deletes_topic: str = _setting(
        values.optional(values.topic),
        "",
        "Topic on which the deletes of `commands` are published.",
        (COMMANDS,),
    )
    search_viewer_url: str = _setting(
        values.viewer_url,
        "",
        "URL of a viewer that the page links to, with `{study}` in place of the Study Instance "
        "UID.",
        (SEARCH,),
    )
    search_callers: dict[str, dict[str, str]] = _setting(
        values.callers,
        "",
        "Who may ask: addresses separated by commas, or JSON with filters that apply to "
        'everything a caller asks, such as `{"a@b.org": {"PatientID": "7"}}`. Empty: everyone '
        "whom the platform lets through.",
        (SEARCH,),
    )
    search_audience: tuple[str, ...] = _setting(
        values.words,
        "",
        "The audience that callers' ID tokens must have, such as the function's URL. Several "
        "are separated by commas.",
        (SEARCH,),
    )
    id_token_keys_url: str = _setting(
        values.url,
        "https://www.googleapis.com/oauth2/v1/certs",
        "URL of the keys that ID tokens are signed with.",
        (SEARCH, COMMANDS),
    )
    search_origins: tuple[str, ...] = _setting(
        values.origins,
        "",
        "Web origins that may read answers (CORS), separated by commas. `*`: all, without "
        "credentials.",
        (SEARCH,),
    )
    search_public_url: str = _setting(
        values.optional(values.url),
        "",
        "The function's URL as callers see it. Empty: as the request names it.",
        (SEARCH,),
    )
    search_timeout_s: int = _setting(
        values.whole(1, 3600),
        "60",
        "Seconds that the DICOM store may take to begin an answer, and between two pieces of it.",
        (SEARCH,),
    )
    study_quiet_s: int = _setting(
        values.whole(1, 86_400),
        "60",
        "Seconds without a new instance after which a study is complete.",
        (WATCH,),
    )
    studies_next_topic: str = _setting(
        values.topic,
        None,
        "Topic for the follow-up messages of studies that are not complete.",
        (WATCH,),
    )
    on_study_complete: list[Any] = _setting(
        values.json_list,
        "",
        "Exports to order when a study is complete, as a JSON list (docs/webhooks.md). Needs "
        "EXPORTS_TOPIC and EXPORT_DESTINATIONS.",
        (WATCH,),
    )
    webhooks: dict[str, Any] = _setting(
        values.json_object,
        "",
        "URLs to call with outcomes, as JSON by name (docs/webhooks.md). The secret of `a-name`"
        " is in `WEBHOOK_SECRET_A_NAME`.",
        (NOTIFY,),
    )
    webhook_private_addresses: bool = _setting(
        values.switch,
        "false",
        "Whether webhooks may go to private networks and to this machine.",
        (NOTIFY,),
    )
    commands_callers: dict[str, list[str]] = _setting(
        values.command_callers,
        "",
        'Who may give commands, as JSON of addresses with their commands, such as `{"a@b.org": '
        '["exports"]}`. Empty: everyone whom the platform lets through, all commands.',
        (COMMANDS,),
    )
    commands_audience: tuple[str, ...] = _setting(
        values.words,
        "",
        "The audience that callers' ID tokens must have, such as the function's URL. Several "
        "are separated by commas.",
        (COMMANDS,),
    )
    commands_per_minute: int = _setting(
        values.whole(1, 100_000),
        "600",
        "Maximum number of commands that one caller may give in a minute, counted in each "
        "instance.",
        (COMMANDS,),
    )
    webhook_secrets: dict[str, str] = field(repr=False, default_factory=dict)

    @classmethod
    def load(cls, function: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Read all settings for this function.

        Raises:
            SettingsError: a variable that the function needs is missing, or one is malformed; the
                message names it and its allowed values.
        """
        found: dict[str, Any] = {}
        for setting in SETTINGS:
            text = environ.get(setting.name, setting.default)
            if text is None and function in setting.used_by:
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

    @property
    def storage_url(self) -> str:
        """The URL of Cloud Storage, or of its emulator."""
        return self.storage_emulator_host or self.storage_endpoint

    def may_export_to(self, destination: GcsPrefix) -> bool:
        """Whether EXPORT_DESTINATIONS allows this folder."""
        return any(place.contains(destination) for place in self.export_destinations)

    def _check_places(self) -> None:
        """Moved and quarantined objects must not become uploads again, nor state."""
        own = {self.landing_bucket, self.quarantine_bucket, self.state_bucket}
        if len(own) < 3:
            raise SettingsError("LANDING_BUCKET, QUARANTINE_BUCKET and STATE_BUCKET must differ")
        moves = any(disposition == "move" for _, disposition in self.source_disposition.rules)
        if moves and self.move_destination is None:
            raise SettingsError(
                "MOVE_DESTINATION is not set: SOURCE_DISPOSITION has a move that needs it"
            )
        if self.move_destination and self.move_destination.bucket in own:
            raise SettingsError("MOVE_DESTINATION must not be in any of these three buckets")

    def _check_destinations(self) -> None:
        """Exports must not write to the state bucket."""
        if any(place.bucket == self.state_bucket for place in self.export_destinations):
            raise SettingsError("EXPORT_DESTINATIONS must not be in STATE_BUCKET")


SETTINGS: Final = tuple(
    Setting(name=one.name.upper(), **one.metadata) for one in fields(Settings) if one.metadata
)

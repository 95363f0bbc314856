"""Deletes and exports: the same checks wherever a command comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from functions.api import commands
from functions.api.commands import Query
from functions.api.formats import DICOM, FORMATS, Format
from functions.common.errors import PermanentError
from functions.common.events.messages import Message
from functions.common.resources import DicomStoreName, GcsPrefix, Resource, is_uid

STUDIES_MAX: Final = 1000  # of a delete by query


@dataclass(frozen=True)
class DeleteRequest:
    """One delete: of a resource, or of the studies that a query matches.

    Args:
        store: the DICOM store, if the path names one.
        resource: what to delete; None for a query.
        query: the search; None for a resource.
        max_studies: how many studies the query may match.
        dry_run: only count.
        stored_before: RFC 3339; nothing is deleted if any of it was stored then or later. Empty: no
            limit.

    Raises:
        PermanentError: invalid_command, for an impossible combination.
    """

    store: DicomStoreName | None = None
    resource: Resource | None = None
    query: Query | None = None
    max_studies: int = 0
    dry_run: bool = False
    stored_before: str = ""

    def __post_init__(self) -> None:
        if (self.resource is None) == (self.query is None):
            raise PermanentError("invalid_command", "a delete needs either path or query")
        if self.query is None and self.max_studies:
            raise PermanentError("invalid_command", "max_studies needs query")
        if self.query and (not self.max_studies or self.query.level != "studies"):
            raise PermanentError(
                "invalid_command", "a delete by query is for studies and needs max_studies"
            )

    @classmethod
    def read(cls, message: Message) -> Self:
        """From a command.

        Raises:
            PermanentError: invalid_event, when it is not a JSON object; invalid_command, for a key
                that is missing, malformed or unknown.
        """
        values = commands.read(message, DELETE_KEYS)
        store, resource = values.get("path", (None, None))
        return cls(
            store=store,
            resource=resource,
            query=values.get("query"),
            max_studies=values.get("max_studies", 0),
            dry_run=values.get("dry_run", False),
            stored_before=values.get("stored_before", ""),
        )


DELETE_KEYS: Final[dict[str, commands.Parse]] = {
    "path": commands.resource,
    "query": Query.parse,
    "max_studies": commands.whole(1, STUDIES_MAX),
    "dry_run": commands.flag,
    "stored_before": commands.time,
    "request_id": commands.text,
}


@dataclass(frozen=True)
class ExportRequest:
    """One export: of a resource, or of what a query matches.

    Args:
        transfer_syntax: of the exported files, in format dicom or zip; `*`: as stored. Every
            command can name one, except those from the search page (search/exporting.py).

    Raises:
        PermanentError: invalid_command, for an impossible combination.
    """

    request_id: str
    resource: Resource | None
    query: Query | None
    destination: GcsPrefix
    format: Format = DICOM
    transfer_syntax: str = "*"

    def __post_init__(self) -> None:
        if (self.resource is None) == (self.query is None):
            raise PermanentError("invalid_command", "an export needs either path or query")
        if self.format.joined == "zip" and self.query:
            raise PermanentError(
                "invalid_command", "a zip is for one study, series or instance: it needs a path"
            )
        if self.transfer_syntax == "*":
            return
        if not is_uid(self.transfer_syntax):
            raise PermanentError("invalid_command", "transfer_syntax takes * or a UID")
        if not self.format.transcodes:
            raise PermanentError("invalid_command", "transfer_syntax needs format dicom or zip")

    @classmethod
    def read(cls, message: Message) -> Self:
        """From a command.

        Raises:
            PermanentError: invalid_event, when it is not a JSON object; invalid_command, for a key
                that is missing, malformed or unknown.
        """
        values = commands.read(message, EXPORT_KEYS)
        return cls.of(values.get("request_id", ""), values)

    @classmethod
    def of(cls, request_id: str, values: Mapping[str, Any]) -> Self:
        """From a command's values.

        Raises:
            PermanentError: invalid_command, when one is missing or malformed.
        """
        if "destination" not in values:
            raise PermanentError("invalid_command", "an export needs a destination")
        _, resource = values.get("path", (None, None))
        return cls(
            request_id=request_id,
            resource=resource,
            query=values.get("query"),
            destination=GcsPrefix.parse(values["destination"]),
            format=FORMATS[values.get("format", DICOM.name)],
            transfer_syntax=values.get("transfer_syntax", "*"),
        )

    @property
    def kind(self) -> str:
        """The kind of each object; kept in its metadata, so that an object of another kind is not
        mistaken for it."""
        if self.format.transcodes:
            return f"{self.format.name} {self.transfer_syntax}"
        return self.format.name

    @property
    def keeps_bytes(self) -> bool:
        """Whether objects have the stored bytes."""
        return self.format is DICOM and self.transfer_syntax == "*"

    @property
    def accept(self) -> str:
        """The Accept header to retrieve an object."""
        return self.format.accept.format(transfer_syntax=self.transfer_syntax)

    @property
    def as_command(self) -> dict[str, Any]:
        """The values of its command, for the manifest and for follow-up messages."""
        command: dict[str, Any] = {"request_id": self.request_id}
        if self.resource:
            command["path"] = str(self.resource)
        if self.query:
            command["query"] = self.query.text
        return {
            **command,
            "destination": str(self.destination),
            "format": self.format.name,
            "transfer_syntax": self.transfer_syntax,
        }

    def below(self, path: str) -> str:
        """The name of an object below the destination."""
        return f"{self.destination.prefix}/{path}".lstrip("/")


EXPORT_KEYS: Final[dict[str, commands.Parse]] = {
    "path": commands.resource,
    "query": Query.parse,
    "destination": commands.text,
    "format": commands.one_of(*FORMATS),
    "transfer_syntax": commands.text,
    "request_id": commands.text,
}

"""What an export asks for, what it consists of, and how its objects are called."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from functions.common.errors import PermanentError
from functions.common.events import commands
from functions.common.events.commands import Query
from functions.common.resources import GcsPrefix, Resource, is_uid

FORMATS: Final = ("dicom", "jpeg", "png", "metadata", "bulkdata", "zip")
RENDERED: Final = {"jpeg": "image/jpeg", "png": "image/png"}
STREAMED: Final = ("dicom", "metadata", "zip")  # a whole study or series comes in one answer
_EXTENSIONS: Final = {
    "dicom": ".dcm",
    "zip": ".dcm",
    "jpeg": ".jpg",
    "png": ".png",
    "metadata": ".json",
}
CONTENT_TYPES: Final = {
    "dicom": "application/dicom",
    "zip": "application/dicom",
    "metadata": "application/dicom+json",
    "bulkdata": "application/octet-stream",
    **RENDERED,
}
KEYS: Final[dict[str, commands.Parse]] = {
    "path": commands.resource,
    "query": Query.parse,
    "destination": commands.text,
    "format": commands.one_of(*FORMATS),
    "transfer_syntax": commands.text,
    "request_id": commands.text,
}


@dataclass(frozen=True)
class ExportRequest:
    """One export: of a resource, or of what a query matches.

    Raises:
        PermanentError: invalid_command, for a combination that cannot be.
    """

    name: str  # the request's id
    resource: Resource | None
    query: Query | None
    destination: GcsPrefix
    format: str = "dicom"
    transfer_syntax: str = "*"

    def __post_init__(self) -> None:
        if (self.resource is None) == (self.query is None):
            raise PermanentError("invalid_command", "an export takes either path or query")
        if self.format == "zip" and self.query:
            raise PermanentError(
                "invalid_command", "a zip is of one study, series or instance: it takes a path"
            )
        if self.transfer_syntax != "*":
            if not is_uid(self.transfer_syntax):
                raise PermanentError("invalid_command", "transfer_syntax takes * or a UID")
            if self.format not in ("dicom", "zip"):
                raise PermanentError(
                    "invalid_command", "transfer_syntax goes with the formats dicom and zip"
                )

    @classmethod
    def of(cls, name: str, values: Mapping[str, Any]) -> "ExportRequest":
        """From a command's values.

        Raises:
            PermanentError: invalid_command, when one is missing or malformed.
        """
        (_, resource), destination = values.get("path", (None, None)), values.get("destination")
        if destination is None:
            raise PermanentError("invalid_command", "an export takes a destination")
        return cls(
            name,
            resource,
            values.get("query"),
            GcsPrefix.parse(destination),
            values.get("format", "dicom"),
            values.get("transfer_syntax", "*"),
        )

    @property
    def kind(self) -> str:
        """What each object holds; kept in its metadata, so that one of another kind is not taken
        for it."""
        return (
            f"{self.format} {self.transfer_syntax}"
            if self.format in ("dicom", "zip")
            else self.format
        )

    @property
    def asked(self) -> dict[str, Any]:
        """The request as it was given, for the manifest and for continuing it."""
        asked: dict[str, Any] = {"request_id": self.name}
        if self.resource:
            asked["path"] = str(self.resource)
        if self.query:
            asked["query"] = self.query.text
        return {
            **asked,
            "destination": str(self.destination),
            "format": self.format,
            "transfer_syntax": self.transfer_syntax,
        }

    def object_name(self, below: str) -> str:
        """The name of an object of this export."""
        return f"{self.destination.prefix}/{below}" if self.destination.prefix else below


@dataclass(frozen=True, order=True)
class Piece:
    """What becomes one object: an instance, or one frame of it (counted from 1; 0: the whole).

    With the format bulkdata an instance becomes as many objects as it has bulk data.
    """

    resource: Resource
    frame: int = 0

    def below(self, format_: str) -> str:
        """Where it is below the destination."""
        at = f"{self.resource.study}/{self.resource.series}/{self.resource.instance}"
        if format_ == "bulkdata":
            return f"{at}/"
        return (
            f"{at}/{self.frame}{_EXTENSIONS[format_]}"
            if self.frame
            else f"{at}{_EXTENSIONS[format_]}"
        )

    @property
    def fields(self) -> dict[str, Any]:
        """As the manifest names it."""
        resource = self.resource
        fields = {"study": resource.study, "series": resource.series, "instance": resource.instance}
        return {**fields, "frame": self.frame} if self.frame else fields


@dataclass(frozen=True)
class Item:
    """An instance, or its frames from `first` to `last`; both 0 where it is taken as a whole."""

    resource: Resource
    first: int = 0
    last: int = 0

    @property
    def weight(self) -> int:
        """How many objects it becomes."""
        return self.last - self.first + 1 if self.first else 1

    def pieces(self) -> Iterator[Piece]:
        """What it becomes."""
        if not self.first:
            yield Piece(self.resource)
            return
        for frame in range(self.first, self.last + 1):
            yield Piece(self.resource, frame)


@dataclass
class Slice:
    """A part of an export that one invocation does.

    Args:
        streams: studies or series that can be retrieved whole: all they hold is in this slice.
        items: all that belongs to it.
        skipped: instances that have nothing of the wanted kind, such as an image.
        failures: what the planning could not find, as the manifest names it.
    """

    streams: list[Resource] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    skipped: list[Resource] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """How many objects it becomes."""
        return sum(item.weight for item in self.items) + len(self.skipped)

    def to_json(self) -> dict[str, Any]:
        """For a state object."""
        return {
            "streams": [str(resource) for resource in self.streams],
            "items": [[str(item.resource), item.first, item.last] for item in self.items],
            "skipped": [str(resource) for resource in self.skipped],
            "failures": self.failures,
        }

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> "Slice":
        """From a state object."""
        return cls(
            [Resource.parse(path) for path in value["streams"]],
            [Item(Resource.parse(path), first, last) for path, first, last in value["items"]],
            [Resource.parse(path) for path in value["skipped"]],
            value["failures"],
        )

"""What an export asks for, and how its objects are called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from functions.common.errors import PermanentError
from functions.common.events import commands
from functions.common.events.commands import Query
from functions.common.resources import GcsPrefix, Resource, is_uid
from functions.export.formats import DICOM, FORMATS, Format
from functions.export.slices import Piece

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

    Args:
        name: the request's id.

    Raises:
        PermanentError: invalid_command, for a combination that cannot be.
    """

    name: str
    resource: Resource | None
    query: Query | None
    destination: GcsPrefix
    format: Format = DICOM
    transfer_syntax: str = "*"

    def __post_init__(self) -> None:
        if (self.resource is None) == (self.query is None):
            raise PermanentError("invalid_command", "an export takes either path or query")
        if self.format.joined == "zip" and self.query:
            raise PermanentError(
                "invalid_command", "a zip is of one study, series or instance: it takes a path"
            )
        if self.transfer_syntax == "*":
            return
        if not is_uid(self.transfer_syntax):
            raise PermanentError("invalid_command", "transfer_syntax takes * or a UID")
        if not self.format.transcodes:
            raise PermanentError(
                "invalid_command", "transfer_syntax goes with the formats dicom and zip"
            )

    @classmethod
    def of(cls, name: str, values: Mapping[str, Any]) -> "ExportRequest":
        """From a command's values.

        Raises:
            PermanentError: invalid_command, when one is missing or malformed.
        """
        if "destination" not in values:
            raise PermanentError("invalid_command", "an export takes a destination")
        _, resource = values.get("path", (None, None))
        return cls(
            name=name,
            resource=resource,
            query=values.get("query"),
            destination=GcsPrefix.parse(values["destination"]),
            format=FORMATS[values.get("format", DICOM.name)],
            transfer_syntax=values.get("transfer_syntax", "*"),
        )

    @property
    def kind(self) -> str:
        """What each object holds; kept in its metadata, so that one of another kind is not taken
        for it."""
        if self.format.transcodes:
            return f"{self.format.name} {self.transfer_syntax}"
        return self.format.name

    @property
    def keeps_bytes(self) -> bool:
        """Whether objects hold what is stored, byte for byte."""
        return self.format is DICOM and self.transfer_syntax == "*"

    @property
    def accept(self) -> str:
        """The Accept header for what becomes an object."""
        return self.format.accept.format(transfer_syntax=self.transfer_syntax)

    @property
    def asked(self) -> dict[str, Any]:
        """The request as it was given, for the manifest and for follow-up messages."""
        asked: dict[str, Any] = {"request_id": self.name}
        if self.resource:
            asked["path"] = str(self.resource)
        if self.query:
            asked["query"] = self.query.text
        return {
            **asked,
            "destination": str(self.destination),
            "format": self.format.name,
            "transfer_syntax": self.transfer_syntax,
        }

    def below(self, path: str) -> str:
        """The name of an object below the destination."""
        return f"{self.destination.prefix}/{path}".lstrip("/")

    def object_name(self, piece: Piece, tag: str = "") -> str:
        """The name of a piece's object, or of a part of it that is called `tag`."""
        uids = piece.resource
        path = [uids.study, uids.series, uids.instance]
        if tag:
            path.append(tag)
        elif piece.frame:
            path.append(str(piece.frame))
        return self.below("/".join(path)) + self.format.extension

"""Starts exports for callers: the command is published, and its outcome is reported like any
other."""

import json
from typing import TYPE_CHECKING, Any, Final

from functions.api.formats import FORMATS
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SettingsError
from functions.common.resources import GcsPrefix, Resource
from functions.common.settings import Settings
from functions.search.refusals import RefusedError

if TYPE_CHECKING:
    from functions.common.clients.pubsub import Topics

_KEYS: Final = {"path", "destination", "format"}
_PUBLISH_S: Final = 20.0


class Exports:
    """The exports that callers may start.

    Args:
        transport: of the function; its credentials are used.

    Raises:
        SettingsError: SEARCH_EXPORTS is on without the settings that it needs.
    """

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._client: Topics | None = None
        needed = settings.exports_topic and settings.export_destinations
        if settings.search_exports and not needed:
            raise SettingsError("SEARCH_EXPORTS needs EXPORTS_TOPIC and EXPORT_DESTINATIONS")

    def choices(self) -> dict[str, Any] | None:
        """The page's configuration; None: exports are off."""
        if not self._settings.search_exports:
            return None
        destinations = [str(place) for place in self._settings.export_destinations]
        return {
            "formats": {name: one.label for name, one in FORMATS.items()},
            "destinations": destinations,
            "states": bool(self._settings.state_bucket),
        }

    def checked(self, wanted: dict[str, Any]) -> tuple[Resource, dict[str, str]]:
        """The resource to export, and the command.

        Raises:
            RefusedError: invalid_body; forbidden, for a destination that is not on the list.
        """
        if {*wanted} != _KEYS:
            raise RefusedError(
                "invalid_body",
                "an export needs path, destination and format",
            )
        try:
            resource = Resource.parse(str(wanted["path"]))
            destination = GcsPrefix.parse(str(wanted["destination"]))
        except PermanentError as error:
            raise RefusedError("invalid_body", error.detail) from error
        if str(wanted["format"]) not in FORMATS:
            raise RefusedError(
                "invalid_body",
                f"format takes {', '.join(FORMATS)}",
            )
        if not self._settings.may_export_to(destination):
            raise RefusedError(
                "forbidden",
                "exports may not go to this destination",
            )
        command = {
            "path": str(resource),
            "destination": str(destination),
            "format": wanted["format"],
        }
        return resource, command

    def publish(self, command: dict[str, str]) -> str:
        """Publish a command; returns its request id.

        Raises:
            RefusedError: as RefusedError.caused_by, when Pub/Sub did not accept it.
        """
        import uuid

        request_id = str(uuid.uuid4())
        data = json.dumps({**command, "request_id": request_id}).encode()
        topic = self._settings.exports_topic
        try:
            self._topics().publish(topic, data, {}, Deadline(_PUBLISH_S))
        except RetryableError as error:
            raise RefusedError.caused_by("the exports topic", error) from error
        return request_id

    def _topics(self) -> "Topics":
        """The client of Pub/Sub, imported only for an export."""
        if self._client is None:
            from functions.common.clients.pubsub import Topics

            settings = self._settings
            self._client = Topics(
                self._transport, settings.pubsub_emulator_host, settings.pubsub_endpoint
            )
        return self._client

"""Asks for an export in a caller's name: the command is published, and its outcome is reported like
that of any other. `notify` keeps the outcome in the state bucket, where it is looked up."""

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
_STATE_S: Final = 10.0
# Of an outcome record, what a caller is told.
_TOLD: Final = ("outcome", "reason", "detail", "counts", "bytes", "time")


class Exports:
    """The exports that callers may ask for.

    Args:
        transport: of the function; its credentials are used.

    Raises:
        SettingsError: SEARCH_EXPORTS is on without what it needs.
    """

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._client: Topics | None = None
        needed = settings.exports_topic and settings.export_destinations
        if settings.search_exports and not needed:
            raise SettingsError("SEARCH_EXPORTS needs EXPORTS_TOPIC and EXPORT_DESTINATIONS")

    def choices(self) -> dict[str, Any] | None:
        """What the page offers; None: nothing."""
        if not self._settings.search_exports:
            return None
        destinations = [str(place) for place in self._settings.export_destinations]
        return {
            "formats": list(FORMATS),
            "destinations": destinations,
            "states": self.has_states,
        }

    @property
    def has_states(self) -> bool:
        """Whether callers can ask what became of an export."""
        return self._settings.search_exports and bool(self._settings.state_bucket)

    def checked(self, wanted: dict[str, Any]) -> tuple[Resource, dict[str, str]]:
        """What is to be exported, and the command for it.

        Raises:
            RefusedError: invalid_body; forbidden, for a destination that is not on the list.
        """
        if {*wanted} != _KEYS:
            raise RefusedError(
                "invalid_body",
                "an export takes path, destination and format",
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
        """Publish a command; its request id.

        Raises:
            RefusedError: overloaded, when Pub/Sub did not take it.
        """
        import uuid

        request_id = str(uuid.uuid4())
        data = json.dumps({**command, "request_id": request_id}).encode()
        topic = self._settings.exports_topic
        try:
            self._topics().publish(topic, data, {}, Deadline(_PUBLISH_S))
        except RetryableError as error:
            raise RefusedError(
                "overloaded", "the export could not be asked for; try again"
            ) from error
        return request_id

    def state(self, request_id: str) -> dict[str, Any]:
        """What became of an export: `done` with its outcome, or `open` where none is known.

        Raises:
            RetryableError: the state bucket cannot be read.
        """
        # Imported here: a search needs no client of Cloud Storage.
        from functions.api.request_state import Requests
        from functions.common.clients.storage import Buckets

        settings = self._settings
        endpoint = settings.storage_emulator_host or settings.storage_endpoint
        buckets = Buckets(self._transport, endpoint)
        requests = Requests(buckets, settings.state_bucket, Deadline(_STATE_S))
        request = requests.find(request_id)
        # One that has a caller came by the function `commands`, which tells that caller alone.
        if request is None or request.state != "done" or request.caller_sha256:
            return {"request_id": request_id, "state": "open"}
        told = {name: request.outcome[name] for name in _TOLD if name in request.outcome}
        return {"request_id": request_id, "state": "done", "outcome": told}

    def _topics(self) -> "Topics":
        """The client of Pub/Sub, imported where an export is asked for, and nowhere else."""
        if self._client is None:
            from functions.common.clients.pubsub import Topics

            settings = self._settings
            self._client = Topics(
                self._transport, settings.pubsub_emulator_host, settings.pubsub_endpoint
            )
        return self._client

"""The state of exports and uploads of callers. `notify` keeps it in the state bucket."""

from typing import TYPE_CHECKING, Any, Final

from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from functions.common.settings import DELETE, Settings
from functions.search.refusals import RefusedError

if TYPE_CHECKING:
    from functions.common.clients.storage import Buckets

_STATE_S: Final = 10.0
# The fields of an outcome record that callers see.
_TOLD: Final = ("outcome", "reason", "detail", "counts", "bytes", "time")


class States:
    """The states of requests.

    Args:
        transport: of the function; its credentials are used.
    """

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._client: Buckets | None = None

    @property
    def are_kept(self) -> bool:
        """Whether callers can read the state of a request."""
        has_requests = self._settings.search_exports or self._settings.search_uploads
        return has_requests and bool(self._settings.state_bucket)

    def find(self, request_id: str) -> dict[str, Any]:
        """The state of a request: `done` with its outcome, or `open` if none is known.

        Raises:
            RefusedError: as RefusedError.caused_by, when the state bucket cannot be read.
        """
        from functions.api.request_state import Requests

        requests = Requests(self._buckets(), self._settings.state_bucket, Deadline(_STATE_S))
        try:
            request = requests.find(request_id)
        except RetryableError as error:
            raise RefusedError.caused_by("the state bucket", error) from error
        # A request with a caller came by the function `commands`, which shows it only to that
        # caller. Deletes are not asked for here.
        if (
            request is None
            or request.state != "done"
            or request.caller_sha256
            or request.outcome.get("function") == DELETE
        ):
            return {"request_id": request_id, "state": "open"}
        told = {name: request.outcome[name] for name in _TOLD if name in request.outcome}
        return {"request_id": request_id, "state": "done", "outcome": told}

    def _buckets(self) -> "Buckets":
        """The client of Cloud Storage, imported for the first state: a search needs none."""
        if self._client is None:
            from functions.common.clients.storage import Buckets

            self._client = Buckets(self._transport, self._settings.storage_url)
        return self._client

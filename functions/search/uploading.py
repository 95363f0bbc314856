"""Uploads from the page: the browser writes each file to the landing bucket itself, with a URL that
this function gets for it. The function sees neither the bytes nor the name of a file."""

import threading
from typing import TYPE_CHECKING, Any, Final

from functions.api import page_uploads
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SettingsError
from functions.common.settings import Settings
from functions.search.access import FixedFilters
from functions.search.refusals import RefusedError

if TYPE_CHECKING:
    from functions.common.clients.storage import Buckets

_KEYS: Final = {"size"}
_BEGIN_S: Final = 20.0
_MINUTE_S: Final = 60.0


class Uploads:
    """The uploads that callers may begin; safe to share between threads.

    Args:
        transport: of the function; its credentials are used.

    Raises:
        SettingsError: SEARCH_UPLOADS is on without LANDING_BUCKET.
    """

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._lock = threading.Lock()
        self._minute = Deadline(_MINUTE_S)
        self._begun = 0
        self._client: Buckets | None = None
        if settings.search_uploads and not settings.landing_bucket:
            raise SettingsError("SEARCH_UPLOADS needs LANDING_BUCKET")

    def choices(self, fixed: FixedFilters) -> dict[str, Any] | None:
        """The page's configuration for a caller with these filters; None: uploads are off."""
        if fixed or not self._settings.search_uploads:
            return None
        return {
            "max_bytes": self._settings.search_upload_max_bytes,
            "states": bool(self._settings.state_bucket),
        }

    @property
    def sessions(self) -> str:
        """The URL of every session, without its query; empty: there are none."""
        if not self._settings.search_uploads:
            return ""
        settings = self._settings
        return f"{settings.storage_url}/upload/storage/v1/b/{settings.landing_bucket}/o"

    def begin(self, wanted: dict[str, Any], fixed: FixedFilters, origin: str) -> dict[str, str]:
        """Begin an upload.

        Args:
            wanted: the request's body: `size`, in bytes.
            fixed: the caller's filters; with any, uploads are refused.
            origin: of the page that will send the file; empty for a program.

        Returns:
            `request_id`; `url`, a resumable session of Cloud Storage. With this URL, one object of
            this size can be written.

        Raises:
            RefusedError: not_found, when there are no uploads; forbidden, for a caller who is
                limited to some data; invalid_body; rate_limited; as RefusedError.caused_by.
        """
        if not self._settings.search_uploads:
            raise RefusedError("not_found")
        # The outcome of an upload reveals what the DICOM store has.
        if fixed:
            raise RefusedError("forbidden", "a caller who sees only some data may not upload")
        size = self._size(wanted)
        self._count()
        import uuid

        request_id = f"{page_uploads.PREFIX}{uuid.uuid4()}"
        return {"request_id": request_id, "url": self._session(request_id, size, origin)}

    def _size(self, wanted: dict[str, Any]) -> int:
        if {*wanted} != _KEYS:
            raise RefusedError("invalid_body", "an upload needs size")
        size = wanted["size"]
        limit = self._settings.search_upload_max_bytes
        if type(size) is not int or not 1 <= size <= limit:
            raise RefusedError("invalid_body", f"size is a whole number from 1 to {limit}")
        return size

    def _count(self) -> None:
        """Count one more upload: of all callers of this process together, because it limits what
        reaches the bucket.

        Raises:
            RefusedError: rate_limited.
        """
        with self._lock:
            if not self._minute.remaining_s():
                self._minute = Deadline(_MINUTE_S)
                self._begun = 0
            self._begun += 1
            is_over = self._begun > self._settings.search_uploads_per_minute
            wait_s = round(self._minute.remaining_s()) + 1
        if is_over:
            raise RefusedError("rate_limited", "too many uploads", retry_after_s=wait_s)

    def _session(self, request_id: str, size: int, origin: str) -> str:
        try:
            return self._buckets().begin_upload(
                bucket=self._settings.landing_bucket,
                name=page_uploads.object_name(request_id),
                size=size,
                origin=origin,
                deadline=Deadline(_BEGIN_S),
            )
        except (PermanentError, RetryableError) as error:
            raise RefusedError.caused_by("the landing bucket", error) from error

    def _buckets(self) -> "Buckets":
        """The client of Cloud Storage, imported where an upload begins: a search needs none."""
        if self._client is None:
            from functions.common.clients.storage import Buckets

            self._client = Buckets(self._transport, self._settings.storage_url)
        return self._client

"""The service's own credentials, loaded when the first https request needs them."""

import threading
from typing import Any, Final

from functions.common.errors import RetryableError

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


class Credentials:
    """Application Default Credentials, sent over https only: emulators get none. Safe to share
    between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._request: Any = None

    def add_to(self, headers: dict[str, str], url: str) -> None:
        """Add the Authorization header for this URL.

        Raises:
            RetryableError: unauthorized, when there are no credentials or they cannot be refreshed.
        """
        if not url.startswith("https://"):
            return
        import google.auth.exceptions

        try:
            with self._lock:
                if self._credentials is None:
                    self._load()
                self._credentials.before_request(self._request, "", url, headers)
        except google.auth.exceptions.GoogleAuthError as error:
            raise RetryableError("unauthorized") from error

    def refresh_needed(self) -> None:
        """Forget the token: the service refused it."""
        with self._lock:
            self._credentials = None

    def _load(self) -> None:
        import google.auth
        import google.auth.transport.requests

        self._credentials, _ = google.auth.default(scopes=[_SCOPE])
        self._request = google.auth.transport.requests.Request()

"""The service's own credentials, loaded when the first https request needs them."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Final

from functions.common.errors import RetryableError

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


def is_secure(url: str) -> bool:
    """Whether credentials may be sent to this URL: only over https; emulators get none."""
    return url.startswith("https://")


class Credentials:
    """Application Default Credentials, and the quota project that they or
    GOOGLE_CLOUD_QUOTA_PROJECT name. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._request: Any = None

    def add_to(self, headers: dict[str, str], url: str) -> None:
        """Add the Authorization header for this URL, and that of the quota project.

        Raises:
            RetryableError: unauthorized, when there are no credentials or they cannot be refreshed.
        """
        if not is_secure(url):
            return
        with _unauthorized():
            credentials = self.load()
            with self._lock:
                credentials.before_request(self._request, "", url, headers)

    def forget(self) -> None:
        """Forget credentials whose token the service refused; the next request loads them anew."""
        with self._lock:
            self._credentials = None

    def load(self) -> Any:
        """The credentials of google-auth, for a library that needs them.

        Raises:
            RetryableError: unauthorized, when there are none.
        """
        import google.auth
        import google.auth.transport.requests

        with _unauthorized(), self._lock:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[_SCOPE])
                self._request = google.auth.transport.requests.Request()
            return self._credentials

    def session(self, adapter: Any) -> Any:
        """A session of google-auth over this adapter of requests, or over a similar one with a
        client certificate if GOOGLE_API_USE_CLIENT_CERTIFICATE is set (mTLS).

        Raises:
            RetryableError: unauthorized, when there are no credentials or no such certificate.
        """
        import google.auth.transport.requests

        new_session: Any = google.auth.transport.requests.AuthorizedSession
        session = new_session(self.load())
        session.mount("https://", adapter)
        with _unauthorized():
            session.configure_mtls_channel()
        return session


@contextlib.contextmanager
def _unauthorized() -> Iterator[None]:
    """Every error of google-auth in this block becomes `unauthorized`."""
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAuthError as error:
        raise RetryableError("unauthorized") from error

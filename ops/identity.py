"""The operator's identity token, which Cloud Run asks callers for."""

from typing import Any

from functions.common.clients.credentials import Credentials
from functions.common.errors import RetryableError


class IdentityToken(Credentials):
    """A token made for one audience: by the service account or the metadata server, or of the
    person that is logged in.

    Args:
        audience: the URL that is called.
    """

    def __init__(self, audience: str) -> None:
        super().__init__()
        self._audience = audience

    def add_to(self, headers: dict[str, str], url: str) -> None:
        """Add the Authorization header.

        Raises:
            RetryableError: unauthorized, when there is no token to be had.
        """
        if not url.startswith("https://"):
            return
        import google.auth.exceptions

        try:
            headers["Authorization"] = f"Bearer {self._token()}"
        except google.auth.exceptions.GoogleAuthError as error:
            raise RetryableError("unauthorized") from error

    def _token(self) -> str:
        import google.auth
        import google.auth.exceptions
        import google.auth.transport.requests
        import google.oauth2.id_token

        request = google.auth.transport.requests.Request()
        try:
            fetch: Any = google.oauth2.id_token.fetch_id_token
            return str(fetch(request, self._audience))
        except google.auth.exceptions.DefaultCredentialsError:
            # A person's login: the token it comes with has another audience, which Cloud Run
            # accepts.
            person: Any = google.auth.default()[0]
            person.refresh(request)
            if not getattr(person, "id_token", None):
                raise
            return str(person.id_token)

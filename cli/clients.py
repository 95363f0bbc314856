"""Google's client libraries for one system; only this file knows how to reach it.

Credentials are those of `gcloud auth application-default login`, a service account or the metadata
server, with the system's project as quota project. They are sent to https URLs only. Libraries are
imported at their first use, so that `--help` is fast.
"""

import json
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from cli.errors import CliError
from cli.system import System

CALL_S: Final = 60.0  # for one call
LOGIN: Final = "gcloud auth application-default login"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_RETRIED: Final = (429, 500, 502, 503, 504)
_CONNECTIONS: Final = 16
_ANSWER_LIMIT_BYTES: Final = 16 * 1024 * 1024


class Clients:
    """The clients of one system; safe to share between threads once they are made.

    Args:
        system: whose endpoints are used.
        token: an access token that `call` sends instead of the operator's own credentials.
    """

    def __init__(self, system: System, token: str = "") -> None:
        self.system = system
        self._token = token
        # The local system cannot be reached through a proxy.
        if system.local:
            os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
        # Otherwise the storage library requests the bucket's metadata in a separate thread.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "1")

    @cached_property
    def credentials(self) -> Any:
        """The operator's.

        Raises:
            GoogleAuthError: there are none on this machine; `explained` says what to do.
        """
        import google.auth

        found, _ = google.auth.default(scopes=_SCOPES, quota_project_id=self.system.project)
        return found

    def credentials_for(self, url: str) -> Any:
        """The credentials to send to a URL: none over plain http."""
        import google.auth.credentials

        if url.startswith("https://"):
            return self.credentials
        anonymous: Any = google.auth.credentials.AnonymousCredentials
        return anonymous()

    @cached_property
    def storage(self) -> Any:
        """A `google.cloud.storage.Client`."""
        from google.cloud import storage

        url = self.system.endpoints.storage
        return storage.Client(
            project=self.system.project,
            credentials=self.credentials_for(url),
            client_options={"api_endpoint": url},
        )

    @cached_property
    def publisher(self) -> Any:
        """A `google.pubsub_v1.PublisherClient`."""
        from google.pubsub_v1 import PublisherClient
        from google.pubsub_v1.services.publisher.transports import PublisherRestTransport

        return PublisherClient(transport=PublisherRestTransport(**self._pubsub_options()))

    @cached_property
    def subscriber(self) -> Any:
        """A `google.pubsub_v1.SubscriberClient`."""
        from google.pubsub_v1 import SubscriberClient
        from google.pubsub_v1.services.subscriber.transports import SubscriberRestTransport

        return SubscriberClient(transport=SubscriberRestTransport(**self._pubsub_options()))

    def _pubsub_options(self) -> dict[str, Any]:
        url = self.system.endpoints.pubsub
        return {
            "host": url,
            "url_scheme": urlsplit(url).scheme,
            "credentials": self.credentials_for(url),
        }

    def publish(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        """Publish one message."""
        message = {"data": data, "attributes": dict(attributes)}
        self.publisher.publish(topic=topic, messages=[message], timeout=CALL_S)

    def call(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "Answer":
        """Send one request to a REST API that has no library here.

        It is repeated while the service is busy, so it must be safe to send more than once.

        Raises:
            CliError: there is no answer.
        """
        import requests

        session = self._plain
        sent = dict(headers or {})
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        elif url.startswith("https://"):
            session = self._secure
        try:
            response = session.request(
                method,
                url,
                json=body,
                params=params,
                headers=sent,
                timeout=CALL_S,
                stream=True,
            )
            with response:
                text = response.raw.read(_ANSWER_LIMIT_BYTES, decode_content=True)
        except requests.RequestException as error:
            raise CliError(_unreachable(url)) from error
        return Answer(response.status_code, text, dict(response.headers))

    @cached_property
    def _secure(self) -> Any:
        import google.auth.transport.requests

        session: Any = google.auth.transport.requests.AuthorizedSession
        return _patient(session(self.credentials))

    @cached_property
    def _plain(self) -> Any:
        import requests

        return _patient(requests.Session())

    def identity_header(self, audience: str) -> dict[str, str]:
        """The Authorization header that Cloud Run requires of callers; none over plain http.

        Args:
            audience: the URL that is called.

        Raises:
            CliError: there is no token.
        """
        if not audience.startswith("https://"):
            return {}
        import google.auth.exceptions
        import google.auth.transport.requests
        import google.oauth2.id_token

        request = google.auth.transport.requests.Request()
        try:
            fetch: Any = google.oauth2.id_token.fetch_id_token
            token = fetch(request, audience)
        except google.auth.exceptions.DefaultCredentialsError:
            # A person's login: its token has another audience, which Cloud Run accepts.
            self.credentials.refresh(request)
            token = getattr(self.credentials, "id_token", None)
        except google.auth.exceptions.GoogleAuthError:
            token = None
        if not token:
            raise CliError(f"there is no identity token for {audience}; to log in: {LOGIN}")
        return {"Authorization": f"Bearer {token}"}


class Answer:
    """What a REST API answered.

    Args:
        status: of HTTP.
        body: at most 16 MiB of it.
        headers: of the answer.
    """

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        try:
            self.json: Any = json.loads(body or b"{}")
        except ValueError:
            self.json = {}

    @property
    def object(self) -> Mapping[str, Any]:
        """The JSON object of a good answer; empty when it is another answer."""
        is_good = self.status == 200 and isinstance(self.json, dict)
        return self.json if is_good else {}

    def part(self, name: str) -> Mapping[str, Any]:
        """The object under a key, for any status; empty when there is none."""
        found = self.json.get(name) if isinstance(self.json, dict) else None
        return found if isinstance(found, dict) else {}


def _patient(session: Any) -> Any:
    import requests.adapters
    import urllib3

    retry = urllib3.Retry(
        total=3,
        backoff_factor=0.5,
        status_forcelist=_RETRIED,
        allowed_methods=None,
        raise_on_status=False,
    )
    adapter = requests.adapters.HTTPAdapter(max_retries=retry, pool_maxsize=_CONNECTIONS)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _unreachable(url: str) -> str:
    host = urlsplit(url).netloc
    return f"{host} does not answer: is the system running, and reachable from this machine?"


def explained(error: BaseException) -> CliError | None:
    """What to tell a person about an error of a library; None for errors of other kinds."""
    # An error of a library that was not imported cannot occur; importing it would take time.
    explanations = {
        "google.auth.exceptions": _of_credentials,
        "google.api_core.exceptions": _of_service,
        "requests": _of_connection,
    }
    for library, explanation in explanations.items():
        if library in sys.modules:
            found = explanation(error)
            if found is not None:
                return found
    return None


def _of_connection(error: BaseException) -> CliError | None:
    import requests

    if not isinstance(error, requests.RequestException):
        return None
    url = str(getattr(error.request, "url", ""))
    return CliError(_unreachable(url))


def _of_credentials(error: BaseException) -> CliError | None:
    from google.auth import exceptions

    if isinstance(error, exceptions.DefaultCredentialsError):
        return CliError(f"there are no Google Cloud credentials; to log in: {LOGIN}")
    if isinstance(error, exceptions.RefreshError):
        return CliError(f"the credentials are no longer valid; to log in again: {LOGIN}")
    if isinstance(error, exceptions.GoogleAuthError):
        return CliError(f"the credentials failed ({type(error).__name__}); to log in: {LOGIN}")
    return None


def _of_service(error: BaseException) -> CliError | None:
    from google.api_core import exceptions

    if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
        subject = _subject(error)
        return CliError(
            f"you may not do this ({subject}); "
            "dicom-functions doctor names the role that is missing"
        )
    if isinstance(error, exceptions.NotFound):
        return CliError(f"not found: {_subject(error)}")
    if isinstance(error, exceptions.GoogleAPICallError):
        subject = _subject(error)
        return CliError(f"the service answered {error.code} ({subject}): try again")
    if isinstance(error, exceptions.RetryError):
        return CliError("the service did not answer in time: try again")
    return None


def _subject(error: Any) -> str:
    """Method and path of the failed request. The error's own text may hold patient data."""
    request = getattr(error.response, "request", None)
    if request is None:
        return type(error).__name__
    return f"{request.method} {urlsplit(request.url).path}"

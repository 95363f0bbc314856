"""HTTP with the caller's credentials, to the DICOM store that the probe has made."""

import ipaddress
import json
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import google.auth
import google.auth.exceptions
import google.auth.transport.requests
import requests
from pydicom.dataset import Dataset

from cli.conformance import scans

SCOPE: Final = "https://www.googleapis.com/auth/cloud-healthcare"
LABEL: Final = "conformance"  # of the probe's own store; its value is the store's id
TIMEOUT_S: Final = (10.0, 120.0)  # to connect, and between two reads
# Statuses that say "later" (fact sheet section 10), and how long to wait before each further try.
_BUSY: Final = frozenset({429, 502, 503, 504})
_PAUSES_S: Final = (2.0, 5.0, 15.0)
_OPERATION_S: Final = 600.0
_POLL_S: Final = 1.0


class ConformanceError(Exception):
    """Why the probe cannot continue; one line for a person."""


@dataclass(frozen=True)
class Reply:
    """An answer, read in full."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """The Content-Type, or an empty text."""
        return self.headers.get("Content-Type", "")

    def json(self) -> Any:
        """The body as JSON; None when it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Session:
    """Requests below an endpoint such as `https://healthcare.googleapis.com`.

    Credentials are sent over https only, or to this machine. Over https they are the Application
    Default Credentials unless a token is given.
    """

    def __init__(self, endpoint: str, token: str = "") -> None:
        """Find credentials.

        Raises:
            ConformanceError: there are none, or they would be sent over a network unencrypted.
        """
        self.endpoint = endpoint.rstrip("/")
        url = urllib.parse.urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConformanceError(
                "the endpoint must be a URL such as https://healthcare.googleapis.com"
            )
        if url.scheme == "http" and not _is_this_machine(url.hostname):
            raise ConformanceError("over a network the endpoint must be https")
        if url.scheme == "https" and not token:
            self._session = _authorized()
        else:
            self._session = requests.Session()
            self._session.trust_env = url.scheme == "https"
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Reply:
        """Send one request, again while the service is busy; a header of None is left out.

        Raises:
            ConformanceError: no answer, or the credentials cannot be refreshed.
        """
        for pause_s in (*_PAUSES_S, None):
            reply = self._send_once(method, path, body, headers or {})
            if reply.status not in _BUSY or pause_s is None:
                break
            time.sleep(pause_s)
        return reply

    def _send_once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str | None]
    ) -> Reply:
        try:
            answer = self._session.request(
                method,
                f"{self.endpoint}/{path}",
                data=body,
                headers={"Accept-Encoding": "identity", **headers},
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            kind = type(error).__name__
            raise ConformanceError(f"{self.endpoint} does not answer ({kind})") from error
        except google.auth.exceptions.GoogleAuthError as error:
            raise ConformanceError("the credentials could not be refreshed") from error
        return Reply(answer.status_code, answer.headers, answer.content)


class Probe:
    """How the questions reach the service: only the probe's own store.

    Args:
        session: sends the requests.
        version: v1 or v1beta1.
        name: the store's full name, projects/…/dicomStores/….
    """

    def __init__(self, session: Session, version: str, name: str) -> None:
        self._session = session
        self.version = version
        self.name = name
        self.dataset, _, self.store_id = name.partition("/dicomStores/")

    def store_method(self, method: str, suffix: str, body: Any = None, store: str = "") -> Reply:
        """A method of the store itself, such as `:getDICOMStoreMetrics`; body is sent as JSON.

        store is another store's name, for asking about one that does not exist.
        """
        content = b""
        if body is not None:
            content = json.dumps(body).encode()
        return self._session.send(
            method,
            f"{self.version}/{store or self.name}{suffix}",
            body=content,
            headers={"Content-Type": "application/json"},
        )

    def list_stores(self, query: str) -> Reply:
        """The dataset's DICOM stores with the probe's own label: its own store and no other."""
        own = urllib.parse.quote(f"labels.{LABEL}={self.store_id}")
        path = f"{self.version}/{self.dataset}/dicomStores?filter={own}&{query}"
        return self._session.send("GET", path)

    def make_in_missing_dataset(self) -> int:
        """The status of making a store in a dataset that does not exist; a store is deleted
        again."""
        dataset = f"{self.dataset.rpartition('/')[0]}/{self.store_id}"
        stores = f"{self.version}/{dataset}/dicomStores"
        headers = {"Content-Type": "application/json"}
        made = self._session.send(
            "POST", f"{stores}?dicomStoreId={self.store_id}", body=b"{}", headers=headers
        )
        if made.status == 200:
            self._session.send("DELETE", f"{stores}/{self.store_id}")
        return made.status

    def operation(self, name: str) -> Any:
        """The operation of this name in the probe's dataset, as it is now."""
        number = name.rpartition("/")[2]
        path = f"{self.version}/{self.dataset}/operations/{number}"
        return self._session.send("GET", path).json()

    def finished(self, reply: Reply) -> Any:
        """The operation that a request started, once it has ended.

        Raises:
            ConformanceError: the answer names none, or it does not end.
        """
        started = reply.json()
        if reply.status != 200 or not isinstance(started, dict) or "name" not in started:
            raise ConformanceError(f"no operation was started (status {reply.status})")
        end = time.monotonic() + _OPERATION_S
        while True:
            found = self.operation(started["name"])
            if found and found.get("done"):
                return found
            if time.monotonic() > end:
                raise ConformanceError("an operation did not end within ten minutes")
            time.sleep(_POLL_S)

    # DICOMweb

    def web(
        self,
        method: str,
        path: str,
        *,
        accept: str | None = "*/*",
        body: bytes | None = None,
        kind: str | None = None,
        **headers: str,
    ) -> Reply:
        """A request below the store's dicomWeb path.

        Args:
            method: in capitals.
            path: below dicomWeb, such as `studies?limit=1`.
            accept: the Accept header; None: none is sent.
            body: of the request.
            kind: its Content-Type.
            headers: more headers, with `_` for `-`.
        """
        given: dict[str, str | None] = {"Accept": accept}
        if kind:
            given["Content-Type"] = kind
        for name, value in headers.items():
            given[name.replace("_", "-")] = value
        url = f"{self.version}/{self.name}/dicomWeb/{path}"
        return self._session.send(method, url, body=body, headers=given)

    def get(self, path: str, accept: str | None = "*/*") -> Reply:
        """GET below dicomWeb."""
        return self.web("GET", path, accept=accept)

    def store(self, ds: Dataset, path: str = "studies", **headers: str) -> Reply:
        """Store one instance as a single part, with a JSON report."""
        return self.post(scans.part10(ds), path=path, **headers)

    def post(
        self,
        body: bytes,
        kind: str = "application/dicom",
        path: str = "studies",
        accept: str | None = "application/dicom+json",
        **headers: str,
    ) -> Reply:
        """Store a body."""
        return self.web("POST", path, accept=accept, body=body, kind=kind, **headers)

    def stored(self, ds: Dataset) -> str:
        """Store an instance that must be accepted; returns its path below dicomWeb.

        Raises:
            ConformanceError: it was not accepted.
        """
        reply = self.store(ds)
        if reply.status != 200:
            raise ConformanceError(f"a plain instance was not stored (status {reply.status})")
        return path_of(ds)


def path_of(ds: Dataset) -> str:
    """`studies/…/series/…/instances/…` of an instance."""
    return f"{series_of(ds)}/instances/{ds.SOPInstanceUID}"


def series_of(ds: Dataset) -> str:
    """`studies/…/series/…` of an instance."""
    return f"{study_of(ds)}/series/{ds.SeriesInstanceUID}"


def study_of(ds: Dataset) -> str:
    """`studies/…` of an instance."""
    return f"studies/{ds.StudyInstanceUID}"


def _authorized() -> requests.Session:
    try:
        credentials, _project = google.auth.default(scopes=[SCOPE])
    except google.auth.exceptions.GoogleAuthError as error:
        raise ConformanceError(
            "there are no credentials; run: gcloud auth application-default login"
        ) from error
    transport = google.auth.transport.requests
    session: requests.Session = transport.AuthorizedSession(  # type: ignore[no-untyped-call]
        credentials
    )
    return session


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

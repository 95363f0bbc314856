"""The system that a command is about: names and addresses, of a deployment or of the local
stack."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from functions.common.clients.credentials import Credentials
from functions.common.clients.transport import Request, Transport, read_all
from functions.common.deadline import Deadline
from functions.common.resources import DicomStoreName

ROOT: Final = Path(__file__).parents[1]
LOCAL_FILE: Final = ROOT / ".local" / "stack.json"  # written by the local stack
DEPLOYED_FILE: Final = ROOT / ".deploy" / "system.json"  # written by deploy.sh
LEDGER: Final = "ledger"  # what takes the outcomes, among the functions that take the other topics
_ANSWER_LIMIT_BYTES: Final = 16 * 1024 * 1024


class NoSystemError(Exception):
    """There is no such system; one line for a person, with what to do."""


@dataclass(frozen=True)
class Endpoints:
    """Base URLs of Google's services, or of what stands in for them."""

    storage: str = "https://storage.googleapis.com"
    pubsub: str = "https://pubsub.googleapis.com"
    healthcare: str = "https://healthcare.googleapis.com/v1"
    run: str = "https://run.googleapis.com"
    functions: str = "https://cloudfunctions.googleapis.com"
    credentials: str = "https://iamcredentials.googleapis.com"


@dataclass(frozen=True)
class System:
    """One system.

    Args:
        local: whether it is the local stack, where accounts and rights do not exist.
        region: of the functions; empty locally.
        buckets: role (landing, quarantine, export, ledger, state) to name.
        environments: function to its environment variables.
        accounts: function to its service account's email; empty locally.
        delivery: email of the account that calls the event functions; empty locally.
        topology: infra/topology.json.
    """

    local: bool
    project: str
    region: str
    store: DicomStoreName
    buckets: Mapping[str, str]
    environments: Mapping[str, Mapping[str, str]]
    search_url: str
    search_ingress: str
    accounts: Mapping[str, str]
    delivery: str
    topology: Mapping[str, Any]
    endpoints: Endpoints

    @classmethod
    def find(cls, file: Path | None = None) -> Self:
        """Read the system's file: the one given, else the running local stack's, else the
        deployment's.

        Raises:
            NoSystemError: there is none, or it cannot be read.
        """
        path = file or next(
            (place for place in (LOCAL_FILE, DEPLOYED_FILE) if place.exists()), None
        )
        if path is None:
            raise NoSystemError(
                "no system: start one (make run), deploy one (./deploy.sh) or name --system FILE"
            )
        try:
            data = json.loads(path.read_text())
            return (
                cls._of_stack(data)
                if "endpoints" in data and "pid" in data
                else cls._of_deployment(data)
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoSystemError(
                f"{path} is not a system's file ({type(error).__name__})"
            ) from error

    @classmethod
    def _of_stack(cls, data: Mapping[str, Any]) -> Self:
        endpoints, functions = data["endpoints"], data["endpoints"]["functions"]
        places = Endpoints(
            endpoints["gcs"],
            f"http://{endpoints['pubsub']}",
            endpoints["healthcare"],
            run="",
            functions="",
            credentials="",
        )
        return cls(
            local=True,
            project=data["project"],
            region="",
            store=DicomStoreName(data["env"]["DICOM_STORE"]),
            buckets=data["buckets"],
            environments=dict.fromkeys(functions, data["env"]),
            search_url=functions.get("search", ""),
            search_ingress="ALLOW_ALL",
            accounts={},
            delivery="",
            topology=_topology(),
            endpoints=places,
        )

    @classmethod
    def _of_deployment(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            local=False,
            project=data["project"],
            region=data["region"],
            store=DicomStoreName(data["dicom_store"]),
            buckets=data["buckets"],
            environments=data["environments"],
            search_url=data["search_url"].rstrip("/"),
            search_ingress=data["search_ingress"],
            accounts=data["accounts"],
            delivery=data["delivery"],
            topology=_topology(),
            endpoints=Endpoints(**data.get("endpoints", {})),
        )

    @property
    def where(self) -> str:
        """Which it is, for people."""
        return "the local stack" if self.local else f"project {self.project}"

    @property
    def bound(self) -> Mapping[str, Mapping[str, Any]]:
        """The subscriptions that have dead letters, by the function that they call,
        `FUNCTION/follow-ups`, or LEDGER."""
        path = self.topology["follow_ups_path"]
        found = dict[str, Mapping[str, Any]]()
        for function, item in self.topology["functions"].items():
            found |= {function: item, function + path: item["follow_ups"]}
        return {**found, LEDGER: self.topology["ledger_subscription"]}

    def topic(self, role_or_name: str) -> str:
        """The full name of a topic, by its role in the topology or its own name."""
        name = self.topology["topics"].get(role_or_name, role_or_name)
        return f"projects/{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        """The full name of a subscription."""
        return f"projects/{self.project}/subscriptions/{name}"

    def service(self, function: str) -> str:
        """The full name of a function's Cloud Run service."""
        return f"projects/{self.project}/locations/{self.region}/services/dicom-{function.replace('_', '-')}"


class Client:
    """REST calls whose answers are JSON.

    Args:
        credentials: others than the operator's own.
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        self.transport = Transport(credentials=credentials)

    def get(
        self, url: str, deadline: Deadline, params: list[tuple[str, str]] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of an answer.

        Raises:
            RetryableError: unauthorized, or the service is busy or away.
        """
        return self._call(Request("GET", url, params), deadline)

    def post(self, url: str, body: Mapping[str, Any], deadline: Deadline) -> tuple[int, Any]:
        """As get."""
        headers = {"Content-Type": "application/json"}
        return self._call(Request("POST", url, None, headers, json.dumps(body).encode()), deadline)

    def send(
        self, method: str, url: str, deadline: Deadline, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """As get, with another method."""
        headers = {"Content-Type": "application/json"}
        return self._call(
            Request(method, url, None, headers, json.dumps(body or {}).encode()), deadline
        )

    def _call(self, request: Request, deadline: Deadline) -> tuple[int, Any]:
        with self.transport.send(request, deadline) as response:
            text = read_all(response, deadline, _ANSWER_LIMIT_BYTES)
        try:
            return response.status_code, json.loads(text or b"{}")
        except ValueError:
            return response.status_code, {}


def _topology() -> Mapping[str, Any]:
    topology: Mapping[str, Any] = json.loads((ROOT / "infra" / "topology.json").read_text())
    return topology

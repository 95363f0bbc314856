"""The system that a command works on, local or deployed: its names and addresses."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from cli.errors import NoSystemError
from functions.common.resources import DicomStoreName
from functions.common.settings import COMMANDS, NOTIFY, SEARCH

ROOT: Final = Path(__file__).parents[1]
LOCAL_FILE: Final = ROOT / ".local" / "stack.json"  # written by `dicom-functions run`
DEPLOYED_FILE: Final = ROOT / ".deploy" / "system.json"  # written by deploy.sh
LEDGER: Final = "ledger"  # listed with the functions: its subscription also has dead letters


@dataclass(frozen=True)
class Endpoints:
    """Base URLs of Google's services, or of the local servers in their place."""

    storage: str = "https://storage.googleapis.com"
    pubsub: str = "https://pubsub.googleapis.com"
    healthcare: str = "https://healthcare.googleapis.com/v1"
    run: str = "https://run.googleapis.com"
    functions: str = "https://cloudfunctions.googleapis.com"
    credentials: str = "https://iamcredentials.googleapis.com"
    iam: str = "https://iam.googleapis.com"
    kms: str = "https://cloudkms.googleapis.com"
    projects: str = "https://cloudresourcemanager.googleapis.com"
    artifacts: str = "https://artifactregistry.googleapis.com"
    secrets: str = "https://secretmanager.googleapis.com"


@dataclass(frozen=True)
class System:
    """One system.

    Args:
        file: where this was read.
        local: whether it runs on this machine, without accounts and permissions.
        region: of the functions; empty locally.
        buckets: role (landing, quarantine, export, ledger, state) to name.
        environments: function to its environment variables.
        accounts: function to its service account's email; empty locally.
        webhook_secrets: webhook to the name of its secret; empty locally.
        function_urls: function to its URL; empty for a deployment.
        webhook_port: where `listen` receives the local system's webhook; 0 for a deployment.
        delivery: email of the account that calls the event functions; empty locally.
        build: email of the account that builds the functions; empty locally.
        topology: infra/topology.json.
    """

    file: Path
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
    build: str
    topology: Mapping[str, Any]
    endpoints: Endpoints
    function_urls: Mapping[str, str] = field(default_factory=dict)
    webhook_port: int = 0
    webhook_secrets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, given: Path | None = None) -> Self:
        """Read the system's file.

        Args:
            given: the file or its folder; None: the system on this machine, else the deployment.

        Raises:
            NoSystemError: there is none, or its file cannot be read.
        """
        path = _file(given)
        if not path.exists():
            raise NoSystemError(f"{path} does not exist")
        try:
            data = json.loads(path.read_text())
            if "endpoints" in data and "pid" in data:
                return cls._of_stack(path, data)
            return cls._of_deployment(path, data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            kind = type(error).__name__
            raise NoSystemError(f"{path} is not a system's file ({kind})") from error

    @classmethod
    def _of_stack(cls, file: Path, data: Mapping[str, Any]) -> Self:
        endpoints = data["endpoints"]
        functions = endpoints["functions"]
        return cls(
            file=file,
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
            build="",
            topology=_topology(),
            endpoints=Endpoints(
                storage=endpoints["gcs"],
                pubsub=f"http://{endpoints['pubsub']}",
                healthcare=endpoints["healthcare"],
            ),
            function_urls=functions,
            webhook_port=data["webhook_port"],
        )

    @classmethod
    def _of_deployment(cls, file: Path, data: Mapping[str, Any]) -> Self:
        return cls(
            file=file,
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
            build=data["build"],
            webhook_secrets=data["webhook_secrets"],
            topology=_topology(),
            endpoints=Endpoints(**data.get("endpoints", {})),
        )

    @property
    def where(self) -> str:
        """Which system it is, for people."""
        if self.local:
            return "the system on this machine"
        return f"project {self.project}"

    @property
    def bound(self) -> Mapping[str, Mapping[str, Any]]:
        """The subscriptions that have dead letters, by name: the function that they call,
        `FUNCTION/follow-ups`, `notify/webhooks/NAME`, or LEDGER."""
        path = self.topology["follow_ups_path"]
        found: dict[str, Mapping[str, Any]] = {}
        for function, item in {**self.topology["functions"], **self._optional_functions()}.items():
            found[function] = item
            if "follow_ups" in item:
                found[function + path] = item["follow_ups"]
        webhooks = self.topology["optional"]["webhooks"]
        for name in self.webhook_secrets:
            found[f"{NOTIFY}{webhooks['path']}{name}"] = _webhook(webhooks, name)
        found[LEDGER] = self.topology["ledger_subscription"]
        return found

    def _optional_functions(self) -> dict[str, Mapping[str, Any]]:
        """The optional functions that are deployed, with what calls each."""
        optional: Mapping[str, Any] = self.topology["optional"]["functions"]
        found = {name: item for name, item in optional.items() if name in self.environments}
        # What it keeps of requests is read by commands, and by search where its page asks for more
        # than searches.
        page_asks = "STATE_BUCKET" in self.environments.get(SEARCH, {})
        if COMMANDS not in self.environments and not page_asks:
            found.pop(NOTIFY, None)  # only webhooks call it
        return found

    def bound_of(self, function: str | None) -> list[str]:
        """The names in `bound` of a function and its follow-ups; None: all names."""
        return [name for name in self.bound if function in (None, name.partition("/")[0])]

    def topic(self, role_or_name: str) -> str:
        """The full name of a topic, by its role in the topology or its own name."""
        topics = {**self.topology["topics"], **self.topology["optional"]["topics"]}
        name = topics.get(role_or_name, role_or_name)
        return f"projects/{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        """The full name of a subscription."""
        return f"projects/{self.project}/subscriptions/{name}"

    def service(self, function: str) -> str:
        """The full name of a function's Cloud Run service."""
        name = f"dicom-{function.replace('_', '-')}"
        return f"projects/{self.project}/locations/{self.region}/services/{name}"

    def folder_of(self, bucket: str) -> Path | None:
        """The local folder with a bucket's objects; None for a deployment."""
        folder = self.file.parent / "gcs" / bucket
        if self.local and folder.is_dir():
            return folder
        return None


def _file(given: Path | None) -> Path:
    if given is not None and given.is_dir():
        return _inside(given)
    if given is not None:
        return _live(given)
    if LOCAL_FILE.exists() and is_running(LOCAL_FILE):
        return LOCAL_FILE
    if DEPLOYED_FILE.exists():
        return DEPLOYED_FILE
    raise NoSystemError(
        "no system is running on this machine, and none was deployed from this folder: start one "
        "(dicom-functions run), deploy one (./deploy.sh), or give --system FILE"
    )


def _inside(folder: Path) -> Path:
    for name in (LOCAL_FILE.name, DEPLOYED_FILE.name):
        if (folder / name).exists():
            return _live(folder / name)
    raise NoSystemError(f"{folder} has no system: it has neither stack.json nor system.json")


def _live(file: Path) -> Path:
    if file.name == LOCAL_FILE.name and not is_running(file):
        raise NoSystemError(f"the system of {file.parent} is not running")
    return file


def is_running(file: Path) -> bool:
    """Whether the process that wrote this file is running; True for a file of another kind."""
    try:
        os.kill(int(json.loads(file.read_text())["pid"]), 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return True


def _webhook(webhooks: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A webhook's subscription, in the form of the topology."""
    subscription = f"{webhooks['prefix']}{name}"
    return {
        "topic": webhooks["topic"],
        "subscription": subscription,
        "path": f"{webhooks['path']}{name}",
        "dead_letter_topic": f"{subscription}-dead",
        "dead_letter_subscription": f"{subscription}-dead-hold",
        "max_delivery_attempts": webhooks["max_delivery_attempts"],
    }


def _topology() -> Mapping[str, Any]:
    topology: Mapping[str, Any] = json.loads((ROOT / "infra" / "topology.json").read_text())
    return topology

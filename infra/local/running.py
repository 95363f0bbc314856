"""A stack that runs, as the helper commands, the demo and tests see it: what its state file says."""

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.local.clients import Buckets, ClientError, Http, PubSub, Watch
from infra.local.topology import PROJECT, ROOT

DEFAULT_DATA = ROOT / ".local"
STATE_FILE = "stack.json"


class Running:
    """Clients for the parts of one stack."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = state
        self.buckets = Buckets(state["endpoints"]["gcs"])
        self.pubsub = PubSub(f"http://{state['endpoints']['pubsub']}")
        self.names: Mapping[str, str] = state["buckets"]
        self.topics: Mapping[str, str] = state["topics"]

    @classmethod
    def find(cls, data: Path) -> "Running":
        """The stack that keeps its data there.

        Raises:
            ClientError: none is running.
        """
        try:
            state = json.loads((data / STATE_FILE).read_text())
            os.kill(state["pid"], 0)
        except (FileNotFoundError, ProcessLookupError):
            raise ClientError(f"no stack is running on {data}; start one: python -m infra.local run") from None
        except PermissionError:
            pass  # it runs, as another user
        return cls(state)

    def watch(self) -> Watch:
        """The outcomes from now on."""
        name = f"projects/{PROJECT}/subscriptions/{Watch.PREFIX}{uuid.uuid4().hex[:12]}"
        return Watch(self.pubsub, self.topics["outcomes"], name)

    def command(self, role: str, fields: Mapping[str, Any]) -> str:
        """Publish a command on the topic of that role ("deletes", "exports") and return its request id."""
        request_id = str(fields.get("request_id") or f"local-{uuid.uuid4().hex[:12]}")
        self.pubsub.publish(self.topics[role], {**fields, "request_id": request_id})
        return request_id

    def search(self, level: str, parameters: Iterable[tuple[str, str]], scope: str = "") -> list[dict[str, Any]]:
        """What the search function finds: level is studies, series or instances; scope studies/… or empty.

        Raises:
            ClientError: it refused, or does not answer.
        """
        functions = self.state["endpoints"]["functions"]
        if "search" not in functions:
            raise ClientError("this stack runs without the search function")
        path = "/".join(["", *filter(None, [scope.strip("/"), level])])
        answer = Http(functions["search"]).send("GET", path, params=list(parameters))
        return list(answer.json())

    def ledger(self) -> list[dict[str, Any]]:
        """Every outcome that the ledger bucket holds, oldest first; those of the last seconds may be missing."""
        prefix = self.state["ledger_prefix"]
        names = [item["name"] for item in self.buckets.objects(self.names["ledger"], prefix)]
        lines = [line for name in names for line in self.buckets.download(self.names["ledger"], name).splitlines()]
        return sorted((json.loads(line) for line in lines if line), key=lambda outcome: str(outcome.get("time")))


def value(item: Mapping[str, Any], tag: str) -> str:
    """An attribute of a search result as text: several values joined, a name without its components' marks."""
    values = item.get(tag, {}).get("Value", [])
    texts = [entry.get("Alphabetic", "") if isinstance(entry, dict) else str(entry) for entry in values]
    return "/".join(texts)

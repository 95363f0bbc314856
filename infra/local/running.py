"""A stack that runs, as the helper commands, the demo and tests see it: what its state file
says."""

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
            raise ClientError(
                f"no stack is running on {data}; start one: python -m infra.local run"
            ) from None
        except PermissionError:
            pass  # it runs, as another user
        return cls(state)

    def watch(self) -> Watch:
        """The outcomes from now on."""
        name = f"projects/{PROJECT}/subscriptions/{Watch.PREFIX}{uuid.uuid4().hex[:12]}"
        return Watch(self.pubsub, self.topics["outcomes"], name)

    def command(self, role: str, fields: Mapping[str, Any]) -> str:
        """Publish a command on the topic of that role ("deletes", "exports") and return its request
        id."""
        request_id = str(fields.get("request_id") or f"local-{uuid.uuid4().hex[:12]}")
        self.pubsub.publish(self.topics[role], {**fields, "request_id": request_id})
        return request_id

    def search(
        self, level: str, parameters: Iterable[tuple[str, str]], scope: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        """What the search function finds, and its warning (cut off, for one) or nothing.

        Args:
            level: studies, series or instances.
            parameters: QIDO-RS keys and values.
            scope: studies/…[/series/…], or empty.

        Raises:
            ClientError: it refused, or does not answer.
        """
        functions = self.state["endpoints"]["functions"]
        if "search" not in functions:
            raise ClientError("this stack runs without the search function")
        path = "/".join(["", *filter(None, [scope.strip("/"), level])])
        answer = Http(functions["search"]).send("GET", path, params=list(parameters))
        return list(answer.json()), answer.headers.get("Warning", "")

    def ledger(self, limit: int) -> list[dict[str, Any]]:
        """The last outcomes that the ledger bucket holds, oldest first; those of the last seconds
        may be missing."""
        bucket, prefix = self.names["ledger"], self.state["ledger_prefix"]
        lines: list[bytes] = []
        for name in sorted(
            (item["name"] for item in self.buckets.objects(bucket, prefix)), reverse=True
        ):
            if len(lines) >= limit:
                break
            lines += self.buckets.download(bucket, name).splitlines()
        return sorted(
            (json.loads(line) for line in lines), key=lambda record: str(record.get("time"))
        )[-limit:]


def value(item: Mapping[str, Any], tag: str) -> str:
    """An attribute of a search result as text: several values joined, a name without its
    components' marks."""
    values = item.get(tag, {}).get("Value", [])
    texts = [
        entry.get("Alphabetic", "") if isinstance(entry, dict) else str(entry) for entry in values
    ]
    return "/".join(texts)

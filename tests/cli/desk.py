"""A system for commands: its topics are on the Pub/Sub emulator, its buckets on any server."""

import itertools
import json
from pathlib import Path
from typing import Any

from cli.clients import Clients
from cli.system import System
from tests.pubsub.conftest import Emulator

TOPOLOGY = json.loads((Path(__file__).parents[2] / "infra" / "topology.json").read_text())
STORE = "projects/local/locations/local/datasets/local/dicomStores/local"
_NUMBERS = itertools.count()


def system_file(storage: str, pubsub: str) -> dict[str, Any]:
    """The file of a deployment, with servers on this machine."""
    return {
        "project": f"desk-{next(_NUMBERS)}",
        "region": "here",
        "dicom_store": STORE,
        "buckets": TOPOLOGY["buckets"],
        "search_url": "http://127.0.0.1:9",
        "search_ingress": "ALLOW_ALL",
        "webhook_secrets": {},
        "delivery": "",
        "build": "",
        "environments": {},
        "accounts": {},
        "endpoints": {"storage": storage, "pubsub": pubsub},
    }


class Desk:
    """One project on the emulator, with every topic and subscription of the topology, and a watch
    on what each topic gets."""

    def __init__(
        self, emulator: Emulator, folder: Path, storage: str = "http://127.0.0.1:9"
    ) -> None:
        self.pubsub = emulator
        self.file = folder / "system.json"
        url = f"http://{emulator.address}"
        self.file.write_text(json.dumps(system_file(storage, url)))
        self.system = System.find(self.file)
        self.clients = Clients(self.system)
        self.watches = {role: self._topic(role) for role in TOPOLOGY["topics"]}
        self.dead: dict[str, str] = {}
        for name, item in self.system.bound.items():
            self.dead[name] = self.system.topic(item["dead_letter_topic"])
            emulator.publisher.create_topic(name=self.dead[name])
            self._subscription(item["dead_letter_subscription"], self.dead[name])

    def _topic(self, role: str) -> str:
        topic = self.system.topic(role)
        self.pubsub.publisher.create_topic(name=topic)
        return self._subscription(f"seen-{role}", topic)

    def _subscription(self, short: str, topic: str) -> str:
        name = self.system.subscription(short)
        request = {"name": name, "topic": topic, "ack_deadline_seconds": 600}
        self.pubsub.subscriber.create_subscription(request=request)
        return name

    def came(self, role: str) -> list[Any]:
        """Messages published on a topic since the last call."""
        watch = self.watches[role]
        received = self.pubsub.pull(watch, wait=False)
        if received:
            self.pubsub.ack(watch, received)
        return [item.message for item in received]

"""Pub/Sub messages of a store, sent in the background to the emulator that PUBSUB_EMULATOR_HOST
names (sheet 11)."""

import base64
import http.client
import json
import queue
import sys
import threading
import time
from email.utils import formatdate
from typing import Any

from infra.local.dicomstore.rows import Uids


class Notifier:
    """Publishes one message for each instance and topic; a failed publish is one line on stderr."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._queue: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        if host:
            threading.Thread(target=self._run, daemon=True).start()

    def tell(
        self,
        store: dict[str, Any],
        action: str,
        name: str,
        uids: Uids,
        **more: str,
    ) -> None:
        """Queue the messages of one instance. `store` is its DicomStore resource, `more` further
        attributes."""
        if not self._host:
            return
        data = _base64(f"{name}/dicomWeb/{uids.path}")
        version = _base64(str(time.time_ns())).rstrip("=")
        updated = formatdate(time.time(), usegmt=True)
        attributes = {
            "action": action,
            "lastUpdatedTime": updated.replace("GMT", "UTC"),
            "storeName": name,
            "studyInstanceUID": uids.study,
            "seriesInstanceUID": uids.series,
            "sopInstanceUID": uids.instance,
            "versionId": version,
            **more,
        }
        for config in store.get("notificationConfigs", ()):
            message = {"data": data, "attributes": attributes}
            self._queue.put((config["pubsubTopic"], message))
        # The older field, whose messages have no attributes.
        legacy = store.get("notificationConfig", {})
        if legacy.get("pubsubTopic"):
            self._queue.put((legacy["pubsubTopic"], {"data": data}))

    def _run(self) -> None:
        while True:
            topic, message = self._queue.get()
            connection = http.client.HTTPConnection(self._host, timeout=10)
            body = json.dumps({"messages": [message]})
            try:
                connection.request("POST", f"/v1/{topic}:publish", body)
                status = connection.getresponse().status
                if status != 200:
                    print(f"notification to {topic}: status {status}", file=sys.stderr)
            except (OSError, http.client.HTTPException) as error:
                print(f"notification to {topic}: {type(error).__name__}", file=sys.stderr)
            finally:
                connection.close()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

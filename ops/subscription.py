"""Taking messages from a Pub/Sub subscription, over its REST API. Functions never do: messages are pushed to them."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from functions.common.deadline import Deadline
from functions.common.errors import PermanentError
from functions.common.http import Request, Transport, drain, read_all
from functions.common.topic import ENDPOINT

_LIMIT_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Held:
    """A message that was taken and not yet acknowledged."""

    ack_id: str
    data: bytes
    attributes: Mapping[str, str]


class Subscriptions:
    """Takes, acknowledges and gives back.

    Args:
        transport: shared with the other clients.
        emulator: `host:port` of an emulator, or empty for Pub/Sub.
    """

    def __init__(self, transport: Transport, emulator: str = "") -> None:
        self._transport = transport
        self._endpoint = f"http://{emulator}" if emulator else ENDPOINT

    def take(self, subscription: str, limit: int, deadline: Deadline) -> list[Held]:
        """Up to `limit` messages; may be none although there are some.

        Raises:
            PermanentError: rejected, when Pub/Sub refuses (there is no such subscription).
            RetryableError: as Transport.send.
        """
        answer = self._call(subscription, "pull", {"maxMessages": limit, "returnImmediately": True}, deadline)
        return [
            Held(
                item["ackId"],
                base64.b64decode(item["message"].get("data", "")),
                item["message"].get("attributes") or {},
            )
            for item in answer.get("receivedMessages", ())
        ]

    def acknowledge(self, subscription: str, held: Sequence[Held], deadline: Deadline) -> None:
        """They need not come again."""
        if held:
            self._call(subscription, "acknowledge", {"ackIds": [one.ack_id for one in held]}, deadline)

    def give_back(self, subscription: str, held: Sequence[Held], deadline: Deadline) -> None:
        """They can be taken again at once."""
        if held:
            ids = [one.ack_id for one in held]
            self._call(subscription, "modifyAckDeadline", {"ackIds": ids, "ackDeadlineSeconds": 0}, deadline)

    def _call(self, subscription: str, method: str, body: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        url = f"{self._endpoint}/v1/{subscription}:{method}"
        headers = {"Content-Type": "application/json"}
        response = self._transport.send(Request("POST", url, None, headers, json.dumps(body).encode()), deadline)
        with response:
            if response.status_code != 200:
                drain(response)
                raise PermanentError("rejected", f"Pub/Sub answered {response.status_code} for {subscription}")
            answer: dict[str, Any] = json.loads(read_all(response, deadline, _LIMIT_BYTES) or b"{}")
            return answer

"""Taking messages from a Pub/Sub subscription, over its REST API. Functions never do: messages are
pushed to them."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from functions.common.clients.transport import Request, Transport, drain, read_all
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError

ENDPOINT: Final = "https://pubsub.googleapis.com"

_LIMIT_BYTES: Final = 64 * 1024 * 1024
_CALL_S: Final = 600.0
_BATCH: Final = 100
EMPTY_PULLS: Final = 3  # Pub/Sub may answer that there is nothing although there is
_IDS_MAX: Final = (
    1000  # in one call, as Google's client sends them: a request is limited to 512 KiB
)


@dataclass(frozen=True)
class Held:
    """A message that was taken and not yet acknowledged."""

    ack_id: str
    data: bytes
    attributes: Mapping[str, str]
    published: str


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
        answer = self._call(
            subscription, "pull", {"maxMessages": limit, "returnImmediately": True}, deadline
        )
        return [
            Held(
                item["ackId"],
                base64.b64decode(item["message"].get("data", "")),
                item["message"].get("attributes") or {},
                item["message"].get("publishTime", ""),
            )
            for item in answer.get("receivedMessages", ())
        ]

    def until_empty(self, subscription: str) -> Iterator[list[Held]]:
        """All messages, some at a time; those that are not acknowledged between are not given
        twice.

        Raises:
            PermanentError, RetryableError: as take.
        """
        empty = 0
        while empty < EMPTY_PULLS:
            messages = self.take(subscription, _BATCH, Deadline(_CALL_S))
            empty = 0 if messages else empty + 1
            if messages:
                yield messages

    def acknowledge(self, subscription: str, held: Sequence[Held], deadline: Deadline) -> None:
        """They need not come again."""
        for ids in _batches(held):
            self._call(subscription, "acknowledge", {"ackIds": ids}, deadline)

    def give_back(self, subscription: str, held: Sequence[Held], deadline: Deadline) -> None:
        """They can be taken again at once."""
        for ids in _batches(held):
            self._call(
                subscription,
                "modifyAckDeadline",
                {"ackIds": ids, "ackDeadlineSeconds": 0},
                deadline,
            )

    def _call(
        self, subscription: str, method: str, body: Mapping[str, Any], deadline: Deadline
    ) -> dict[str, Any]:
        url = f"{self._endpoint}/v1/{subscription}:{method}"
        headers = {"Content-Type": "application/json"}
        response = self._transport.send(
            Request("POST", url, None, headers, json.dumps(body).encode()), deadline
        )
        with response:
            if response.status_code != 200:
                drain(response)
                raise PermanentError(
                    "rejected", f"Pub/Sub answered {response.status_code} for {subscription}"
                )
            answer: dict[str, Any] = json.loads(read_all(response, deadline, _LIMIT_BYTES) or b"{}")
            return answer


def _batches(held: Sequence[Held]) -> Iterator[list[str]]:
    for start in range(0, len(held), _IDS_MAX):
        yield [one.ack_id for one in held[start : start + _IDS_MAX]]

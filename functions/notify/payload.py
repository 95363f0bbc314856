"""The body and the headers for a receiver, following Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks, version 1.0.0: the signature is an
HMAC-SHA256 over `id.timestamp.body`, one for each secret.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from functions.notify.webhooks import Webhook

_NAMES: Final = frozenset({"name", "member"})


def body(record: Mapping[str, Any], webhook: Webhook) -> bytes:
    """The body: type, time and the record, without names unless the webhook asks for them."""
    data = dict(record)
    if not webhook.include_names:
        for key in _NAMES:
            data.pop(key, None)
    message = {
        "type": f"outcome.{record['outcome']}",
        "timestamp": record["time"],
        "data": data,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def headers(
    webhook: Webhook,
    message_id: str,
    sent_s: int,
    data: bytes,
) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        message_id: the same for every attempt.
        sent_s: when this attempt is made, in seconds since 1970.
    """
    timestamp = str(sent_s)
    signed = f"{message_id}.{timestamp}.".encode() + data
    signatures = [_signature(secret, signed) for secret in webhook.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "dicom-functions",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def _signature(secret: bytes, signed: bytes) -> str:
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()

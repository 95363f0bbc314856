"""The doctor's check of webhooks: which have ended because their receiver answered 410 Gone."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from cli.clients import Clients
from cli.errors import CliError
from cli.findings import RETRY, Finding, Look
from functions.common.settings import NOTIFY

_SEE: Final = "roles/storage.objectViewer on the state bucket"


def webhooks(clients: Clients) -> Iterator[Finding]:
    """Each webhook is active: its receiver has not answered 410 Gone under its present URL."""
    text = clients.system.environments.get(NOTIFY, {}).get("WEBHOOKS", "")
    look = Look(clients, "webhook", _SEE)
    try:
        named: dict[str, Any] = json.loads(text or "{}")
    except ValueError:
        return  # the check of functions reports wrong settings
    for name, webhook in named.items():
        yield _looked_at(look, name, webhook)


def _looked_at(look: Look, name: str, webhook: Mapping[str, Any]) -> Finding:
    system = look.clients.system
    place = f"webhooks/{name}.json"
    bucket = system.buckets["state"]
    url = f"{system.endpoints.storage}/storage/v1/b/{bucket}/o/{quote(place, safe='')}"
    try:
        answer = look.clients.call("GET", url, params={"alt": "media"})
    except CliError as error:
        return look.failed(name, "no answer", str(error))
    if answer.status in (401, 403):
        return look.refused(name)
    if answer.status not in (200, 404):
        return look.failed(name, f"the service answered {answer.status}", RETRY)
    ended = answer.object.get("url_sha256") if answer.status == 200 else None
    if ended != hashlib.sha256(str(webhook.get("url", "")).encode()).hexdigest():
        return look.ok(name, "active")
    since = answer.object.get("time", "")
    fix = f"give it another URL, or: gcloud storage rm gs://{bucket}/{place}"
    return look.failed(name, f"has ended: its receiver answered 410 Gone at {since}", fix)

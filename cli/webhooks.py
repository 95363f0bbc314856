"""The doctor's check of webhooks: which have ended because their receiver answered 410 Gone."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from cli.clients import Answer, Clients
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
    place = f"webhooks/{name}.json"
    try:
        answer = _state(look.clients, place)
    except CliError as error:
        return look.failed(name, "no answer", str(error))
    if answer.status == 404:
        return look.ok(name, "active")
    if answer.status in (401, 403):
        return look.refused(name)
    if answer.status != 200:
        return look.failed(name, f"the service answered {answer.status}", RETRY)
    # The object is valid for one URL: with another one, the webhook is called again.
    url = str(webhook.get("url", ""))
    url_sha256 = hashlib.sha256(url.encode()).hexdigest()
    if answer.object.get("url_sha256") != url_sha256:
        return look.ok(name, "active")
    since = answer.object.get("time", "")
    bucket = look.clients.system.buckets["state"]
    return look.failed(
        name,
        f"has ended: its receiver answered 410 Gone at {since}",
        f"give it another URL, or: gcloud storage rm gs://{bucket}/{place}",
    )


def _state(clients: Clients, place: str) -> Answer:
    """The object of this name in the state bucket."""
    system = clients.system
    bucket = system.buckets["state"]
    objects = f"{system.endpoints.storage}/storage/v1/b/{bucket}/o"
    url = f"{objects}/{quote(place, safe='')}"
    return clients.call("GET", url, params={"alt": "media"})

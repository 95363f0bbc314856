"""WEBHOOKS: which URLs are called with which outcomes, checked when the function starts."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, get_args
from urllib.parse import urlsplit

from functions.common.errors import SettingsError
from functions.common.events.outcomes import Word
from functions.common.settings import Settings

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}", re.ASCII)
_HOST: Final = r"(?:[\w-]{1,63}(?:\.[\w-]{1,63})*|\[[0-9A-Fa-f:.]+\])"
_URL: Final = re.compile(rf"https?://{_HOST}(:\d{{1,5}})?(/[\w.~!$&'()*+,;=:@%/?-]*)?", re.ASCII)
_URL_LENGTH: Final = 2048
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_KEYS: Final = frozenset({"url", "events", "include_names"})
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 (how Standard Webhooks marks a secret)
_SECRET_BYTES: Final = (24, 64)  # the least and the most that the specification allows


@dataclass(frozen=True)
class Webhook:
    """One URL that is called.

    Args:
        name: part of its subscription's push path.
        url: https, or http to this machine if emulators are used.
        secrets: for signing calls; two while one replaces the other.
        events: the outcomes that it is called for; empty: all.
        include_names: whether names of objects and archive members are sent; they may contain a
            patient's name.
    """

    name: str
    url: str
    secrets: tuple[bytes, ...] = field(repr=False)
    events: frozenset[str] = frozenset()
    include_names: bool = False

    def wants(self, outcome: str) -> bool:
        """Whether it is called for this outcome."""
        return not self.events or outcome in self.events


def read(settings: Settings) -> dict[str, Webhook]:
    """The webhooks by name.

    Raises:
        SettingsError: one is malformed or has no secret; the message never contains the secret.
    """
    found = {}
    for name, value in settings.webhooks.items():
        found[name] = _webhook(name, value, settings)
    return found


def _webhook(name: str, value: object, settings: Settings) -> Webhook:
    if not _NAME.fullmatch(name):
        raise _wrong("a name is up to 40 lowercase letters, digits and -")
    if not isinstance(value, dict):
        raise _wrong_keys(name)
    if not {"url"} <= value.keys() <= _KEYS:
        raise _wrong_keys(name)
    include_names = value.get("include_names", False)
    if not isinstance(include_names, bool):
        raise _wrong(f"include_names of {name} takes true or false")
    return Webhook(
        name=name,
        url=_url(name, value["url"], local=bool(settings.pubsub_emulator_host)),
        secrets=_secrets(name, settings.webhook_secrets),
        events=_events(name, value.get("events", [])),
        include_names=include_names,
    )


def _url(name: str, value: object, local: bool) -> str:
    if not isinstance(value, str) or len(value) > _URL_LENGTH:
        raise _wrong_url(name)
    if not _URL.fullmatch(value):
        raise _wrong_url(name)
    wrong_host = _wrong(f"the URL of {name} has an invalid host or port")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:  # not an IPv6 address, or not a port
        raise wrong_host from None
    if port == 0:
        raise wrong_host
    to_this_machine = local and parts.hostname in _LOOPBACK
    if parts.scheme != "https" and not to_this_machine:
        raise _wrong_url(name)
    return value


def _events(name: str, value: object) -> frozenset[str]:
    words = get_args(Word)
    wrong = _wrong(f"events of {name} must be among {', '.join(words)}")
    if not isinstance(value, list):
        raise wrong
    for word in value:
        if word not in words:
            raise wrong
    return frozenset(value)


def _secrets(name: str, secrets: Mapping[str, str]) -> tuple[bytes, ...]:
    upper = name.upper().replace("-", "_")
    variable = f"WEBHOOK_SECRET_{upper}"
    texts = secrets.get(variable, "").split()
    if not texts:
        raise SettingsError(f"{variable} is not set: {name} needs a secret")
    return tuple(_key(variable, text) for text in texts)


def _key(variable: str, text: str) -> bytes:
    encoded = text.removeprefix(_SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    least, most = _SECRET_BYTES
    if not least <= len(key) <= most:
        raise SettingsError(
            f"{variable} must be whsec_ followed by {least} to {most} bytes in base64"
        )
    return key


def _wrong_keys(name: str) -> SettingsError:
    return _wrong(f"{name} takes url, events and include_names")


def _wrong_url(name: str) -> SettingsError:
    return _wrong(f"the URL of {name} is not an https URL")


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"WEBHOOKS: {what}")

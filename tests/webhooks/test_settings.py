"""WEBHOOKS as an operator can write it wrong: one line says what, and never a secret."""

import base64
import json
from typing import Any

import pytest

from functions.common.errors import SettingsError
from functions.common.settings import NOTIFY, Settings
from functions.notify import webhooks

SECRET = "whsec_" + base64.b64encode(b"a secret of at least 24 bytes").decode()
URL = "https://ris.example.org/dicom"


def read(text: str, **secrets: str) -> dict[str, webhooks.Webhook]:
    environ = {
        "DICOM_STORE": "projects/p/locations/l/datasets/d/dicomStores/s",
        "STATE_BUCKET": "dicom-state",
        "WEBHOOKS": text,
        "WEBHOOK_SECRET_A": SECRET,
        **secrets,
    }
    return webhooks.read(Settings.load(NOTIFY, environ))


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "ris.example.org",
        "http://ris.example.org/",
        "http://127.0.0.1/",  # no emulator is used
        "https://",
        "https:///path",
        "https://[::1",
        "https://[1.2]/",
        "https://a:b/",
        "https://a:99999/",
        "https://a:0/",
        "https://a:1:2/",
        "https://:443/",
        "https://a..b/",
        "https://user:password@ris.example.org/",
        "https://ris.example.org/\r\nX: 1",
        "https://ris.example.org/#part",
        "https://" + "a" * 64 + ".org/",
        "https://ris.example.org/" + "a" * 2048,
    ],
)
def test_a_url_that_cannot_be_called_stops_the_function(url: Any) -> None:
    with pytest.raises(SettingsError, match="WEBHOOKS: the URL of a "):
        read(json.dumps({"a": {"url": url}}))


@pytest.mark.parametrize("host", ["ris.example.org", "a-b.c_d.org:8443", "[2606:2800:220:1::1]:1"])
def test_a_url_of_a_host_is_taken(host: str) -> None:
    url = f"https://{host}/path?token=1"
    found = read(json.dumps({"a": {"url": url}}))
    assert found["a"].url == url


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "7",
        "[" * 100_000,
        '{"a": null}',
        '{"a": "https://ris.example.org/"}',
        json.dumps({"a": {}}),
        json.dumps({"A": {"url": URL}}),
        json.dumps({"a/b": {"url": URL}}),
        json.dumps({"": {"url": URL}}),
        json.dumps({"a": {"url": URL, "secret": SECRET}}),
        json.dumps({"a": {"url": URL, "events": "stored"}}),
        json.dumps({"a": {"url": URL, "events": ["unheard-of"]}}),
        json.dumps({"a": {"url": URL, "events": [["stored"]]}}),
        json.dumps({"a": {"url": URL, "include_names": "true"}}),
    ],
)
def test_malformed_webhooks_stop_the_function_with_one_line(text: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(text)
    assert "WEBHOOKS" in str(error.value)
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "secret", ["", " ", "short", "whsec_c2hvcnQ=", SECRET + " Doe", "whsec_ä" * 8, SECRET * 4]
)
def test_a_malformed_secret_stops_the_function_and_is_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_SECRET_A ") as error:
        read(json.dumps({"a": {"url": URL}}), WEBHOOK_SECRET_A=secret)
    assert not any(part in str(error.value) for part in secret.split())


def test_settings_and_webhooks_print_no_secret() -> None:
    environ = {
        "DICOM_STORE": "projects/p/locations/l/datasets/d/dicomStores/s",
        "STATE_BUCKET": "dicom-state",
        "WEBHOOKS": json.dumps({"a": {"url": URL}}),
        "WEBHOOK_SECRET_A": SECRET,
    }
    settings = Settings.load(NOTIFY, environ)
    printed = repr(settings) + repr(webhooks.read(settings))
    assert SECRET not in printed
    assert "a secret of" not in printed

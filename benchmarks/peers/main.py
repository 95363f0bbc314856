"""For comparison with the store function: a naive function, and one that does nothing."""

import base64
import json
import os
from typing import Any
from urllib.parse import quote

import flask
import functions_framework
import requests


@functions_framework.http
def nothing(request: flask.Request) -> str:
    """Answers."""
    del request
    return "ok"


@functions_framework.http
def naive(request: flask.Request) -> str:
    """The whole object in memory, a new connection each time, no outcome, no check."""
    event: dict[str, Any] = json.loads(base64.b64decode(request.get_json()["message"]["data"]))
    name = quote(event["name"], safe="")
    bucket = f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/{event['bucket']}"
    data = requests.get(f"{bucket}/o/{name}?alt=media", timeout=60).content
    url = f"{os.environ['HEALTHCARE_ENDPOINT']}/{os.environ['DICOM_STORE']}/dicomWeb/studies"
    requests.post(
        url, data=data, headers={"Content-Type": "application/dicom"}, timeout=60
    ).raise_for_status()
    return "ok"

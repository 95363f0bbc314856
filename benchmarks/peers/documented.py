"""The store function written as in the libraries' documentation: the whole object by
`download_as_bytes`, `requests.post`, and the batching publisher.

The clients are made at the first call: functions-framework forks after the import, which a gRPC
client does not survive.
"""

import base64
import functools
import json
import os
from typing import Any

import flask
import functions_framework
import requests
from google.cloud import pubsub_v1, storage


@functools.cache
def _storage() -> Any:
    return storage.Client(project="local")


@functools.cache
def _publisher() -> Any:
    return pubsub_v1.PublisherClient()


@functions_framework.http
def documented(request: flask.Request) -> str:
    """One object into the DICOM store, and a message that says so."""
    event: dict[str, Any] = json.loads(base64.b64decode(request.get_json()["message"]["data"]))
    data = _storage().bucket(event["bucket"]).blob(event["name"]).download_as_bytes()
    url = f"{os.environ['HEALTHCARE_ENDPOINT']}/{os.environ['DICOM_STORE']}/dicomWeb/studies"
    headers = {"Content-Type": "application/dicom"}
    requests.post(url, data=data, headers=headers, timeout=60).raise_for_status()
    message = json.dumps({"outcome": "stored", "name": event["name"]}).encode()
    _publisher().publish(os.environ["OUTCOMES_TOPIC"], message, outcome="stored").result()
    return "ok"

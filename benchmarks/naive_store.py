"""A function like most samples, for comparison in benchmarks/cost_measure.py: the whole file in
memory, one at a time."""

import base64
import json
import os
from typing import Any

import flask
import functions_framework
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

_CREDENTIALS: Any = AnonymousCredentials
_CLIENT = storage.Client(project="local", credentials=_CREDENTIALS())


@functions_framework.http
def store_upload(request: flask.Request) -> tuple[str, int]:
    """Download the object, post it to the DICOM store."""
    message: dict[str, Any] = request.get_json()["message"]
    event = json.loads(base64.b64decode(message["data"]))
    data = _CLIENT.bucket(event["bucket"]).blob(event["name"]).download_as_bytes()
    url = f"{os.environ['HEALTHCARE_ENDPOINT']}/{os.environ['DICOM_STORE']}/dicomWeb/studies"
    answer = requests.post(url, data=data, headers={"Content-Type": "application/dicom"})
    answer.raise_for_status()
    return "", 204

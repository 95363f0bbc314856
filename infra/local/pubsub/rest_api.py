"""The REST transport: the same rpcs as JSON over HTTP/1.1."""

import dataclasses
import json
import re
import urllib.parse
from typing import Any

from google.protobuf import json_format

from infra.local.pubsub import wire
from infra.local.pubsub.api import Api

_TOPIC = r"(projects/[^/]+/topics/[^/:]+)"
_SUBSCRIPTION = r"(projects/[^/]+/subscriptions/[^/:]+)"
_RESOURCE = r"(projects/[^/]+/(?:topics|subscriptions)/[^/:]+)"

# HTTP method, path, rpc, and the field of the request that the path fills.
_ROUTES = [
    ("PUT", _TOPIC, "CreateTopic", "name"),
    ("PATCH", _TOPIC, "UpdateTopic", "topic.name"),
    ("GET", _TOPIC, "GetTopic", "topic"),
    ("DELETE", _TOPIC, "DeleteTopic", "topic"),
    ("GET", r"(projects/[^/]+)/topics", "ListTopics", "project"),
    ("GET", _TOPIC + "/subscriptions", "ListTopicSubscriptions", "topic"),
    ("POST", _TOPIC + ":publish", "Publish", "topic"),
    ("PUT", _SUBSCRIPTION, "CreateSubscription", "name"),
    ("PATCH", _SUBSCRIPTION, "UpdateSubscription", "subscription.name"),
    ("GET", _SUBSCRIPTION, "GetSubscription", "subscription"),
    ("DELETE", _SUBSCRIPTION, "DeleteSubscription", "subscription"),
    ("GET", r"(projects/[^/]+)/subscriptions", "ListSubscriptions", "project"),
    ("POST", _SUBSCRIPTION + ":pull", "Pull", "subscription"),
    ("POST", _SUBSCRIPTION + ":acknowledge", "Acknowledge", "subscription"),
    ("POST", _SUBSCRIPTION + ":modifyAckDeadline", "ModifyAckDeadline", "subscription"),
    ("POST", _SUBSCRIPTION + ":modifyPushConfig", "ModifyPushConfig", "subscription"),
    ("POST", _SUBSCRIPTION + ":seek", "Seek", "subscription"),
    ("POST", _SUBSCRIPTION + ":detach", "DetachSubscription", "subscription"),
    ("GET", _RESOURCE + ":getIamPolicy", "GetIamPolicy", "resource"),
    ("POST", _RESOURCE + ":setIamPolicy", "SetIamPolicy", "resource"),
    ("POST", _RESOURCE + ":testIamPermissions", "TestIamPermissions", "resource"),
]
_COMPILED = [
    (method, re.compile(f"/v1/{path}"), rpc, field) for method, path, rpc, field in _ROUTES
]
# Parameters of every Google API method, no fields of a request. Clients made from discovery
# documents send alt=json.
_STANDARD = {
    "$.xgafv",
    "$alt",
    "access_token",
    "alt",
    "callback",
    "fields",
    "key",
    "oauth_token",
    "prettyPrint",
    "quotaUser",
    "uploadType",
    "upload_protocol",
}
_REQUESTS = {rpc: names[0] for rpcs in wire.RPCS.values() for rpc, names in rpcs.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=UTF-8"


async def answer(api: Api, method: str, target: str, body: bytes) -> Answer:
    """Answer one HTTP request; errors come in Google's JSON form."""
    path, _, query = target.partition("?")
    if method in ("GET", "HEAD") and path == "/":
        return Answer(200, b"Ok\n", "text/plain")
    try:
        rpc, request = _request(method, urllib.parse.unquote(path), query, body)
        reply = json_format.MessageToDict(await api.call(rpc, request))
    except wire.ApiError as error:
        return failure(error.code, error.message)
    return Answer(200, json.dumps(reply).encode())


def failure(code: str, message: str) -> Answer:
    """An error in the form of Google's APIs."""
    status = wire.HTTP_STATUS[code]
    error = {"code": status, "message": message, "status": code}
    return Answer(status, json.dumps({"error": error}).encode())


def _request(method: str, path: str, query: str, body: bytes) -> tuple[str, wire.Pb]:
    """The rpc that a request names, and its protobuf message."""
    for route_method, pattern, rpc, field in _COMPILED:
        match = pattern.fullmatch(path)
        if route_method != method or not match:
            continue
        fields = _fields(body) | _parameters(query)
        outer, _, inner = field.partition(".")
        if inner:
            fields[outer] = {**_object(fields.get(outer, {})), inner: match[1]}
        else:
            fields[outer] = match[1]
        return rpc, _message(rpc, fields)
    raise wire.ApiError("NOT_FOUND", f"No such method: {method} {path}")


def _message(rpc: str, fields: dict[str, Any]) -> wire.Pb:
    try:
        return json_format.ParseDict(fields, wire.PB[_REQUESTS[rpc]]())
    # A number that is too long for Python's parser is a ValueError of its own.
    except (json_format.ParseError, ValueError) as error:
        raise wire.ApiError(
            "INVALID_ARGUMENT", f"Invalid JSON payload received. {error}"
        ) from error


def _parameters(query: str) -> dict[str, Any]:
    """The fields in a query; `options.requestedPolicyVersion` is inside `options`."""
    fields: dict[str, Any] = {}
    for name, text in urllib.parse.parse_qsl(query):
        if name in _STANDARD:
            continue
        outer, _, inner = name.partition(".")
        fields[outer] = {inner: text} if inner else text
    return fields


def _fields(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        return _object(json.loads(body))
    # Brackets that are nested too deeply are a RecursionError.
    except (ValueError, RecursionError) as error:
        raise wire.ApiError("INVALID_ARGUMENT", "Invalid JSON payload received.") from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wire.ApiError(
            "INVALID_ARGUMENT", "Invalid JSON payload received. An object is expected."
        )
    return value

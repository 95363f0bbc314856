"""The protobuf messages of the Pub/Sub API, its errors, and the checks on names."""

import re
from typing import Any

from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.protobuf import empty_pb2, field_mask_pb2
from google.pubsub_v1 import types

_TYPE_NAMES = (
    "Topic",
    "PublishRequest",
    "PublishResponse",
    "UpdateTopicRequest",
    "GetTopicRequest",
    "ListTopicsRequest",
    "ListTopicsResponse",
    "ListTopicSubscriptionsRequest",
    "ListTopicSubscriptionsResponse",
    "DeleteTopicRequest",
    "DetachSubscriptionRequest",
    "DetachSubscriptionResponse",
    "Subscription",
    "UpdateSubscriptionRequest",
    "GetSubscriptionRequest",
    "ListSubscriptionsRequest",
    "ListSubscriptionsResponse",
    "DeleteSubscriptionRequest",
    "ModifyPushConfigRequest",
    "PullRequest",
    "PullResponse",
    "StreamingPullRequest",
    "StreamingPullResponse",
    "AcknowledgeRequest",
    "ModifyAckDeadlineRequest",
    "SeekRequest",
    "SeekResponse",
)
# Raw protobuf classes: their proto-plus wrappers take several times as long for each message.
PB: dict[str, Any] = {name: getattr(types, name).pb() for name in _TYPE_NAMES}
PB["Empty"] = empty_pb2.Empty
PB["FieldMask"] = field_mask_pb2.FieldMask
PB["Policy"] = policy_pb2.Policy
for _name in (
    "GetIamPolicyRequest",
    "SetIamPolicyRequest",
    "TestIamPermissionsRequest",
    "TestIamPermissionsResponse",
):
    PB[_name] = getattr(iam_policy_pb2, _name)
PubsubMessage: Any = types.PubsubMessage.pb()
ReceivedMessage: Any = types.ReceivedMessage.pb()
Pb = Any

SUBSCRIBER = "google.pubsub.v1.Subscriber"
# The request and response of each rpc; StreamingPull is separate because it streams.
RPCS: dict[str, dict[str, tuple[str, str]]] = {
    "google.pubsub.v1.Publisher": {
        "CreateTopic": ("Topic", "Topic"),
        "UpdateTopic": ("UpdateTopicRequest", "Topic"),
        "Publish": ("PublishRequest", "PublishResponse"),
        "GetTopic": ("GetTopicRequest", "Topic"),
        "ListTopics": ("ListTopicsRequest", "ListTopicsResponse"),
        "ListTopicSubscriptions": (
            "ListTopicSubscriptionsRequest",
            "ListTopicSubscriptionsResponse",
        ),
        "DeleteTopic": ("DeleteTopicRequest", "Empty"),
        "DetachSubscription": ("DetachSubscriptionRequest", "DetachSubscriptionResponse"),
    },
    SUBSCRIBER: {
        "CreateSubscription": ("Subscription", "Subscription"),
        "UpdateSubscription": ("UpdateSubscriptionRequest", "Subscription"),
        "GetSubscription": ("GetSubscriptionRequest", "Subscription"),
        "ListSubscriptions": ("ListSubscriptionsRequest", "ListSubscriptionsResponse"),
        "DeleteSubscription": ("DeleteSubscriptionRequest", "Empty"),
        "ModifyPushConfig": ("ModifyPushConfigRequest", "Empty"),
        "Pull": ("PullRequest", "PullResponse"),
        "Acknowledge": ("AcknowledgeRequest", "Empty"),
        "ModifyAckDeadline": ("ModifyAckDeadlineRequest", "Empty"),
        "Seek": ("SeekRequest", "SeekResponse"),
    },
    "google.iam.v1.IAMPolicy": {
        "GetIamPolicy": ("GetIamPolicyRequest", "Policy"),
        "SetIamPolicy": ("SetIamPolicyRequest", "Policy"),
        "TestIamPermissions": ("TestIamPermissionsRequest", "TestIamPermissionsResponse"),
    },
}

# gRPC status name -> HTTP status, as google.rpc.Code documents it.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
}
MAX_MESSAGE_BYTES = 10 * 1024 * 1024
MAX_REQUEST_BYTES = 20 * 1024 * 1024
DELETED_TOPIC = "_deleted-topic_"

_NAME = re.compile(r"projects/([^/]+)/(topics|subscriptions)/([A-Za-z][A-Za-z0-9._~%+-]{2,254})")


class ApiError(Exception):
    """A request that cannot be served; code is a gRPC status name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def missing(name: str) -> ApiError:
    """The error for a missing topic or subscription."""
    return ApiError("NOT_FOUND", f"Resource not found (resource={_last(name)}).")


def existing(name: str) -> ApiError:
    """The error for a name that already exists."""
    return ApiError("ALREADY_EXISTS", f"Resource already exists (resource={_last(name)}).")


def detached(name: str) -> ApiError:
    """The error for a subscription that was detached from its topic."""
    text = f"The subscription is detached from its topic (resource={_last(name)})."
    return ApiError("FAILED_PRECONDITION", text)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def check_name(name: str, kind: str) -> None:
    """Check a full resource name, kind `topics` or `subscriptions`.

    Raises:
        ApiError: INVALID_ARGUMENT: the real service would refuse the name too (short, starts with
            "goog", odd characters).
    """
    match = _NAME.fullmatch(name)
    if not match or match[2] != kind or match[3].lower().startswith("goog"):
        raise ApiError("INVALID_ARGUMENT", f"Invalid resource name given (name={name}).")


def seconds(duration: Pb) -> float:
    """A protobuf duration in seconds."""
    return float(duration.seconds) + float(duration.nanos) / 1e9

"""What the real service refuses in a message, a subscription or an update mask.

Raises everywhere:
    ApiError: INVALID_ARGUMENT, with one line that says what is wrong.
"""

from infra.local.pubsub import wire
from infra.local.pubsub.filters import FilterError, compile_filter

MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1024
MAX_ORDERING_KEY_BYTES = 1024
MAX_FILTER_BYTES = 256
MAX_ACK_DEADLINE_S = 600
MAX_BACKOFF_S = 600
MIN_RETENTION_S = 600
MAX_RETENTION_S = 31 * 86400
_LEFT_OUT = ("bigquery_config", "bigtable_config")
# Fields of a subscription that are set once, or by the service alone.
_FIXED = {"name", "topic", "filter", "enable_message_ordering", "detached", "state"}


def check_publish(request: wire.Pb) -> None:
    """Check the size of a publish request, and each of its messages."""
    _require(bool(request.messages), "The request has no messages.")
    _require(request.ByteSize() <= wire.MAX_MESSAGE_BYTES, "The request is larger than 10 MB.")
    for message in request.messages:
        _check_message(message)


def _check_message(message: wire.Pb) -> None:
    _require(
        bool(message.data or message.attributes),
        "A message needs data or at least one attribute.",
    )
    _require(
        len(message.attributes) <= MAX_ATTRIBUTES,
        "A message takes at most 100 attributes.",
    )
    for key, value in message.attributes.items():
        key_bytes = len(key.encode())
        _require(
            0 < key_bytes <= MAX_KEY_BYTES and len(value.encode()) <= MAX_VALUE_BYTES,
            "An attribute's key has at most 256 bytes, its value 1024.",
        )
    _require(
        len(message.ordering_key.encode()) <= MAX_ORDERING_KEY_BYTES,
        "An ordering key has at most 1024 bytes.",
    )


def check_subscription(config: wire.Pb) -> None:
    """Check a subscription; ack deadlines under 10 s are allowed here, for tests."""
    _require(
        1 <= config.ack_deadline_seconds <= MAX_ACK_DEADLINE_S,
        "Ack deadline must be between 1 and 600 seconds.",
    )
    _check_kind(config)
    if config.HasField("dead_letter_policy"):
        attempts = config.dead_letter_policy.max_delivery_attempts
        _require(
            attempts == 0 or 5 <= attempts <= 100,
            "max_delivery_attempts must be between 5 and 100.",
        )
    if config.HasField("retry_policy"):
        _check_backoff(config.retry_policy)
    if config.HasField("message_retention_duration"):
        retention = wire.seconds(config.message_retention_duration)
        _require(
            MIN_RETENTION_S <= retention <= MAX_RETENTION_S,
            "Retention must be between 10 minutes and 31 days.",
        )
    _require(
        len(config.filter.encode()) <= MAX_FILTER_BYTES,
        "A filter has at most 256 bytes.",
    )
    try:
        compile_filter(config.filter)
    except FilterError as error:
        raise wire.ApiError("INVALID_ARGUMENT", f"Invalid filter: {error}") from error


def _check_kind(config: wire.Pb) -> None:
    """Pull, push or Cloud Storage, and nothing that this emulator leaves out."""
    storage = config.HasField("cloud_storage_config")
    endpoint = config.push_config.push_endpoint
    left_out = any(config.HasField(field) for field in _LEFT_OUT)
    _require(
        not left_out and not config.message_transforms,
        "Not part of this emulator: BigQuery, Bigtable, message transforms.",
    )
    avro = storage and config.cloud_storage_config.HasField("avro_config")
    _require(
        not avro and not config.push_config.HasField("no_wrapper"),
        "Not part of this emulator: push without the wrapper, Avro.",
    )
    if endpoint:
        _require(endpoint.startswith(("http://", "https://")), "Invalid push endpoint.")
        _require(not storage, "Push and Cloud Storage exclude each other.")
    if storage:
        _require(
            bool(config.cloud_storage_config.bucket),
            "A Cloud Storage subscription needs a bucket.",
        )


def _check_backoff(policy: wire.Pb) -> None:
    low = wire.seconds(policy.minimum_backoff)
    high = wire.seconds(policy.maximum_backoff) or MAX_BACKOFF_S
    _require(
        0 <= low <= high <= MAX_BACKOFF_S,
        "Back-off must be between 0 and 600 seconds, the minimum first.",
    )


def check_fixed(mask: wire.Pb) -> None:
    """Refuse to change what is set once."""
    fixed = _FIXED & {path.partition(".")[0] for path in mask.paths}
    _require(not fixed, f"{', '.join(sorted(fixed))} cannot be changed.")


def merge(mask: wire.Pb, source: wire.Pb, target: wire.Pb) -> None:
    """Copy the fields that an update mask names."""
    _require(bool(mask.paths), "The update_mask must name at least one field.")
    for path in mask.paths:
        one = wire.PB["FieldMask"](paths=[path])
        _require(
            bool(one.IsValidForDescriptor(target.DESCRIPTOR)),
            f"Invalid update_mask: there is no field {path}",
        )
    mask.MergeMessage(source, target, True, True)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise wire.ApiError("INVALID_ARGUMENT", problem)

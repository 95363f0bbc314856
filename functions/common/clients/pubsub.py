"""The client of Pub/Sub: google-cloud-pubsub, its unary publisher.

The batching publisher of the same package starts a thread for each message or waits for more
messages; here one message is published, and its answer awaited. The library is imported and its
client made at the first publish, in the worker: gRPC does not survive a fork.
"""

from collections.abc import Mapping
from typing import Any, Final

from functions.common.clients.credentials import Credentials
from functions.common.clients.transport import Transport, retried
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError, UnpublishableError

# https://cloud.google.com/pubsub/quotas: 10 MB a request. gRPC would report a larger one as
# "resource exhausted", which reads like a quota.
MESSAGE_LIMIT_BYTES: Final = 10_000_000
_ATTEMPT_S: Final = 30.0


class Topics:
    """Publishes messages. Safe to share between threads.

    Args:
        transport: its credentials are used.
        emulator: `host:port` of an emulator, or empty for Pub/Sub.
        endpoint: `host` of a regional or private endpoint; empty: the library's own.
    """

    def __init__(self, transport: Transport, emulator: str = "", endpoint: str = "") -> None:
        self._credentials = transport.credentials
        self._emulator = emulator
        self._endpoint = endpoint
        self._client: Any = None

    def publish(
        self, topic: str, data: bytes, attributes: Mapping[str, str], deadline: Deadline
    ) -> None:
        """Publish one message and wait for the answer.

        Args:
            topic: `projects/P/topics/T`.
            data: at most 10 MB with the attributes.
            attributes: empty values are left out.

        Raises:
            UnpublishableError: Pub/Sub always refuses this message: it is too large or malformed.
            RetryableError: rate_limited, unauthorized, deadline_exceeded; unavailable also for a
                missing topic, which an operator can correct; nothing may be lost until then.
        """
        given = {key: value for key, value in attributes.items() if value}
        message = {"data": data, "attributes": given}
        size = len(data) + sum(len(key) + len(value) for key, value in given.items())
        if size > MESSAGE_LIMIT_BYTES:
            raise UnpublishableError
        retried(lambda: self._publish_once(topic, message, deadline), deadline, "publish")

    def _publish_once(self, topic: str, message: Mapping[str, Any], deadline: Deadline) -> None:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError

        timeout_s = deadline.timeout_s(_ATTEMPT_S)
        try:
            publish = self._library().publish
            publish(topic=topic, messages=[message], retry=None, timeout=timeout_s)
        except exceptions.InvalidArgument:
            raise UnpublishableError from None
        except (exceptions.PermissionDenied, exceptions.Unauthenticated, GoogleAuthError):
            raise RetryableError("unauthorized") from None
        except exceptions.ResourceExhausted:
            raise RetryableError("rate_limited") from None
        except exceptions.GoogleAPICallError:
            raise RetryableError("unavailable") from None

    def _library(self) -> Any:
        """The library's client. Two threads may each create one at the first call; both work."""
        if self._client is None:
            self._client = _new_client(self._credentials, self._emulator, self._endpoint)
        return self._client


def _new_client(credentials: Credentials, emulator: str, endpoint: str) -> Any:
    from google.pubsub_v1 import PublisherClient

    if not emulator:
        options = {"api_endpoint": endpoint or None}
        return PublisherClient(credentials=credentials.load(), client_options=options)
    import grpc
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    channel = grpc.insecure_channel(emulator)
    return PublisherClient(transport=PublisherGrpcTransport(channel=channel))

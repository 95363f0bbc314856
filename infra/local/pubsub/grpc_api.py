"""The gRPC transport: unary rpcs from the table, StreamingPull by hand."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from infra.local.pubsub import wire
from infra.local.pubsub.api import RESPONSE_BYTES, Api
from infra.local.pubsub.queue import Lease, Queue

DEFAULT_OUTSTANDING = 1000
DEFAULT_OUTSTANDING_BYTES = 64 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", wire.MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", wire.MAX_REQUEST_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    (
        "grpc.http2.min_ping_interval_without_data_ms",
        5000,
    ),  # pings end no connection
]


def make_server(api: Api) -> tuple[Any, int]:
    """A grpc.aio server, not yet started, and the loopback port that it is bound to."""
    server = grpc.aio.server(options=_OPTIONS)
    for service, rpcs in wire.RPCS.items():
        handlers = {rpc: _unary(api, rpc, *names) for rpc, names in rpcs.items()}
        if service == wire.SUBSCRIBER:
            handlers["StreamingPull"] = _streaming_pull(api)
        generic = grpc.method_handlers_generic_handler(service, handlers)
        server.add_generic_rpc_handlers((generic,))
    return server, int(server.add_insecure_port("127.0.0.1:0"))


def _unary(api: Api, rpc: str, request_name: str, response_name: str) -> Any:
    async def handle(request: wire.Pb, context: Any) -> wire.Pb:
        try:
            return await api.call(rpc, request)
        except wire.ApiError as error:
            await context.abort(grpc.StatusCode[error.code], error.message)

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=wire.PB[request_name].FromString,
        response_serializer=wire.PB[response_name].SerializeToString,
    )


def _streaming_pull(api: Api) -> Any:
    async def handle(requests: AsyncIterator[wire.Pb], context: Any) -> None:
        first = await anext(aiter(requests), None)
        if first is None:
            return
        try:
            queue = api.pullable(first.subscription)
            await _Stream(queue, first).serve(requests, context)
        except wire.ApiError as error:
            await context.abort(grpc.StatusCode[error.code], error.message)

    return grpc.stream_stream_rpc_method_handler(
        handle,
        request_deserializer=wire.PB["StreamingPullRequest"].FromString,
        response_serializer=wire.PB["StreamingPullResponse"].SerializeToString,
    )


class _Stream:
    """One StreamingPull: sends messages within the client's flow control, and handles its
    acknowledgements."""

    def __init__(self, queue: Queue, first: wire.Pb) -> None:
        self._queue = queue
        self._deadline_s = float(
            first.stream_ack_deadline_seconds or queue.config.ack_deadline_seconds
        )
        self._messages = DEFAULT_OUTSTANDING
        if first.max_outstanding_messages > 0:
            self._messages = first.max_outstanding_messages
        self._bytes = DEFAULT_OUTSTANDING_BYTES
        if first.max_outstanding_bytes > 0:
            self._bytes = first.max_outstanding_bytes
        self._room = asyncio.Event()

    async def serve(self, requests: AsyncIterator[wire.Pb], context: Any) -> None:
        """Serve until the client disconnects.

        Raises:
            ApiError: the subscription was deleted or detached.
        """
        listener = asyncio.get_running_loop().create_task(self._listen(requests))
        sender = asyncio.get_running_loop().create_task(self._send(context))
        try:
            await asyncio.wait((listener, sender), return_when=asyncio.FIRST_COMPLETED)
        finally:
            listener.cancel()
            sender.cancel()
            ended = await asyncio.gather(listener, sender, return_exceptions=True)
        for error in ended:
            if isinstance(error, wire.ApiError):
                raise error

    async def _listen(self, requests: AsyncIterator[wire.Pb]) -> None:
        async for request in requests:
            if request.stream_ack_deadline_seconds:
                self._deadline_s = float(request.stream_ack_deadline_seconds)
            self._queue.ack(request.ack_ids)
            for ack_id, deadline_s in zip(
                request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=False
            ):
                self._queue.modify([ack_id], deadline_s)

    async def _send(self, context: Any) -> None:
        config = self._queue.config
        response = wire.PB["StreamingPullResponse"]()
        response.subscription_properties.message_ordering_enabled = config.enable_message_ordering
        response.subscription_properties.exactly_once_delivery_enabled = (
            config.enable_exactly_once_delivery
        )
        await context.write(response)
        while True:
            await self._queue.wait()
            while self._messages <= 0 or self._bytes <= 0:
                self._room.clear()
                await self._room.wait()
            room = min(self._bytes, RESPONSE_BYTES)
            leases = self._queue.take(self._messages, room, self._deadline_s, self._released)
            for lease in leases:
                self._messages -= 1
                self._bytes -= lease.size
            if leases:
                received = [self._queue.received(lease) for lease in leases]
                await context.write(wire.PB["StreamingPullResponse"](received_messages=received))

    def _released(self, lease: Lease) -> None:
        self._messages += 1
        self._bytes += lease.size
        self._room.set()

"""One port for both transports: HTTP/2 connections are passed on to the gRPC server, all others are
served here.

The sender of HTTP/1.1 requests is checked. HTTP/2 without TLS needs no check: browsers cannot use
it.
"""

import asyncio
import contextlib

import h11

from infra.local.callers import Callers, refused
from infra.local.pubsub import rest_api, wire
from infra.local.pubsub.api import Api

PREFACE = b"PRI * HTTP/2"
CHUNK_BYTES = 64 * 1024


class TooLargeError(Exception):
    """A request body over the limit."""


class FrontDoor:
    """Accepts connections and passes each on to its transport."""

    def __init__(self, api: Api, grpc_port: int, callers: Callers) -> None:
        self._api = api
        self._callers = callers
        self._grpc_port = grpc_port
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Start to accept.

        Raises:
            OSError: the port is in use.
        """
        return await asyncio.start_server(self._accept, host, port)

    async def close(self) -> None:
        """Drop every open connection."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            await self._serve(reader, writer)
        except (OSError, h11.ProtocolError, asyncio.CancelledError):
            pass  # the client went, or speaks neither protocol, or the emulator stops
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = b""
        while len(start) < len(PREFACE) and PREFACE.startswith(start):
            data = await reader.read(CHUNK_BYTES)
            if not data:
                return
            start += data
        if start.startswith(PREFACE):
            await self._pipe(start, reader, writer)
        else:
            await self._http(start, reader, writer)

    async def _pipe(
        self, start: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._grpc_port)
        inner_writer.write(start)
        there = asyncio.create_task(_copy(reader, inner_writer))
        back = asyncio.create_task(_copy(inner_reader, writer))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            inner_writer.close()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _http(
        self, start: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(start)
        while True:
            try:
                request = await _read_request(connection, reader, writer)
            except TooLargeError:
                await _send(
                    connection,
                    writer,
                    rest_api.failure("INVALID_ARGUMENT", "The request is too large."),
                )
                return
            if request is None:
                return
            head, body = request
            work = asyncio.create_task(self._answer(head, body))
            if not await _patiently(work, connection, reader):
                return
            await _send(connection, writer, work.result(), head.method == b"HEAD")
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    async def _answer(self, head: h11.Request, body: bytes) -> rest_api.Answer:
        headers = {name: value.decode("latin-1") for name, value in head.headers}
        reason = self._callers.refusal(headers.get(b"host", ""), headers.get(b"origin", ""))
        if reason:
            return rest_api.Answer(403, refused(reason))
        method, target = head.method.decode(), head.target.decode("latin-1")
        return await rest_api.answer(self._api, method, target, body)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[h11.Request, bytes] | None:
    """The next request and its body; None when the client has disconnected."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                writer.write(connection.send(go_on) or b"")
            connection.receive_data(await reader.read(CHUNK_BYTES))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > wire.MAX_REQUEST_BYTES:
                raise TooLargeError
        elif isinstance(event, h11.EndOfMessage) and head:
            return head, bytes(body)
        else:
            return None


async def _patiently(
    work: "asyncio.Task[rest_api.Answer]", connection: h11.Connection, reader: asyncio.StreamReader
) -> bool:
    """Wait for the answer; False if the client disconnects first, so that a long pull takes no
    messages that nobody receives."""
    hears = asyncio.create_task(reader.read(CHUNK_BYTES))
    try:
        while True:
            await asyncio.wait((work, hears), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return True
            data = hears.result()
            if not data:
                return False
            connection.receive_data(data)
            hears = asyncio.create_task(reader.read(CHUNK_BYTES))
    finally:
        work.cancel()
        if hears.done():
            connection.receive_data(hears.result())
        else:
            hears.cancel()
            await asyncio.gather(hears, return_exceptions=True)  # two cannot read at once


async def _send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    answer: rest_api.Answer,
    head: bool = False,
) -> None:
    headers = [("content-type", answer.content_type), ("content-length", str(len(answer.body)))]
    writer.write(connection.send(h11.Response(status_code=answer.status, headers=headers)) or b"")
    if not head:
        writer.write(connection.send(h11.Data(data=answer.body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()

"""One HTTP/1.1 POST on a new connection, for push delivery and for writing objects."""

import asyncio
import contextlib
import urllib.parse

import h11

READ_BYTES = 64 * 1024


class PostError(Exception):
    """There was no complete answer."""


async def post(url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> int:
    """POST a body; returns the status. The answer's body is read and dropped.

    Raises:
        PostError: refused, reset, cut off, not HTTP, or no answer within timeout_s seconds.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _post(urllib.parse.urlsplit(url), headers, body)
    except (OSError, TimeoutError, h11.ProtocolError, ValueError) as error:
        raise PostError(type(error).__name__) from error


async def _post(url: urllib.parse.SplitResult, headers: dict[str, str], body: bytes) -> int:
    host = url.hostname or ""
    if url.scheme == "https":
        reader, writer = await asyncio.open_connection(host, url.port or 443, ssl=True)
    else:
        reader, writer = await asyncio.open_connection(host, url.port or 80)
    try:
        fixed = {"host": url.netloc, "content-length": str(len(body)), "connection": "close"}
        target = url.path or "/"
        if url.query:
            target += f"?{url.query}"
        connection = h11.Connection(h11.CLIENT)
        request = h11.Request(
            method="POST",
            target=target,
            headers=[*(headers | fixed).items()],
        )
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        return await _status(connection, reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _status(connection: h11.Connection, reader: asyncio.StreamReader) -> int:
    """The status of the answer, once the answer is whole; 102 counts as one."""
    status = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 102:
            return 102
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.EndOfMessage):
            return status
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError

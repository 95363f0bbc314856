"""python -m infra.local.gate --port N COMMAND …: a server that only this machine's programs reach.

fake-gcs-server checks neither Host nor Origin, so pages of every web site could read, write and
delete. Therefore it listens on a loopback address that no page can guess, and the gate passes on
requests of this machine's own programs and pages. In the command, `{host}` and `{port}` are
replaced by that address.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from infra.local.callers import LOOPBACK, Callers, refused
from infra.local.process import die_with_parent

HEAD_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
READY_S = 30.0
# Browsers send one of these with every request to a loopback address; programs send none.
_OF_BROWSERS = (b"origin", b"sec-fetch-site", b"sec-fetch-mode")
Headers = dict[bytes, bytes]


def hidden_address() -> tuple[str, int]:
    """A loopback address and a free port there; only Linux has more than one such address."""
    host = LOOPBACK
    if sys.platform == "linux":
        chosen = random.SystemRandom()
        host = f"127.{chosen.randint(1, 254)}.{chosen.randint(0, 255)}.{chosen.randint(1, 254)}"
    with socket.socket() as probe:
        probe.bind((host, 0))
        return host, int(probe.getsockname()[1])


class Gate:
    """Passes connections on to a server, after checking who sends the first request."""

    def __init__(self, callers: Callers, upstream: tuple[str, int]) -> None:
        self._callers = callers
        self._upstream = upstream

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head, reader, writer)
        # The client closed, is not an HTTP client, or sends too many headers.
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        headers = _headers(head)
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        reason = self._callers.refusal(host, origin)
        if reason:
            writer.write(_forbidden(reason))
            await writer.drain()
            return
        if any(name in headers for name in _OF_BROWSERS):
            # A browser's next request may come from another page, so it must use a new connection.
            head = _closing(head)
        await self._pass_on(head, reader, writer)

    async def _pass_on(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(
            *self._upstream, limit=CHUNK_BYTES
        )
        inner_writer.write(head)
        there = asyncio.create_task(_copy(reader, inner_writer))
        try:
            await _copy(inner_reader, writer)
        finally:
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end of the stream, then end the other one too."""
    while True:
        data = await reader.read(CHUNK_BYTES)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _headers(head: bytes) -> Headers:
    """The headers of a request; the values of one that is repeated are joined."""
    found: Headers = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        key = name.strip().lower()
        value = value.strip()
        if key in found:
            value = found[key] + b", " + value
        found[key] = value
    return found


def _closing(head: bytes) -> bytes:
    """A request's head that asks the server to close the connection after its answer."""
    lines = head.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([kept[0], b"Connection: close", *kept[1:]])


def _forbidden(reason: str) -> bytes:
    body = refused(reason)
    lines = [
        "HTTP/1.1 403 Forbidden",
        "Content-Type: application/json; charset=UTF-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


async def run(host: str, port: int, command: Sequence[str]) -> int:
    """Start the server and serve until SIGINT or SIGTERM, or until it ends; returns its status.

    Raises:
        OSError: the server cannot be started, or the port is in use.
    """
    upstream = hidden_address()
    hidden_host, hidden_port = upstream
    words = [word.format(host=hidden_host, port=hidden_port) for word in command]
    server = subprocess.Popen(words, preexec_fn=die_with_parent)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.terminate)
    ended = asyncio.ensure_future(asyncio.to_thread(server.wait))
    await _until_ready(upstream, ended)
    if ended.done():
        return ended.result()
    gate = Gate(Callers(host), upstream)
    listener = await asyncio.start_server(gate.serve, host, port, limit=HEAD_BYTES)
    async with listener:
        return await ended


async def _until_ready(upstream: tuple[str, int], ended: "asyncio.Future[int]") -> None:
    """Wait until the server listens, or has ended."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while not ended.done():
                with contextlib.suppress(OSError):
                    _reader, writer = await asyncio.open_connection(*upstream)
                    writer.close()
                    return
                await asyncio.sleep(0.01)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.gate",
        description=__doc__,
    )
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="address to listen on (%(default)s)",
    )
    parser.add_argument("--port", type=int, required=True, help="port")
    parser.add_argument(
        "command",
        nargs="+",
        help="the server, with {host} and {port}",
    )
    options = parser.parse_args(argv)
    serving = run(options.host, options.port, options.command)
    status = asyncio.run(serving)
    if status < 0:
        print(f"the server was ended by signal {-status}", file=sys.stderr)
    return abs(status)


if __name__ == "__main__":
    sys.exit(main())

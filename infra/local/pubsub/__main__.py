"""python -m infra.local.pubsub --port N: the Pub/Sub emulator, gRPC and REST on one port."""

import argparse
import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.local.callers import Callers
from infra.local.pubsub.api import Api
from infra.local.pubsub.broker import Broker
from infra.local.pubsub.grpc_api import make_server
from infra.local.pubsub.journal import Journal
from infra.local.pubsub.server import FrontDoor

COMMIT_AFTER_S = 0.02


async def serve(
    host: str,
    port: int,
    journal_path: str,
    storage_endpoint: str,
    allowed_hosts: Sequence[str],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        OSError: the port is in use.
        sqlite3.Error: the journal cannot be opened, or another emulator uses it.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    journal = Journal(journal_path, lambda call: loop.call_later(COMMIT_AFTER_S, call))
    broker = Broker(journal, storage_endpoint)
    api = Api(broker)
    grpc_server, grpc_port = make_server(api)
    callers = Callers(host, allowed_hosts)
    door = FrontDoor(api, grpc_port, callers)
    listener = await door.listen(host, port)
    await grpc_server.start()
    broker.start()
    _, real_port = listener.sockets[0].getsockname()[:2]
    print(f"Pub/Sub emulator on {host}:{real_port}", flush=True)
    waiting = asyncio.ensure_future(stopped.wait())
    await asyncio.wait((waiting, broker.failed), return_when=asyncio.FIRST_COMPLETED)
    listener.close()
    await broker.stop()
    await door.close()
    await grpc_server.stop(grace=None)
    journal.close()
    if broker.failed.done():
        broker.failed.result()


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.pubsub",
        description=__doc__,
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (%(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8085,
        help="port, 0 for a free one (%(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder for topics, subscriptions and messages",
    )
    storage = os.environ.get("STORAGE_EMULATOR_HOST", "http://127.0.0.1:8086")
    parser.add_argument(
        "--storage",
        default=storage,
        help="bucket server for Cloud Storage subscriptions (%(default)s)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name for this machine in Host headers; may be repeated",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and serve."""
    options = _options(argv)
    # Messages contain names of scans: only the owner may read them.
    os.umask(0o077)
    path = ""
    if options.data:
        options.data.mkdir(parents=True, exist_ok=True)
        path = str(options.data / "pubsub.sqlite")
    serving = serve(
        host=options.host,
        port=options.port,
        journal_path=path,
        storage_endpoint=options.storage,
        allowed_hosts=options.allow_host,
    )
    try:
        asyncio.run(serving)
    except OSError as error:
        place = f"{options.host}:{options.port}"
        print(f"cannot listen on {place}: {error.strerror}", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        print(f"cannot use {path}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m infra.local.dicomstore --port 8042 --data DIR`: serve until interrupted."""

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

from infra.local.dicomstore.app import DEFAULT_STORE, Store, serve
from infra.local.dicomstore.choices import Options
from infra.local.dicomstore.database import TakenError


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.local.dicomstore", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port", type=int, default=8042, help="0 chooses a free one; it is printed"
    )
    parser.add_argument(
        "--data", type=Path, default=Path(".local/dicomstore"), help="folder for index and files"
    )
    parser.add_argument(
        "--store",
        action="append",
        metavar="NAME",
        help=f"a store to create at the start (default {DEFAULT_STORE})",
    )
    parser.add_argument(
        "--token", action="append", default=[], help="require this bearer token; may be repeated"
    )
    parser.add_argument(
        "--read-token", action="append", default=[], help="a bearer token that may only read"
    )
    parser.add_argument(
        "--operation-s", type=float, default=0.0, help="seconds that operations run"
    )
    parser.add_argument(
        "--stale-s",
        type=float,
        default=0.0,
        help="seconds that searches still find deleted studies",
    )
    parser.add_argument(
        "--pubsub",
        default=os.environ.get("PUBSUB_EMULATOR_HOST", ""),
        metavar="HOST:PORT",
        help="Pub/Sub emulator for notifications",
    )
    parser.add_argument(
        "--storage",
        default=os.environ.get("STORAGE_EMULATOR_HOST", ""),
        metavar="URL",
        help="bucket server for filter files of setBlobStorageSettings",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name for this machine in Host headers; may be repeated",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web origin whose pages may call, such as https://viewer.example; may be repeated",
    )
    return parser.parse_args()


def main() -> None:
    """Read the flags, print `listening on URL`, serve."""
    flags = _flags()
    for name in ("pydicom", "python_multipart"):  # they log values of files and bodies
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    # The folder contains scans: only the owner may read it.
    os.umask(0o077)
    options = Options(
        operation_s=flags.operation_s,
        stale_s=flags.stale_s,
        tokens=frozenset(flags.token),
        read_tokens=frozenset(flags.read_token),
        pubsub_host=flags.pubsub,
        storage_url=flags.storage,
    )
    try:
        store = Store(flags.data, options, tuple(flags.store or [DEFAULT_STORE]))
    except TakenError as error:
        sys.exit(f"error: {error}; stop it, or choose a folder with --data")
    server = serve(
        store,
        host=flags.host,
        port=flags.port,
        allowed_hosts=flags.allow_host,
        allowed_origins=flags.allow_origin,
    )
    print(f"listening on {server.url}", flush=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    server.shutdown()


main()

"""Ports for the services that tests start and that cannot choose one themselves."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port of this machine that nobody but the service gets in the `with`: hold it until the
    service has ended."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # exclusive ...
        held.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # ... but for a service, which sets this as well
        yield int(held.getsockname()[1])

"""Which port each service listens on."""

import os
import random
import socket
from collections.abc import Mapping

HOST = "127.0.0.1"
BASE = 8080
# In this order from the base: search on 8080 as functions-framework, Pub/Sub on 8085 as Google's
# emulator.
SERVICES = (
    "search",
    "store_upload",
    "delete_resource",
    "export_resource",
    "dicomstore",
    "pubsub",
    "gcs",
    "watch_studies",
    "notify",
    "commands",
    "webhook",  # where a webhook of this machine is received
)
_LAST = 65535
_FIRST_UNPRIVILEGED = 1024
_FREE_RANGE = (20000, 32000)  # below the ports that the kernel gives to outgoing connections


class PortError(Exception):
    """A port cannot be used; the text says which one and what to do."""


def fixed(base: int = BASE, chosen: Mapping[str, int] | None = None) -> dict[str, int]:
    """Consecutive ports from base, except those chosen by name.

    Raises:
        PortError: a port is in use, chosen twice, or for an unknown service.
    """
    ports = {name: base + number for number, name in enumerate(SERVICES)}
    if unknown := set(chosen or {}) - set(SERVICES):
        raise PortError(
            f"there is no service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}"
        )
    ports.update(chosen or {})
    for name, port in ports.items():
        _check(name, port, [*ports.values()].count(port))
    return ports


def _check(name: str, port: int, times: int) -> None:
    """Check that a service can use a port.

    Raises:
        PortError: it cannot.
    """
    if not 0 < port <= _LAST:
        raise PortError(f"{port} (for {name}) is not a port: ports are 1 to {_LAST}")
    if times > 1:
        raise PortError(f"port {port} is chosen twice")
    if port < _FIRST_UNPRIVILEGED and os.geteuid():
        raise PortError(f"port {port} (for {name}) needs root; choose a higher one")
    if not is_free(port):
        raise PortError(
            f"port {port} (for {name}) is in use; stop the program that listens there, "
            f"or choose another with --port-base N or --port {name}=N"
        )


def reserve() -> dict[str, socket.socket]:
    """A socket for each service that reserves a free port; on Linux the service can listen on it
    meanwhile.

    Raises:
        PortError: none was found.
    """
    held: dict[str, socket.socket] = {}
    ports = iter(random.sample(range(*_FREE_RANGE), 500))
    for name in SERVICES:
        for port in ports:
            held[name] = socket.socket()
            try:
                held[name].bind((HOST, port))  # exclusive ...
                held[name].setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # ... but for who sets this as well
                break
            except OSError:
                held.pop(name).close()
        else:
            raise PortError("no free ports were found")
    return held


def is_free(port: int) -> bool:
    """Whether a service could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False

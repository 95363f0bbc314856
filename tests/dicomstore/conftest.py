"""Fixtures: a fresh store behind a real socket for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local.dicomstore.app import Store, serve
from infra.local.dicomstore.choices import Options
from infra.local.dicomstore.server import Server
from tests.dicomstore.kit import Client


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Start a store with options; stopped after the test."""
    servers: list[Server] = []

    def run(**options: object) -> Client:
        store = Store(tmp_path / f"data{len(servers)}", Options(**options))  # type: ignore[arg-type]
        servers.append(serve(store))
        return Client(servers[-1].url)

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def store(start: Callable[..., Client]) -> Client:
    """A fresh store."""
    return start()

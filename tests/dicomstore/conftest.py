"""Fixtures: a new store behind a real socket for each test, a separate server if needed."""

import itertools
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


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that all tests of this process share."""
    server = serve(Store(tmp_path_factory.mktemp("shared"), Options()))
    yield server.url
    server.shutdown()
    server.server_close()


_numbers = itertools.count()


@pytest.fixture
def store(shared: str) -> Client:
    """A store in a new dataset on the shared server, without other stores."""
    client = Client(
        shared, f"projects/local/locations/local/datasets/d{next(_numbers)}/dicomStores/local"
    )
    answer = client.http.post(
        f"{client.dataset_url}/dicomStores", params={"dicomStoreId": "local"}, json={}
    )
    assert answer.status_code == 200
    return client

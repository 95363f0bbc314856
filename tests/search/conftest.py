"""One store that answers by plan and one search function in front of it, for all tests of a
module."""

from collections.abc import Iterator

import pytest

from tests.search.kit import FakeStore, Function, fake_store, function

ORIGIN = "https://viewer.example.org"


@pytest.fixture(scope="module")
def store() -> Iterator[FakeStore]:
    """The store."""
    with fake_store() as running:
        yield running


@pytest.fixture(scope="module")
def search(store: FakeStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """The function."""
    folder = tmp_path_factory.mktemp("search")
    with function(store.url, folder, SEARCH_ORIGINS=ORIGIN, SEARCH_TIMEOUT_S="8") as running:
        yield running

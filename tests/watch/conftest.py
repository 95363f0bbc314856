"""The function between its servers."""

from collections.abc import Iterator

import pytest

from tests.watch.place import Place, watch_place


@pytest.fixture
def place() -> Iterator[Place]:
    """The function, with an empty state bucket."""
    with watch_place() as made:
        yield made

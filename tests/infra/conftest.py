"""What several files of tests use."""

import pytest

from tests.infra.desk import Desk


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))  # a name without words that calls are searched for

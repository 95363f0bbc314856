"""Shared by several files of tests."""

import pytest

from tests.infra import terraform
from tests.infra.chosen import EVERYTHING
from tests.infra.desk import Desk
from tests.infra.terraform import Plan


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk to run deploy.sh at."""
    # A name without words that calls are searched for.
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(params=["defaults", "everything"])
def plan(request: pytest.FixtureRequest) -> Plan:
    """What terraform would create, with the defaults and with every switch on."""
    if request.param == "everything":
        return terraform.plan(**EVERYTHING)
    return terraform.plan()

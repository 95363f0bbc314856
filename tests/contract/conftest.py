"""Shared by tests of exports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.world import World, bucket_server, world


@pytest.fixture(scope="module")
def buckets() -> Iterator[str]:
    with bucket_server() as url:
        yield url


@pytest.fixture
def store(tmp_path: Path, buckets: str) -> Iterator[World]:
    with world("export_resource", tmp_path, buckets_url=buckets) as made:
        made.clear_bucket()
        yield made


@pytest.fixture
def small_slices(tmp_path: Path, buckets: str) -> Iterator[World]:
    with world("export_resource", tmp_path, buckets_url=buckets, EXPORT_SLICE="4") as made:
        made.clear_bucket()
        yield made

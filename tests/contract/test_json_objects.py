"""State objects, on a bucket server that checks every precondition."""

from collections.abc import Iterator

import pytest

from functions.common.clients.json_objects import JsonObjects, Kept
from functions.common.clients.storage import Buckets, PreconditionFailedError
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from tests.contract.strictbucket import StrictBuckets, strict_buckets

STATE = "dicom-state"
LIMIT_BYTES = 100


@pytest.fixture
def server() -> Iterator[StrictBuckets]:
    with strict_buckets(STATE) as made:
        yield made


def objects(server: StrictBuckets, bucket: str = STATE) -> JsonObjects:
    return JsonObjects(Buckets(Transport(), server.url), bucket, Deadline(20), LIMIT_BYTES)


def test_an_object_is_read_as_it_was_written_with_its_generation(server: StrictBuckets) -> None:
    generation = objects(server).write("a", {"b": 1}, if_generation_match=0)
    assert objects(server).read("a") == Kept({"b": 1}, generation)


def test_an_object_that_is_not_there_is_none(server: StrictBuckets) -> None:
    assert objects(server).read("a") is None


def test_the_second_of_two_changes_of_one_generation_fails(server: StrictBuckets) -> None:
    generation = objects(server).write("a", {"b": 1}, if_generation_match=0)
    objects(server).write("a", {"b": 2}, if_generation_match=generation)
    with pytest.raises(PreconditionFailedError):
        objects(server).write("a", {"b": 3}, if_generation_match=generation)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'"a"', b"\xff", b"[" * 90])
def test_what_is_no_json_object_may_be_one_later(server: StrictBuckets, data: bytes) -> None:
    server.put(STATE, "a", data)
    with pytest.raises(RetryableError, match="unavailable"):
        objects(server).read("a")


def test_an_object_over_the_limit_is_not_read(server: StrictBuckets) -> None:
    server.put(STATE, "a", b'{"b": "' + b"c" * LIMIT_BYTES + b'"}')
    with pytest.raises(RetryableError, match="unavailable"):
        objects(server).read("a")


def test_a_bucket_that_is_missing_is_a_mistake_that_heals(server: StrictBuckets) -> None:
    with pytest.raises(RetryableError, match="unavailable"):
        objects(server, "dicom-nowhere").write("a", {}, if_generation_match=0)


def test_a_listing_of_a_bucket_that_is_missing_is_a_mistake_that_heals(
    server: StrictBuckets,
) -> None:
    with pytest.raises(RetryableError, match="unavailable"):
        list(objects(server, "dicom-nowhere").list(""))


def test_a_listing_shows_the_metadata_of_objects_whose_names_begin_so(
    server: StrictBuckets,
) -> None:
    for name in ("a/1", "a/2", "b"):
        objects(server).write(name, {}, if_generation_match=0, metadata={"of": name})
    assert [one.metadata["of"] for one in objects(server).list("a/")] == ["a/1", "a/2"]


def test_an_object_that_was_changed_is_not_deleted_at_its_old_generation(
    server: StrictBuckets,
) -> None:
    old = objects(server).write("a", {"b": 1}, if_generation_match=0)
    new = objects(server).write("a", {"b": 2}, if_generation_match=old)
    objects(server).delete("a", old)
    assert objects(server).read("a") == Kept({"b": 2}, new)


def test_an_object_is_deleted_at_any_generation(server: StrictBuckets) -> None:
    objects(server).write("a", {}, if_generation_match=0)
    objects(server).delete("a")
    assert objects(server).read("a") is None

"""Writing to Cloud Storage: against a strict server that loses chunks, answers and sessions on
demand, and against the bucket server of the local stack."""

from collections.abc import Iterator

import pytest

from functions.common.clients import transport
from functions.common.clients.storage import Buckets, PreconditionFailedError, StoredObject
from functions.common.clients.transport import Transport
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, RetryableError, SupersededError
from functions.common.resources import ObjectRef
from tests.contract.strictbucket import StrictBuckets, strict_buckets
from tests.contract.world import BUCKET, bucket_server

KIB = 1024
CHUNK = 512 * KIB
SIZE = 9 * 1024 * KIB + 12_345


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictBuckets]:
    monkeypatch.setattr(transport, "_BACKOFF_S", 0.001)
    with strict_buckets(BUCKET) as made:
        yield made


def pieces(size: int) -> Iterator[bytes]:
    data = bytes(range(256)) * (size // 256 + 1)
    for at in range(0, size, 100_000):
        yield data[at : min(at + 100_000, size)]


def write(server: StrictBuckets, size: int) -> StoredObject:
    buckets = Buckets(Transport(), server.url)
    return buckets.write(BUCKET, "large", pieces(size), Deadline(60), chunk_bytes=CHUNK)


@pytest.mark.parametrize("size", [SIZE, 18 * CHUNK, 18 * CHUNK + 1, 18 * CHUNK - 1])
def test_a_stream_arrives_whole(server: StrictBuckets, size: int) -> None:
    assert write(server, size).size == size
    assert server.read(BUCKET, "large") == b"".join(pieces(size))
    assert server.uploads.ranges[0] == f"bytes 0-{CHUNK - 1}/*"
    assert server.uploads.ranges[-1].endswith(f"/{size}")


def test_a_stream_of_one_chunk_is_one_request(server: StrictBuckets) -> None:
    write(server, CHUNK)
    assert server.requests == {"create": 1}


@pytest.mark.parametrize(
    "plan",
    [
        ["lose"],
        ["drop"],
        ["503"],
        ["429"],
        ["", "lose", "drop", "503", "", "lose"],
        [*[""] * 18, "lose"],
        [*[""] * 18, "drop"],
    ],
)
def test_a_chunk_that_was_lost_is_sent_again(server: StrictBuckets, plan: list[str]) -> None:
    server.uploads.plan = [*plan]
    write(server, SIZE)
    assert server.read(BUCKET, "large") == b"".join(pieces(SIZE))
    assert server.requests["begin"] == 1


LOST_SESSIONS = {
    "404": ["", "404"],
    "410": ["", "gone"],
    "308 without Range": ["none"],
    "a shorter Range": ["", "half"],
    "404 at the last chunk": [*[""] * 18, "404"],
}


@pytest.mark.parametrize("plan", LOST_SESSIONS.values(), ids=LOST_SESSIONS.keys())
def test_a_session_that_is_lost_is_another_delivery_s_work(
    server: StrictBuckets, plan: list[str]
) -> None:
    server.uploads.plan = [*plan]
    with pytest.raises(RetryableError, match="unavailable"):
        write(server, SIZE)
    assert server.names(BUCKET) == []


def test_another_object_may_have_come_first(server: StrictBuckets) -> None:
    server.put(BUCKET, "large", b"another")
    with pytest.raises(PreconditionFailedError):
        write(server, SIZE)
    assert server.read(BUCKET, "large") == b"another"


def test_other_bytes_than_were_sent_are_deleted(server: StrictBuckets) -> None:
    server.uploads.plan = ["spoil"]
    with pytest.raises(RetryableError):
        write(server, SIZE)
    assert server.names(BUCKET) == []


@pytest.mark.parametrize("error", [RetryableError("unavailable"), ValueError("a bug")])
def test_a_source_that_breaks_leaves_no_object_and_keeps_its_error(
    server: StrictBuckets, error: Exception
) -> None:
    def broken() -> Iterator[bytes]:
        yield from pieces(9 * 1024 * KIB)
        raise error

    with pytest.raises(type(error)) as caught:
        Buckets(Transport(), server.url).write(
            BUCKET, "large", broken(), Deadline(60), chunk_bytes=CHUNK
        )
    assert caught.value is error
    assert server.names(BUCKET) == []


def test_the_wait_that_cloud_storage_asks_for_is_handed_on(server: StrictBuckets) -> None:
    server.failures, server.retry_after = [429], "300"
    with pytest.raises(RetryableError) as caught:
        Buckets(Transport(), server.url).write_small(BUCKET, "small", b"x", Deadline(60))
    assert caught.value.reason == "rate_limited"
    assert caught.value.retry_after_s == 300
    assert server.requests == {"create": 1}


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "rejected"), (401, "unauthorized"), (403, "unauthorized"), (503, "unavailable")],
)
def test_a_refusal_has_a_reason_and_nothing_of_the_server_s_text(
    server: StrictBuckets, status: int, reason: str
) -> None:
    server.failures = [status] * 4
    with pytest.raises((PermanentError, RetryableError)) as caught:
        Buckets(Transport(), server.url).stat(ObjectRef(BUCKET, "Doe"), Deadline(60))
    assert str(caught.value) == reason
    assert "Doe" not in getattr(caught.value, "detail", "")


def test_a_copy_keeps_the_properties_of_its_source(server: StrictBuckets) -> None:
    described = {
        "contentType": "image/jpeg",
        "contentEncoding": "gzip",
        "cacheControl": "no-store",
    }
    source = server.put(BUCKET, "a", b"bytes", metadata={"k": "v"}, more=described)
    ref = ObjectRef(BUCKET, "a", source.generation)
    copied = Buckets(Transport(), server.url).copy(ref, BUCKET, "b", Deadline(60))
    assert copied.size == 5
    assert copied.metadata == {"k": "v"}
    assert copied.content_type == "image/jpeg"
    assert server.buckets[BUCKET]["b"].more == described


def test_a_source_that_was_overwritten_is_not_copied_joined_or_deleted(
    server: StrictBuckets,
) -> None:
    old = ObjectRef(BUCKET, "a", server.put(BUCKET, "a", b"old").generation)
    server.put(BUCKET, "a", b"new")
    buckets = Buckets(Transport(), server.url)
    with pytest.raises(SupersededError):
        buckets.copy(old, BUCKET, "b", Deadline(60))
    with pytest.raises(SupersededError):
        buckets.compose(BUCKET, "b", [old], Deadline(60))
    buckets.delete(old, Deadline(60))
    assert server.names(BUCKET) == ["a"]


def test_no_request_is_sent_that_was_not_asked_for(server: StrictBuckets) -> None:
    buckets = Buckets(Transport(), server.url)
    stored = buckets.write_small(BUCKET, "a", b"x", Deadline(60))
    buckets.stat(stored.ref, Deadline(60))
    assert [found.ref for found in buckets.list(BUCKET, "", Deadline(60))] == [stored.ref]
    assert server.requests == {"create": 1, "stat": 1, "list": 1}


def test_what_was_joined_and_its_answer_lost_is_not_joined_again(server: StrictBuckets) -> None:
    source = ObjectRef(BUCKET, "a", server.put(BUCKET, "a", b"part").generation)
    server.lost.append("compose")
    buckets = Buckets(Transport(), server.url)
    with pytest.raises(PreconditionFailedError):
        buckets.compose(BUCKET, "b", [source], Deadline(60), if_generation_match=0)
    assert server.read(BUCKET, "b") == b"part"


@pytest.fixture(scope="module")
def buckets() -> Iterator[Buckets]:
    with bucket_server() as url:
        yield Buckets(Transport(), url)


@pytest.mark.parametrize("size", [0, 1, 8 * 1024 * KIB, SIZE])
def test_the_local_bucket_server_takes_both_ways(buckets: Buckets, size: int) -> None:
    name = f"s{size}"
    metadata = {"k": "v"}
    stored = buckets.write(
        BUCKET, name, pieces(size), Deadline(60), metadata=metadata, chunk_bytes=CHUNK
    )
    assert stored.size == size
    assert stored.metadata == metadata
    with buckets.open(ObjectRef(BUCKET, name), Deadline(60)) as response:
        assert response.raw.read() == b"".join(pieces(size))


def test_an_object_is_created_once_and_in_pieces(buckets: Buckets) -> None:
    stored = buckets.write_small(BUCKET, "once", [b"a", b"", b"bc"], Deadline(60))
    assert stored.size == 3
    with pytest.raises(PreconditionFailedError):
        buckets.write_small(BUCKET, "once", b"other", Deadline(60))
    replaced = buckets.write_small(BUCKET, "once", b"other", Deadline(60), if_generation_match=None)
    assert replaced.size == 5


def test_at_most_32_objects_are_joined(buckets: Buckets) -> None:
    parts = []
    for number in range(1, 33):
        data = bytes([number]) * number
        part = buckets.write_small(BUCKET, f"part{number}", data, Deadline(60))
        parts.append(part.ref)
    metadata = {"k": "v"}
    joined = buckets.compose(
        BUCKET, "joined", parts, Deadline(60), content_type="text/plain", metadata=metadata
    )
    assert joined.size == sum(range(33))
    assert joined.metadata == metadata
    with pytest.raises(ValueError, match="1 to 32"):
        buckets.compose(BUCKET, "joined", [*parts, parts[0]], Deadline(60))


def test_joining_replaces_only_the_generation_that_is_expected(buckets: Buckets) -> None:
    part = buckets.write_small(BUCKET, "one-part", b"part", Deadline(60)).ref
    made = buckets.compose(BUCKET, "whole", [part], Deadline(60), if_generation_match=0)
    for other in (0, made.ref.generation + 1):
        with pytest.raises(PreconditionFailedError):
            buckets.compose(BUCKET, "whole", [part], Deadline(60), if_generation_match=other)
    live = made.ref.generation
    again = buckets.compose(BUCKET, "whole", [part], Deadline(60), if_generation_match=live)
    assert again.size == 4


def test_a_bucket_that_is_not_there(buckets: Buckets) -> None:
    for act in (
        lambda: buckets.write_small("no-such-bucket", "x", b"", Deadline(60)),
        lambda: buckets.write("no-such-bucket", "x", pieces(SIZE), Deadline(60)),
        lambda: list(buckets.list("no-such-bucket", "", Deadline(60))),
    ):
        with pytest.raises(PermanentError) as caught:
            act()
        assert caught.value.reason == "not_found"
        assert caught.value.detail == "the bucket does not exist"


def test_the_local_bucket_server_copies_lists_and_deletes(buckets: Buckets) -> None:
    first = buckets.write_small(
        BUCKET,
        "from/a b.dcm",
        b"bytes",
        Deadline(60),
        content_type="text/x",
        metadata={"k": "v"},
    )
    name = "to/ü.dcm"
    copied = buckets.copy(first.ref, BUCKET, name, Deadline(60), if_generation_match=0)
    assert copied.size == 5
    assert copied.content_type == "text/x"
    assert copied.metadata == {"k": "v"}
    with pytest.raises(PreconditionFailedError):
        buckets.copy(first.ref, BUCKET, name, Deadline(60), if_generation_match=0)
    found = buckets.list(BUCKET, "to/", Deadline(60))
    assert [item.ref for item in found] == [copied.ref]
    buckets.delete(copied.ref, Deadline(60))
    assert buckets.stat(copied.ref, Deadline(60)) is None

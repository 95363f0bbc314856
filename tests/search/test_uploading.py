"""An upload from the page, without the page: a session for one object, and its outcome."""

import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.strictbucket import StrictBuckets, strict_buckets
from tests.contract.uploads import Upload
from tests.search.kit import ROOT, STORE, FakeStore, Function, Reply, function, kept
from tests.unit.test_architecture import loaded_by

LANDING = "dicom-landing"
STATE = "dicom-state"
VIEWER = "https://viewer.example.org"
LIMIT = 1_000_000
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def buckets() -> Iterator[StrictBuckets]:
    with strict_buckets(LANDING, STATE) as server:
        yield server


@pytest.fixture(scope="module")
def settings(buckets: StrictBuckets) -> dict[str, str]:
    return {
        "SEARCH_UPLOADS": "true",
        "SEARCH_UPLOAD_MAX_BYTES": str(LIMIT),
        "LANDING_BUCKET": LANDING,
        "STATE_BUCKET": STATE,
        "STORAGE_EMULATOR_HOST": buckets.url,
        "SEARCH_ORIGINS": VIEWER,
    }


@pytest.fixture(scope="module")
def uploads(
    store: FakeStore, settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Function]:
    with function(store.url, tmp_path_factory.mktemp("uploads"), **settings) as running:
        yield running


def begin(function: Function, wanted: object, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return function.query("/uploads", wanted, **named)


def last_session(buckets: StrictBuckets) -> Upload:
    return buckets.uploads.sessions[-1]


def test_a_file_is_written_into_the_bucket_by_the_url_of_the_answer(
    uploads: Function, buckets: StrictBuckets
) -> None:
    answer = begin(uploads, {"size": 5})
    assert answer.status == 201
    begun = answer.json()
    assert set(begun) == {"request_id", "url"}
    found = re.fullmatch(rf"upload-({ID})", begun["request_id"])
    assert found
    sent = urllib.request.Request(begun["url"], b"hello", method="PUT")
    urllib.request.urlopen(sent).close()
    assert buckets.read(LANDING, f"uploads/{found[1]}") == b"hello"


def test_the_session_is_for_a_new_object_of_this_size_and_for_this_page(
    uploads: Function, buckets: StrictBuckets
) -> None:
    assert begin(uploads, {"size": 7}, Origin=uploads.url).status == 201
    session = last_session(buckets)
    assert session.size == 7
    assert session.origin == uploads.url
    assert session.query["ifGenerationMatch"] == "0"


def test_a_program_is_no_page(uploads: Function, buckets: StrictBuckets) -> None:
    begin(uploads, {"size": 7})
    assert last_session(buckets).origin == ""


def test_every_upload_has_a_new_name(uploads: Function) -> None:
    ids = {begin(uploads, {"size": 1}).json()["request_id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"size": 0},
        {"size": LIMIT + 1},
        {"size": "5"},
        {"size": 5.0},
        {"size": True},
        {"size": 5, "name": "Doe.dcm"},
        [5],
    ],
)
def test_only_a_size_within_the_limit_is_taken(uploads: Function, wanted: object) -> None:
    answer = begin(uploads, wanted)
    assert answer.status == 400
    assert answer.reason == "invalid_body"


def test_another_sites_page_cannot_begin_an_upload(
    uploads: Function, buckets: StrictBuckets
) -> None:
    before = len(buckets.uploads.sessions)
    assert begin(uploads, {"size": 1}, Origin="https://evil.example").status == 403
    crossing = {"Origin": "http://localhost:8080", "Sec_Fetch_Site": "cross-site"}
    assert begin(uploads, {"size": 1}, **crossing).status == 403
    assert len(buckets.uploads.sessions) == before


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_says_of_another_site_counts_without_an_origin_too(
    uploads: Function, site: str
) -> None:
    assert begin(uploads, {"size": 1}, Sec_Fetch_Site=site).status == 403


def test_a_page_that_may_read_answers_cannot_begin_an_upload(uploads: Function) -> None:
    answer = begin(uploads, {"size": 1}, Origin=VIEWER, Sec_Fetch_Site="cross-site")
    assert answer.status == 403
    assert answer.headers["access-control-allow-origin"] == VIEWER  # it may read the refusal
    assert begin(uploads, {"size": 1}, Origin=VIEWER).status == 403


def test_the_page_may_begin_one_through_a_proxy_that_names_another_host(
    uploads: Function, buckets: StrictBuckets
) -> None:
    proxied = {"Origin": "http://localhost:8080", "Sec_Fetch_Site": "same-origin"}
    assert begin(uploads, {"size": 1}, Host="search-abc.a.run.app", **proxied).status == 201
    assert last_session(buckets).origin == "http://localhost:8080"


def test_a_form_of_another_site_cannot_begin_one(uploads: Function) -> None:
    answer = uploads.send("/uploads", "POST", {"Content-Type": "text/plain"}, b'{"size": 1}')
    assert answer.status == 415


@pytest.mark.parametrize(
    ("failures", "status", "reason"),
    [
        ([403], 502, "unauthorized"),
        ([503] * 4, 502, "unavailable"),
        ([429] * 4, 503, "overloaded"),
        ([400], 502, "unavailable"),
    ],
)
def test_the_bucket_must_take_the_upload(
    uploads: Function, buckets: StrictBuckets, failures: list[int], status: int, reason: str
) -> None:
    buckets.failures = [*failures]
    answer = begin(uploads, {"size": 1})
    assert answer.status == status
    assert answer.reason == reason


def test_a_missing_landing_bucket_is_reported_as_a_mistake_of_the_operator(
    store: FakeStore, settings: dict[str, str], tmp_path: Path
) -> None:
    settings = {**settings, "LANDING_BUCKET": "no-such-bucket"}
    with function(store.url, tmp_path, **settings) as running:
        answer = begin(running, {"size": 1})
        assert answer.status == 502
        assert answer.reason == "unavailable"
        message = answer.json()["error"]["message"]
        assert message == "the landing bucket is missing or refuses the request; tell its operator"
        assert message in running.log()
        assert "no-such-bucket" not in running.log()


def test_a_state_bucket_that_fails_is_not_reported_as_the_dicom_store(
    uploads: Function, buckets: StrictBuckets
) -> None:
    buckets.failures = [403]
    answer = uploads.send(f"/requests/upload-{uuid.uuid4()}")
    assert answer.status == 502
    assert answer.reason == "unauthorized"
    assert answer.json()["error"]["message"].startswith("the state bucket ")


def test_too_many_uploads_in_a_minute_are_refused(
    store: FakeStore, settings: dict[str, str], tmp_path: Path
) -> None:
    with function(store.url, tmp_path, **settings, SEARCH_UPLOADS_PER_MINUTE="2") as limited:
        assert [begin(limited, {"size": 1}).status for _ in range(3)] == [201, 201, 429]
        refused = begin(limited, {"size": 1})
    assert 1 <= int(refused.headers["retry-after"]) <= 61


def test_without_the_setting_there_are_no_uploads(search: Function) -> None:
    assert begin(search, {"size": 1}).status == 404
    assert search.send("/config.json").json()["uploads"] is None


def test_the_page_may_send_to_the_landing_bucket_only_where_there_are_uploads(
    uploads: Function, search: Function, buckets: StrictBuckets
) -> None:
    policy = "connect-src 'self'"
    assert search.send("/").headers["content-security-policy"].endswith(policy)
    allowed = uploads.send("/").headers["content-security-policy"]
    assert allowed.endswith(f"{policy} {buckets.url}/upload/storage/v1/b/{LANDING}/o")


def test_uploads_need_the_landing_bucket() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import main; main.search"],
        cwd=ROOT,
        env={"DICOM_STORE": STORE, "SEARCH_UPLOADS": "true"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == "search: SEARCH_UPLOADS needs LANDING_BUCKET\n"


def test_the_outcome_of_an_upload_is_shown(uploads: Function, buckets: StrictBuckets) -> None:
    request_id = f"upload-{uuid.uuid4()}"
    assert uploads.send(f"/requests/{request_id}").json()["state"] == "open"
    record = {
        "outcome": "partial",
        "counts": {"stored": 2, "rejected": 1},
        "name": "uploads/x",
    }
    kept(buckets, STATE, request_id, **record)
    answer = uploads.send(f"/requests/{request_id}").json()
    assert answer["outcome"] == {
        "outcome": "partial",
        "counts": {"stored": 2, "rejected": 1},
    }


def test_the_outcome_of_a_delete_is_not_shown(uploads: Function, buckets: StrictBuckets) -> None:
    request_id = str(uuid.uuid4())
    kept(buckets, STATE, request_id, outcome="dry_run", function="delete_resource")
    assert uploads.send(f"/requests/{request_id}").json()["state"] == "open"


def test_neither_the_url_nor_the_name_of_an_upload_is_logged(uploads: Function) -> None:
    begun = begin(uploads, {"size": 1}).json()
    assert begun["url"] not in uploads.log()
    assert begun["request_id"].removeprefix("upload-") not in uploads.log()


def test_a_search_loads_no_client_of_cloud_storage(settings: dict[str, str]) -> None:
    modules = loaded_by("search", {"DICOM_STORE": STORE, **settings})
    assert not [name for name in modules if name.startswith("google.cloud.storage")]
    assert "functions.common.clients.storage" not in modules

"""Faults on demand, the request record, and authentication (section 2)."""

import time
from collections.abc import Callable

import pytest
import requests

from tests.dicomstore.kit import AS_STORED, Client, dicom


@pytest.fixture
def store(start: Callable[..., Client]) -> Client:
    """A separate server: faults and counters belong to a server, not a store."""
    return start()


def test_the_server_says_that_it_is_there(store: Client) -> None:
    assert store.http.get(f"{store.url}/healthz").json() == {"status": "ok"}


def test_a_status_fault_acts_count_times_then_no_more(store: Client) -> None:
    store.fault(
        kind="status", status=429, retry_after=7, method="POST", path="dicomWeb/studies$", count=2
    )
    answers = [store.post(dicom()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert store.found("studies")


def test_rules_are_chosen_by_method_and_path_and_removed_by_delete(store: Client) -> None:
    store.fault(kind="status", method="GET", path="/series")
    assert store.get("series").status_code == 503
    assert store.get("studies").status_code == 204
    rules = store.http.get(f"{store.url}/_faults").json()["rules"]
    assert rules == [
        {
            "kind": "status",
            "method": "GET",
            "path": "/series",
            "acted": 1,
            "seen": 1,
        }
    ]
    assert store.http.delete(f"{store.url}/_faults").json() == {"rules": []}
    assert store.get("series").status_code == 204


def test_skip_lets_the_first_requests_pass(store: Client) -> None:
    store.fault(kind="status", status=500, skip=2, count=1)
    assert [store.get("studies").status_code for _ in range(4)] == [204, 204, 500, 204]


def test_probability_with_a_seed_repeats_itself(store: Client) -> None:
    def run() -> list[int]:
        store.http.delete(f"{store.url}/_faults")
        store.fault(kind="status", probability=0.5, seed=7)
        return [store.get("studies").status_code for _ in range(20)]

    first = run()
    assert first == run()
    assert {204, 503} == set(first)


def test_reset_drops_the_connection_before_or_after_the_work(store: Client) -> None:
    store.fault(kind="reset", method="POST", count=1)
    with pytest.raises(requests.ConnectionError):
        store.post(dicom())
    assert store.found("studies") == []
    store.fault(kind="reset", method="POST", count=1, when="after")
    with pytest.raises(requests.ConnectionError):
        store.post(dicom())
    assert len(store.found("studies")) == 1


def test_a_status_after_the_work_loses_the_answer_alone(store: Client) -> None:
    store.fault(kind="status", status=503, count=1, when="after")
    assert store.post(dicom()).status_code == 503
    assert len(store.found("studies")) == 1


@pytest.mark.parametrize(
    "path", ["studies/1.2", "studies/1.2/series/1.2.3/instances/1.2.3.4", "instances"]
)
def test_truncate_cuts_the_body_visibly(store: Client, path: str) -> None:
    store.stored(dicom(ImageComments="x" * 5000))
    store.fault(kind="truncate", bytes=100, method="GET", count=1)
    accept = "*/*" if path == "instances" else f"{AS_STORED}, application/dicom; transfer-syntax=*"
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        store.get(path, accept)
    assert store.get(path, accept).status_code == 200


def test_slow_waits_and_throttles(store: Client) -> None:
    store.stored(dicom(ImageComments="x" * 4000))
    store.fault(kind="slow", delay_s=0.2, bytes_per_s=20_000, count=1)
    begin = time.monotonic()
    assert store.get("studies/1.2", AS_STORED).status_code == 200
    assert time.monotonic() - begin >= 0.2 + 4000 / 20_000


def test_stale_searches_find_deleted_studies(store: Client) -> None:
    store.stored(dicom())
    store.delete("studies/1.2")
    store.fault(kind="stale", path="dicomWeb/(studies|series)", count=2)
    assert len(store.found("studies")) == 1
    assert len(store.found("series")) == 1
    assert store.found("studies") == []


def test_a_header_carries_a_fault_for_its_own_request(store: Client) -> None:
    answer = store.post(dicom(), X_Fault='{"kind": "status", "status": 500}')
    assert answer.status_code == 500
    assert store.post(dicom()).status_code == 200
    assert store.post(dicom(), X_Fault="nonsense").status_code == 400


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"kind": "flood"},
        {"kind": "status", "colour": "red"},
        {"kind": "reset", "path": "("},
        [1],
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(store: Client, rule: object) -> None:
    assert store.http.post(f"{store.url}/_faults", json=rule).status_code == 400


def test_requests_are_counted_by_method_and_kind(store: Client) -> None:
    store.stored(dicom())
    store.get("studies")
    store.get("studies/1.2/series")
    store.get("studies/1.2", AS_STORED)
    store.get("studies/1.2/metadata")
    store.delete("studies/1.2")
    seen = store.http.get(f"{store.url}/_requests").json()
    expected = {
        "POST store": 1,
        "GET search": 2,
        "GET retrieve": 1,
        "GET metadata": 1,
        "DELETE delete": 1,
    }
    assert seen["counts"] == expected
    assert [one["status"] for one in seen["recent"]] == [200] * 6
    assert store.http.delete(f"{store.url}/_requests").json()["counts"] == {}


def test_2_missing_credentials_are_401_and_missing_rights_403(start: Callable[..., Client]) -> None:
    client = start(tokens=frozenset(["all"]), read_tokens=frozenset(["read"]))
    for token, read, write in (
        ("", 401, 401),
        ("wrong", 401, 401),
        ("read", 204, 403),
        ("all", 204, 200),
    ):
        client.http.headers["Authorization"] = f"Bearer {token}"
        assert client.get("studies").status_code == read
        assert client.post(dicom()).status_code == write
        client.delete("studies/1.2/series/1.2.3/instances/1.2.3.4")
    client.http.headers.pop("Authorization")
    ((error,),) = [client.get("studies").json()]
    assert error["error"]["status"] == "UNAUTHENTICATED"
    assert client.get("studies", access_token="all").status_code == 204
    assert client.http.get(client.store_url).json()["error"]["code"] == 401


def test_2_a_store_that_is_not_there_is_403_when_rights_are_checked_and_404_when_not(
    start: Callable[..., Client],
) -> None:
    guarded = start(tokens=frozenset(["all"]))
    open_store = start()
    guarded.http.headers["Authorization"] = "Bearer all"
    for client, status in ((guarded, 403), (open_store, 404)):
        other = Client(client.url, "projects/x/locations/x/datasets/x/dicomStores/x")
        other.http = client.http
        assert other.get("studies").status_code == status
        assert other.post(dicom()).status_code == status

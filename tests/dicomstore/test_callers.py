"""Only this machine's own programs and pages may call the store, and pages that bring a token."""

from collections.abc import Callable

import pytest
import requests

from tests.dicomstore.kit import Client, dicom

EVIL = "https://evil.example"


def store_as(client: Client, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["Content-Type"] = "application/dicom"
    return requests.post(
        f"{client.web}/studies", data=dicom(), headers=named, timeout=30
    ).status_code


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost.evil.example"])
def test_a_page_of_another_site_stores_nothing(store: Client, origin: str) -> None:
    assert store_as(store, Origin=origin) == 403
    assert store.found("studies") == []


def test_without_tokens_an_authorization_header_does_not_help_a_page(store: Client) -> None:
    assert store_as(store, Origin=EVIL, Authorization="Bearer anything") == 403
    preflight = {"Origin": EVIL, "Access-Control-Request-Headers": "authorization"}
    answer = requests.options(f"{store.web}/studies", headers=preflight, timeout=30)
    assert answer.status_code == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8099"])
def test_a_page_of_this_machine_stores(store: Client, origin: str) -> None:
    assert store_as(store, Origin=origin) == 200


def test_a_name_of_elsewhere_reads_nothing(store: Client) -> None:
    store.stored(dicom())
    answer = store.http.get(f"{store.web}/studies", headers={"Host": "evil.example"}, timeout=30)
    assert answer.status_code == 403
    assert "0020000D" not in answer.text


def test_faults_cannot_be_set_by_a_page_of_another_site(store: Client) -> None:
    rule = {"kind": "status", "status": 503}
    answer = requests.post(f"{store.url}/_faults", json=rule, headers={"Origin": EVIL}, timeout=30)
    assert answer.status_code == 403
    assert store.found("studies") == []


def test_a_page_of_any_site_with_a_token_is_served_by_a_store_that_asks_for_it(
    start: Callable[..., Client],
) -> None:
    client = start(tokens=frozenset({"secret"}))
    assert store_as(client, Origin=EVIL, Authorization="Bearer secret") == 200
    assert store_as(client, Origin=EVIL, Authorization="Bearer wrong") == 401
    assert store_as(client, Origin=EVIL) == 403

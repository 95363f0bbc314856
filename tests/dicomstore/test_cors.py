"""Web pages of other origins: what viewers with a Google configuration send, section 17.

OHIF and slim call the service from the browser with a token. Who may call at all is tested in
`test_callers.py`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.dicomstore.kit import ONE, Client, dicom, gradient, image, part10, process

LOCAL = "http://localhost:3000"
SITE = "https://viewer.example"
TOKEN = {"Authorization": "Bearer secret"}


def preflight(
    url: str, origin: str, method: str = "GET", headers: str = "authorization"
) -> requests.Response:
    """What a browser asks before a request with a token."""
    named = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }
    return requests.options(url, headers=named, timeout=30)


def listed(answer: requests.Response, name: str) -> set[str]:
    return {part.strip().lower() for part in answer.headers.get(name, "").split(",")}


@pytest.fixture
def asking(start: Callable[..., Client]) -> Client:
    """A store that asks for tokens, as the service does."""
    client = start(tokens=frozenset({"secret"}))
    client.http.headers.update(TOKEN)
    return client


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_preflight_with_a_token_announced_is_answered(asking: Client, method: str) -> None:
    answer = preflight(f"{asking.web}/studies", SITE, method, "authorization,content-type")
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    assert method.lower() in listed(answer, "Access-Control-Allow-Methods")
    assert listed(answer, "Access-Control-Allow-Headers") == {"authorization", "content-type"}
    assert "origin" in listed(answer, "Vary")


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("studies", "application/dicom+json"),
        ("studies/1.2/series", "application/dicom+json"),
        ("studies/1.2/series/1.2.3/metadata", "application/dicom+json"),
        (f"{ONE}/frames/1", 'multipart/related; type="application/octet-stream"'),
        (f"{ONE}/rendered", "image/jpeg"),
        ("studies/9", "*/*"),
        ("nowhere", "*/*"),
    ],
)
def test_a_page_may_read_every_answer_to_a_request_with_a_token(
    asking: Client, path: str, accept: str
) -> None:
    asking.stored(part10(image(gradient())))
    headers = {**TOKEN, "Origin": SITE, "Accept": accept}
    answer = requests.get(f"{asking.web}/{path}", headers=headers, timeout=30)
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    assert "origin" in listed(answer, "Vary")


def test_a_page_stores_with_a_token(asking: Client) -> None:
    headers = {**TOKEN, "Origin": SITE, "Content-Type": "application/dicom"}
    answer = requests.post(f"{asking.web}/studies", dicom(), headers=headers, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SITE


def test_a_page_without_a_token_is_refused_and_may_not_read_why(asking: Client) -> None:
    answer = requests.get(f"{asking.web}/studies", headers={"Origin": SITE}, timeout=30)
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_preflight_of_a_foreign_page_is_refused_where_no_token_is_asked_for(
    store: Client,
) -> None:
    answer = preflight(f"{store.web}/studies", SITE)
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_viewer_on_this_machine_needs_no_token(store: Client) -> None:
    store.stored(dicom())
    assert preflight(f"{store.web}/studies", LOCAL).status_code == 200
    answer = requests.get(f"{store.web}/studies", headers={"Origin": LOCAL}, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == LOCAL


def test_an_origin_can_be_allowed_by_a_flag_and_no_other_is(tmp_path: Path) -> None:
    with process(tmp_path, "--allow-origin", SITE) as (client, _):
        assert preflight(f"{client.web}/studies", SITE).status_code == 200
        assert preflight(f"{client.web}/studies", "https://evil.example").status_code == 403


def test_a_fault_on_demand_can_be_read_by_the_page_too(store: Client) -> None:
    rule = '{"kind": "status", "status": 503}'
    headers = {"Origin": LOCAL, "X-Fault": rule}
    answer = requests.get(f"{store.web}/studies", headers=headers, timeout=30)
    assert answer.status_code == 503
    assert answer.headers["Access-Control-Allow-Origin"] == LOCAL


def test_programs_get_no_cors_headers(store: Client) -> None:
    answer = store.get("studies")
    assert not any(name.lower().startswith("access-control") for name in answer.headers)

"""The local stack serves only this machine's own programs and pages, and only its owner can read
its files."""

import os
import stat
import sys
import threading
from pathlib import Path

import psutil
import pytest
import requests

from cli import viewer
from infra.local.stack import Stack
from tests.e2e.conftest import Seen

EVIL = "https://evil.example"


@pytest.mark.parametrize("name", ["search", "store_upload", "delete_resource", "export_resource"])
def test_a_function_refuses_pages_and_names_of_elsewhere(stack: Stack, name: str) -> None:
    for headers in ({"Origin": EVIL}, {"Host": "evil.example"}):
        answer = requests.post(stack.function_url(name), b"{}", headers=headers, timeout=30)
        assert answer.status_code == 403, headers
        assert answer.json()["error"]["status"] == "PERMISSION_DENIED"


BUCKETS = "/storage/v1/b"


@pytest.mark.parametrize(
    "headers", [{"Origin": EVIL}, {"Origin": "null"}, {"Host": "evil.example"}]
)
def test_the_bucket_server_refuses_pages_and_names_of_elsewhere(
    stack: Stack, headers: dict[str, str]
) -> None:
    answer = requests.get(f"{stack.buckets.base}{BUCKETS}", headers=headers, timeout=30)
    assert answer.status_code == 403
    assert "dicom-landing" not in answer.text


def test_a_page_of_elsewhere_cannot_follow_one_of_this_machine_on_its_connection(
    stack: Stack,
) -> None:
    first = {"Origin": "http://localhost:3000"}
    with requests.Session() as browser:
        answer = browser.get(f"{stack.buckets.base}{BUCKETS}", headers=first, timeout=30)
        assert answer.status_code == 200
        assert answer.headers["Connection"] == "close"
        answer = browser.get(f"{stack.buckets.base}{BUCKETS}", headers={"Origin": EVIL}, timeout=30)
        assert answer.status_code == 403


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one loopback address only")
def test_the_bucket_server_itself_is_where_no_page_looks(stack: Stack) -> None:
    gate = psutil.Process(stack.pid("gcs"))
    (server,) = gate.children()
    listening = [at.laddr.ip for at in server.net_connections() if at.status == "LISTEN"]
    assert len(listening) == 1
    assert listening[0].startswith("127.")
    assert listening[0] != "127.0.0.1"


def test_large_objects_pass_the_gate_unchanged(stack: Stack, tmp_path: Path) -> None:
    data = os.urandom(24 * 1024 * 1024)
    stack.buckets.upload("dicom-export", "gate/large", data)
    assert stack.buckets.download("dicom-export", "gate/large") == data


def test_the_search_page_of_this_machine_is_served(stack: Stack) -> None:
    headers = {"Origin": "http://localhost:3000"}
    answer = requests.get(f"{stack.function_url('search')}/studies", headers=headers, timeout=30)
    assert answer.status_code == 200


def test_an_origin_that_the_search_function_allows_is_let_through(tmp_path: Path) -> None:
    settings = {"SEARCH_ORIGINS": f"{EVIL},https://other.example"}
    with Stack(tmp_path, functions=["search"], env=settings) as stack:
        url = f"{stack.function_url('search')}/studies"
        answer = requests.get(url, headers={"Origin": EVIL}, timeout=30)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == EVIL


def test_what_is_kept_is_readable_by_its_owner_alone(
    stack: Stack, seen: Seen, scans: dict[str, Path]
) -> None:
    stack.buckets.upload("dicom-landing", "private/scan.dcm", scans["CT_small.dcm"])
    seen.of("private/scan.dcm")
    open_to_others = [
        path.relative_to(stack.data)
        for path in stack.data.rglob("*")
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert open_to_others == []


def test_a_new_folder_is_closed_to_others(tmp_path: Path) -> None:
    with Stack(tmp_path / "new", functions=[]) as stack:
        assert stat.S_IMODE(stack.data.stat().st_mode) == 0o700


@pytest.fixture
def study(stack: Stack, seen: Seen, scans: dict[str, Path]) -> str:
    """The UID of a study that is stored."""
    stack.buckets.upload("dicom-landing", "urls/scan.dcm", scans["CT_small.dcm"])
    return str(seen.of("urls/scan.dcm")[0]["study"])


def bulkdata(url: str, study: str, headers: dict[str, str] | None = None) -> str:
    answer = requests.get(f"{url}/studies/{study}/metadata", headers=headers, timeout=60)
    return str(answer.json()[0]["7FE00010"]["BulkDataURI"])


def test_urls_keep_their_port_for_a_client_that_sends_none(stack: Stack, study: str) -> None:
    url = stack.function_url("search")
    assert bulkdata(url, study, {"Host": "127.0.0.1"}).startswith(f"{url}/studies/")


def test_urls_that_come_through_the_viewer_lead_back_to_it(
    stack: Stack, study: str, tmp_path: Path
) -> None:
    server = viewer.Viewer(tmp_path, stack.function_url("search"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        uri = bulkdata(server.url, study)
        assert uri.startswith(f"{server.url}/studies/")
        assert requests.get(uri, timeout=60).status_code == 200
    finally:
        server.shutdown()
        server.server_close()


def test_the_viewer_refuses_names_of_elsewhere(stack: Stack, tmp_path: Path) -> None:
    server = viewer.Viewer(tmp_path, stack.function_url("search"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        answer = requests.get(f"{server.url}/studies", headers={"Host": "evil.example"}, timeout=30)
        assert answer.status_code == 403
    finally:
        server.shutdown()
        server.server_close()

"""Which credentials are used, where they are sent, and the error without credentials."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cli.app import main
from cli.clients import Clients
from cli.system import System
from tests.contract.servers import Answer, PlannedServer, planned

PROJECT = "their-project"


def system_file(folder: Path, url: str = "") -> Path:
    """A deployment's file, its services at a URL."""
    store = f"projects/{PROJECT}/locations/l/datasets/d/dicomStores/s"
    names = ("storage", "pubsub", "healthcare", "run", "functions", "credentials")
    system = {
        "project": PROJECT,
        "region": "l",
        "dicom_store": store,
        "buckets": {
            role: f"b-{role}" for role in ("landing", "quarantine", "export", "ledger", "state")
        },
        "search_url": url or "https://search.invalid",
        "search_ingress": "ALLOW_ALL",
        "webhook_secrets": {},
        "delivery": "d@x",
        "build": "b@x",
        "environments": {},
        "accounts": {},
        "endpoints": dict.fromkeys(names, url) if url else {},
    }
    path = folder / "system.json"
    path.write_text(json.dumps(system))
    return path


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a login."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_QUOTA_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def log_in(folder: Path, monkeypatch: pytest.MonkeyPatch, token_server: PlannedServer) -> None:
    """A service account whose tokens come from that server."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "client_email": "me@x",
        "private_key": pem.decode(),
        "token_uri": token_server.url,
        "project_id": "another-project",
    }
    file = folder / "key.json"
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))


@pytest.mark.parametrize(
    "arguments",
    [
        ("upload", __file__),
        ("outcomes",),
        ("doctor", "--no-probe"),
        ("reconcile",),
        ("replay", "dead-letters"),
        ("quarantine", "list"),
        ("delete", "studies/1.2"),
    ],
)
def test_without_credentials_one_line_names_the_login_command(
    nobody: None,
    tmp_path: Path,
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*arguments, "--system", str(system_file(tmp_path))]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: there are no Google Cloud credentials; to log in: "
        "gcloud auth application-default login"
    ]


def test_the_quota_project_is_the_systems(
    nobody: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = json.dumps({"access_token": "t", "expires_in": 3600}).encode()
    with planned(Answer(body=token)) as token_server:
        log_in(tmp_path, monkeypatch, token_server)
        clients = Clients(System.find(system_file(tmp_path)))
        import google.auth.transport.requests

        headers: dict[str, str] = {}
        request = google.auth.transport.requests.Request()
        clients.credentials.before_request(request, "GET", "https://x.invalid", headers)
    assert headers["x-goog-user-project"] == PROJECT


def test_credentials_go_to_https_only(
    nobody: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with planned(Answer(body=b"{}")) as server:
        log_in(tmp_path, monkeypatch, server)
        clients = Clients(System.find(system_file(tmp_path, server.url)))
        list(clients.storage.list_blobs("bucket"))
        clients.call("GET", server.url)
    assert len(server.seen) == 2
    assert not any("authorization" in seen.headers for seen in server.seen)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "you may not do this (GET /storage/v1/b/b-ledger/o)"),
        (404, "not found: GET /storage/v1/b/b-ledger/o"),
        (400, "the service answered 400 (GET /storage/v1/b/b-ledger/o)"),
    ],
)
def test_an_error_names_the_request_and_not_the_servers_text(
    nobody: None, tmp_path: Path, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.dumps({"error": {"message": "Doe^Jane [red]"}}).encode()
    with planned(Answer(status, body=body)) as server:
        assert main(["outcomes", "--system", str(system_file(tmp_path, server.url))]) == 1
    printed = capsys.readouterr().err
    assert text in printed
    assert "Doe" not in printed


def test_a_system_that_does_not_answer_is_one_line(
    nobody: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = system_file(tmp_path, "http://127.0.0.1:9")
    assert main(["search", "--system", str(file)]) == 1
    assert "127.0.0.1:9 does not answer" in capsys.readouterr().err

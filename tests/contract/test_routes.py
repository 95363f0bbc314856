"""How the transport reaches a host: through which proxy, trusting whom, with which credentials."""

import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from functions.common.clients.transport import Request, Transport, drain
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from tests.contract.servers import Answer, planned

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The certificate of 127.0.0.1, signed by itself, and its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + PRIVATE)
    return path


class Seen(http.server.BaseHTTPRequestHandler):
    """Notes the headers of each request, and the subject of the client's certificate."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        connection: Any = self.connection
        server.seen.append({name.lower(): value for name, value in self.headers.items()})
        server.peers.append(connection.getpeercert())
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@contextmanager
def secure_server(certificate: Path, *, wants_client: bool = False) -> Iterator[Any]:
    """An https server that trusts who shows this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Seen)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    server.seen, server.peers = [], []
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A service account whose tokens a server here gives, each once; the tokens to come."""
    tokens = ["first", "second"]
    answers = [
        Answer(200, body=json.dumps({"access_token": token, "expires_in": 3600}).encode())
        for token in tokens
    ]
    with planned(*answers) as server:
        info = {
            "type": "service_account",
            "client_email": "function@p.iam.gserviceaccount.com",
            "private_key": PRIVATE.decode(),
            "token_uri": f"{server.url}/token",
        }
        path = tmp_path / "account.json"
        path.write_text(json.dumps(info))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        yield tokens


def get(url: str) -> int:
    """The status of a GET."""
    response = Transport().send_once(Request("GET", url), Deadline(10))
    drain(response)
    return response.status_code


def secure_url(server: Any) -> str:
    return f"https://127.0.0.1:{server.server_address[1]}/"


def test_plain_http_as_emulators_speak_it_goes_through_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with planned(Answer(502)) as proxy, planned(Answer(200)) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert get(f"{server.url}/v1/x?y=1") == 200
        assert [seen.target for seen in server.seen] == ["/v1/x?y=1"]
        assert not proxy.seen


def test_a_host_that_needs_no_proxy_is_reached_without(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, account: list[str]
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with planned(Answer(502)) as proxy, secure_server(certificate) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert get(secure_url(server)) == 200
        assert not [seen for seen in proxy.seen if seen.target.startswith("127.0.0.1")]


def test_https_goes_through_a_tunnel_of_the_proxy(
    monkeypatch: pytest.MonkeyPatch, account: list[str]
) -> None:
    with planned(Answer(502)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(RetryableError, match="unavailable"):
            get("https://store.example/v1")
        # google-auth asks in the background in which regions the account may be used.
        (seen,) = [seen for seen in proxy.seen if not seen.target.startswith("iamcredentials")]
        assert seen.method == "CONNECT"
        assert seen.target == "store.example:443"
        assert "authorization" not in seen.headers


def test_a_server_is_trusted_by_the_bundle_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, account: list[str]
) -> None:
    with secure_server(certificate) as server:
        with pytest.raises(RetryableError, match="unavailable"):
            get(secure_url(server))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert get(secure_url(server)) == 200
        assert [seen["authorization"] for seen in server.seen] == ["Bearer second"]


def test_requests_count_for_the_quota_project(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, account: list[str]
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "hospital")
    with secure_server(certificate) as server:
        get(secure_url(server))
        assert server.seen[0]["x-goog-user-project"] == "hospital"


def test_without_credentials_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with secure_server(certificate) as server:
        with pytest.raises(RetryableError, match="unauthorized"):
            get(secure_url(server))
        assert not server.seen


def test_a_client_certificate_is_shown_where_the_environment_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, tmp_path: Path, account: list[str]
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("GOOGLE_API_USE_CLIENT_CERTIFICATE", "true")
    workload = {"cert_path": str(certificate), "key_path": str(certificate)}
    config = tmp_path / "certificate_config.json"
    config.write_text(json.dumps({"cert_configs": {"workload": workload}}))
    monkeypatch.setenv("GOOGLE_API_CERTIFICATE_CONFIG", str(config))
    with secure_server(certificate, wants_client=True) as server:
        assert get(secure_url(server)) == 200
        assert server.peers[0]["subject"] == ((("commonName", "127.0.0.1"),),)

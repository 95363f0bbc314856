"""The way to the DICOM store, as it is in the cloud: over TLS, with the certificates that certifi
has."""

import datetime
import ipaddress
import ssl
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from functions.search.answers import RefusedError
from functions.search.relay import fetch
from tests.search.kit import Answer, fake_store


def certificate(folder: Path) -> tuple[Path, Path]:
    """One for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now - day, now + day)
    signed = builder.add_extension(names, False).add_extension(
        x509.BasicConstraints(True, None), True
    )
    certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
    certificate_file.write_bytes(
        signed.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    private = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    )
    return certificate_file, key_file


@pytest.mark.parametrize("trusted", [True, False])
def test_a_secure_server_is_read_only_when_it_is_who_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    own, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    if trusted:
        monkeypatch.setattr(certifi, "where", lambda: str(own))
    with fake_store(context) as store:
        store.answers(Answer(body=b'{"a": 1}'))
        url = f"{store.url}/certs"
        if trusted:
            assert fetch(url) == b'{"a": 1}'
        else:
            with pytest.raises(RefusedError) as caught:
                fetch(url)
            assert caught.value.reason == "unavailable"


def test_a_document_that_is_not_there_is_unavailable() -> None:
    with fake_store() as store:
        store.answers(Answer(404, b"no"))
        with pytest.raises(RefusedError):
            fetch(f"{store.url}/certs")
    with pytest.raises(RefusedError):
        fetch(f"{store.url}/certs")

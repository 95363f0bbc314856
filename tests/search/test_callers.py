"""Who may call: tokens signed with the tests' own keys, whose certificates the function fetches
from a local server."""

import base64
import datetime
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import flask
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from werkzeug.test import EnvironBuilder

from functions.common.errors import SettingsError
from functions.common.settings import SEARCH, Settings
from functions.search import cors
from tests.contract.topics import TopicServer, topic_server
from tests.search.kit import STORE, Answer, FakeStore, Function, Received, fake_store, function, row

AUDIENCE = "https://search.example.org"
EXPORTS = "projects/local/topics/exports"
VIEWER = "https://viewer.example.org"
CALLERS = {
    "Reader@Example.org": {},
    "trial@p.iam.gserviceaccount.com": {"PatientID": "7"},
    "1234567": {},
    "one-study@example.org": {"StudyInstanceUID": "1.2"},
}
INSTANCE = "/studies/1.2/series/1.3/instances/1.4"


class Signer:
    """One of Google's keys, if it were Google's."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = x509.CertificateBuilder(
            name, name, self.key.public_key(), 7, now - day, now + day
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()

    def token(self, algorithm: str = "RS256", **changes: object) -> str:
        """A token like Google's, with some claims changed; None leaves a claim out."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "sub": "99",
            "email": "reader@example.org",
            "email_verified": True,
            "iat": now - 5,
            "exp": now + 600,
        }
        claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        header = {"alg": algorithm, "kid": self.key_id, "typ": "JWT"}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer("key-1")


@pytest.fixture(scope="module")
def keys(signer: Signer) -> Iterator[FakeStore]:
    with fake_store() as server:
        server.answers(Answer(body=json.dumps({signer.key_id: signer.certificate}).encode()))
        yield server


@pytest.fixture(scope="module")
def topics() -> Iterator[TopicServer]:
    with topic_server(EXPORTS) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(
    store: FakeStore,
    keys: FakeStore,
    topics: TopicServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Function]:
    settings = {
        "SEARCH_CALLERS": json.dumps(CALLERS),
        "SEARCH_AUDIENCE": f"https://other.example.org, {AUDIENCE}",
        "ID_TOKEN_KEYS_URL": f"{keys.url}/oauth2/v1/certs",
        "SEARCH_EXPORTS": "true",
        "SEARCH_UPLOADS": "true",
        "LANDING_BUCKET": "landing",
        "EXPORTS_TOPIC": EXPORTS,
        "EXPORT_DESTINATIONS": "gs://exports/trials",
        "PUBSUB_EMULATOR_HOST": topics.address,
        "SEARCH_ORIGINS": VIEWER,
    }
    with function(store.url, tmp_path_factory.mktemp("guarded"), **settings) as running:
        yield running


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"email": None, "sub": "1234567"},
        {"aud": "https://other.example.org"},
    ],
)
def test_a_listed_caller_is_let_through(
    guarded: Function, store: FakeStore, signer: Signer, changes: dict[str, Any]
) -> None:
    received = store.answers(Answer(body=json.dumps([row(t0020000D="1.2")]).encode()))
    reply = guarded.send("/studies", headers=bearer(signer.token(**changes)))
    assert reply.status == 200
    # The caller's token is not sent on.
    assert len(received) == 1
    assert "Authorization" not in received[0].headers


def test_the_keys_that_sign_tokens_are_fetched_once(
    guarded: Function, store: FakeStore, keys: FakeStore, signer: Signer
) -> None:
    store.answers(Answer())
    guarded.send("/studies", headers=bearer(signer.token()))
    before = len(keys.received)
    assert before > 0
    guarded.send("/studies", headers=bearer(signer.token()))
    assert len(keys.received) == before


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"email": "stranger@example.org"}, 403),
        ({"email_verified": False}, 403),
        ({"email_verified": None}, 403),
        ({"email": None}, 403),
        ({"aud": "https://elsewhere.example.org"}, 401),
        ({"aud": None}, 401),
        ({"iss": "https://accounts.example.org"}, 401),
        ({"exp": int(time.time()) - 100}, 401),
        ({"exp": None}, 401),
        ({"exp": "tomorrow"}, 401),
        ({"exp": []}, 401),
        ({"iat": "yesterday"}, 401),
        ({"iss": ["https://accounts.google.com"]}, 401),
        ({"sub": {"a": 1}, "email": ["a"]}, 403),
        ({"iat": int(time.time()) + 86_400}, 401),
        ({"algorithm": "none"}, 401),
        ({"algorithm": "HS256"}, 401),
    ],
)
def test_any_other_token_is_not(
    guarded: Function, store: FakeStore, signer: Signer, changes: dict[str, object], status: int
) -> None:
    received = store.answers(Answer())
    reply = guarded.send("/studies", headers=bearer(signer.token(**changes)))  # type: ignore[arg-type]
    assert reply.status == status
    assert reply.reason == "forbidden" if status == 403 else "unauthenticated"
    assert received == []
    assert (reply.headers.get("www-authenticate") == "Bearer") == (status == 401)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer x",
        "Bearer a.b.c",
        "Basic dTpw",
        "Bearer " + "a" * 5000,
        f"Bearer {_encoded(b'[' * 1400)}.{_encoded(b'{}')}.c",
    ],
)
def test_without_a_token_nothing_is_answered(
    guarded: Function, store: FakeStore, header: str
) -> None:
    received = store.answers(Answer())
    headers = {"Authorization": header} if header else {}
    for path in ("/studies", INSTANCE, f"{INSTANCE}/rendered", "/config.json"):
        reply = guarded.send(path, headers=headers)
        assert reply.status == 401
        assert "token" not in reply.headers.get("set-cookie", "")
        assert len(header) < 9 or header[7:] not in reply.body.decode()
    assert received == []
    assert guarded.send("/").status == 200
    assert guarded.send("/studies", "OPTIONS").status == 204


def test_a_token_signed_by_another_key_is_refused(guarded: Function, signer: Signer) -> None:
    for forger in (Signer(signer.key_id), Signer("unknown-key")):
        assert guarded.send("/studies", headers=bearer(forger.token())).status == 401
    token = signer.token()
    head, body, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed["email"] = "trial@p.iam.gserviceaccount.com"
    assert (
        guarded.send(
            "/studies",
            headers=bearer(f"{head}.{_encoded(json.dumps(changed).encode())}.{signature}"),
        ).status
        == 401
    )
    removed = f"{head}.{body}.SIGNATURE_REMOVED_BY_GOOGLE"
    assert guarded.send("/studies", headers=bearer(removed)).status == 401


# Limited to some data


@pytest.fixture
def limited(guarded: Function, store: FakeStore, signer: Signer) -> dict[str, str]:
    """The headers of a caller who may see patient 7 only. The store holds study 1.2 of that
    patient."""

    def plan(request: Received) -> Answer:
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        mine = query.get("PatientID") == "7" and query.get("StudyInstanceUID", "1.2") == "1.2"
        if request.path == "studies":
            return (
                Answer(body=json.dumps([row(t0020000D="1.2")]).encode())
                if mine
                else Answer(204, b"")
            )
        return Answer(body=b"[]")

    store.answers(Answer())
    store.plan = plan
    return bearer(signer.token(email="trial@p.iam.gserviceaccount.com"))


@pytest.mark.parametrize(
    "path", ["/studies", "/series", "/instances", "/studies/1.2/series", "/studies/1.2/instances"]
)
def test_the_fixed_filter_is_part_of_every_search(
    guarded: Function, store: FakeStore, limited: dict[str, str], path: str
) -> None:
    for query in (
        "",
        "?fuzzymatching=true",
        "?PatientID=7",
        "?00100020=7",
        "?PatientID=*",
        "?PatientID=",
    ):
        guarded.send(path + query, headers=limited)
        assert parse_qs(store.received[-1].query)["PatientID"] == ["7"]
    reply = guarded.query(path + "/_query", {"PatientName": "Doe"}, **limited)
    assert reply.status == 200
    assert parse_qs(store.received[-1].query)["PatientID"] == ["7"]
    guarded.send(
        path + ("?StudyInstanceUID=1.2,1.9" if path == "/studies" else ""), headers=limited
    )
    assert parse_qs(store.received[-1].query)["PatientID"] == ["7"]


@pytest.mark.parametrize(
    "query", ["PatientID=8", "00100020=8", "PatientID=7*", "PatientID=7&PatientID=8"]
)
def test_the_fixed_filter_cannot_be_changed(
    guarded: Function, store: FakeStore, limited: dict[str, str], query: str
) -> None:
    store.received.clear()
    reply = guarded.send(f"/studies?{query}", headers=limited)
    assert reply.status in (400, 403)
    assert reply.parameter == "PatientID"
    assert store.received == []


def test_other_studies_do_not_exist_for_a_limited_caller(
    guarded: Function, store: FakeStore, limited: dict[str, str]
) -> None:
    assert guarded.send("/studies/1.2/metadata", headers=limited).status == 200
    for path in (
        "/studies/1.9",
        "/studies/1.9/metadata",
        "/studies/1.9/series/1.3/instances/1.4/rendered",
        "/studies/1.9/series",
        "/studies/1.9/instances",
    ):
        reply = guarded.send(path, headers=limited)
        assert reply.status == 404
        assert reply.reason == "not_found"
    assert guarded.query("/studies/1.9/series/_query", {}, **limited).reason == "not_found"
    assert all("1.9" not in request.path for request in store.received)


def test_other_studies_do_not_exist_for_a_caller_of_one_study(
    guarded: Function, store: FakeStore, signer: Signer
) -> None:
    store.answers(Answer(body=json.dumps([row(t0020000D="1.2")]).encode()))
    headers = bearer(signer.token(email="one-study@example.org"))
    assert guarded.send("/studies/1.2/metadata", headers=headers).status == 200
    reply = guarded.send("/studies/1.9/metadata", headers=headers)
    assert (reply.status, reply.reason) == (404, "not_found")
    assert all("1.9" not in request.path for request in store.received)


def test_exports_stay_inside_the_callers_data_and_the_allowed_places(
    guarded: Function, topics: TopicServer, limited: dict[str, str]
) -> None:
    command = {
        "path": "studies/1.2",
        "destination": "gs://exports/trials/7",
        "format": "jpeg",
    }

    def ask(**changes: str) -> int:
        headers = {"Content-Type": "application/json", **limited}
        return guarded.send(
            "/exports", "POST", headers, json.dumps({**command, **changes}).encode()
        ).status

    assert ask() == 202
    message = topics.messages[EXPORTS][-1]
    sent = json.loads(base64.b64decode(message["data"]))
    assert {name: sent[name] for name in command} == command
    assert sent["request_id"]
    assert ask(path="studies/1.9") == 404
    for changes in (
        {"destination": "gs://exports"},
        {"destination": "gs://exports/trialsx"},
        {"destination": "gs://elsewhere"},
    ):
        assert ask(**changes) == 403
    for changes in (
        {"path": "studies/x"},
        {"format": "exe"},
        {"more": "x"},
        {"destination": "gs://exports/trials/../x"},
        {"path": "7"},
    ):
        assert ask(**changes) == 400


def test_a_caller_who_sees_only_some_data_may_not_upload(
    guarded: Function, limited: dict[str, str]
) -> None:
    assert guarded.query("/uploads", {"size": 1}, **limited).reason == "forbidden"
    assert guarded.query("/uploads", {"size": 1}).reason == "unauthenticated"


def test_the_page_offers_uploads_to_callers_who_may_upload(
    guarded: Function, limited: dict[str, str], signer: Signer
) -> None:
    assert guarded.send("/config.json", headers=limited).json()["uploads"] is None
    assert guarded.send("/config.json", headers=bearer(signer.token())).json()["uploads"]


def test_another_sites_page_cannot_ask_for_exports(
    guarded: Function, limited: dict[str, str]
) -> None:
    body = json.dumps(
        {
            "path": "studies/1.2",
            "destination": "gs://exports/trials/7",
            "format": "jpeg",
        }
    ).encode()
    headers = {"Content-Type": "application/json", **limited}
    assert (
        guarded.send("/exports", "POST", {**headers, "Origin": "https://evil.example"}, body).status
        == 403
    )
    # It may read answers (SEARCH_ORIGINS), but not change anything.
    assert guarded.send("/exports", "POST", {**headers, "Origin": VIEWER}, body).status == 403
    assert guarded.send("/exports", "POST", {**headers, "Origin": guarded.url}, body).status == 202
    assert (
        guarded.send("/exports", "POST", {**headers, "Content-Type": "text/plain"}, body).status
        == 415
    )


@pytest.mark.parametrize(
    ("site", "status"),
    [("same-origin", 202), ("same-site", 403), ("cross-site", 403), ("none", 403)],
)
def test_the_page_may_ask_for_exports_through_a_proxy_that_names_another_host(
    guarded: Function, limited: dict[str, str], site: str, status: int
) -> None:
    """`gcloud run services proxy`: Host is the service's, Origin where the proxy listens."""
    body = json.dumps(
        {
            "path": "studies/1.2",
            "destination": "gs://exports/trials/7",
            "format": "jpeg",
        }
    ).encode()
    headers = {
        "Host": "search-abc.a.run.app",
        "Origin": "http://localhost:8080",
        "Sec-Fetch-Site": site,
    }
    reply = guarded.send(
        "/exports",
        "POST",
        {
            "Content-Type": "application/json",
            **limited,
            **headers,
        },
        body,
    )
    assert reply.status == status


def test_tokens_and_keys_stay_out_of_the_log(guarded: Function, signer: Signer) -> None:
    token = signer.token()
    guarded.send("/studies", headers=bearer(token))
    assert token[:20] not in guarded.log()
    assert "Traceback" not in guarded.log()


# Settings


def settings(**environment: str) -> Settings:
    return Settings.load(SEARCH, {"DICOM_STORE": STORE, **environment})


def test_callers_are_a_list_or_a_table() -> None:
    assert settings(SEARCH_CALLERS="a@b.org, c@d.org").search_callers == {
        "a@b.org": {},
        "c@d.org": {},
    }
    for space in ("", " ", "\n"):
        table = space + '{"a@b.org": {"PatientID": "7"}}'
        assert settings(SEARCH_CALLERS=table).search_callers == {"a@b.org": {"PatientID": "7"}}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '{"a": {"PatientName": "x"}}',
        '{"a": {"PatientID": ""}}',
        '{"a": {"PatientID": "7*"}}',
        "{",
    ],
)
def test_a_filter_that_would_not_hold_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="SEARCH_CALLERS"):
        settings(SEARCH_CALLERS=text)


@pytest.mark.parametrize("text", ["{}", "{ }", ",", " , "])
def test_a_list_without_a_caller_does_not_mean_everyone(text: str) -> None:
    with pytest.raises(SettingsError, match="SEARCH_CALLERS lists nobody"):
        settings(SEARCH_CALLERS=text)
    assert settings(SEARCH_CALLERS="").search_callers == {}


@pytest.mark.parametrize(
    "text", ["evil.example", "https://a.example/path", "https://*.example.org", "HTTPS://A.example"]
)
def test_an_origin_is_written_as_browsers_send_it(text: str) -> None:
    with pytest.raises(SettingsError, match="SEARCH_ORIGINS"):
        settings(SEARCH_ORIGINS=text)


def request_of(origin: str) -> flask.Request:
    return flask.Request(EnvironBuilder(headers=[("Origin", origin)]).get_environ())


def test_a_wildcard_goes_without_credentials() -> None:
    headers = cors.headers_for(("*",), request_of("https://a.example"))
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in headers


def test_without_allowed_origins_no_page_may_read() -> None:
    assert cors.headers_for((), request_of("https://a.example")) == {}

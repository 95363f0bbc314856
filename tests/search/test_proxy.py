"""The function over real sockets, in front of a store that answers as planned by each test."""

import gzip
import json
import socket
import threading
from urllib.parse import parse_qs

import pytest

from tests.search.conftest import ORIGIN
from tests.search.kit import PREFIX, STORE, Answer, FakeStore, Function, Received, row

INSTANCE = "/studies/1.2/series/1.3/instances/1.4"
SECRET = "Planted^Patient"


def rows(count: int, start: int = 0) -> bytes:
    return json.dumps([row(t0020000D=f"1.2.{start + number}") for number in range(count)]).encode()


# Searching


@pytest.mark.parametrize(
    "path",
    [
        "studies",
        "series",
        "instances",
        "studies/1.2/series",
        "studies/1.2/instances",
        "studies/1.2/series/1.3/instances",
    ],
)
def test_every_search_path_reaches_the_stores_path(
    search: Function, store: FakeStore, path: str
) -> None:
    received = store.answers(Answer(body=rows(2)))
    for reply in (
        search.send(f"/{path}?PatientID=P%201&limit=5"),
        search.query(f"/{path}/_query", {"PatientID": "P 1", "limit": 5}),
    ):
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/dicom+json"
        assert len(reply.json()) == 2
    assert {one.path for one in received} == {path}
    assert {one.query for one in received} == {"PatientID=P%201&limit=6"}
    assert received[0].headers["Accept"] == "application/dicom+json"


def test_a_form_is_as_good_as_json(search: Function, store: FakeStore) -> None:
    received = store.answers(Answer())
    fields = b"includefield=StudyDescription&includefield=PatientAge"
    body = b"PatientName=M%C3%BCller%5EJ%2A&limit=3&" + fields
    reply = search.send(
        "/studies/_query", "POST", {"Content-Type": "application/x-www-form-urlencoded"}, body
    )
    assert reply.json() == []
    assert parse_qs(received[0].query) == {
        "PatientName": ["Müller^J"],
        "fuzzymatching": ["true"],
        "includefield": ["StudyDescription"],
        "limit": ["4"],
    }
    assert "PatientAge" in reply.headers["warning"]


@pytest.mark.parametrize(
    "answer", [Answer(204, b""), Answer(200, b""), Answer(200, b"[]"), Answer(200, b" ", {})]
)
def test_nothing_found_is_an_empty_array(
    search: Function, store: FakeStore, answer: Answer
) -> None:
    store.answers(answer)
    assert search.send("/studies").json() == []
    assert search.send("/studies", headers={"Accept": "text/csv"}).body.count(b"\r\n") == 1


def test_a_cut_answer_says_so_and_leads_to_the_next_page(
    search: Function, store: FakeStore
) -> None:
    store.answers(Answer(body=rows(4)))
    reply = search.send("/studies?PatientName=D%C3%B6e&limit=3&offset=6")
    assert len(reply.json()) == 3
    assert "There are more results" in reply.headers["warning"]
    assert (
        reply.headers["link"]
        == f'<{search.url}/studies?PatientName=D%C3%B6e&limit=3&offset=9>; rel="next"'
    )
    reply = search.query("/studies/_query", {"PatientName": SECRET, "limit": 3})
    assert reply.headers["link"] == f'<{search.url}/studies/_query?limit=3&offset=3>; rel="next"'
    received = store.answers(Answer(body=rows(3)))
    reply = search.send(
        "/studies/_query?limit=3&offset=3",
        "POST",
        {"Content-Type": "application/json"},
        b'{"limit": 9}',
    )
    assert "link" not in reply.headers
    assert "warning" not in reply.headers
    assert received[0].query == "limit=4&offset=3"


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("large", [True, False])
def test_a_full_large_page_is_probed_for_more(
    search: Function, store: FakeStore, more: bool, large: bool
) -> None:
    count = 4000 if large else 500

    def plan(request: Received) -> Answer:
        offset = int(parse_qs(request.query).get("offset", ["0"])[0])
        return (
            Answer(body=rows(count))
            if offset < count
            else Answer(*((200, rows(1)) if more else (204, b"")))
        )

    store.answers(Answer())
    store.plan = plan
    reply = search.send(f"/instances?limit={count}")
    assert len(reply.json()) == count
    assert ("link" in reply.headers) == more


def test_a_limit_over_the_stores_is_clamped(search: Function, store: FakeStore) -> None:
    received = store.answers(Answer())
    reply = search.send("/studies?limit=6000")
    assert received[0].query == "limit=5000"
    assert "lowered to 5000" in reply.headers["warning"]


def test_an_attribute_that_only_the_store_can_judge_is_dropped_when_it_refuses(
    search: Function, store: FakeStore
) -> None:
    store.answers(Answer())
    store.plan = lambda request: (
        Answer(400, b"unknown/unsupported") if "Nonsense" in request.query else Answer(body=rows(1))
    )
    reply = search.send("/instances?includefield=PixelSpacing,Nonsense,Rows")
    assert reply.status == 200
    assert (
        reply.headers["warning"] == '299 dicom-functions "the DICOM store cannot include Nonsense"'
    )
    assert "includefield=PixelSpacing&includefield=Rows" in store.received[-1].query
    before = len(store.received)
    search.send("/instances?includefield=PixelSpacing,Nonsense")
    assert len(store.received) == before + 2  # what was learnt is remembered


def test_a_spreadsheet_has_a_line_for_each_row(search: Function, store: FakeStore) -> None:
    store.answers(Answer(body=rows(3)))
    reply = search.send(
        "/studies?includefield=StudyDescription&limit=2", headers={"Accept": "text/csv"}
    )
    lines = reply.body.decode("utf-8-sig").splitlines()
    assert lines[0].startswith('"PatientName","PatientID",')
    assert len(lines) == 3
    assert reply.headers["content-type"].startswith("text/csv")
    assert reply.headers["content-disposition"] == 'attachment; filename="studies.csv"'
    assert "link" in reply.headers


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/dicom+json"),
        ("application/json", "application/json"),
        ("text/csv;q=0.5, application/json;q=0.4", "text/csv; charset=utf-8; header=present"),
        (
            'multipart/related; type="application/dicom+xml", application/*;q=0.1',
            "application/dicom+json",
        ),
        ("text/html, */*;q=0.8", "application/dicom+json"),
    ],
)
def test_accept_decides_the_form(
    search: Function, store: FakeStore, accept: str, kind: str
) -> None:
    store.answers(Answer(body=rows(1)))
    assert search.send("/studies", headers={"Accept": accept}).headers["content-type"] == kind


def test_a_form_that_cannot_be_made_is_406(search: Function) -> None:
    for accept in ("application/dicom+xml", "text/html", "application/json;q=0"):
        assert search.send("/studies", headers={"Accept": accept}).reason == "not_acceptable"


# Retrieving


def test_a_retrieve_passes_through_as_it_is(search: Function, store: FakeStore) -> None:
    body = bytes(range(256)) * 5000
    kind = 'multipart/related; type="application/dicom"; boundary=abc'
    received = store.answers(Answer(body=body, headers={"Content-Type": kind, "ETag": '"e"'}))
    reply = search.send(
        INSTANCE, headers={"Accept": kind.replace("boundary=abc", "transfer-syntax=*")}
    )
    assert reply.body == body
    assert reply.headers["content-type"] == kind
    assert reply.headers["etag"] == '"e"'
    assert reply.headers["content-length"] == str(len(body))
    assert received[0].path == INSTANCE[1:]
    assert (
        received[0].headers["Accept"]
        == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    )
    assert received[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("path", "accept", "sent"),
    [
        ("/studies/1.2", "*/*", 'multipart/related; type="application/dicom"; transfer-syntax=*'),
        (
            INSTANCE,
            "text/html,application/xml;q=0.9,*/*;q=0.8",
            "application/dicom; transfer-syntax=*",
        ),
        (f"{INSTANCE}/metadata", "*/*", "application/dicom+json"),
        (f"{INSTANCE}/rendered", "image/avif,image/webp,image/*,*/*;q=0.8", "image/jpeg"),
        (f"{INSTANCE}/rendered", "image/png", "image/png"),
        (f"{INSTANCE}/rendered", "image/avif,image/png,image/*;q=0.8,*/*;q=0.5", "image/jpeg"),
        (
            f"{INSTANCE}/frames/1",
            "*/*",
            'multipart/related; type="application/octet-stream"; transfer-syntax=*',
        ),
        (f"{INSTANCE}/frames/1", "application/octet-stream; transfer-syntax=*, */*", None),
        (f"{INSTANCE}/bulkdata/7FE00010", "*/*", "application/octet-stream; transfer-syntax=*"),
    ],
)
def test_callers_who_accept_anything_get_the_stored_bytes(
    search: Function, store: FakeStore, path: str, accept: str, sent: str | None
) -> None:
    received = store.answers(
        Answer(body=b"x", headers={"Content-Type": "application/octet-stream"})
    )
    assert search.send(path, headers={"Accept": accept}).status == 200
    assert received[0].headers["Accept"] == (sent or accept)


def test_ranges_and_conditions_are_kept(search: Function, store: FakeStore) -> None:
    octets = {
        "Content-Type": "application/octet-stream",
        "Content-Range": "bytes 2-4/9",
        "Accept-Ranges": "bytes",
    }
    received = store.answers(Answer(206, b"cde", octets))
    reply = search.send(INSTANCE, headers={"Range": "bytes=2-4", "If-Range": '"e"'})
    assert reply.status == 206
    assert reply.body == b"cde"
    assert reply.headers["content-range"] == "bytes 2-4/9"
    assert received[0].headers["Range"] == "bytes=2-4"
    assert received[0].headers["If-Range"] == '"e"'
    store.answers(Answer(304, b"", {"ETag": '"e"'}))
    assert search.send(INSTANCE, headers={"If-None-Match": '"e"'}).status == 304
    store.answers(Answer(416, b"no"))
    assert search.send(INSTANCE, headers={"Range": "bytes=99-"}).reason == "range_not_satisfiable"


def test_metadata_has_no_ranges_because_its_urls_are_replaced(
    search: Function, store: FakeStore
) -> None:
    octets = {"Content-Type": "application/dicom+json", "Accept-Ranges": "bytes"}
    received = store.answers(Answer(body=b"[]", headers=octets))
    headers = {"Range": "bytes=0-1", "If-Range": '"e"'}
    reply = search.send(f"{INSTANCE}/metadata", headers=headers)
    assert reply.status == 200
    assert "accept-ranges" not in reply.headers
    assert received[0].headers.keys().isdisjoint({"Range", "If-Range"})


@pytest.mark.parametrize("pieces", [1, 7, 100_000])
def test_the_stores_urls_are_replaced_by_the_functions(
    search: Function, store: FakeStore, pieces: int
) -> None:
    """On the host that was asked, and on another: a regional or private endpoint may answer with
    the common name."""
    roots = (f"{store.url}/v1", f"{store.url}/v1beta1", "https://healthcare.googleapis.com/v1")
    uris = [f"{root}/{STORE}/dicomWeb{INSTANCE}/bulkdata/7FE00010" for root in roots]
    other = f"https://healthcare.googleapis.com/v1/{STORE}2/dicomWeb/studies"
    data = json.dumps(
        [{"7FE00010": {"vr": "OW", "BulkDataURI": uri}} for uri in [*uris, other]]
    ).encode()
    body = [data[start : start + pieces] for start in range(0, len(data), pieces)]
    for path in (f"{INSTANCE}/metadata", "/instances"):
        store.answers(Answer(body=list(body)))
        found = [one["7FE00010"]["BulkDataURI"] for one in search.send(path).json()]
        assert found == [f"{search.url}{INSTANCE}/bulkdata/7FE00010"] * 3 + [other]


def test_the_callers_way_here_is_kept_in_urls(search: Function, store: FakeStore) -> None:
    store.answers(Answer(body=rows(2)))
    headers = {"Host": "search.example.org", "X-Forwarded-Proto": "https"}
    connection_headers = search.send("/studies?limit=1", headers=headers).headers
    assert connection_headers["link"].startswith("<https://search.example.org/studies?")
    for host in ("evil.example/x", 'a"b', "a b", ""):
        reply = search.send("/studies?limit=1", headers={"Host": host})
        assert reply.status == 400


def test_what_a_browser_could_run_is_sent_as_bytes(search: Function, store: FakeStore) -> None:
    for kind in ("text/html", "image/svg+xml", "text/javascript", "nonsense"):
        store.answers(Answer(body=b"<script>", headers={"Content-Type": kind}))
        reply = search.send(f"{INSTANCE}/rendered")
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in reply.headers["content-security-policy"]


def test_an_encoded_answer_is_passed_on_encoded(search: Function, store: FakeStore) -> None:
    packed = gzip.compress(b"[]")
    store.answers(Answer(body=packed, headers={"Content-Encoding": "gzip"}))
    reply = search.send(f"{INSTANCE}/metadata")
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.body == packed


def test_parameters_of_a_retrieve_are_checked(search: Function, store: FakeStore) -> None:
    received = store.answers(Answer(body=b"x", headers={"Content-Type": "image/png"}))
    assert search.send(f"{INSTANCE}/rendered?viewport=100,80&accept=image/png").status == 200
    assert received[0].query == "viewport=100,80"
    assert received[0].headers["Accept"] == "image/png"
    for query, blamed in (
        ("viewport=a", "viewport"),
        ("quality=3", "quality"),
        ("access_token=t", "access_token"),
    ):
        reply = search.send(f"{INSTANCE}/rendered?{query}")
        assert reply.reason == "invalid_parameter"
        assert reply.parameter == blamed
    assert search.send(f"{INSTANCE}/metadata?viewport=1,1").parameter == "viewport"


def test_head_answers_as_get_without_a_body(search: Function, store: FakeStore) -> None:
    received = store.answers(Answer(body=rows(1)))
    for path in ("/studies", "/", f"{INSTANCE}/metadata"):
        reply = search.send(path, "HEAD")
        assert reply.status == 200
        assert reply.body == b""
    assert {one.method for one in received} == {"GET"}


# Refusing


@pytest.mark.parametrize(
    ("upstream", "status", "reason"),
    [
        (400, 400, "rejected"),
        (401, 502, "unauthorized"),
        (403, 502, "unauthorized"),
        (404, 404, "not_found"),
        (406, 406, "not_acceptable"),
        (409, 409, "conflict"),
        (410, 410, "gone"),
        (416, 416, "range_not_satisfiable"),
        (429, 429, "rate_limited"),
        (500, 502, "unavailable"),
        (501, 502, "unavailable"),
        (503, 503, "overloaded"),
        (504, 504, "deadline_exceeded"),
        (302, 502, "unavailable"),
        (0, 502, "unavailable"),
    ],
)
def test_the_stores_refusals_become_sensible_answers_without_its_words(
    search: Function, store: FakeStore, upstream: int, status: int, reason: str
) -> None:
    words = json.dumps([{"error": {"message": f"{SECRET} {PREFIX}"}}]).encode()
    headers = {
        "Retry-After": "17",
        "Location": "http://elsewhere.example/",
        "WWW-Authenticate": "Bearer realm=x",
    }
    for path in (f"{INSTANCE}/metadata", "/studies/1.2/series"):
        store.answers(Answer(upstream, words, headers))
        reply = search.send(path)
        assert reply.status == status
        assert reply.reason == reason
        assert reply.json()["error"]["message"]
        assert reply.headers["content-type"] == "application/json"
        assert SECRET.encode() not in reply.body
        assert b"projects/" not in reply.body
        assert "location" not in reply.headers
        if upstream:
            assert reply.headers["retry-after"] == "17"


def test_a_store_that_is_not_there_is_no_empty_answer(search: Function, store: FakeStore) -> None:
    store.answers(Answer(404, b'"gone"'))
    assert search.send("/studies").reason == "unavailable"


@pytest.mark.parametrize("body", [b"<html>", b'{"error": 1}', b"[1]", b'[{"a":', b"\xff\xfe"])
def test_an_answer_that_makes_no_sense_is_502(
    search: Function, store: FakeStore, body: bytes
) -> None:
    store.answers(Answer(body=body))
    assert search.send("/studies").reason == "unavailable"
    store.answers(Answer(body=body, headers={"Content-Type": "text/html"}))
    assert search.send("/studies").status == 502


def test_a_store_that_takes_too_long_is_504(search: Function, store: FakeStore) -> None:
    store.answers(Answer(delay_s=30))
    reply = search.send("/studies")
    assert reply.status == 504
    assert reply.reason == "deadline_exceeded"


def test_a_kept_connection_that_the_store_closed_is_no_failure(
    search: Function, store: FakeStore
) -> None:
    for _ in range(5):
        store.answers(Answer(body=rows(1), headers={"Connection": "close"}))
        assert search.send("/studies").status == 200
    store.answers(Answer(body=rows(1)), Answer(0), Answer(body=rows(1)))
    assert [search.send("/studies").status for _ in range(2)] == [200, 200]


def raw_answer(search: Function, target: str, accept: str = "*/*") -> bytes:
    """Every byte of the answer, until the function closes the connection."""
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", search.port)) as raw:
        raw.sendall(head.encode())
        received = b""
        while piece := raw.recv(65536):
            received += piece
    return received


def test_a_cut_file_is_seen_as_cut(search: Function, store: FakeStore) -> None:
    store.answers(Answer(body=b"x" * 1000, cut=True))
    head, _, body = raw_answer(search, INSTANCE).partition(b"\r\n\r\n")
    assert b"Content-Length: 1010" in head
    assert len(body) == 1000
    assert "Traceback" not in search.log()


def test_a_cut_list_is_seen_as_cut(search: Function, store: FakeStore) -> None:
    store.answers(Answer(body=[b"[" + b" " * 400_000, b'{"a":'], cut=True))
    assert not raw_answer(search, "/instances?limit=50000").endswith(b"0\r\n\r\n")
    assert "Traceback" not in search.log()


@pytest.mark.parametrize(
    "target",
    [
        "//studies",
        "/studies/%2F..%2F..%2Fprojects",
        "/studies/..%2f..%2fprojects",
        "/studies/../../projects",
        "/studies/1.2%0d%0aX:%20y",
        "http://elsewhere.example/studies",
        "/studies?" + "PatientID=1&" * 800,
        "/studies?PatientName=a%0d%0aX-Injected:%201",
        "/studies?a%0d%0ab=1",
        "/studies?PatientName=%ff",
    ],
)
def test_what_could_escape_is_400_and_reaches_no_store(
    search: Function, store: FakeStore, target: str
) -> None:
    received = store.answers(Answer())
    reply = search.send(target)
    assert reply.status == 400
    assert "x-injected" not in reply.headers
    assert received == []


@pytest.mark.parametrize(
    "path", ["/robots.txt", "/favicon.ico", "/admin", "/studies/1.2/thumbnail"]
)
def test_what_is_not_there_is_404_in_the_same_shape(search: Function, path: str) -> None:
    assert search.send(path).reason == "not_found"


def test_other_methods_are_refused_with_allow(search: Function) -> None:
    for method, path in (
        ("POST", "/studies"),
        ("DELETE", "/studies/1.2"),
        ("PUT", "/"),
        ("TRACE", "/studies"),
        ("GET", "/studies/_query"),
    ):
        reply = search.send(path, method)
        assert reply.status == 405
        assert reply.reason == "method_not_allowed"
        assert ("POST" if "_query" in path else "GET") in reply.headers["allow"]


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("text/plain", b"{}", "unsupported_media_type"),
        ("application/json", b"{", "invalid_body"),
        ("application/json", b"[]", "invalid_body"),
        ("application/json", b"[" * 60_000, "invalid_body"),
        ("application/json", b'{"PatientID": 7}', "invalid_body"),
        ("application/json", b'{"StudyInstanceUID": []}', "invalid_body"),
        ("application/json", b'{"PatientID": "1", "PatientID": "2"}', "invalid_body"),
        ("application/json", b'{"limit": true}', "invalid_body"),
        ("application/json", b'{"PatientID": "\xff"}', "invalid_body"),
        ("application/json", b'{"PatientID": "' + b"x" * 70_000 + b'"}', "invalid_body"),
        ("application/json", b'{"Nonsense": "x"}', "invalid_parameter"),
        ("application/x-www-form-urlencoded", "ü=1".encode(), "invalid_body"),
    ],
)
def test_a_body_that_is_not_a_query_is_refused(
    search: Function, kind: str, body: bytes, reason: str
) -> None:
    reply = search.send("/studies/_query", "POST", {"Content-Type": kind}, body)
    assert reply.reason == reason
    assert reply.status == (415 if kind == "text/plain" else 400)


def test_names_in_the_url_of_a_query_by_post_are_refused(search: Function) -> None:
    reply = search.send(
        "/studies/_query?PatientName=x", "POST", {"Content-Type": "application/json"}, b"{}"
    )
    assert reply.reason == "invalid_parameter"


# Origins


def test_a_listed_origin_may_read_and_no_other(search: Function, store: FakeStore) -> None:
    store.answers(Answer(body=rows(2)))
    reply = search.send("/studies?limit=1", headers={"Origin": ORIGIN})
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert "warning" in reply.headers["access-control-expose-headers"]
    for origin in ("https://evil.example.org", "null", ORIGIN + ".evil.org", ORIGIN.upper()):
        reply = search.send("/studies", headers={"Origin": origin})
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["vary"] == "Origin"
    assert (
        search.send("/nothing", headers={"Origin": ORIGIN}).headers["access-control-allow-origin"]
        == ORIGIN
    )


def test_a_preflight_is_answered(search: Function) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    reply = search.send("/studies/_query", "OPTIONS", headers)
    assert reply.status == 204
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert "authorization" in reply.headers["access-control-allow-headers"]
    reply = search.send("/studies", "OPTIONS")
    assert reply.status == 204
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS"


# Malformed answers of the store

DEEP = b'[{"00100010":{"vr":"LO","Value":' + b"[" * 50_000 + b"]" * 50_000 + b"}}]"
ROW = b'{"00100010":{"vr":"LO","Value":["' + b"x" * 1000 + b'"]}}'
LARGE_AND_MALFORMED = b"[" + b",".join([ROW] * 300) + b",oops]"
MANY = b"[" + b",".join([ROW] * 3000) + b",oops]"
FEW_LARGE = b"[" + b",".join([ROW.replace(b"x", b"yyyyyyyyy")] * 60) + b",oops]"
ASKED = f"PatientName={SECRET}"


@pytest.mark.parametrize(
    ("path", "accept", "body"),
    [
        ("/studies", "*/*", b'[{"00100010": oops' + b" " * 300_000),
        ("/studies", "*/*", DEEP),
        ("/studies", "text/csv", DEEP),
        ("/studies", "text/csv", b"<html>" + bytes(300_000)),
        ("/studies", "*/*", b"<html>" + bytes(300_000)),
        ("/studies?Modality=CT", "*/*", DEEP),
        ("/studies?Modality=CT,MR", "text/csv", LARGE_AND_MALFORMED),
    ],
)
def test_a_malformed_answer_is_refused_while_it_still_can_be(
    search: Function, store: FakeStore, path: str, accept: str, body: bytes
) -> None:
    store.answers(Answer(body=body))
    joint = "&" if "?" in path else "?"
    reply = search.send(f"{path}{joint}{ASKED}", headers={"Accept": accept})
    assert reply.status == 502
    assert reply.reason == "unavailable"
    assert "Planted" not in search.log()


@pytest.mark.parametrize(
    ("accept", "limit", "body"),
    [("*/*", 100, FEW_LARGE), ("text/csv", 100, FEW_LARGE), ("text/csv", 5000, MANY)],
)
def test_an_answer_that_turns_out_malformed_later_is_cut_and_logs_no_url(
    search: Function, store: FakeStore, accept: str, limit: int, body: bytes
) -> None:
    store.answers(Answer())
    store.plan = lambda request: Answer(body=b"[]" if "offset" in request.query else body)
    received = raw_answer(search, f"/studies?limit={limit}&{ASKED}", accept)
    assert received.startswith(b"HTTP/1.1 200")
    assert not received.endswith(b"0\r\n\r\n")
    assert "Planted" not in search.log()
    assert "oops" not in search.log()


def test_half_of_a_surrogate_pair_is_no_reason_to_break_off(
    search: Function, store: FakeStore
) -> None:
    store.answers(Answer(body=b'[{"00100010":{"vr":"LO","Value":["a\\ud800"]}}]'))
    reply = search.send(f"/studies?{ASKED}", headers={"Accept": "text/csv"})
    assert reply.status == 200
    assert b'"a?"' in reply.body
    assert "Planted" not in search.log()


@pytest.mark.parametrize("value", [None, [], [None], [["1.2"]], "1.2", {"a": 1}, 7])
@pytest.mark.parametrize("element", ["value", "attribute"])
def test_a_uid_that_is_none_does_not_break_a_merged_answer(
    search: Function, store: FakeStore, value: object, element: str
) -> None:
    attribute = {"vr": "UI", "Value": value} if element == "value" else value
    store.answers(Answer(body=json.dumps([{"0020000D": attribute}]).encode()))
    assert search.send("/studies?Modality=CT").status == 200


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("17", "17"),
        ("0", "0"),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "0"),
        (SECRET, None),
        ("-5", None),
        ("1e3", None),
        ("Sun, 99 Nov 1994 soon", None),
        ("9" * 30, None),
    ],
)
def test_retry_after_is_passed_on_as_seconds_or_not_at_all(
    search: Function, store: FakeStore, sent: str, passed: str | None
) -> None:
    store.answers(Answer(429, b"", {"Retry-After": sent}))
    assert search.send("/studies").headers.get("retry-after") == passed


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "5, 5", "\xb2"])
def test_a_length_that_is_not_a_number_is_not_passed_on(
    search: Function, store: FakeStore, length: str
) -> None:
    octets = {"Content-Type": "application/octet-stream", "Connection": "close"}
    store.answers(Answer(body=b"bytes", headers={**octets, "Content-Length": length}))
    reply = search.send(INSTANCE)
    assert reply.status == 200
    assert reply.body == b"bytes"
    assert "content-length" not in reply.headers


@pytest.mark.parametrize("name", ["ETag", "Last-Modified", "Content-Type", "Content-Range"])
@pytest.mark.parametrize("value", ["a\x01b", "caf\xe9", "x" * 1025])
def test_a_malformed_header_of_the_store_is_not_passed_on(
    search: Function, store: FakeStore, name: str, value: str
) -> None:
    store.answers(Answer(body=b"bytes", headers={"Content-Type": "image/png", name: value}))
    reply = search.send(f"{INSTANCE}/rendered?accept=image/png")
    assert reply.status == 200
    assert reply.body == b"bytes"
    assert reply.headers.get(name.lower(), "application/octet-stream") == "application/octet-stream"


@pytest.mark.parametrize(("mib", "announced"), [(30, True), (31, False)])
def test_the_length_of_an_answer_that_cloud_run_would_refuse_is_not_announced(
    search: Function, store: FakeStore, mib: int, announced: bool
) -> None:
    body = bytes(mib * 1024 * 1024)
    store.answers(Answer(body=body, headers={"Content-Type": "application/dicom"}))
    reply = search.send(INSTANCE)
    assert reply.body == body
    assert ("content-length" in reply.headers) == announced


# Connections afterwards


def test_many_at_once_are_kept_apart(search: Function, store: FakeStore) -> None:
    store.answers(Answer())
    store.plan = lambda request: Answer(
        body=json.dumps([row(t00100020=parse_qs(request.query)["PatientID"][0])]).encode()
    )
    wrong: list[str] = []

    def ask(number: int) -> None:
        for turn in range(20):
            mine = f"P{number}-{turn}"
            if search.send(f"/studies?PatientID={mine}").json()[0]["00100020"]["Value"] != [mine]:
                wrong.append(mine)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_log_line_contains_the_query(search: Function, store: FakeStore) -> None:
    store.answers(Answer(500, SECRET.encode()))
    search.send(f"/studies?PatientName={SECRET}")
    search.query("/studies/_query", {"PatientName": SECRET})
    search.send(f"/studies?{SECRET}=1")
    log = search.log()
    assert "unavailable" in log
    assert "Planted" not in log
    assert "Traceback" not in log
    assert all(json.loads(line) for line in log.splitlines())

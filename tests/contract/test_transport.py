"""The transport against a real server with planned faults (fact sheet section 10: what to
retry)."""

import pytest

from functions.common.clients import transport as http
from functions.common.clients.transport import Request, Transport
from functions.common.deadline import Deadline
from functions.common.errors import RetryableError
from tests.contract.servers import Answer, planned

GOOD = Answer(200, body=b"good")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_BACKOFF_S", 0.001)


def fetch(
    url: str,
    *,
    budget_s: float = 30,
    body: object = None,
    read_timeout_s: float = 30,
) -> tuple[int, bytes]:
    deadline = Deadline(budget_s)
    method = "POST" if body is not None else "GET"
    request = Request(method, url, body=body, read_timeout_s=read_timeout_s)  # type: ignore[arg-type]
    with Transport().send(request, deadline) as response:
        return response.status_code, http.read_all(response, deadline, 1 << 20)


RECOVERED = {
    "429": Answer(429),
    "429 with Retry-After": Answer(429, {"Retry-After": "0"}),
    "408": Answer(408),
    "425": Answer(425),
    "500": Answer(500, body=b"Doe^Jane"),
    "502": Answer(502),
    "503": Answer(503, {"Retry-After": "0"}),
    "504": Answer(504),
    "Retry-After a date gone by": Answer(429, {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}),
    "Retry-After that is neither": Answer(429, {"Retry-After": "Sun, 99 Nov 1994 soon"}),
    "reset": Answer(0),
    "an answer before the body is read": Answer(503, early=True),
}


@pytest.mark.parametrize("fault", RECOVERED.values(), ids=RECOVERED.keys())
@pytest.mark.parametrize("times", [1, 3])
def test_what_passes_is_tried_again_and_the_body_is_sent_whole_each_time(
    fault: Answer, times: int
) -> None:
    def body() -> list[bytes]:
        return iter([b"a" * 70_000, b"b" * 70_000])  # type: ignore[return-value]

    with planned(*[fault] * times, GOOD) as server:
        assert fetch(server.url, body=body) == (200, b"good")
        assert len(server.seen) == times + 1
        assert server.seen[-1].body == b"a" * 70_000 + b"b" * 70_000


GIVEN_UP = {
    "429": (Answer(429, {"Retry-After": "0"}), "rate_limited", 4),
    "500": (Answer(500), "unavailable", 4),
    "reset": (Answer(0), "unavailable", 4),
    "401": (Answer(401), "unauthorized", 2),
    "403": (Answer(403, body=b"no permission for Doe^Jane"), "unauthorized", 1),
    "Retry-After longer than worth waiting": (
        Answer(503, {"Retry-After": "300"}),
        "rate_limited",
        1,
    ),
    "Retry-After a far date": (
        Answer(503, {"Retry-After": "Fri, 31 Dec 2999 23:59:59 GMT"}),
        "rate_limited",
        1,
    ),
    "Retry-After a far date, written the old way": (
        Answer(503, {"Retry-After": "Tue Dec 31 23:59:59 2999"}),
        "rate_limited",
        1,
    ),
}


@pytest.mark.parametrize(("fault", "reason", "requests"), GIVEN_UP.values(), ids=GIVEN_UP.keys())
def test_what_stays_is_handed_back_with_a_reason(fault: Answer, reason: str, requests: int) -> None:
    with planned(fault) as server:
        with pytest.raises(RetryableError) as raised:
            fetch(server.url)
        assert raised.value.reason == reason
        assert len(server.seen) == requests


def test_the_wait_that_the_server_asked_for_is_handed_on() -> None:
    with (
        planned(Answer(429, {"Retry-After": "77"})) as server,
        pytest.raises(RetryableError) as raised,
    ):
        fetch(server.url)
    assert raised.value.retry_after_s == 77


@pytest.mark.parametrize("status", [400, 404, 406, 409, 412, 416])
def test_a_final_status_is_the_callers_to_judge(status: int) -> None:
    with planned(Answer(status, body=b"why")) as server:
        assert fetch(server.url) == (status, b"why")
        assert len(server.seen) == 1


def test_a_cut_answer_is_never_used_as_a_complete_one() -> None:
    with (
        planned(Answer(200, body=b"half", announce=8)) as server,
        pytest.raises(RetryableError, match="unavailable"),
    ):
        fetch(server.url)


def test_an_answer_that_does_not_come_is_given_up_within_the_budget() -> None:
    with planned(Answer(200, delay_s=20)) as server:
        deadline = Deadline(0.3)
        with pytest.raises(RetryableError):
            Transport().send(Request("GET", server.url), deadline)
        assert deadline.elapsed_s() < 10


def test_the_answer_to_a_large_body_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_COMMIT_BYTES_PER_S", 10_000, raising=False)
    with planned(Answer(200, body=b"good", delay_s=1)) as server:
        with pytest.raises(RetryableError, match="unavailable"):
            fetch(server.url, body=b"small", read_timeout_s=0.2)
        before = len(server.seen)
        assert fetch(server.url, body=bytes(600_000), read_timeout_s=0.2) == (200, b"good")
        assert len(server.seen) == before + 1
        with pytest.raises(RetryableError):  # but never longer than the time left
            fetch(server.url, body=bytes(600_000), budget_s=0.5)


def test_an_answer_larger_than_expected_is_not_read_into_memory() -> None:
    with (
        planned(Answer(200, body=b"x" * 2_000_000)) as server,
        pytest.raises(RetryableError, match="unavailable"),
    ):
        fetch(server.url)


def test_a_broken_source_is_read_again_for_the_next_attempt() -> None:
    sources = iter([_breaks_off(), iter([b"whole"])])
    with planned(GOOD) as server:
        assert fetch(server.url, body=lambda: next(sources)) == (200, b"good")
        assert server.seen[-1].body == b"whole"


def _breaks_off() -> object:
    yield b"wh"
    raise RetryableError("unavailable")


def test_connections_are_kept_also_after_a_refusal() -> None:
    transport = Transport()
    deadline = Deadline(30)
    with planned(Answer(404, body=b"gone"), Answer(500, body=b"again"), GOOD) as server:
        http.drain(transport.send(Request("GET", server.url), deadline))
        http.drain(transport.send(Request("GET", server.url), deadline))
        assert len(server.seen) == 3
        assert server.connections == 1


def test_emulators_get_no_credentials_and_no_request_asks_for_compression() -> None:
    with planned(GOOD) as server:
        fetch(server.url)
        assert "authorization" not in server.seen[0].headers
        assert server.seen[0].headers["accept-encoding"] == "identity"

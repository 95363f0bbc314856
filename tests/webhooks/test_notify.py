"""The function `notify` as it is deployed, between a bucket server and a receiver."""

import base64
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from tests.contract.function_process import FunctionProcess, function_process
from tests.contract.strictbucket import StrictBuckets, strict_buckets
from tests.webhooks.receiver import Receiver, receiver

SECRET = "whsec_" + base64.b64encode(b"a secret of at least 24 bytes").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"the secret that was used before").decode()
STATE = "dicom-state"
RECORD: dict[str, Any] = {
    "id": "0123456789abcdef0123456789abcdef",
    "time": "2026-11-24T10:00:00.000000Z",
    "outcome": "stored",
    "function": "store_upload",
    "bucket": "dicom-landing",
    "name": "Doe^Jane/1.dcm",
    "generation": "17",
    "member": "Doe^Jane.dcm",
    "study": "1.2.3",
    "attempt": 1,
}


@dataclass
class Place:
    """The function and what it talks to."""

    function: FunctionProcess
    receiver: Receiver
    buckets: StrictBuckets

    def push(self, path: str, record: Any = None, attempt: int = 1) -> int:
        """Deliver a record as a push subscription does; the status."""
        data = json.dumps(RECORD if record is None else record).encode()
        message = {"data": base64.b64encode(data).decode(), "messageId": "m1"}
        body = json.dumps({"message": message, "deliveryAttempt": attempt}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.function.url.rstrip("/") + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def verified(self) -> dict[str, Any]:
        """The last call's message, verified as a receiver does."""
        call = self.receiver.calls[-1]
        found: dict[str, Any] = Verifier(SECRET).verify(call.body, call.headers)
        return found


@contextmanager
def place(**changes: str) -> Iterator[Place]:
    """The function with a few webhooks."""
    with receiver() as calls, strict_buckets(STATE) as buckets:
        webhooks = {
            "all": {"url": calls.url},
            "names": {"url": calls.url, "include_names": True},
            "exports": {"url": calls.url, "events": ["exported", "partial"]},
            "ending": {"url": calls.url},
        }
        environ = {
            "DICOM_STORE": "projects/p/locations/l/datasets/d/dicomStores/s",
            "STATE_BUCKET": STATE,
            "STORAGE_EMULATOR_HOST": buckets.url,
            "PUBSUB_EMULATOR_HOST": "127.0.0.1:1",  # nothing is published
            "WEBHOOKS": json.dumps(webhooks),
            "WEBHOOK_PRIVATE_ADDRESSES": "true",
            "WEBHOOK_SECRET_ALL": f"{SECRET} {OLD_SECRET}",
            "WEBHOOK_SECRET_NAMES": SECRET,
            "WEBHOOK_SECRET_EXPORTS": SECRET,
            "WEBHOOK_SECRET_ENDING": SECRET,
            **changes,
        }
        with function_process("notify", environ) as function:
            yield Place(function, calls, buckets)


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture
def notify(running: Place) -> Place:
    running.receiver.calls.clear()
    running.receiver.statuses.clear()
    running.receiver.headers.clear()
    running.receiver.body = b""
    return running


def test_a_receiver_verifies_the_call_with_the_library_of_standard_webhooks(notify: Place) -> None:
    assert notify.push("/webhooks/all") == 204
    message = notify.verified()
    assert message["type"] == "outcome.stored"
    assert message["timestamp"] == RECORD["time"]
    assert message["data"]["study"] == "1.2.3"


def test_a_call_is_signed_with_both_secrets_while_one_takes_the_others_place(
    notify: Place,
) -> None:
    notify.push("/webhooks/all")
    call = notify.receiver.calls[-1]
    assert Verifier(OLD_SECRET).verify(call.body, call.headers)


def test_names_of_objects_and_members_are_left_out(notify: Place) -> None:
    notify.push("/webhooks/all")
    assert b"Doe" not in notify.receiver.calls[-1].body


def test_names_are_sent_where_the_operator_asks_for_them(notify: Place) -> None:
    notify.push("/webhooks/names")
    assert notify.verified()["data"]["name"] == RECORD["name"]


def test_a_webhook_is_called_with_its_events_only(notify: Place) -> None:
    assert notify.push("/webhooks/exports") == 204
    assert not notify.receiver.calls
    assert notify.push("/webhooks/exports", {**RECORD, "outcome": "exported"}) == 204
    assert notify.verified()["type"] == "outcome.exported"


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 429, 500, 503])
def test_any_other_answer_is_delivered_again_under_the_same_id(notify: Place, status: int) -> None:
    notify.receiver.statuses = [status]
    notify.receiver.headers = {"Location": notify.receiver.url + "/elsewhere"}
    assert notify.push("/webhooks/all") == 503
    assert notify.push("/webhooks/all", attempt=2) == 204
    first, second = notify.receiver.calls  # no redirect was followed
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == RECORD["id"]
    assert first.body == second.body


def test_a_call_carries_no_credentials_and_no_cookies(notify: Place) -> None:
    notify.receiver.headers = {"Set-Cookie": "a=b"}
    notify.push("/webhooks/all")
    notify.push("/webhooks/all")
    assert not {"authorization", "cookie"} & notify.receiver.calls[-1].headers.keys()


def test_a_webhook_that_answers_410_is_called_no_more_and_the_state_says_so(
    notify: Place,
) -> None:
    notify.receiver.statuses = [410]
    assert notify.push("/webhooks/ending") == 204
    assert notify.push("/webhooks/ending") == 204
    assert len(notify.receiver.calls) == 1
    state = json.loads(notify.buckets.buckets[STATE]["webhooks/ending.json"].data)
    assert state["state"] == "gone"


def test_a_webhook_that_was_gone_is_called_again_once_its_state_is_deleted(
    notify: Place,
) -> None:
    notify.receiver.statuses = [410]
    notify.push("/webhooks/ending")
    notify.buckets.buckets[STATE].pop("webhooks/ending.json", None)
    assert notify.push("/webhooks/ending") == 204
    assert notify.receiver.calls[-1].path == "/hook"
    notify.buckets.buckets[STATE].pop("webhooks/ending.json", None)


def test_a_webhook_that_the_settings_do_not_have_is_delivered_again(notify: Place) -> None:
    assert notify.push("/webhooks/unknown") == 503


@pytest.mark.parametrize("record", [{}, {**RECORD, "id": 7}, {"outcome": "stored"}, []])
def test_what_is_no_outcome_record_is_acknowledged_and_called_nowhere(
    notify: Place, record: Any
) -> None:
    assert notify.push("/webhooks/all", record) == 204
    assert not notify.receiver.calls


def test_an_answer_without_end_is_not_read(notify: Place) -> None:
    notify.receiver.statuses = [200]
    notify.receiver.body = b"x" * 50_000_000
    assert notify.push("/webhooks/all") == 204


def test_the_outcome_of_a_request_is_kept_under_a_hash_of_its_id(notify: Place) -> None:
    record = {**RECORD, "function": "export_resource", "request_id": "night-7"}
    del record["member"]
    assert notify.push("/requests", record) == 204
    (name,) = [n for n in notify.buckets.names(STATE) if n.startswith("requests/")]
    kept = json.loads(notify.buckets.buckets[STATE][name].data)
    assert "night" not in name
    assert kept["state"] == "done"
    assert kept["outcome"] == record


def test_the_outcome_of_one_study_of_a_query_is_not_that_of_the_request(notify: Place) -> None:
    before = notify.buckets.names(STATE)
    record = {
        **RECORD,
        "function": "delete_resource",
        "request_id": "q",
        "member": "studies/1",
    }
    assert notify.push("/requests", record) == 204
    assert notify.buckets.names(STATE) == before


def test_an_address_of_this_machine_is_not_called_unless_a_setting_allows_it() -> None:
    with place(WEBHOOK_PRIVATE_ADDRESSES="false") as made:
        assert made.push("/webhooks/all") == 503
        assert not made.receiver.calls


def kept_of(place: Place, request_id: str) -> dict[str, Any]:
    """What the state bucket has of a request."""
    name = f"requests/{hashlib.sha256(request_id.encode()).hexdigest()}.json"
    found: dict[str, Any] = json.loads(place.buckets.buckets[STATE][name].data)
    return found


def test_of_several_records_of_a_request_the_first_by_time_is_kept(notify: Place) -> None:
    first = {**RECORD, "function": "export_resource", "request_id": "twice"}
    del first["member"]
    for record in (
        {**first, "time": "2026-11-24T10:00:02.000000Z", "outcome": "superseded"},
        first,
        {**first, "time": "2026-11-24T10:00:01.000000Z", "outcome": "duplicate"},
    ):
        assert notify.push("/requests", record) == 204
    assert kept_of(notify, "twice")["outcome"] == first


def test_of_a_record_over_1_mib_is_kept_how_the_request_ended(notify: Place) -> None:
    record = {
        **RECORD,
        "request_id": "large",
        "outcome": "exported",
        "detail": "x" * 2_000_000,
    }
    del record["member"]
    assert notify.push("/requests", record) == 204
    assert notify.push("/requests", record, attempt=2) == 204
    kept = kept_of(notify, "large")
    assert kept["outcome"]["outcome"] == "exported"
    assert len(json.dumps(kept)) < 2000


@pytest.mark.parametrize("request_id", ["x" * 2_000_000, "a b", "../a", "Doe^Jane", "\u00e4"])
def test_a_record_with_an_invalid_request_id_is_not_kept(notify: Place, request_id: str) -> None:
    before = notify.buckets.names(STATE)
    record = {**RECORD, "request_id": request_id}
    del record["member"]
    assert notify.push("/requests", record) == 204
    assert notify.buckets.names(STATE) == before


def test_a_webhook_that_is_down_holds_up_no_other(notify: Place) -> None:
    notify.receiver.statuses = [503]
    assert notify.push("/webhooks/all") == 503
    assert notify.push("/webhooks/names") == 204


def test_a_redirect_to_the_metadata_server_is_not_followed(notify: Place) -> None:
    notify.receiver.statuses = [307]
    notify.receiver.headers = {"Location": "http://169.254.169.254/computeMetadata/v1/"}
    assert notify.push("/webhooks/all") == 503
    assert len(notify.receiver.calls) == 1

"""Pub/Sub messages of a store: section 11, through the Pub/Sub emulator."""

import base64
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.dicomstore.kit import ONE, STORE, Client, dicom, eventually, multipart, uids

TOPIC = "projects/local/topics/stored"
SUBSCRIPTION = "projects/local/subscriptions/stored"


class Subscriber:
    """Pulls what is published on TOPIC of a real emulator."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.seen: list[dict[str, Any]] = []

    def messages(self, count: int) -> list[dict[str, Any]]:
        """The messages so far, once there are this many."""

        def pull() -> bool:
            body = {"maxMessages": 10, "returnImmediately": True}
            answer = requests.post(
                f"http://{self.host}/v1/{SUBSCRIPTION}:pull", json=body, timeout=30
            ).json()
            self.seen += [one["message"] for one in answer.get("receivedMessages", [])]
            return len(self.seen) >= count

        eventually(pull)
        return self.seen


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    """An emulator with a topic and a subscription."""
    command = [sys.executable, "-m", "infra.local.pubsub", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            host = process.stdout.readline().split()[-1]
            for name, body in ((TOPIC, {}), (SUBSCRIPTION, {"topic": TOPIC})):
                assert requests.put(f"http://{host}/v1/{name}", json=body, timeout=60).ok
            yield Subscriber(host)
        finally:
            process.kill()


def configured(start: Callable[..., Client], subscriber: Subscriber, **body: Any) -> Client:
    """A store that publishes on TOPIC."""
    client = start(pubsub_host=subscriber.host)
    answer = client.http.patch(client.store_url, params={"updateMask": ",".join(body)}, json=body)
    assert answer.json() == {"name": STORE, **body}
    return client


def test_11_every_action_of_every_instance_is_published(
    start: Callable[..., Client], subscriber: Subscriber
) -> None:
    client = configured(start, subscriber, notificationConfigs=[{"pubsubTopic": TOPIC}])
    client.stored(dicom(), dicom())  # the identical second one says nothing
    client.post(dicom(instance="8"), Storage_Class="COLDLINE")
    client.http.post(
        f"{client.web}/studies/1.2/series/1.2.3/instances/8:setBlobStorageSettings",
        json={"blobStorageSettings": {"blobStorageClass": "STANDARD"}},
    )
    client.delete("studies/1.2")
    found = [message["attributes"] for message in subscriber.messages(5)]
    assert Counter(attributes["action"] for attributes in found) == {
        "StoreInstances": 2,
        "SetBlobSettings": 1,
        "DeleteInstances": 2,
    }
    (changed,) = (one for one in found if one["action"] == "SetBlobSettings")
    assert changed["storageClass"] == "STANDARD"
    assert changed["previousStorageClass"] == "COLDLINE"


def test_11_a_message_has_the_path_of_the_instance_and_its_attributes(
    start: Callable[..., Client], subscriber: Subscriber
) -> None:
    client = configured(start, subscriber, notificationConfigs=[{"pubsubTopic": TOPIC}])
    client.stored(dicom())
    (message,) = subscriber.messages(1)
    assert base64.b64decode(message["data"]).decode() == f"{STORE}/dicomWeb/{ONE}"
    attributes = message["attributes"]
    expected = {
        "storeName": STORE,
        "studyInstanceUID": "1.2",
        "seriesInstanceUID": "1.2.3",
        "sopInstanceUID": "1.2.3.4",
        "modality": "CT",
        "storageClass": "STANDARD",
    }
    assert expected.items() <= attributes.items()
    time_format = r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(time_format, attributes["lastUpdatedTime"])
    # It comes without its padding.
    version = base64.b64decode(attributes["versionId"] + "==").decode()
    assert re.fullmatch(r"\d+", version)


def test_11_instances_stored_by_a_broken_request_are_published(
    start: Callable[..., Client], subscriber: Subscriber
) -> None:
    client = configured(start, subscriber, notificationConfigs=[{"pubsubTopic": TOPIC}])
    whole = multipart(
        [({"Content-Type": "application/dicom"}, dicom(instance=sop)) for sop in ("5", "6")]
    )
    kind = 'multipart/related; type="application/dicom"; boundary=testboundary0c1d2e3f'
    assert client.post(whole[:-200], kind).status_code == 400
    assert uids(client.found("instances"), "00080018") == ["5"]
    (message,) = subscriber.messages(1)
    assert message["attributes"]["sopInstanceUID"] == "5"


@pytest.mark.parametrize(
    "body",
    [
        {"notificationConfigs": [{}]},
        {"notificationConfigs": {"pubsubTopic": TOPIC}},
        {"notificationConfigs": [{"pubsubTopic": 5}]},
        {"notificationConfigs": ["stored"]},
        {"notificationConfig": {"pubsubTopic": "stored"}},
        {"notificationConfig": "stored"},
    ],
)
def test_11_a_configuration_without_a_topic_is_refused(store: Client, body: dict[str, Any]) -> None:
    mask = {"updateMask": next(iter(body))}
    for answer in (
        store.http.patch(store.store_url, params=mask, json=body),
        store.http.post(
            f"{store.dataset_url}/dicomStores", params={"dicomStoreId": "x"}, json=body
        ),
    ):
        assert answer.status_code == 400
        assert "pubsubTopic" in answer.json()["error"]["message"]
    assert store.http.get(store.store_url).json() == {"name": store.name}


def test_11_the_legacy_configuration_sends_the_name_alone(
    start: Callable[..., Client], subscriber: Subscriber
) -> None:
    client = configured(start, subscriber, notificationConfig={"pubsubTopic": TOPIC})
    client.stored(dicom())
    (message,) = subscriber.messages(1)
    assert base64.b64decode(message["data"]).decode().endswith(ONE)
    assert not message.get("attributes")

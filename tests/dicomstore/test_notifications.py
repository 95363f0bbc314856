"""Pub/Sub messages of a store: section 11, through the Pub/Sub emulator."""

import base64
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.dicomstore.kit import ONE, STORE, Client, dicom, eventually, multipart, uids

TOPIC, SUBSCRIPTION = "projects/local/topics/stored", "projects/local/subscriptions/stored"


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
    found = subscriber.messages(5)
    actions = sorted(one["attributes"]["action"] for one in found)
    assert actions == ["DeleteInstances"] * 2 + ["SetBlobSettings"] + ["StoreInstances"] * 2
    first = next(one for one in found if one["attributes"]["sopInstanceUID"] == "1.2.3.4")
    assert base64.b64decode(first["data"]).decode() == f"{STORE}/dicomWeb/{ONE}"
    attributes = first["attributes"]
    assert re.fullmatch(
        r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d UTC", attributes["lastUpdatedTime"]
    )
    assert re.fullmatch(r"\d+", base64.b64decode(attributes["versionId"] + "==").decode())
    expected = {
        "storeName": STORE,
        "studyInstanceUID": "1.2",
        "seriesInstanceUID": "1.2.3",
        "modality": "CT",
    }
    assert expected.items() <= attributes.items() and attributes["storageClass"] == "STANDARD"
    changed = next(
        one["attributes"] for one in found if one["attributes"]["action"] == "SetBlobSettings"
    )
    assert (changed["storageClass"], changed["previousStorageClass"]) == ("STANDARD", "COLDLINE")


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
        assert answer.status_code == 400 and "pubsubTopic" in answer.json()["error"]["message"]
    assert store.http.get(store.store_url).json() == {"name": store.name}


def test_11_the_legacy_configuration_sends_the_name_alone(
    start: Callable[..., Client], subscriber: Subscriber
) -> None:
    client = configured(start, subscriber, notificationConfig={"pubsubTopic": TOPIC})
    client.stored(dicom())
    (message,) = subscriber.messages(1)
    assert base64.b64decode(message["data"]).decode().endswith(ONE) and not message.get(
        "attributes"
    )

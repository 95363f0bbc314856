"""Only this machine's own programs and pages may call the emulator."""

import subprocess
import sys

import pytest
import requests

from tests.pubsub.conftest import PROJECT, Emulator

FOREIGN_PAGES = ["http://evil.example", "https://localhost.evil.example", "null"]
OWN_PAGES = ["http://localhost:3000", "http://127.0.0.1:8099", "http://[::1]:8080"]


@pytest.mark.parametrize("origin", FOREIGN_PAGES)
def test_a_page_of_another_site_cannot_publish(emulator: Emulator, origin: str) -> None:
    topic = emulator.topic()
    subscription = emulator.subscription(topic)
    answer = requests.post(
        f"http://{emulator.address}/v1/{topic}:publish",
        data='{"messages":[{"data":"eA=="}]}',
        headers={"Origin": origin, "Content-Type": "text/plain"},
        timeout=10,
    )
    assert answer.status_code == 403
    assert answer.json()["error"]["status"] == "PERMISSION_DENIED"
    assert emulator.pull(subscription, wait=False) == []


@pytest.mark.parametrize("origin", OWN_PAGES)
def test_a_page_of_this_machine_can_publish(emulator: Emulator, origin: str) -> None:
    answer = requests.post(
        f"http://{emulator.address}/v1/{emulator.topic()}:publish",
        data='{"messages":[{"data":"eA=="}]}',
        headers={"Origin": origin},
        timeout=10,
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8085", "localhost.evil.example"])
def test_a_name_of_elsewhere_that_resolves_to_this_machine_is_refused(
    emulator: Emulator, host: str
) -> None:
    url = f"http://{emulator.address}/v1/{PROJECT}/topics"
    answer = requests.get(url, headers={"Host": host}, timeout=10)
    assert answer.status_code == 403
    assert PROJECT not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8085"])
def test_every_name_of_this_machine_is_taken(emulator: Emulator, host: str) -> None:
    url = f"http://{emulator.address}/v1/{PROJECT}/topics"
    assert requests.get(url, headers={"Host": host}, timeout=10).status_code == 200


def test_further_names_can_be_allowed() -> None:
    command = [sys.executable, "-m", "infra.local.pubsub", "--port", "0", "--allow-host", "pubsub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().split()[-1]
            url = f"http://{address}/v1/{PROJECT}/topics"
            for host, status in (("pubsub:8085", 200), ("other:8085", 403)):
                answer = requests.get(url, headers={"Host": host}, timeout=10)
                assert answer.status_code == status, host
        finally:
            process.terminate()

"""`listen` on the running system: it prints what verifies, and is called only while it runs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from infra.local.stack import Stack
from tests.contract.world import instance

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("listen"), functions=["store_upload", "notify"]) as running:
        yield running


def listening(stack: Stack) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cli", "listen", "--format", "ndjson"]
    process = subprocess.Popen(
        [*command, "--system", str(stack.data)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not any(name.endswith("listen") for name in stack.pubsub.subscriptions("local")):
        assert process.poll() is None, "it does not listen"
        assert time.monotonic() < end, "it does not listen"
        time.sleep(0.1)
    return process


def test_a_webhook_is_printed_and_its_subscription_ends_with_the_command(stack: Stack) -> None:
    process = listening(stack)
    try:
        stack.buckets.upload("dicom-landing", "one.dcm", instance("1.2", "1.2.1", "1.2.1.1"))
        assert process.stdout
        record = json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert record["outcome"] == "stored"
    assert record["study"] == "1.2"
    assert not any(name.endswith("listen") for name in stack.pubsub.subscriptions("local"))


def test_a_call_that_does_not_verify_is_refused_and_not_printed(stack: Stack) -> None:
    process = listening(stack)
    try:
        url = f"http://127.0.0.1:{stack.ports['webhook']}/"
        answer = requests.post(url, data=b'{"data": {"outcome": "stored"}}', timeout=30)
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert answer.status_code == 401
    assert output == ""

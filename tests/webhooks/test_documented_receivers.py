"""The receivers that docs/webhooks.md shows, run as they stand there."""

import base64
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from functions.common.deadline import epoch_s
from functions.notify import payload
from functions.notify.webhooks import Webhook
from tests.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
KEY = b"a secret of at least 24 bytes"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
RECORD = {
    "id": "abc",
    "time": "2026-11-24T10:00:00Z",
    "outcome": "stored",
    "study": "1.2.3",
}


def example(language: str) -> str:
    """The first block of code in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    environ = {**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not answers(port):
            assert process.poll() is None, "it does not start"
            assert time.monotonic() < end, "it does not start"
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        requests.get(f"http://127.0.0.1:{port}/", timeout=5)
    except requests.ConnectionError:
        return False
    return True


def statuses(port: int) -> list[int]:
    """Of a call that is signed rightly, one with another body, and one that is old."""
    url = f"http://127.0.0.1:{port}/"
    webhook = Webhook(name="a", url=url, secrets=(KEY,))
    data = payload.body(RECORD, webhook)
    now_s = int(epoch_s())
    fresh = payload.headers(webhook, "abc", now_s, data)
    old = payload.headers(webhook, "abc", now_s - 3600, data)
    calls = [(fresh, data), (fresh, data + b" "), (old, data)]
    return [requests.post(url, data=b, headers=h, timeout=30).status_code for h, b in calls]


def test_the_receiver_in_python_accepts_only_signed_calls(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(example("python"))
    with free_port() as port:
        command = [sys.executable, "-m", "flask", "run", "--port", str(port)]
        with running(command, tmp_path, port):
            assert statuses(port) == [204, 401, 401]


@pytest.mark.skipif(not shutil.which("node"), reason="no node")
def test_the_receiver_in_javascript_accepts_only_signed_calls(tmp_path: Path) -> None:
    (tmp_path / "receiver.js").write_text(example("js"))
    with free_port() as port, running(["node", "receiver.js"], tmp_path, port):
        assert statuses(port) == [204, 401, 401]

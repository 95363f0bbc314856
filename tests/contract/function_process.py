"""A function as it is deployed: a functions-framework process, what it is sent, and how much memory
it has."""

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.ports import free_port

ROOT = Path(__file__).parents[2]


class FunctionProcess:
    """A running function.

    Args:
        url: where it listens.
        process: of functions-framework; its workers are children.
    """

    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.url, self._process = url, process

    def push(
        self,
        command: Mapping[str, Any] | bytes,
        attempt: int = 1,
        timeout_s: float = 900,
        follow_up: bool = False,
    ) -> int:
        """Deliver one message as a push subscription does, or that of follow-ups; the status."""
        url = self.url + ("follow-ups" if follow_up else "")
        data = command if isinstance(command, bytes) else json.dumps(command).encode()
        message = {"data": base64.b64encode(data).decode(), "messageId": "m1", "attributes": {}}
        body = json.dumps({"message": message, "deliveryAttempt": attempt}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def rss_bytes(self) -> int:
        """Resident memory of the worker; the master, which only waits, is left out."""
        workers = psutil.Process(self._process.pid).children(recursive=True)
        return max(process.memory_info().rss for process in workers)

    @contextlib.contextmanager
    def peak(self) -> Iterator[list[int]]:
        """Samples resident memory for the length of a `with`, in bytes."""
        samples, stop = [self.rss_bytes()], threading.Event()

        def sample() -> None:
            while not stop.wait(0.01):
                samples.append(self.rss_bytes())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield samples
        finally:
            stop.set()
            thread.join()


@contextlib.contextmanager
def function_process(target: str, environ: Mapping[str, str]) -> Iterator[FunctionProcess]:
    """The function for the length of a `with`."""
    with free_port() as port:
        command = [
            sys.executable,
            "-m",
            "functions_framework",
            "--target",
            target,
            "--source",
            str(ROOT / "main.py"),
        ]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        function = FunctionProcess(f"http://127.0.0.1:{port}/", process)
        try:
            end = time.monotonic() + 90
            while function_status(function) != 204:
                assert process.poll() is None and time.monotonic() < end, (
                    "the function does not start"
                )
                time.sleep(0.05)
            yield function
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def function_status(function: FunctionProcess) -> int:
    """204 once it answers: a message that is none is refused and acknowledged."""
    with contextlib.suppress(OSError):
        request = urllib.request.Request(function.url, b"{}", {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    return 0

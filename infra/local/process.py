"""One child process: it has its own group, writes to a log, and ends when its parent ends."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TAIL_LINES = 15
_PRIVATE = 0o077  # a child's output may contain patient data: only the owner may read it
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """In the child, before exec: the kernel kills it when the thread that started it ends, even by
    kill -9."""
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A process of the stack; start() from a thread that lives as long as the child may."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        on_death: Callable[["Child"], None],
    ) -> None:
        """on_death is called from another thread when the process ends unexpectedly."""
        self.name = name
        self._command = [*command]
        self._environment = {**environment}
        self._log = log
        self._on_death = on_death
        self._expected = False
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._waiter: threading.Thread | None = None
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def pid(self) -> int:
        """Process id, also that of its group; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll() if self._process else 0

    def start(self) -> None:
        """Start, or start again.

        Raises:
            OSError: the program cannot be executed.
        """
        self._expected = False
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=_PRIVATE,
            preexec_fn=die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._waiter = threading.Thread(target=self._wait, args=(self._process,), daemon=True)
        self._reader.start()
        self._waiter.start()

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout
        self._log.touch(0o600)
        with self._log.open("ab") as log, process.stdout:
            for line in process.stdout:
                log.write(line)
                log.flush()
                text = line.decode(errors="replace").rstrip("\n")
                self.tail.append(text)

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        if not self._expected and process is self._process:
            self._on_death(self)

    def terminate(self) -> None:
        """Ask it to finish."""
        self._expected = True
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def finish(self, grace_s: float) -> None:
        """After terminate(): wait up to grace_s seconds, then kill the rest of the group."""
        self._expected = True
        if not self._process:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for thread in (self._reader, self._waiter):
            if thread:
                thread.join(5.0)

    def kill(self) -> None:
        """kill -9 the whole group, at once."""
        self.finish(0.0)

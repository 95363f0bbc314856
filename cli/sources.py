"""Which files `upload` takes, and the names of their objects."""

import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.errors import CliError

_SETTLED_S: Final = 2.0  # a file that has not changed for this long is complete
# What failed is tried again after this long, then after twice as long, and so on.
_AGAIN_S: Final = 60.0
_AGAIN_MAX_S: Final = 3600.0
_TRYING_AGAIN_S: Final = 5.0  # in one look at a folder


@dataclass(frozen=True)
class Source:
    """A file to upload, and the name of its object."""

    path: Path
    name: str


def sources(paths: Iterable[Path], prefix: str) -> Iterator[Source]:
    """Each file and the name of its object.

    Raises:
        CliError: a path does not exist.
    """
    for path in paths:
        if not path.exists():
            raise CliError(f"{path} does not exist")
        whole = path.resolve()
        files = _files(whole) if whole.is_dir() else [whole]
        for file in files:
            name = prefix + file.relative_to(whole.parent).as_posix()
            yield Source(file, name)


def distinct(found: Iterable[Source]) -> list[Source]:
    """Each file once.

    Raises:
        CliError: two files would be one object, and only the last would be stored.
    """
    by_name: dict[str, Source] = {}
    for source in found:
        known = by_name.setdefault(source.name, source)
        if known.path != source.path:
            raise CliError(
                f"{known.path} and {source.path} would both be the object {source.name}: upload "
                "the folder that holds both, or use another --prefix for each"
            )
    return list(by_name.values())


def _files(folder: Path) -> list[Path]:
    """The files below a folder, sorted. A folder that cannot be read is one of them: its upload
    fails, and says why."""
    found: list[Path] = []

    def keep(error: OSError) -> None:
        found.append(Path(error.filename))

    for place, _, names in os.walk(folder, onerror=keep):
        for name in names:
            path = Path(place, name)
            if _is_file(path):
                found.append(path)
    return sorted(found)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        # It has just gone, or is a link to nothing.
        return False
    except OSError:
        # Its upload fails, and says why.
        return True


@dataclass
class _File:
    """A file of a watched folder.

    Args:
        state: size in bytes, and time of the last change in ns.
        due: when to upload it, s; infinite: it is uploaded.
        failures: how often its upload has failed in this state.
    """

    state: tuple[int, int]
    due: float
    failures: int = 0


class Folder:
    """A watched folder.

    The files' own times are only compared for equality: another machine may have written them.

    Args:
        path: of the folder.
        prefix: what the objects' names begin with.
        clock: seconds that only increase.
    """

    def __init__(
        self, path: Path, prefix: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._prefix = prefix
        self._clock = clock
        self._files: dict[Path, _File] = {}

    def due(self) -> Iterator[Source]:
        """The files that are complete and not uploaded yet; each comes once until it changes, or
        until its failure is old. Those that have failed come last, and only for some seconds, so
        that the others do not wait for them.

        Raises:
            CliError: the folder does not exist.
        """
        listed: set[Path] = set()
        again: list[tuple[Source, _File]] = []
        for source in sources([self._path], self._prefix):
            listed.add(source.path)
            file = self._seen(source.path)
            if file.due > self._clock():
                continue
            if file.failures:
                again.append((source, file))
                continue
            file.due = math.inf
            yield source
        self._forget(listed)
        yield from self._some_of(again)

    def failed(self, source: Source) -> bool:
        """Note that an upload failed, to try it again later; returns whether that is new for this
        state of the file."""
        file = self._files[source.path]
        pause_s = min(_AGAIN_MAX_S, _AGAIN_S * 2**file.failures)
        file.failures += 1
        file.due = self._clock() + pause_s
        return file.failures == 1

    def _seen(self, path: Path) -> _File:
        state = _state(path)
        file = self._files.get(path)
        if file is None or file.state != state:
            # Timed here, file by file: uploads may take long between two of them.
            file = _File(state, due=self._clock() + _SETTLED_S)
            self._files[path] = file
        return file

    def _forget(self, listed: set[Path]) -> None:
        """Forget files that are gone; not those of a folder that could not be read just now."""
        for path in self._files.keys() - listed:
            if _is_gone(path):
                del self._files[path]

    def _some_of(self, again: list[tuple[Source, _File]]) -> Iterator[Source]:
        """Those that have waited longest, as far as the time allows."""
        end = self._clock() + _TRYING_AGAIN_S
        again.sort(key=lambda waiting: waiting[1].due)
        for source, file in again:
            if self._clock() >= end:
                return
            file.due = math.inf
            yield source


def _is_gone(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        # It is gone at the next look, or its upload fails and says why.
        return (0, 0)
    return (found.st_size, found.st_mtime_ns)

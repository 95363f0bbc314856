"""Which files `upload` takes, and the names of their objects."""

import math
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.errors import CliError

_SETTLED_S: Final = 2.0  # a file that has not changed for this long is complete
_AGAIN_S: Final = 60.0  # what failed is tried again after this long


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
        due: when to upload it, on the clock of the folder's caller, s; infinite: it is uploaded.
        failed: whether its upload failed in this state.
    """

    state: tuple[int, int]
    due: float
    failed: bool = False


class Folder:
    """A watched folder.

    Times are of a clock that only runs forwards. The files' own times are only compared for
    equality: another machine may have written them.

    Args:
        path: of the folder.
        prefix: what the objects' names begin with.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        self._prefix = prefix
        self._files: dict[Path, _File] = {}

    def due(self, now: float) -> Iterator[Source]:
        """The files that are complete and not uploaded yet; each comes once until it changes, or
        until its failure is old.

        Raises:
            CliError: the folder does not exist.
        """
        before = self._files
        # Files that are gone are forgotten.
        self._files = {}
        for source in sources([self._path], self._prefix):
            state = _state(source.path)
            file = before.get(source.path)
            if file is None or file.state != state:
                file = _File(state, due=now + _SETTLED_S)
            self._files[source.path] = file
            if file.due <= now:
                file.due = math.inf
                yield source

    def failed(self, source: Source, now: float) -> bool:
        """Note that an upload failed, to try it again later; returns whether that is new for this
        state of the file."""
        file = self._files[source.path]
        is_new = not file.failed
        file.failed = True
        file.due = now + _AGAIN_S
        return is_new


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        # It is gone at the next look, or its upload fails and says why.
        return (0, 0)
    return (found.st_size, found.st_mtime_ns)

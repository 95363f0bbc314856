"""`upload`: write files to the landing bucket, and show the outcome of each."""

import concurrent.futures
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import click

from cli.clients import CALL_S, Clients
from cli.errors import CliError, StoppedError, exit_status
from cli.options import OUTCOME_COLUMNS, outcome_item, progress, system_option, wait_options
from cli.output import Format, Listing, Stream, format_option, note, say
from cli.text import amount, counted, shown
from cli.watch import Outcome, Watch, is_good
from functions.common.settings import STORAGE_CLASSES, STORE

_THREADS: Final = 8
_FILTER: Final = f'attributes.function = "{STORE}"'
_SETTLED_S: Final = 2.0  # a file that has not changed for this long is complete
_LOOK_S: Final = 1.0
_HALVES: Final = {".json": "json", ".jpg": "jpeg", ".jpeg": "jpeg"}  # of a pair, by their endings
_CLASSES: Final = tuple(filter(None, STORAGE_CLASSES))


@dataclass(frozen=True)
class Source:
    """A file to upload, and the name of its object."""

    path: Path
    name: str


@dataclass
class Batch:
    """Uploaded files and their outcomes.

    Args:
        waiting: name and generation of each object that has no outcome yet.
    """

    waiting: set[tuple[str, str]] = field(default_factory=set)
    outcomes: list[Outcome] = field(default_factory=list)
    uploaded: int = 0

    def take(self, outcome: Outcome) -> bool:
        """Keep an outcome; returns whether it is the last one of an object in this batch."""
        key = (str(outcome.get("name")), str(outcome.get("generation")))
        if key not in self.waiting:
            return False
        self.outcomes.append(outcome)
        if "member" in outcome:  # the archive's own outcome comes after those of its members
            return False
        self.waiting.discard(key)
        return True

    @property
    def summary(self) -> str:
        """`300 files: 280 stored, 18 duplicate, 2 conflict`."""
        own = [outcome for outcome in self.outcomes if "member" not in outcome]
        counts = dict(Counter(str(outcome["outcome"]) for outcome in own))
        counts["without an outcome yet"] = len(self.waiting)
        files = amount(self.uploaded, "files")
        if not self.uploaded:
            return files
        return f"{files}: {counted(counts)}"


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="FILE|FOLDER …")
@click.option(
    "--prefix", default="", metavar="PREFIX", help="Begin the objects' names with this: night/."
)
@click.option(
    "--storage-class", type=click.Choice(_CLASSES), help="Storage class in the DICOM store."
)
@click.option(
    "--watch",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="Upload every file that appears in FOLDER, until Ctrl-C.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show all outcomes, not only failures.")
@wait_options
@format_option
@system_option
def upload(
    clients: Clients,
    paths: tuple[Path, ...],
    prefix: str,
    storage_class: str | None,
    folder: Path | None,
    verbose: bool,
    no_wait: bool,
    timeout: float,
    output: Format,
) -> int:
    """Upload files to the landing bucket and show the outcome of each.

    The objects of a folder keep their relative paths: FOLDER/a/b is the object FOLDER/a/b. Two
    files that would be one object are refused.
    """
    uploader = Uploader(clients, storage_class)
    if folder is not None:
        if paths:
            raise CliError("--watch takes one folder and no other files")
        return _follow(uploader, folder, prefix, output)
    if not paths:
        raise CliError("give files or folders to upload, or --watch FOLDER")
    sources = _distinct(_sources(paths, prefix, clients.system.local))
    if not sources:
        raise CliError(f"there are no files in {', '.join(map(str, paths))}")
    _warn_of_halves(sources)
    if no_wait:
        return _sent(uploader, sources, output)
    batch = _uploaded(uploader, sources, timeout, output)
    return _report(
        batch=batch,
        bucket=uploader.bucket.name,
        verbose=verbose,
        timeout_s=timeout,
        output=output,
    )


def _sent(uploader: "Uploader", sources: list[Source], output: Format) -> int:
    """Upload without waiting for the outcomes."""
    batch = Batch()
    uploader.send(sources, batch, output)
    if output.for_people:
        files = amount(batch.uploaded, "files")
        say(f"{files} uploaded to gs://{uploader.bucket.name}")
    return 0


def _warn_of_halves(sources: Sequence[Source]) -> None:
    """Warn of metadata and JPEG files whose other half is not uploaded too."""
    alone = _alone(sources)
    if not alone:
        return
    files = amount(len(alone), "files")
    example = shown(alone[0])
    note(
        f"warning: {files} without the other half of a pair, such as {example}: metadata and its"
        " JPEG need one name in one folder (NAME.json, NAME.jpg)"
    )


def _alone(sources: Sequence[Source]) -> list[str]:
    """The names of metadata and JPEG files whose other half is not uploaded too."""
    # The names by stem, which the two halves of a pair have in common.
    metadata: dict[str, str] = {}
    jpegs: dict[str, str] = {}
    halves = {"json": metadata, "jpeg": jpegs}
    for source in sources:
        path = PurePosixPath(source.name)
        kind = _HALVES.get(path.suffix.lower())
        if kind:
            stem = str(path.with_suffix(""))
            halves[kind][stem] = source.name
    alone = [name for stem, name in metadata.items() if stem not in jpegs]
    alone += [name for stem, name in jpegs.items() if stem not in metadata]
    return sorted(alone)


class Uploader:
    """Writes objects to the landing bucket.

    Args:
        clients: of the system.
        storage_class: in the DICOM store; None: the system's setting.
    """

    def __init__(self, clients: Clients, storage_class: str | None) -> None:
        self.clients = clients
        self.bucket = clients.storage.bucket(clients.system.buckets["landing"])
        self._metadata = {"dicom-storage-class": storage_class} if storage_class else None

    def write(self, source: Source) -> tuple[str, str]:
        """Upload one file; returns the object's name and generation."""
        blob = self.bucket.blob(source.name)
        blob.metadata = self._metadata
        blob.upload_from_filename(str(source.path), timeout=CALL_S)
        return source.name, str(blob.generation)

    def send(self, sources: list[Source], batch: Batch, output: Format) -> None:
        """Upload files, several at once."""
        pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        with progress(output) as bar:
            task = bar.add_task("uploading", total=len(sources))
            try:
                for key in pool.map(self.write, sources):
                    batch.waiting.add(key)
                    batch.uploaded += 1
                    bar.advance(task)
            finally:
                pool.shutdown(cancel_futures=True)


def _uploaded(uploader: Uploader, sources: list[Source], timeout_s: float, output: Format) -> Batch:
    """Upload and wait for the outcomes."""
    batch = Batch()
    try:
        with Watch(uploader.clients, _FILTER) as watch:
            uploader.send(sources, batch, output)
            _wait(batch, watch.until(timeout_s), output)
    except KeyboardInterrupt:
        files = amount(len(sources), "files")
        raise StoppedError(
            f"stopped: {batch.uploaded} of {files} were uploaded and will still be processed;"
            " see dicom-functions outcomes"
        ) from None
    return batch


def _wait(batch: Batch, outcomes: Iterable[Outcome], output: Format) -> None:
    """Take outcomes until every file of the batch has one."""
    with progress(output) as bar:
        task = bar.add_task("outcomes", total=batch.uploaded)
        for outcome in outcomes:
            if batch.take(outcome):
                bar.advance(task)
            if not batch.waiting:
                return


def _report(
    batch: Batch,
    bucket: str,
    verbose: bool,
    timeout_s: float,
    output: Format,
) -> int:
    bad = [outcome for outcome in batch.outcomes if not is_good(outcome)]
    listed = bad
    if verbose or not output.for_people:
        listed = batch.outcomes
    if listed or not output.for_people:
        items = [outcome_item(outcome) for outcome in listed]
        Listing(output).print(items, OUTCOME_COLUMNS)
    if output.for_people:
        say(f"{batch.summary}, in gs://{bucket}")
    if batch.waiting:
        files = amount(len(batch.waiting), "files")
        note(
            f"{files} had no outcome within {timeout_s:.0f} s but will still be processed;"
            " see dicom-functions outcomes"
        )
    return exit_status(not bad and not batch.waiting)


def _sources(paths: Iterable[Path], prefix: str, local: bool) -> Iterator[Source]:
    """Each file and the name of its object.

    Raises:
        CliError: a path does not exist, or the local bucket server cannot keep a name.
    """
    for path in paths:
        if not path.exists():
            raise CliError(f"{path} does not exist")
        whole = path.resolve()
        files = _files(whole) if whole.is_dir() else [whole]
        for file in files:
            name = prefix + file.relative_to(whole.parent).as_posix()
            if local:
                _check_local_name(name)
            yield Source(file, name)


def _distinct(sources: Iterable[Source]) -> list[Source]:
    """Each file once.

    Raises:
        CliError: two files would be one object, and only the last would be stored.
    """
    found: dict[str, Source] = {}
    for source in sources:
        known = found.setdefault(source.name, source)
        if known.path != source.path:
            raise CliError(
                f"{known.path} and {source.path} would both be the object {source.name}: upload "
                "the folder that holds both, or use another --prefix for each"
            )
    return list(found.values())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _check_local_name(name: str) -> None:
    """Check that the local bucket server, which keeps objects as files, can keep this name.

    Raises:
        CliError: it cannot.
    """
    from infra.local.clients import ClientError, check_object_name

    try:
        check_object_name(name)
    except ClientError as error:
        raise CliError(str(error)) from error


def _follow(uploader: Uploader, folder: Path, prefix: str, output: Format) -> int:
    """Upload new files of a folder, and print outcomes as they come, until Ctrl-C."""
    batch = Batch()
    seen: dict[Path, tuple[int, int]] = {}
    stream = Stream(output, OUTCOME_COLUMNS)
    if output.for_people:
        say(f"watching {shown(folder.resolve().as_posix())}; Ctrl-C stops")
    local = uploader.clients.system.local
    try:
        with Watch(uploader.clients, _FILTER) as watch:
            while True:
                for source in _appeared(folder, prefix, seen, local):
                    key = uploader.write(source)
                    batch.waiting.add(key)
                    batch.uploaded += 1
                outcomes = watch.take(wait_s=_LOOK_S)
                _take_new(outcomes, batch, stream)
    except KeyboardInterrupt:
        raise StoppedError(
            f"stopped: {batch.summary}; uploaded files will still be processed"
        ) from None


def _appeared(
    folder: Path, prefix: str, seen: dict[Path, tuple[int, int]], local: bool
) -> Iterator[Source]:
    """New or changed files, once they no longer grow."""
    for source in _sources([folder], prefix, local):
        try:
            found = source.path.stat()
        except FileNotFoundError:
            continue
        state = (found.st_size, found.st_mtime_ns)
        if seen.get(source.path) == state:
            continue
        unchanged_s = time.time() - found.st_mtime
        if unchanged_s < _SETTLED_S:
            continue
        seen[source.path] = state
        yield source


def _take_new(outcomes: list[Outcome], batch: Batch, stream: Stream) -> None:
    for outcome in outcomes:
        before = len(batch.outcomes)
        batch.take(outcome)
        if len(batch.outcomes) > before:
            stream.add(outcome_item(outcome))

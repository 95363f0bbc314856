"""`upload`: write files to the landing bucket, and show the outcome of each."""

import concurrent.futures
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import click

from cli.clients import CALL_S, Clients, explained
from cli.errors import CliError, NotUploadedError, StoppedError, exit_status
from cli.options import OUTCOME_COLUMNS, outcome_item, progress, system_option, wait_options
from cli.output import Format, Listing, Stream, format_option, note, say
from cli.sources import Folder, Source, distinct, sources
from cli.text import amount, counted, shown
from cli.watch import Outcome, Watch, is_good
from functions.common.settings import STORAGE_CLASSES, STORE

_THREADS: Final = 8
_FILTER: Final = f'attributes.function = "{STORE}"'
_LOOK_S: Final = 1.0
_NAME_BYTES: Final = 1024  # Cloud Storage allows so many
_HALVES: Final = {".json": "json", ".jpg": "jpeg", ".jpeg": "jpeg"}  # of a pair, by their endings
_CLASSES: Final = tuple(filter(None, STORAGE_CLASSES))


@dataclass
class Batch:
    """Uploaded files and their outcomes.

    Args:
        waiting: name and generation of each object that has no outcome yet.
        failed: how many files could not be uploaded.
    """

    waiting: set[tuple[str, str]] = field(default_factory=set)
    outcomes: list[Outcome] = field(default_factory=list)
    uploaded: int = 0
    failed: int = 0

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
        counts["not uploaded"] = self.failed
        total = self.uploaded + self.failed
        files = amount(total, "files")
        if not total:
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
    found = distinct(sources(paths, prefix))
    if not found:
        raise CliError(f"there are no files in {', '.join(map(str, paths))}")
    _warn_of_halves(found)
    if no_wait:
        return _sent(uploader, found, output)
    batch = _uploaded(uploader, found, timeout, output)
    return _report(
        batch=batch,
        bucket=uploader.bucket.name,
        verbose=verbose,
        timeout_s=timeout,
        output=output,
    )


def _sent(uploader: "Uploader", found: list[Source], output: Format) -> int:
    """Upload without waiting for the outcomes."""
    batch = Batch()
    uploader.send(found, batch, output)
    if output.for_people:
        files = amount(batch.uploaded, "files")
        say(f"{files} uploaded to gs://{uploader.bucket.name}")
    return exit_status(not batch.failed)


def _warn_of_halves(found: Sequence[Source]) -> None:
    """Warn of metadata and JPEG files whose other half is not uploaded too."""
    alone = _alone(found)
    if not alone:
        return
    files = amount(len(alone), "files")
    example = shown(alone[0])
    note(
        f"warning: {files} without the other half of a pair, such as {example}: metadata and its"
        " JPEG need one name in one folder (NAME.json, NAME.jpg)"
    )


def _alone(found: Sequence[Source]) -> list[str]:
    """The names of metadata and JPEG files whose other half is not uploaded too."""
    # The names by stem, which the two halves of a pair have in common.
    metadata: dict[str, str] = {}
    jpegs: dict[str, str] = {}
    halves = {"json": metadata, "jpeg": jpegs}
    for source in found:
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
        """Upload one file; returns the object's name and generation.

        Raises:
            NotUploadedError: it cannot be read, or Cloud Storage refuses it.
            GoogleAPICallError: no file can be uploaded at this time.
        """
        from google.api_core import exceptions

        _check_name(source.name, self.clients.system.local)
        blob = self.bucket.blob(source.name)
        blob.metadata = self._metadata
        try:
            blob.upload_from_filename(str(source.path), timeout=CALL_S)
        except (exceptions.Unauthorized, exceptions.NotFound, exceptions.TooManyRequests):
            # Not about this file: the credentials, the bucket, its load.
            raise
        except exceptions.ClientError as error:
            # 403 too: who may only create objects cannot replace one.
            raise NotUploadedError(str(explained(error))) from error
        except OSError as error:
            if explained(error) is not None:
                # The service does not answer.
                raise
            raise NotUploadedError(error.strerror or type(error).__name__) from error
        except ValueError as error:
            # It has fewer bytes than when it was opened.
            raise NotUploadedError("it changed while it was read") from error
        return source.name, str(blob.generation)

    def send(self, found: list[Source], batch: Batch, output: Format) -> None:
        """Upload files, several at once. One that fails does not stop the others."""
        pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        with progress(output) as bar:
            task = bar.add_task("uploading", total=len(found))
            try:
                running = [pool.submit(self.write, source) for source in found]
                for source, written in zip(found, running, strict=True):
                    try:
                        batch.waiting.add(written.result())
                        batch.uploaded += 1
                    except NotUploadedError as error:
                        _say_failed(source, error)
                        batch.failed += 1
                    bar.advance(task)
            finally:
                pool.shutdown(cancel_futures=True)


def _uploaded(uploader: Uploader, found: list[Source], timeout_s: float, output: Format) -> Batch:
    """Upload and wait for the outcomes."""
    batch = Batch()
    try:
        with Watch(uploader.clients, _FILTER) as watch:
            uploader.send(found, batch, output)
            _wait(batch, watch.until(timeout_s), output)
    except KeyboardInterrupt:
        files = amount(len(found), "files")
        raise StoppedError(
            f"stopped: {batch.uploaded} of {files} were uploaded and will still be processed;"
            " see dicom-functions outcomes"
        ) from None
    return batch


def _wait(batch: Batch, outcomes: Iterable[Outcome], output: Format) -> None:
    """Take outcomes until every file of the batch has one."""
    if not batch.waiting:
        return
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
    return exit_status(not bad and not batch.waiting and not batch.failed)


def _check_name(name: str, local: bool) -> None:
    """Check that an object can have this name.

    Args:
        name: of the object.
        local: whether the local bucket server, which keeps objects as files, must keep it.

    Raises:
        NotUploadedError: it cannot.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise NotUploadedError("its name is not UTF-8") from error
    if size > _NAME_BYTES:
        raise NotUploadedError(f"the name of its object is longer than {_NAME_BYTES} bytes")
    if not local:
        return
    from infra.local.clients import ClientError, check_object_name

    try:
        check_object_name(name)
    except ClientError as error:
        raise NotUploadedError(str(error)) from error


def _say_failed(source: Source, error: NotUploadedError) -> None:
    note(f"error: {source.path} was not uploaded: {error}")


def _follow(uploader: Uploader, folder: Path, prefix: str, output: Format) -> int:
    """Upload new files of a folder, and print outcomes as they come, until Ctrl-C."""
    batch = Batch()
    watched = Folder(folder, prefix)
    stream = Stream(output, OUTCOME_COLUMNS)
    if output.for_people:
        say(f"watching {shown(folder.resolve().as_posix())}; Ctrl-C stops")
    try:
        with Watch(uploader.clients, _FILTER) as watch:
            while True:
                _upload_due(uploader, watched, batch)
                outcomes = watch.take(wait_s=_LOOK_S)
                _take_new(outcomes, batch, stream)
    except KeyboardInterrupt:
        raise StoppedError(
            f"stopped: {batch.summary}; uploaded files will still be processed"
        ) from None


def _upload_due(uploader: Uploader, watched: Folder, batch: Batch) -> None:
    """Upload what is complete. A failure is said once for each state of a file."""
    for source in watched.due():
        try:
            key = uploader.write(source)
        except NotUploadedError as error:
            if watched.failed(source):
                _say_failed(source, error)
            continue
        batch.waiting.add(key)
        batch.uploaded += 1


def _take_new(outcomes: list[Outcome], batch: Batch, stream: Stream) -> None:
    for outcome in outcomes:
        before = len(batch.outcomes)
        batch.take(outcome)
        if len(batch.outcomes) > before:
            stream.add(outcome_item(outcome))

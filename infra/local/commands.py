"""The helper commands: what people without gcloud do with the stack."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra.local import views
from infra.local.clients import ClientError, Watch, check_object_name
from infra.local.running import Running

Outcome = dict[str, Any]


def upload(running: Running, options: argparse.Namespace) -> int:
    """Write files to the landing bucket and wait for the outcome of each."""
    files = list(_files(options.paths, options.prefix))
    if not files:
        raise ClientError("there are no files in what was named")
    bucket = running.names["landing"]
    metadata = {"dicom-storage-class": options.storage_class} if options.storage_class else {}
    waiting: dict[tuple[str, str], Path] = {}
    outcomes: list[Outcome] = []
    with running.watch() as watch, _progress(options) as progress:
        task = progress.add_task("uploading", total=len(files))
        for path, name in files:
            generation = running.buckets.upload(bucket, name, path, metadata)
            waiting[name, str(generation)] = path
            progress.advance(task)
        if options.wait:
            task = progress.add_task("outcomes", total=len(files))
            for outcome in _until(watch, options.timeout):
                key = (str(outcome.get("name")), str(outcome.get("generation")))
                if key not in waiting:
                    continue
                outcomes.append(outcome)
                if "member" not in outcome:  # an archive's own comes after those of its members
                    del waiting[key]
                    progress.advance(task)
                if not waiting:
                    break
    if not options.wait:
        _say(
            options,
            {"uploaded": len(files), "bucket": bucket},
            f"{len(files)} uploaded to gs://{bucket}",
        )
        return 0
    _show(options, outcomes)
    if waiting:
        raise ClientError(
            f"{len(waiting)} of {len(files)} had no outcome within {options.timeout:.0f} s"
        )
    return 0 if all(map(views.is_good, outcomes)) else 1


def delete(running: Running, options: argparse.Namespace) -> int:
    """Ask for a delete and wait for its outcome."""
    fields = {
        "path": options.path,
        "query": options.query,
        "max_studies": options.max_studies,
        "stored_before": options.stored_before,
        "dry_run": options.dry_run or None,
    }
    return _command(running, options, "deletes", fields)


def export(running: Running, options: argparse.Namespace) -> int:
    """Ask for an export and wait for its outcome."""
    fields = {
        "path": options.path,
        "query": options.query,
        "destination": options.to,
        "format": options.format,
        "transfer_syntax": options.transfer_syntax,
    }
    return _command(running, options, "exports", fields)


def _command(
    running: Running, options: argparse.Namespace, role: str, fields: Mapping[str, Any]
) -> int:
    given = {key: item for key, item in fields.items() if item is not None}
    with running.watch() as watch:
        request_id = running.command(role, given)
        if not options.wait:
            _say(options, {"request_id": request_id}, f"asked for, as {request_id}")
            return 0
        with _progress(options) as progress:
            progress.add_task(f"waiting for {request_id}", total=None)
            for outcome in _until(watch, options.timeout):
                if outcome.get("request_id") == request_id and not outcome.get("member"):
                    break
            else:
                raise ClientError(f"{request_id} had no outcome within {options.timeout:.0f} s")
    _show(options, [outcome])
    return 0 if views.is_good(outcome) else 1


def search(running: Running, options: argparse.Namespace) -> int:
    """Show what the search function finds."""
    parameters = []
    for text in options.parameters:
        key, mark, item = text.partition("=")
        if not mark:
            raise ClientError(
                f"a search parameter is KEY=VALUE, such as PatientID=4MR1, not {text!r}"
            )
        parameters.append((key, item))
    shown = [] if options.json else views.wanted(options.level)
    found, warning = running.search(options.level, [*parameters, *shown], options.scope)
    if options.json:
        print(json.dumps(found))
    else:
        views.wide_console().print(views.search_table(options.level, found))
        print(f"{len(found)} {options.level}")
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def outcomes(running: Running, options: argparse.Namespace) -> int:
    """Show the ledger's latest outcomes, or every new one as it comes."""
    if not options.follow:
        _show(options, running.ledger(options.limit))
        return 0
    console = views.wide_console()
    with running.watch() as watch:
        for outcome in watch.follow():
            if options.json:
                print(json.dumps(outcome), flush=True)
            else:
                console.print(
                    "  ".join(filter(None, views.outcome_row(outcome))),
                    highlight=False,
                    soft_wrap=True,
                )
    return 0


def env(running: Running, options: argparse.Namespace) -> int:
    """Print the functions' environment, for eval "$(python -m infra.local env)"."""
    functions = running.state["endpoints"]["functions"]
    values = {
        **running.state["env"],
        "DICOMWEB_URL": running.state["endpoints"]["dicomweb"],
        **{f"{name.upper()}_URL": url for name, url in functions.items()},
    }
    if options.json:
        print(json.dumps(values))
    else:
        for name, text in values.items():
            print(f"export {name}={shlex.quote(text)}")
    return 0


def _files(paths: Iterable[Path], prefix: str) -> Iterator[tuple[Path, str]]:
    """Each file and the name of its object: a folder's files keep their place in it.

    Raises:
        ClientError: a path is missing, or a name cannot be kept.
    """
    for path in paths:
        if not path.exists():
            raise ClientError(f"there is no {path}")
        base = path.resolve().parent
        found = (
            sorted(item for item in path.resolve().rglob("*") if item.is_file())
            if path.is_dir()
            else [path.resolve()]
        )
        for item in found:
            name = prefix + item.relative_to(base).as_posix()
            check_object_name(name)
            yield item, name


def _until(watch: Watch, timeout_s: float) -> Iterator[Outcome]:
    """Outcomes as they come, for timeout_s seconds from now."""
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        yield from watch.take(wait_s=left)


def _progress(options: argparse.Namespace) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=options.json)


def _say(options: argparse.Namespace, fields: Mapping[str, Any], text: str) -> None:
    print(json.dumps(fields) if options.json else text)


def _show(options: argparse.Namespace, found: Iterable[Outcome]) -> None:
    if options.json:
        for outcome in found:
            print(json.dumps(outcome))
    else:
        views.wide_console().print(views.outcomes_table(found))

"""`quarantine list|show`: objects that can never be stored, and why."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import click

from cli.clients import CALL_S, Clients
from cli.errors import CliError
from cli.options import system_option
from cli.output import Item, Listing, listing_options, note, print_json, say
from functions.store.quarantine import SIDECAR_ENDING, SIDECAR_LIMIT_BYTES

_LATEST: Final = 100
_SORTED_MAX: Final = 10_000  # notes that are read to be sorted
_COLUMNS: Final = ("since", "reason", "detail", "name", "object")


@click.group()
def quarantine() -> None:
    """What can never be stored: objects that were moved to the quarantine bucket, and why.

    After a fix: dicom-functions replay quarantine.
    """


@quarantine.command("list")
@click.option("--reason", metavar="REASON", help="Only these, such as rejected or conflict.")
@click.option("--prefix", default="", help="Only objects whose name was beginning so.")
@listing_options(limit=_LATEST)
@system_option
def list_(clients: Clients, reason: str | None, prefix: str, listing: Listing) -> int:
    """List what waits: since when, why, and what it was called."""
    if prefix and reason is None:
        raise CliError("--prefix needs --reason: objects lie below their reason")
    begin = ""
    if reason:
        begin = f"{reason}/{prefix}"
    blobs = notes(clients, begin)
    most = listing.read(_LATEST, _SORTED_MAX)
    chosen = listing.chosen(_item(blob) for blob in islice(blobs, most))
    listing.print(chosen, _COLUMNS)
    if listing.format.for_people:
        say(f"{len(chosen)} in gs://{clients.system.buckets['quarantine']}")
    if next(blobs, None) is not None:
        note("there are more; --limit N shows more")
    return 0


@quarantine.command("show")
@click.argument("name", metavar="OBJECT")
@system_option
def show(clients: Clients, name: str) -> int:
    """Show all that is known of an object, as JSON, the members of an archive too.

    OBJECT is its name in quarantine, as `list` gives it, with or without gs://BUCKET/.
    """
    bucket = clients.system.buckets["quarantine"]
    short = name.removeprefix(f"gs://{bucket}/").removesuffix(SIDECAR_ENDING)
    blob = clients.storage.bucket(bucket).get_blob(short + SIDECAR_ENDING, timeout=CALL_S)
    if blob is None:
        raise CliError(f"gs://{bucket} has no {short} with its reason")
    print_json(_item(blob).full)
    return 0


def notes(clients: Clients, prefix: str) -> Iterator[Any]:
    """The notes beside the objects in quarantine, as blobs."""
    bucket = clients.system.buckets["quarantine"]
    for blob in clients.storage.list_blobs(bucket, prefix=prefix, timeout=CALL_S):
        if blob.name.endswith(SIDECAR_ENDING):
            yield blob


def text_of(blob: Any) -> bytes:
    """A note's text, at most as long as a note is."""
    found: bytes = blob.download_as_bytes(end=SIDECAR_LIMIT_BYTES, timeout=CALL_S)
    return found


def _item(blob: Any) -> Item:
    name = blob.name.removesuffix(SIDECAR_ENDING)
    record = {"object": f"gs://{blob.bucket.name}/{name}"}
    try:
        record |= json.loads(text_of(blob))
    except (ValueError, TypeError):
        record["detail"] = "the note cannot be read"
    since = record.get("time") or blob.time_created.isoformat()
    return Item.of(record, since=since)

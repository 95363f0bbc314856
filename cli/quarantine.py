"""`quarantine list|show`: objects that could not be stored, and why."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import click

from cli.clients import CALL_S, Clients
from cli.errors import CliError
from cli.options import system_option
from cli.output import Item, Listing, listing_options, note, print_json, say
from cli.text import amount
from functions.store.sidecar import SIDECAR_ENDING, SIDECAR_LIMIT_BYTES

_LATEST: Final = 100
_SORTED_MAX: Final = 10_000  # sidecars that are read to be sorted
_COLUMNS: Final = ("since", "reason", "detail", "name", "object")


@click.group()
def quarantine() -> None:
    """List and show objects that could not be stored, and why.

    They were moved to the quarantine bucket. To upload them again after a fix: dicom-functions
    replay quarantine.
    """


@quarantine.command("list")
@click.option("--reason", metavar="REASON", help="Only this reason, such as rejected or conflict.")
@click.option(
    "--prefix",
    default="",
    metavar="PREFIX",
    help="Only objects whose old name begins with this; needs --reason.",
)
@listing_options(limit=_LATEST)
@system_option
def list_(clients: Clients, reason: str | None, prefix: str, listing: Listing) -> int:
    """List the objects in quarantine: since when, why, and their old names."""
    if prefix and reason is None:
        raise CliError("--prefix needs --reason: quarantine has a folder for each reason")
    begin = ""
    if reason:
        begin = f"{reason}/{prefix}"
    blobs = sidecars(clients, begin)
    most = listing.read(_LATEST, _SORTED_MAX)
    chosen = listing.chosen(_item(blob) for blob in islice(blobs, most))
    listing.print(chosen, _COLUMNS)
    if listing.format.for_people:
        bucket = clients.system.buckets["quarantine"]
        say(f"{amount(len(chosen), 'objects')} from gs://{bucket}")
    if next(blobs, None) is not None:
        note("there are more: use --limit N")
    return 0


@quarantine.command("show")
@click.argument("name", metavar="OBJECT")
@system_option
def show(clients: Clients, name: str) -> int:
    """Show why an object is in quarantine, as JSON.

    OBJECT is its name in quarantine as `list` shows it, with or without gs://BUCKET/. For an
    archive, the members that failed are shown too.
    """
    bucket = clients.system.buckets["quarantine"]
    short = name.removeprefix(f"gs://{bucket}/").removesuffix(SIDECAR_ENDING)
    blob = clients.storage.bucket(bucket).get_blob(short + SIDECAR_ENDING, timeout=CALL_S)
    if blob is None:
        raise CliError(
            f"gs://{bucket} has no object {short} with a sidecar: dicom-functions quarantine list"
        )
    print_json(_item(blob).full)
    return 0


def sidecars(clients: Clients, prefix: str) -> Iterator[Any]:
    """The sidecars of the objects in quarantine, as blobs."""
    bucket = clients.system.buckets["quarantine"]
    for blob in clients.storage.list_blobs(bucket, prefix=prefix, timeout=CALL_S):
        if blob.name.endswith(SIDECAR_ENDING):
            yield blob


def text_of(blob: Any) -> bytes:
    """A sidecar's text, up to the size limit of sidecars."""
    found: bytes = blob.download_as_bytes(end=SIDECAR_LIMIT_BYTES, timeout=CALL_S)
    return found


def _item(blob: Any) -> Item:
    name = blob.name.removesuffix(SIDECAR_ENDING)
    record = {"object": f"gs://{blob.bucket.name}/{name}"}
    try:
        record |= json.loads(text_of(blob))
    except (ValueError, TypeError):
        record["detail"] = "the sidecar cannot be read"
    since = record.get("time") or blob.time_created.isoformat()
    return Item.of(record, since=since)

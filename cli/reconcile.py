"""`reconcile`: find objects in the landing bucket without an outcome in the ledger, and publish
their events again.

There are such objects if Cloud Storage never sent an event, or if the event became a dead letter.
Recent objects are left alone: their outcomes may still come. Publishing an event again does no
harm; at most the object is a duplicate. The event has an attribute so that the object is processed
from the start, even by a process that remembers having begun it.

The ids of the outcomes are kept in a temporary file, so memory does not grow with the ledger. An
outcome is never older than its object: for objects since a date, the ledger is read only since that
date (the names of its files begin with the time).
"""

import io
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import click

from cli.clients import CALL_S, Clients
from cli.errors import CliError
from cli.numbers import Seconds
from cli.options import dry_run_option, system_option
from cli.output import note
from cli.progress import Progress
from functions.common import jsonvalues
from functions.common.deadline import parsed_rfc3339
from functions.common.errors import PermanentError
from functions.common.events.messages import AGAIN
from functions.common.events.outcomes import outcome_id
from functions.common.resources import ObjectRef
from functions.common.settings import STORE

_HOUR_S: Final = 3600.0
_OLDEST_S: Final = 100 * 366 * 86400.0  # dates do not reach back without limit
_FILE_CACHE_KIB: Final = 16 * 1024  # of the temporary file, in memory
_READ_BYTES: Final = 16 * 1024 * 1024  # of the ledger, in one request
_LINE_BYTES: Final = 1024 * 1024
# `outcomes/2026-01-31T08:00:00+00:00_abc.ndjson`
_NAME_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|\+00:00)")
# A file's name has the time when it was begun; its records may be older by up to _CLOCKS.
_CLOCKS: Final = timedelta(hours=1)
_EARLIEST: Final = "1970-01-01"
_LATEST: Final = "9999-01-01"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@click.command()
@click.option(
    "--prefix", default="", metavar="PREFIX", help="Only objects whose name begins with this."
)
@click.option(
    "--since",
    metavar="DATE",
    help="Only objects written since this date (2026-01-31, UTC). The ledger is also read only "
    "from then on.",
)
@click.option("--until", metavar="DATE", help="Only objects written before this date.")
@click.option(
    "--older-than-s",
    type=Seconds(min=0, max=_OLDEST_S),
    default=_HOUR_S,
    show_default=True,
    metavar="S",
    help="Only objects older than S seconds.",
)
@dry_run_option
@system_option
def reconcile(
    clients: Clients,
    prefix: str,
    since: str | None,
    until: str | None,
    older_than_s: float,
    dry_run: bool,
) -> int:
    """Publish the events of objects in the landing bucket again if they have no outcome.

    Compares the landing bucket with the ledger.
    """
    which = Which.of(prefix, since, until, older_than_s)
    note(f"reconcile: {clients.system.where}")
    compared(clients, which, dry_run).end()
    return 0


@dataclass(frozen=True)
class Which:
    """Which objects of the landing bucket are compared.

    Args:
        prefix: the beginning of their names.
        since: they were written then or later.
        until: they were written earlier.
        young: those written later are left alone.
    """

    prefix: str
    since: datetime
    until: datetime
    young: datetime

    @classmethod
    def of(cls, prefix: str, since: str | None, until: str | None, older_than_s: float) -> Self:
        """From the options.

        Raises:
            CliError: a date has another form.
        """
        first = _date("--since", since or _EARLIEST)
        last = _date("--until", until or _LATEST)
        if first >= last:
            raise CliError(f"--since {since} is not before --until {until}")
        return cls(prefix, first, last, datetime.now(UTC) - timedelta(seconds=older_than_s))

    @property
    def ledger_since(self) -> datetime:
        """When the first ledger file that can have one of their outcomes was begun."""
        # An hour before the first date of the calendar is no date.
        return max(self.since, _EPOCH) - _CLOCKS


def compared(clients: Clients, which: Which, dry_run: bool) -> Progress:
    """Compare the landing bucket with the ledger, and publish what is missing.

    Returns:
        The counts: outcomes, objects, with an outcome, too young, published (or to publish).
    """
    progress = Progress("to publish" if dry_run else "published")
    known = Known()
    for record in _records(clients, which.ledger_since, progress):
        if known.add(record):
            progress.count("outcomes")
    topic = clients.system.topic("uploads")
    bucket = clients.system.buckets["landing"]
    for blob in clients.storage.list_blobs(bucket, prefix=which.prefix, timeout=CALL_S):
        # Not `updated`, which changes with the metadata.
        written = blob.time_created
        if not which.since <= written < which.until:
            continue
        progress.count("objects")
        if blob in known:
            progress.count("with an outcome")
        elif written > which.young:
            progress.count("too young")
        else:
            if not dry_run:
                clients.publish(topic, _notification(blob), _attributes(blob))
            progress.count(progress.done)
    return progress


class Known:
    """The ids of the outcomes of whole objects, in a temporary file."""

    def __init__(self) -> None:
        # Without a name: a file that is deleted when it is closed.
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute(f"PRAGMA cache_size = -{_FILE_CACHE_KIB}")
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute("CREATE TABLE known (id BLOB PRIMARY KEY) WITHOUT ROWID")
        self._file.execute("BEGIN")

    def add(self, record: Mapping[str, Any]) -> bool:
        """Keep the id of the outcome of a whole object; False for any other record."""
        if record.get("function") != STORE or "generation" not in record or "member" in record:
            return False
        try:
            found = bytes.fromhex(str(record.get("id")))
        except ValueError:
            return False
        self._file.execute("INSERT OR IGNORE INTO known VALUES (?)", (found,))
        return True

    def __contains__(self, blob: Any) -> bool:
        try:
            ref = ObjectRef(blob.bucket.name, blob.name, int(blob.generation))
        except PermanentError:
            return False
        found = bytes.fromhex(outcome_id(STORE, ref))
        row = self._file.execute("SELECT 1 FROM known WHERE id = ?", (found,)).fetchone()
        return row is not None


def _records(clients: Clients, since: datetime, progress: Progress) -> Iterator[dict[str, Any]]:
    """The ledger's records, from the files that were begun since that time."""
    prefix = clients.system.topology["ledger_subscription"]["filename_prefix"]
    for blob in clients.storage.list_blobs(
        clients.system.buckets["ledger"], prefix=prefix, timeout=CALL_S
    ):
        begun = _begun(blob.name)
        if begun is not None and begun < since:
            continue
        for line in _lines(blob):
            record = jsonvalues.parsed(line)
            if isinstance(record, dict):
                yield record
            else:
                progress.count("unreadable lines of the ledger")


def _begun(name: str) -> datetime | None:
    match = _NAME_TIME.search(name)
    if match is None:
        return None
    return parsed_rfc3339(match[0])


def _lines(blob: Any) -> Iterator[bytes]:
    """Its lines; a line longer than any record comes in pieces."""
    reader = io.BufferedReader(blob.open("rb", chunk_size=_READ_BYTES, timeout=CALL_S))
    while line := reader.readline(_LINE_BYTES):
        yield line


def _date(option: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise CliError(f"{option} must be a date such as 2026-01-31, not {text}") from error
    if found.tzinfo is None:
        return found.replace(tzinfo=UTC)
    return found


def _notification(blob: Any) -> bytes:
    """The message that Cloud Storage would have sent (JSON_API_V1), with the keys that are used."""
    resource = {
        "kind": "storage#object",
        "bucket": blob.bucket.name,
        "name": blob.name,
        "generation": str(blob.generation),
        "size": str(blob.size),
        "crc32c": blob.crc32c,
        "contentType": blob.content_type,
        "timeCreated": blob.time_created.isoformat(),
        "metadata": blob.metadata,
    }
    return json.dumps({key: value for key, value in resource.items() if value}).encode()


def _attributes(blob: Any) -> dict[str, str]:
    return {
        "eventType": "OBJECT_FINALIZE",
        "payloadFormat": "JSON_API_V1",
        "bucketId": blob.bucket.name,
        "objectId": blob.name,
        "objectGeneration": str(blob.generation),
        AGAIN: "reconcile",
    }

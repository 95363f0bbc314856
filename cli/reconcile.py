"""`reconcile`: find what lies in the landing bucket without an outcome in the ledger, and publish
its event again.

An event that Cloud Storage never sent, or that was dead-lettered, leaves such an object. What has
come lately is left alone: its outcome may be on its way. Publishing an event once more does no
harm; it is at most a duplicate. It says that it is to be handled from the start, also by a process
that remembers having begun with the object.

The ids of the outcomes go into a temporary file, so memory does not grow with the ledger. An
outcome is never older than its object: for objects since a date, the ledger is read since that date
only (Pub/Sub begins the names of its files with the time).
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
from cli.options import dry_run_option, system_option
from cli.output import note
from cli.progress import Progress
from functions.common.deadline import timestamp
from functions.common.errors import PermanentError
from functions.common.events.messages import ANEW
from functions.common.events.outcomes import outcome_id
from functions.common.resources import ObjectRef
from functions.common.settings import STORE

_HOUR_S: Final = 3600.0
_FILE_CACHE_KIB: Final = 16 * 1024  # of the temporary file, in memory
_READ_BYTES: Final = 16 * 1024 * 1024  # of the ledger, in one request
_LINE_BYTES: Final = 1024 * 1024
# `outcomes/2026-01-31T08:00:00+00:00_abc.ndjson`
_NAME_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|\+00:00)")
# A file is named by when it was begun: its records may be as old as this before that.
_EARLIEST: Final = "1970-01-01"
_LATEST: Final = "9999-01-01"
_CLOCKS: Final = timedelta(hours=1)


@click.command()
@click.option("--prefix", default="", help="Look only at objects whose name begins so.")
@click.option(
    "--since",
    metavar="DATE",
    help="Look only at objects written since then (2026-01-31, UTC), and read only so much of "
    "the ledger.",
)
@click.option("--until", metavar="DATE", help="Look only at objects written before then.")
@click.option(
    "--older-than-s",
    type=click.FloatRange(min=0),
    default=_HOUR_S,
    show_default=True,
    metavar="S",
    help="Leave younger objects alone.",
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
    """Publish again the events of objects in the landing bucket that have no outcome."""
    note(f"reconcile: {clients.system.where}")
    which = Which.of(prefix, since, until, older_than_s)
    compared(clients, which, dry_run).end()
    return 0


@dataclass(frozen=True)
class Which:
    """Which objects of the landing bucket are looked at.

    Args:
        prefix: beginning of their names.
        since: when they were written at the earliest.
        until: before when they were written.
        young: since when they are left alone.
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
        """When the first file of the ledger was begun that may hold one of their outcomes."""
        return self.since - _CLOCKS


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
        if not which.since <= blob.updated < which.until:
            continue
        progress.count("objects")
        if blob in known:
            progress.count("with an outcome")
        elif blob.updated > which.young:
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
        """Note the record of a whole object; False for any other."""
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
    """The ledger's records, from the files that were begun since then."""
    prefix = clients.system.topology["ledger_subscription"]["filename_prefix"]
    for blob in clients.storage.list_blobs(
        clients.system.buckets["ledger"], prefix=prefix, timeout=CALL_S
    ):
        begun = _begun(blob.name)
        if begun is not None and begun < since:
            continue
        for line in _lines(blob):
            try:
                record = json.loads(line)
            except ValueError:
                progress.count("unreadable lines of the ledger")
                continue
            if isinstance(record, dict):
                yield record


def _begun(name: str) -> datetime | None:
    match = _NAME_TIME.search(name)
    if match is None:
        return None
    return timestamp(match[0])


def _lines(blob: Any) -> Iterator[bytes]:
    """Its lines; of one that is longer than any record, pieces."""
    reader = io.BufferedReader(blob.open("rb", chunk_size=_READ_BYTES, timeout=CALL_S))
    while line := reader.readline(_LINE_BYTES):
        yield line


def _date(option: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise CliError(f"{option} is a date or time such as 2026-01-31, not {text}") from error
    if found.tzinfo is None:
        return found.replace(tzinfo=UTC)
    return found


def _notification(blob: Any) -> bytes:
    """What Cloud Storage would have sent (JSON_API_V1), as far as it is used."""
    resource = {
        "kind": "storage#object",
        "bucket": blob.bucket.name,
        "name": blob.name,
        "generation": str(blob.generation),
        "size": str(blob.size),
        "crc32c": blob.crc32c,
        "contentType": blob.content_type,
        "timeCreated": blob.updated.isoformat(),
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
        ANEW: "reconcile",
    }

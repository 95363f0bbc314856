"""The index: SQLite in WAL mode beside a directory of files.

An instance exists when its row is committed; until then its file is garbage that the next start
removes. A killed process therefore loses nothing it acknowledged and keeps nothing half stored.
`synchronous=NORMAL` and files without fsync mean that a power failure (not a crash) may lose the
last seconds: the price of speed on a developer's machine.
"""

import contextlib
import errno
import fcntl
import json
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from infra.local.dicomstore import attributes, model
from infra.local.dicomstore.attributes import Levels, levels
from infra.local.dicomstore.scan import File

SCHEMA = """
CREATE TABLE IF NOT EXISTS stores (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, body TEXT);
CREATE TABLE IF NOT EXISTS studies (id INTEGER PRIMARY KEY, store INTEGER NOT NULL, uid TEXT NOT NULL, lines TEXT,
  gone REAL, UNIQUE (store, uid));
CREATE TABLE IF NOT EXISTS keys (study INTEGER, store INTEGER, tag TEXT, value TEXT,
  PRIMARY KEY (store, tag, value, study)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_study ON keys (study);
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, study INTEGER NOT NULL, uid TEXT NOT NULL, modality TEXT,
  lines TEXT, gone REAL, UNIQUE (study, uid));
CREATE INDEX IF NOT EXISTS series_uid ON series (uid);
CREATE TABLE IF NOT EXISTS instances (id INTEGER PRIMARY KEY, series INTEGER NOT NULL, uid TEXT NOT NULL,
  sop_class TEXT, syntax TEXT, file TEXT, size INTEGER, storage_class TEXT, class_time REAL, lines TEXT,
  UNIQUE (series, uid));
CREATE INDEX IF NOT EXISTS instances_uid ON instances (uid);
CREATE TABLE IF NOT EXISTS metadata (instance INTEGER PRIMARY KEY, lines TEXT);
CREATE TABLE IF NOT EXISTS operations (id INTEGER PRIMARY KEY, dataset TEXT, version TEXT, method TEXT, store INTEGER,
  target TEXT, argument TEXT, created REAL, ended REAL, success INTEGER DEFAULT 0, failure INTEGER DEFAULT 0,
  code INTEGER DEFAULT 0, message TEXT, cancelled INTEGER DEFAULT 0);
"""
RESERVE = 8 << 20  # bytes of the disk kept free of files, so that the index can still be written
LIVE = "FROM studies st CROSS JOIN series se ON se.study = st.id CROSS JOIN instances i ON i.series = se.id"


class TakenError(Exception):
    """Another process serves this directory; one line for a person."""


class BlockedError(Exception):
    """An operation keeps instances from being stored here."""


class Uids(NamedTuple):
    """A resource in a store by its UIDs; the lower ones are empty for a study or a series."""

    study: str
    series: str = ""
    instance: str = ""

    @property
    def path(self) -> str:
        """`studies/…/series/…/instances/…` as far as it goes."""
        names = zip(("studies", "series", "instances"), self, strict=True)
        return "/".join(f"{name}/{uid}" for name, uid in names if uid)

    @classmethod
    def parse(cls, path: str) -> "Uids":
        """From what `path` gives."""
        return cls(*path.split("/")[1::2])


class Instance(NamedTuple):
    """A stored instance as retrieve needs it."""

    id: int
    uids: Uids
    sop_class: str
    syntax: str
    file: str
    size: int
    storage_class: str
    class_time: float
    modality: str


class Found(NamedTuple):
    """What a new instance brings to the index."""

    uids: Uids
    sop_class: str
    syntax: str
    levels: Levels
    lines: str  # what a search for instances shows
    metadata: str  # all attributes


def instance_of(file: File) -> Found:
    """What the index keeps of a file."""
    lines = model.lines(file)
    return Found(
        uids=Uids(file.text(0x0020000D), file.text(0x0020000E), file.text(0x00080018)),
        sop_class=file.text(0x00080016) or file.text(0x00020002),
        syntax=file.transfer_syntax,
        levels=levels(lines),
        lines="\n".join(model.pick(lines, attributes.INSTANCE_DEFAULT)),
        metadata="\n".join(lines),
    )


class Index:
    """Every store of this data directory. Reads run side by side; writes one after the other.

    Raises:
        TakenError: another process serves the directory: each would take the other's new files for
            garbage.
    """

    def __init__(self, directory: Path) -> None:
        self.files = directory / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self._lock_file = (directory / "lock").open("a")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TakenError(f"another DICOM store runs on {directory}") from None
        self._path = directory / "index.sqlite"
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._writer = self._connect()
        self._write_lock = threading.Lock()
        self._writer.executescript(f"BEGIN;{SCHEMA}COMMIT;")
        self._sweep()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=30, isolation_level=None, check_same_thread=False
        )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "mmap_size=1073741824",
            "cache_size=-32768",
        ):
            connection.execute("PRAGMA " + pragma)
        return connection

    def _sweep(self) -> None:
        """Remove what only stale searches still showed, and the files no row names: half written or
        just deleted."""
        with self.writing() as db:
            _drop_studies(db, "gone IS NOT NULL")
            db.execute("DELETE FROM series WHERE gone IS NOT NULL")
            kept = {row[0] for row in db.execute("SELECT file FROM instances")}
        for bucket in self.files.iterdir():
            for path in bucket.iterdir():
                if f"{bucket.name}/{path.name}" not in kept:
                    path.unlink()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with, for this thread alone until given back."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle.put(connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; committed at the end, rolled back on any exception."""
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def new_file(self) -> tuple[str, Path]:
        """A name for a new file and where to write it. Raises OSError: less room than deletes need
        to go on."""
        disk = os.statvfs(self.files)
        if disk.f_bavail * disk.f_frsize < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        token = secrets.token_hex(12)
        bucket = self.files / token[:2]
        bucket.mkdir(exist_ok=True)
        return f"{token[:2]}/{token}", bucket / token

    # --- stores ---

    def store_id(self, name: str) -> int | None:
        """The id of a store by its full name; None when there is none."""
        with self.reading() as db:
            row = db.execute("SELECT id FROM stores WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else None

    def create_store(self, name: str, body: str) -> bool:
        """Create it; False when it is there already."""
        with self.writing() as db:
            return (
                db.execute(
                    "INSERT OR IGNORE INTO stores (name, body) VALUES (?, ?)", (name, body)
                ).rowcount
                > 0
            )

    def store_name(self, store: int) -> str:
        """The full name of a store."""
        with self.reading() as db:
            return str(db.execute("SELECT name FROM stores WHERE id = ?", (store,)).fetchone()[0])

    def store_body(self, store: int) -> dict[str, Any]:
        """What was set on a store: labels, notificationConfigs …"""
        with self.reading() as db:
            row = db.execute("SELECT body FROM stores WHERE id = ?", (store,)).fetchone()
        return dict(json.loads(row[0])) if row else {}

    def update_store(self, store: int, body: str) -> None:
        """Set it anew."""
        with self.writing() as db:
            db.execute("UPDATE stores SET body = ? WHERE id = ?", (body, store))

    def stores(self, prefix: str) -> list[tuple[str, str]]:
        """Name and body of each store of a dataset, by name."""
        with self.reading() as db:
            found = db.execute("SELECT name, body FROM stores ORDER BY name").fetchall()
        return [(name, body) for name, body in found if name.startswith(prefix)]

    def delete_store(self, store: int) -> None:
        """Delete a store with everything in it."""
        with self.writing() as db:
            gone = _remove(db, store, Uids(""))
            _drop_studies(db, "store = ?", store)
            db.execute("DELETE FROM stores WHERE id = ?", (store,))
        self._unlink(gone)

    # --- instances ---

    def find(self, store: int, uids: Uids) -> Instance | None:
        """The instance with these UIDs."""
        return next(iter(self.instances(store, uids)), None)

    def instances(self, store: int, uids: Uids) -> list[Instance]:
        """Every instance of a study, a series, or the one, in the order of their UIDs."""
        with self.reading() as db:
            return _instances(db, store, uids)

    def metadata(self, instance: int) -> list[str]:
        """All attributes of an instance as lines; empty when it has just been deleted."""
        with self.reading() as db:
            row = db.execute(
                "SELECT lines FROM metadata WHERE instance = ?", (instance,)
            ).fetchone()
        return row[0].split("\n") if row else []

    def counts(self, store: int, uids: Uids, lag_s: float = 0.0) -> dict[str, int]:
        """Studies, series, instances and bytes under a resource, by the names the metrics methods
        use; without what was stored in the last `lag_s` seconds."""
        where, values = scope(store, uids)
        if lag_s:
            where += " AND i.class_time < ?"
            values = [*values, time.time() - lag_s]
        sql = (
            "SELECT COUNT(DISTINCT st.id), COUNT(DISTINCT se.id), COUNT(*), COALESCE(SUM(i.size), 0),"
            f" COALESCE(SUM(LENGTH(m.lines)), 0) {LIVE} JOIN metadata m ON m.instance = i.id WHERE {where}"
        )
        with self.reading() as db:
            row = db.execute(sql, values).fetchone()
        names = (
            "studyCount",
            "seriesCount",
            "instanceCount",
            "blobStorageSizeBytes",
            "structuredStorageSizeBytes",
        )
        return dict(zip(names, row, strict=True))

    def add(
        self,
        store: int,
        found: Found,
        file: str,
        size: int,
        storage_class: str,
        blocked: Callable[[Uids], bool],
    ) -> bool:
        """Add an instance in one transaction; False when its UIDs are taken (nothing changes then).

        Raises:
            BlockedError: blocked() says so, asked where no operation can start any more.
        """
        with self.writing() as db:
            if blocked(found.uids):
                raise BlockedError
            study = _study(db, store, found)
            series = _series(db, study, found)
            values = (
                series,
                found.uids.instance,
                found.sop_class,
                found.syntax,
                file,
                size,
                storage_class,
            )
            cursor = db.execute(
                "INSERT OR IGNORE INTO instances (series, uid, sop_class, syntax, file, size, storage_class,"
                " class_time, lines) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, time.time(), found.lines),
            )
            if cursor.rowcount:
                db.execute("INSERT INTO metadata VALUES (?, ?)", (cursor.lastrowid, found.metadata))
            return cursor.rowcount > 0

    def remove(self, store: int, uids: Uids) -> list[Instance]:
        """Delete a study, series or instance, and what became empty above it. Returns the instances
        deleted."""
        with self.writing() as db:
            gone = _remove(db, store, uids)
        self._unlink(gone)
        return gone

    def _unlink(self, gone: list[Instance]) -> None:
        for instance in gone:
            (self.files / instance.file).unlink(missing_ok=True)


def scope(store: int, uids: Uids) -> tuple[str, list[object]]:
    """The WHERE clause and its values for everything under a resource."""
    where, values = ["st.store = ?"], list[object]([store])
    for column, uid in zip(("st.uid", "se.uid", "i.uid"), uids, strict=True):
        if uid:
            where.append(f"{column} = ?")
            values.append(uid)
    return " AND ".join(where), values


def _instances(db: sqlite3.Connection, store: int, uids: Uids) -> list[Instance]:
    where, values = scope(store, uids)
    columns = "i.id, st.uid, se.uid, i.uid, i.sop_class, i.syntax, i.file, i.size, i.storage_class, i.class_time, se.modality"
    rows = db.execute(
        f"SELECT {columns} {LIVE} WHERE {where} ORDER BY st.uid, se.uid, i.uid", values
    ).fetchall()
    return [Instance(row[0], Uids(*row[1:4]), *row[4:]) for row in rows]


def _study(db: sqlite3.Connection, store: int, found: Found) -> int:
    """The row of a new instance's study; one that is empty, or not there yet, gets its
    attributes."""
    row = db.execute(
        "SELECT id, gone FROM studies WHERE store = ? AND uid = ?", (store, found.uids.study)
    ).fetchone()
    if row and row[1] is None:
        return int(row[0])
    insert = "INSERT INTO studies (store, uid) VALUES (?, ?)"
    study = int(row[0] if row else db.execute(insert, (store, found.uids.study)).lastrowid or 0)
    _describe_study(db, study, found.levels)
    return study


def _series(db: sqlite3.Connection, study: int, found: Found) -> int:
    """The same for its series."""
    row = db.execute(
        "SELECT id, gone FROM series WHERE study = ? AND uid = ?", (study, found.uids.series)
    ).fetchone()
    if row and row[1] is None:
        return int(row[0])
    insert = "INSERT INTO series (study, uid) VALUES (?, ?)"
    series = int(row[0] if row else db.execute(insert, (study, found.uids.series)).lastrowid or 0)
    _describe_series(db, series, found.levels)
    return series


def _describe_study(db: sqlite3.Connection, study: int, found: Levels) -> None:
    db.execute("UPDATE studies SET lines = ?, gone = NULL WHERE id = ?", (found.study, study))
    db.execute("DELETE FROM keys WHERE study = ?", (study,))
    sql = "INSERT INTO keys SELECT id, store, ?, ? FROM studies WHERE id = ?"
    db.executemany(sql, [(tag, value, study) for tag, value in found.keys])


def _describe_series(db: sqlite3.Connection, series: int, found: Levels) -> None:
    sql = "UPDATE series SET modality = ?, lines = ?, gone = NULL WHERE id = ?"
    db.execute(sql, (found.modality, found.series, series))


def _remove(db: sqlite3.Connection, store: int, uids: Uids) -> list[Instance]:
    """Delete rows. What is left of a study or series is described by the first of its instances
    that is left."""
    gone = _instances(db, store, uids)
    where, values = scope(store, uids)
    above = db.execute(f"SELECT DISTINCT st.id, se.id {LIVE} WHERE {where}", values).fetchall()
    ids = [(instance.id,) for instance in gone]
    db.executemany("DELETE FROM instances WHERE id = ?", ids)
    db.executemany("DELETE FROM metadata WHERE instance = ?", ids)
    first = "SELECT lines FROM metadata WHERE instance = (SELECT MIN(i.id) FROM instances i WHERE i.series {})"
    for series in {row[1] for row in above}:
        if left := db.execute(first.format("= ?"), (series,)).fetchone():
            _describe_series(db, series, levels(left[0].split("\n")))
        else:
            db.execute("UPDATE series SET gone = ? WHERE id = ?", (time.time(), series))
    for study in {row[0] for row in above}:
        if left := db.execute(
            first.format("IN (SELECT id FROM series WHERE study = ?)"), (study,)
        ).fetchone():
            _describe_study(db, study, levels(left[0].split("\n")))
        else:
            db.execute("UPDATE studies SET gone = ? WHERE id = ?", (time.time(), study))
    return gone


def _drop_studies(db: sqlite3.Connection, which: str, *values: int) -> None:
    """Drop the rows of studies without instances."""
    for table, column in (("keys", "study"), ("series", "study"), ("studies", "id")):
        db.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT id FROM studies WHERE {which})",  # noqa: S608
            values,
        )

"""The index: SQLite in WAL mode beside a directory of files.

An instance exists when its row is committed; until then its file is garbage that the next start removes. A killed
process therefore loses nothing it acknowledged and keeps nothing half stored. `synchronous=NORMAL` and files without
fsync mean that a power failure (not a crash) may lose the last seconds: the price of speed on a developer's machine.
"""

import contextlib
import errno
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

SCHEMA = """
CREATE TABLE IF NOT EXISTS stores (id INTEGER PRIMARY KEY, name TEXT UNIQUE, body TEXT);
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
    """What a new instance brings to the index: UIDs, keys to search by, and its attributes as lines."""

    uids: Uids
    sop_class: str
    syntax: str
    modality: str
    keys: frozenset[tuple[str, str]]
    study_lines: str
    series_lines: str
    lines: str
    metadata: str


class Index:
    """Every store of this data directory. Reads run side by side; writes one after the other."""

    def __init__(self, directory: Path) -> None:
        self.files = directory / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self._path = directory / "index.sqlite"
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._writer = self._connect()
        self._write_lock = threading.Lock()
        self._writer.executescript(f"BEGIN;{SCHEMA}COMMIT;")
        self._sweep()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "mmap_size=1073741824", "cache_size=-32768"):
            connection.execute("PRAGMA " + pragma)
        return connection

    def _sweep(self) -> None:
        """Remove the files no row names: what a killed process was writing or had just deleted."""
        kept = {row[0] for row in self._writer.execute("SELECT file FROM instances")}
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
        """A name for a new file and where to write it. Raises OSError: less room than deletes need to go on."""
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
            return db.execute("INSERT OR IGNORE INTO stores (name, body) VALUES (?, ?)", (name, body)).rowcount > 0

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
        with self.reading() as db:
            studies = db.execute("SELECT uid FROM studies WHERE store = ?", (store,)).fetchall()
        for (uid,) in studies:
            self.remove(store, Uids(uid))
        with self.writing() as db:
            db.execute("DELETE FROM stores WHERE id = ?", (store,))

    # --- instances ---

    def find(self, store: int, uids: Uids) -> Instance | None:
        """The instance with these UIDs."""
        return next(iter(self.instances(store, uids)), None)

    def instances(self, store: int, uids: Uids) -> list[Instance]:
        """Every instance of a study, a series, or the one, in the order of their UIDs."""
        where, values = scope(store, uids)
        columns = (
            "i.id, st.uid, se.uid, i.uid, i.sop_class, i.syntax, i.file, i.size, i.storage_class, i.class_time,"
            " se.modality"
        )
        with self.reading() as db:
            rows = db.execute(
                f"SELECT {columns} {LIVE} WHERE {where} ORDER BY st.uid, se.uid, i.uid", values
            ).fetchall()
        return [Instance(row[0], Uids(*row[1:4]), *row[4:]) for row in rows]

    def metadata(self, instance: int) -> list[str]:
        """All attributes of an instance as lines; empty when it has just been deleted."""
        with self.reading() as db:
            row = db.execute("SELECT lines FROM metadata WHERE instance = ?", (instance,)).fetchone()
        return row[0].split("\n") if row else []

    def counts(self, store: int, uids: Uids) -> dict[str, int]:
        """Studies, series, instances and bytes under a resource, by the names the metrics methods use."""
        where, values = scope(store, uids)
        sql = (
            "SELECT COUNT(DISTINCT st.id), COUNT(DISTINCT se.id), COUNT(*), COALESCE(SUM(i.size), 0),"
            f" COALESCE(SUM(LENGTH(m.lines)), 0) {LIVE} JOIN metadata m ON m.instance = i.id WHERE {where}"
        )
        with self.reading() as db:
            row = db.execute(sql, values).fetchone()
        names = ("studyCount", "seriesCount", "instanceCount", "blobStorageSizeBytes", "structuredStorageSizeBytes")
        return dict(zip(names, row, strict=True))

    def add(
        self, store: int, found: Found, file: str, size: int, storage_class: str, blocked: Callable[[Uids], bool]
    ) -> bool:
        """Add an instance in one transaction; False when its UIDs are taken (nothing changes then).

        Raises:
            BlockedError: blocked() says so, asked where no operation can start any more.
        """
        with self.writing() as db:
            if blocked(found.uids):
                raise BlockedError
            study = self._study(db, store, found)
            series = self._series(db, study, found)
            values = (series, found.uids.instance, found.sop_class, found.syntax, file, size, storage_class)
            cursor = db.execute(
                "INSERT OR IGNORE INTO instances (series, uid, sop_class, syntax, file, size, storage_class,"
                " class_time, lines) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, time.time(), found.lines),
            )
            if cursor.rowcount:
                db.execute("INSERT INTO metadata VALUES (?, ?)", (cursor.lastrowid, found.metadata))
            return cursor.rowcount > 0

    def _study(self, db: sqlite3.Connection, store: int, found: Found) -> int:
        row = db.execute(
            "SELECT id, gone FROM studies WHERE store = ? AND uid = ?", (store, found.uids.study)
        ).fetchone()
        if row and row[1] is None:
            return int(row[0])
        if row:
            _forget(db, "studies", row[0])
        cursor = db.execute(
            "INSERT INTO studies (store, uid, lines) VALUES (?, ?, ?)", (store, found.uids.study, found.study_lines)
        )
        study = int(cursor.lastrowid or 0)
        rows = [(study, store, tag, value) for tag, value in found.keys]
        db.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?)", rows)
        return study

    def _series(self, db: sqlite3.Connection, study: int, found: Found) -> int:
        row = db.execute(
            "SELECT id, gone FROM series WHERE study = ? AND uid = ?", (study, found.uids.series)
        ).fetchone()
        if row and row[1] is None:
            return int(row[0])
        if row:
            _forget(db, "series", row[0])
        cursor = db.execute(
            "INSERT INTO series (study, uid, modality, lines) VALUES (?, ?, ?, ?)",
            (study, found.uids.series, found.modality, found.series_lines),
        )
        return int(cursor.lastrowid or 0)

    def remove(self, store: int, uids: Uids) -> list[Instance]:
        """Delete a study, series or instance, and what became empty above it. Returns the instances deleted."""
        gone = self.instances(store, uids)
        now = time.time()
        with self.writing() as db:
            ids = [(instance.id,) for instance in gone]
            db.executemany("DELETE FROM instances WHERE id = ?", ids)
            db.executemany("DELETE FROM metadata WHERE instance = ?", ids)
            for path in {(instance.uids.study, instance.uids.series) for instance in gone}:
                db.execute(
                    "UPDATE series SET gone = ? WHERE uid = ? AND study IN (SELECT id FROM studies WHERE store = ?"
                    " AND uid = ?) AND NOT EXISTS (SELECT 1 FROM instances WHERE series = series.id)",
                    (now, path[1], store, path[0]),
                )
            db.execute(
                "UPDATE studies SET gone = ? WHERE store = ? AND uid = ? AND NOT EXISTS"
                " (SELECT 1 FROM series WHERE study = studies.id AND gone IS NULL)",
                (now, store, uids.study),
            )
        for instance in gone:
            (self.files / instance.file).unlink(missing_ok=True)
        return gone


def scope(store: int, uids: Uids) -> tuple[str, list[object]]:
    """The WHERE clause and its values for everything under a resource."""
    where, values = ["st.store = ?"], list[object]([store])
    for column, uid in zip(("st.uid", "se.uid", "i.uid"), uids, strict=True):
        if uid:
            where.append(f"{column} = ?")
            values.append(uid)
    return " AND ".join(where), values


def _forget(db: sqlite3.Connection, table: str, row: int) -> None:
    """Drop a row kept only for stale searches, to make room for a new one of the same UID."""
    if table == "studies":
        db.execute("DELETE FROM keys WHERE study = ?", (row,))
        db.execute("DELETE FROM series WHERE study = ?", (row,))
    db.execute(f"DELETE FROM {table} WHERE id = ?", (row,))  # noqa: S608

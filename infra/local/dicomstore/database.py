"""Storage on disk: SQLite in WAL mode and a folder of files.

An instance exists when its row is committed; until then its file is garbage that the next start
removes. So a killed process loses nothing that it acknowledged, and stores nothing in part.
`synchronous=NORMAL` and files without fsync mean that a power failure (not a crash) may lose the
last seconds, which is acceptable on a developer's machine for the speed.
"""

import contextlib
import errno
import fcntl
import os
import queue
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from infra.local.dicomstore import rows

SCHEMA = """
CREATE TABLE IF NOT EXISTS datasets (name TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stores (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, body TEXT);
CREATE TABLE IF NOT EXISTS studies (
  id INTEGER PRIMARY KEY, store INTEGER NOT NULL, uid TEXT NOT NULL, lines TEXT, gone REAL,
  UNIQUE (store, uid));
CREATE TABLE IF NOT EXISTS keys (
  study INTEGER, store INTEGER, tag TEXT, value TEXT,
  PRIMARY KEY (store, tag, value, study)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_study ON keys (study);
CREATE TABLE IF NOT EXISTS series (
  id INTEGER PRIMARY KEY, study INTEGER NOT NULL, uid TEXT NOT NULL, modality TEXT, lines TEXT,
  gone REAL, UNIQUE (study, uid));
CREATE INDEX IF NOT EXISTS series_uid ON series (uid);
CREATE TABLE IF NOT EXISTS instances (
  id INTEGER PRIMARY KEY, series INTEGER NOT NULL, uid TEXT NOT NULL, sop_class TEXT, syntax TEXT,
  file TEXT, size INTEGER, storage_class TEXT, class_time REAL, lines TEXT, UNIQUE (series, uid));
CREATE INDEX IF NOT EXISTS instances_uid ON instances (uid);
CREATE TABLE IF NOT EXISTS metadata (instance INTEGER PRIMARY KEY, lines TEXT);
CREATE TABLE IF NOT EXISTS operations (
  id INTEGER PRIMARY KEY, dataset TEXT, version TEXT, method TEXT, store INTEGER, target TEXT,
  argument TEXT, created REAL, ended REAL, success INTEGER DEFAULT 0, failure INTEGER DEFAULT 0,
  code INTEGER DEFAULT 0, message TEXT, cancelled INTEGER DEFAULT 0);
"""
PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "mmap_size=1073741824", "cache_size=-32768")
RESERVE = 8 << 20  # bytes of the disk kept free of files, so that the index can still be written


class TakenError(Exception):
    """Another process serves this directory; one line for a person."""


class Database:
    """One data directory. Reads run in parallel, writes one after the other.

    Raises:
        TakenError: another process serves the directory: each would delete the other's new files.
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
        for pragma in PRAGMAS:
            connection.execute("PRAGMA " + pragma)
        return connection

    def _sweep(self) -> None:
        """Remove rows that only stale searches showed, and files without a row: incomplete or just
        deleted."""
        with self.writing() as db:
            rows.drop_gone(db)
            found = db.execute("SELECT file FROM instances")
            kept = {row[0] for row in found}
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
        """A name for a new file and where to write it. Raises OSError: less space than deletes
        need."""
        disk = os.statvfs(self.files)
        if disk.f_bavail * disk.f_frsize < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        token = secrets.token_hex(12)
        bucket = self.files / token[:2]
        bucket.mkdir(exist_ok=True)
        return f"{token[:2]}/{token}", bucket / token

    def unlink(self, gone: list[rows.Instance]) -> None:
        """Remove the files of instances whose rows are deleted."""
        for instance in gone:
            (self.files / instance.file).unlink(missing_ok=True)

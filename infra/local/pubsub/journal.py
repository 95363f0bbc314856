"""What survives a restart, in one SQLite file: topics, subscriptions, and every message that is
still to be delivered."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, config BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS subscriptions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, config BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owed INTEGER NOT NULL, published REAL NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    subscription INTEGER NOT NULL, message INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0, PRIMARY KEY (subscription, message)) WITHOUT ROWID;
"""


class Journal:
    """Survives kill -9: a publish is written before its answer; a lost acknowledgement repeats a
    delivery."""

    def __init__(self, path: str, defer: Callable[[Callable[[], None]], object]) -> None:
        """Open the file at path ("" is a temporary one); defer(call) runs call a moment later."""
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._defer = defer
        self._open = False

    def close(self) -> None:
        """Write what is pending and close."""
        self.commit()
        self._db.close()

    def commit(self) -> None:
        """Make everything so far durable."""
        if self._open:
            self._open = False
            self._db.execute("COMMIT")

    def _begin(self) -> sqlite3.Connection:
        """The connection inside a transaction, which is committed soon at the latest."""
        if not self._open:
            self._open = True
            self._db.execute("BEGIN")
            self._defer(self.commit)
        return self._db

    def topics(self) -> list[bytes]:
        """Every topic's configuration."""
        return [row[0] for row in self._db.execute("SELECT config FROM topics ORDER BY name")]

    def save_topic(self, name: str, config: bytes) -> None:
        """Keep a new or changed topic."""
        self._begin().execute("INSERT OR REPLACE INTO topics VALUES (?, ?)", (name, config))
        self.commit()

    def drop_topic(self, name: str) -> None:
        """Forget a topic."""
        self._begin().execute("DELETE FROM topics WHERE name = ?", (name,))
        self.commit()

    def subscriptions(self) -> list[tuple[int, bytes]]:
        """The number and configuration of every subscription."""
        return list(self._db.execute("SELECT id, config FROM subscriptions ORDER BY id"))

    def save_subscription(self, name: str, config: bytes) -> int:
        """Keep a new or changed subscription and return its number."""
        statement = (
            "INSERT INTO subscriptions (name, config) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET config = excluded.config RETURNING id"
        )
        number = int(self._begin().execute(statement, (name, config)).fetchone()[0])
        self.commit()
        return number

    def drop_subscription(self, number: int) -> None:
        """Forget a subscription and its undelivered messages."""
        self.expire(number, float("inf"))
        self._begin().execute("DELETE FROM subscriptions WHERE id = ?", (number,))
        self.commit()

    def last_message(self) -> int:
        """The highest message number ever used in this file."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return int(row[0]) if row else 0

    def add(self, message: int, published: float, body: bytes, owed_to: Sequence[int]) -> None:
        """Store one message for these subscriptions; the caller commits."""
        db = self._begin()
        db.execute(
            "INSERT INTO messages VALUES (?, ?, ?, ?)", (message, len(owed_to), published, body)
        )
        rows = [(subscription, message) for subscription in owed_to]
        db.executemany("INSERT INTO deliveries (subscription, message) VALUES (?, ?)", rows)

    def body(self, subscription: int, message: int) -> bytes | None:
        """A message that is still to be delivered; None when it has expired."""
        statement = (
            "SELECT m.body FROM deliveries d JOIN messages m ON m.id = d.message"
            " WHERE d.subscription = ? AND d.message = ?"
        )
        row = self._db.execute(statement, (subscription, message)).fetchone()
        return bytes(row[0]) if row else None

    def owed(self, subscription: int, after: int, limit: int) -> list[tuple[int, int, float]]:
        """Up to limit of (message, attempts, not before) that a subscription still has to deliver,
        oldest first."""
        statement = (
            "SELECT message, attempts, not_before FROM deliveries"
            " WHERE subscription = ? AND message > ? ORDER BY message LIMIT ?"
        )
        return list(self._db.execute(statement, (subscription, after, limit)))

    def delay(self, subscription: int, message: int, attempts: int, not_before: float) -> None:
        """Keep the number of failed deliveries and the time of the next one."""
        self._begin().execute(
            "UPDATE deliveries SET attempts = ?, not_before = ?"
            " WHERE subscription = ? AND message = ?",
            (attempts, not_before, subscription, message),
        )

    def done(self, subscription: int, messages: Iterable[int]) -> None:
        """Forget acknowledged deliveries, and messages that no other subscription needs."""
        db = self._begin()
        for message in messages:
            statement = "DELETE FROM deliveries WHERE subscription = ? AND message = ?"
            if db.execute(statement, (subscription, message)).rowcount:
                db.execute("UPDATE messages SET owed = owed - 1 WHERE id = ?", (message,))
                db.execute("DELETE FROM messages WHERE id = ? AND owed <= 0", (message,))

    def expire(self, subscription: int, before: float) -> None:
        """Forget a subscription's undelivered messages that were published before that time."""
        statement = (
            "SELECT d.message FROM deliveries d JOIN messages m ON m.id = d.message"
            " WHERE d.subscription = ? AND m.published < ? ORDER BY d.message LIMIT 1000"
        )
        while rows := self._db.execute(statement, (subscription, before)).fetchall():
            self.done(subscription, [row[0] for row in rows])
        self.commit()

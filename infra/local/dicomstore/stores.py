"""The datasets and DICOM stores of a data directory (fact sheet section 1)."""

import json
from typing import Any

from infra.local.dicomstore import rows
from infra.local.dicomstore.database import Database
from infra.local.dicomstore.rows import Uids

Body = dict[str, Any]
Named = tuple[str, Body]  # a full name, and what was set


class Stores:
    """Datasets and stores; their bodies have the fields that were set: labels, timeZone, …"""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- datasets ---

    def create_dataset(self, name: str, body: Body) -> bool:
        """Create a dataset; False when it already exists."""
        if self.dataset(name) is not None:
            return False
        sql = "INSERT OR IGNORE INTO datasets (name, body) VALUES (?, ?)"
        with self._database.writing() as db:
            return db.execute(sql, (name, json.dumps(body))).rowcount > 0

    def update_dataset(self, name: str, body: Body) -> None:
        """Replace its body."""
        with self._database.writing() as db:
            db.execute("INSERT OR REPLACE INTO datasets VALUES (?, ?)", (name, json.dumps(body)))

    def dataset(self, name: str) -> Body | None:
        """The fields of a dataset; None when there is none."""
        found = dict(self.datasets(name.rpartition("/")[0]))
        return found.get(name)

    def datasets(self, parent: str) -> list[Named]:
        """The datasets of `projects/…/locations/…/datasets`, by name.

        A dataset with a store exists, whether it was created or not (`choices.py`).
        """
        with self._database.reading() as db:
            created = db.execute("SELECT name, body FROM datasets").fetchall()
            stores = db.execute("SELECT name FROM stores").fetchall()
        found: dict[str, Body] = {}
        for (name,) in stores:
            found[name.partition("/dicomStores/")[0]] = {}
        for name, body in created:
            found[name] = json.loads(body)
        return [(name, found[name]) for name in sorted(found) if name.startswith(parent + "/")]

    def delete_dataset(self, name: str) -> None:
        """Delete a dataset with every store in it, and forget its operations."""
        for store, _ in self.listed(name):
            number = self.id_of(store)
            if number is not None:
                self.delete(number)
        with self._database.writing() as db:
            db.execute("DELETE FROM datasets WHERE name = ?", (name,))
            db.execute("DELETE FROM operations WHERE dataset = ?", (name,))

    # --- DICOM stores ---

    def id_of(self, name: str) -> int | None:
        """The id of a store by its full name; None when there is none."""
        with self._database.reading() as db:
            row = db.execute("SELECT id FROM stores WHERE name = ?", (name,)).fetchone()
        if not row:
            return None
        return int(row[0])

    def create(self, name: str, body: Body) -> bool:
        """Create a store; False when it already exists."""
        sql = "INSERT OR IGNORE INTO stores (name, body) VALUES (?, ?)"
        with self._database.writing() as db:
            return db.execute(sql, (name, json.dumps(body))).rowcount > 0

    def get(self, store: int) -> Named:
        """The full name of a store, and its fields; empty when it has just been deleted."""
        with self._database.reading() as db:
            row = db.execute("SELECT name, body FROM stores WHERE id = ?", (store,)).fetchone()
        if not row:
            return "", {}
        return str(row[0]), json.loads(row[1])

    def update(self, store: int, body: Body) -> None:
        """Replace its body."""
        with self._database.writing() as db:
            db.execute("UPDATE stores SET body = ? WHERE id = ?", (json.dumps(body), store))

    def listed(self, dataset: str) -> list[Named]:
        """The stores of a dataset, by name."""
        with self._database.reading() as db:
            found = db.execute("SELECT name, body FROM stores ORDER BY name").fetchall()
        prefix = f"{dataset}/dicomStores/"
        return [(name, json.loads(body)) for name, body in found if name.startswith(prefix)]

    def delete(self, store: int) -> None:
        """Delete a store with everything in it."""
        with self._database.writing() as db:
            gone = rows.remove(db, store, Uids(""))
            rows.drop_store(db, store)
            db.execute("DELETE FROM stores WHERE id = ?", (store,))
        self._database.unlink(gone)

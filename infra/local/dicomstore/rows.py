"""The rows of studies, series and instances, on one connection or in one transaction.

A study or series is described by its first instance. When its last instance is deleted its row
stays, marked as gone, for searches that are allowed to be stale.
"""

import sqlite3
import time
from typing import NamedTuple

from infra.local.dicomstore.attributes import Levels, levels

LIVE = (
    "FROM studies st CROSS JOIN series se ON se.study = st.id"
    " CROSS JOIN instances i ON i.series = se.id"
)
INSTANCE_COLUMNS = (
    "i.id, st.uid, se.uid, i.uid, i.sop_class, i.syntax, i.file, i.size, i.storage_class,"
    " i.class_time, se.modality"
)


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

    @property
    def level(self) -> str:
        """`study`, `series` or `instance`."""
        if self.instance:
            return "instance"
        if self.series:
            return "series"
        return "study"

    @classmethod
    def parse(cls, path: str) -> "Uids":
        """Parse a `path`."""
        return cls(*path.split("/")[1::2])


class Instance(NamedTuple):
    """A stored instance for retrieve."""

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
    """The values of a new instance for the index."""

    uids: Uids
    sop_class: str
    syntax: str
    levels: Levels
    lines: str  # what a search for instances shows
    metadata: str  # all attributes


def scope(store: int, uids: Uids) -> tuple[str, list[object]]:
    """The WHERE clause and its values for everything under a resource."""
    where, values = ["st.store = ?"], list[object]([store])
    for column, uid in zip(("st.uid", "se.uid", "i.uid"), uids, strict=True):
        if uid:
            where.append(f"{column} = ?")
            values.append(uid)
    return " AND ".join(where), values


def instances(db: sqlite3.Connection, store: int, uids: Uids) -> list[Instance]:
    """Every instance of a study, a series, or the one, in the order of their UIDs."""
    where, values = scope(store, uids)
    sql = f"SELECT {INSTANCE_COLUMNS} {LIVE} WHERE {where} ORDER BY st.uid, se.uid, i.uid"
    found = db.execute(sql, values).fetchall()
    return [Instance(row[0], Uids(*row[1:4]), *row[4:]) for row in found]


# --- adding ---


def study_of(db: sqlite3.Connection, store: int, found: Found) -> int:
    """The row of a new instance's study; one that is empty, or not there yet, gets its
    attributes."""
    sql = "SELECT id, gone FROM studies WHERE store = ? AND uid = ?"
    row = db.execute(sql, (store, found.uids.study)).fetchone()
    if row and row[1] is None:
        return int(row[0])
    if row:
        study = int(row[0])
    else:
        insert = "INSERT INTO studies (store, uid) VALUES (?, ?)"
        study = int(db.execute(insert, (store, found.uids.study)).lastrowid or 0)
    _describe_study(db, study, found.levels)
    return study


def series_of(db: sqlite3.Connection, study: int, found: Found) -> int:
    """The same for its series."""
    sql = "SELECT id, gone FROM series WHERE study = ? AND uid = ?"
    row = db.execute(sql, (study, found.uids.series)).fetchone()
    if row and row[1] is None:
        return int(row[0])
    if row:
        series = int(row[0])
    else:
        insert = "INSERT INTO series (study, uid) VALUES (?, ?)"
        series = int(db.execute(insert, (study, found.uids.series)).lastrowid or 0)
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


# --- removing ---


def remove(db: sqlite3.Connection, store: int, uids: Uids) -> list[Instance]:
    """Delete the rows of every instance under a resource; returns these instances.

    The rest of a study or series is then described by its first remaining instance.
    """
    gone = instances(db, store, uids)
    where, values = scope(store, uids)
    above = db.execute(f"SELECT DISTINCT st.id, se.id {LIVE} WHERE {where}", values).fetchall()
    ids = [(instance.id,) for instance in gone]
    db.executemany("DELETE FROM instances WHERE id = ?", ids)
    db.executemany("DELETE FROM metadata WHERE instance = ?", ids)
    for series in {row[1] for row in above}:
        _describe_or_drop(db, "series", series)
    for study in {row[0] for row in above}:
        _describe_or_drop(db, "studies", study)
    return gone


def _describe_or_drop(db: sqlite3.Connection, table: str, number: int) -> None:
    within = "= ?"
    if table == "studies":
        within = "IN (SELECT id FROM series WHERE study = ?)"
    first = f"(SELECT MIN(id) FROM instances WHERE series {within})"  # noqa: S608
    sql = f"SELECT lines FROM metadata WHERE instance = {first}"  # noqa: S608
    left = db.execute(sql, (number,)).fetchone()
    if not left:
        sql = f"UPDATE {table} SET gone = ? WHERE id = ?"  # noqa: S608
        db.execute(sql, (time.time(), number))
        return
    found = levels(left[0].split("\n"))
    if table == "studies":
        _describe_study(db, number, found)
    else:
        _describe_series(db, number, found)


def drop_gone(db: sqlite3.Connection) -> None:
    """Drop the rows of studies and series without instances."""
    _drop_studies(db, "gone IS NOT NULL")
    db.execute("DELETE FROM series WHERE gone IS NOT NULL")


def drop_store(db: sqlite3.Connection, store: int) -> None:
    """Drop the rows of a store whose instances are removed."""
    _drop_studies(db, "store = ?", store)


def _drop_studies(db: sqlite3.Connection, which: str, *values: int) -> None:
    for table, column in (("keys", "study"), ("series", "study"), ("studies", "id")):
        studies = f"SELECT id FROM studies WHERE {which}"  # noqa: S608
        db.execute(f"DELETE FROM {table} WHERE {column} IN ({studies})", values)  # noqa: S608

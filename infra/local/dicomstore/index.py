"""The instances of every store: found, added, removed, counted."""

import time
from collections.abc import Callable

from infra.local.dicomstore import attributes, model, rows
from infra.local.dicomstore.attributes import levels
from infra.local.dicomstore.database import Database
from infra.local.dicomstore.rows import LIVE, Found, Instance, Uids
from infra.local.dicomstore.scan import File

COUNTS = (
    "studyCount",
    "seriesCount",
    "instanceCount",
    "blobStorageSizeBytes",
    "structuredStorageSizeBytes",
)


class BlockedError(Exception):
    """An operation prevents storing instances here."""


def instance_of(file: File) -> Found:
    """The index entry of a file."""
    lines = model.lines(file)
    return Found(
        uids=Uids(file.text(0x0020000D), file.text(0x0020000E), file.text(0x00080018)),
        sop_class=file.text(0x00080016) or file.text(0x00020002),
        syntax=file.transfer_syntax,
        levels=levels(lines),
        lines="\n".join(model.pick(lines, attributes.INSTANCE_DEFAULT)),
        metadata="\n".join(lines),
    )


class Index(Database):
    """The instances in the stores of one data directory."""

    def find(self, store: int, uids: Uids) -> Instance | None:
        """The instance with these UIDs."""
        return next(iter(self.instances(store, uids)), None)

    def instances(self, store: int, uids: Uids) -> list[Instance]:
        """Every instance of a study, a series, or the one, in the order of their UIDs."""
        with self.reading() as db:
            return rows.instances(db, store, uids)

    def metadata(self, instance: int) -> list[str]:
        """All attributes of an instance as lines; empty when it has just been deleted."""
        sql = "SELECT lines FROM metadata WHERE instance = ?"
        with self.reading() as db:
            row = db.execute(sql, (instance,)).fetchone()
        if not row:
            return []
        return list(row[0].split("\n"))

    def counts(self, store: int, uids: Uids, lag_s: float = 0.0) -> dict[str, int]:
        """Studies, series, instances and bytes under a resource, by the names the metrics methods
        use; without what was stored in the last `lag_s` seconds."""
        where, values = rows.scope(store, uids)
        if lag_s:
            where += " AND i.class_time < ?"
            values = [*values, time.time() - lag_s]
        sql = (
            "SELECT COUNT(DISTINCT st.id), COUNT(DISTINCT se.id), COUNT(*),"
            " COALESCE(SUM(i.size), 0), COALESCE(SUM(LENGTH(m.lines)), 0)"
            f" {LIVE} JOIN metadata m ON m.instance = i.id WHERE {where}"
        )
        with self.reading() as db:
            row = db.execute(sql, values).fetchone()
        return dict(zip(COUNTS, row, strict=True))

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
            BlockedError: blocked() is true; it is called when no operation can start any more.
        """
        with self.writing() as db:
            if blocked(found.uids):
                raise BlockedError
            study = rows.study_of(db, store, found)
            series = rows.series_of(db, study, found)
            values = {
                "series": series,
                "uid": found.uids.instance,
                "sop_class": found.sop_class,
                "syntax": found.syntax,
                "file": file,
                "size": size,
                "storage_class": storage_class,
                "class_time": time.time(),
                "lines": found.lines,
            }
            columns = ", ".join(values)
            places = ", ".join(f":{name}" for name in values)
            sql = f"INSERT OR IGNORE INTO instances ({columns}) VALUES ({places})"  # noqa: S608
            cursor = db.execute(sql, values)
            if cursor.rowcount:
                db.execute("INSERT INTO metadata VALUES (?, ?)", (cursor.lastrowid, found.metadata))
            return cursor.rowcount > 0

    def remove(self, store: int, uids: Uids) -> list[Instance]:
        """Delete a study, series or instance, and parents that became empty. Returns the instances
        deleted."""
        with self.writing() as db:
            gone = rows.remove(db, store, uids)
        self.unlink(gone)
        return gone

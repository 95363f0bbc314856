"""Long-running operations: deletes of studies and series, changes of the storage class, new
datasets (fact sheet sections 6, 7, 13)."""

import contextlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from infra.local.dicomstore.index import Index
from infra.local.dicomstore.media import ApiError
from infra.local.dicomstore.rows import Instance, Uids

Fault = dict[str, Any]  # a rule of `faults.py` that the store itself applies; empty: none
Tell = Callable[[str, int, list[Instance], str], None]

DELETE_METHODS = {
    "study": "dicomweb.DicomWebService.DeleteStudy",
    "series": "dicomweb.DicomWebService.DeleteSeries",
}
SET_CLASS = "storageinfo.StorageInfoService.SetBlobStorageSettings"
CREATE_DATASET = "dataset.DatasetService.CreateDataset"
COLUMNS = "id, dataset, version, method, created, ended, success, failure, code, message, cancelled"
CANCELLED, UNAVAILABLE = 1, 14  # google.rpc.Code


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Operations:
    """Starts, finishes, lists and cancels operations; they survive a restart."""

    def __init__(self, index: Index, duration_s: float, tell: Tell) -> None:
        self._index = index
        self._duration_s = duration_s
        self._tell = tell
        self._lock = threading.Lock()
        # Operations not at work yet: only these can be cancelled.
        self._waiting: set[int] = set()
        # Deletes that have not ended: store and target path.
        self._deletes: dict[int, tuple[int, str]] = {}
        sql = "SELECT id, method, store, target FROM operations WHERE ended IS NULL"
        with index.reading() as db:
            left = db.execute(sql).fetchall()
        for number, method, store, target in left:
            self._enter(number, method, store, target)
            self._finish(number, {})

    def start(
        self,
        dataset: str,
        version: str,
        method: str,
        store: int,
        targets: list[Uids],
        argument: str,
        fault: Fault,
    ) -> str:
        """Start one on some resources and return its name; with no duration it has ended when this
        returns."""
        number = _new_number()
        target = "\n".join(uids.path for uids in targets)
        with self._index.writing() as db:
            db.execute(
                "INSERT INTO operations"
                " (id, dataset, version, method, store, target, argument, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (number, dataset, version, method, store, target, argument, time.time()),
            )
            # In the transaction: an instance is stored either before it or not at all.
            self._enter(number, method, store, target)
        duration_s = fault.get("seconds", self._duration_s)
        if duration_s > 0:
            timer = threading.Timer(duration_s, self._finish, (number, fault))
            timer.daemon = True
            timer.start()
        else:
            self._finish(number, fault)
        return f"{dataset}/operations/{number}"

    def done(self, dataset: str, version: str, method: str) -> dict[str, Any]:
        """Record finished work as an operation, and return it."""
        number, now = _new_number(), time.time()
        with self._index.writing() as db:
            db.execute(
                "INSERT INTO operations (id, dataset, version, method, created, ended)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (number, dataset, version, method, now, now),
            )
        return self.get(dataset, str(number))

    def _enter(self, number: int, method: str, store: int, target: str) -> None:
        with self._lock:
            self._waiting.add(number)
            if method != SET_CLASS:
                self._deletes[number] = (store, target)

    def blocks(self, store: int, uids: Uids) -> bool:
        """Whether a running delete prevents storing this instance."""
        if not self._deletes:
            return False
        with self._lock:
            targets = [target for at, target in self._deletes.values() if at == store]
        return any(f"{uids.path}/".startswith(f"{target}/") for target in targets)

    def _finish(self, number: int, fault: Fault) -> None:
        with self._lock:
            if number not in self._waiting:
                return
            self._waiting.remove(number)
        code = int(fault.get("code", 0))
        if code:
            self._end(number, code=code, message="fault on demand")
            return
        try:
            success, failure = self._work(number)
        except (OSError, sqlite3.OperationalError) as error:
            self._end(number, code=UNAVAILABLE, message=type(error).__name__)
            return
        self._end(number, success, failure + int(fault.get("failure", 0)))

    def _end(
        self, number: int, success: int = 0, failure: int = 0, code: int = 0, message: str = ""
    ) -> None:
        with self._lock:
            self._deletes.pop(number, None)
        with self._index.writing() as db:
            db.execute(
                "UPDATE operations SET ended = ?, success = ?, failure = ?, code = ?, message = ?"
                " WHERE id = ?",
                (time.time(), success, failure, code, message, number),
            )

    def _work(self, number: int) -> tuple[int, int]:
        """Do the work; returns how many instances changed, and how many targets had none."""
        sql = "SELECT method, store, target, argument FROM operations WHERE id = ?"
        with self._index.reading() as db:
            row = db.execute(sql, (number,)).fetchone()
        if not row:  # its dataset has been deleted
            return 0, 0
        method, store, target, argument = row
        targets = [Uids.parse(path) for path in target.split("\n")]
        if method == SET_CLASS:
            return self._set_class(store, targets, argument)
        gone = self._index.remove(store, targets[0])
        self._tell("DeleteInstances", store, gone, "")
        return len(gone), 0

    def _set_class(self, store: int, targets: list[Uids], storage_class: str) -> tuple[int, int]:
        # By id, because several targets may have an instance in common.
        changed = {}
        without_instances = 0
        for uids in targets:
            instances = self._index.instances(store, uids)
            if not instances:
                without_instances += 1
            for instance in instances:
                changed[instance.id] = instance
        now = time.time()
        sql = "UPDATE instances SET storage_class = ?, class_time = ? WHERE id = ?"
        with self._index.writing() as db:
            db.executemany(sql, [(storage_class, now, number) for number in changed])
        self._tell("SetBlobSettings", store, list(changed.values()), storage_class)
        return len(changed), without_instances

    def get(self, dataset: str, number: str) -> dict[str, Any]:
        """One operation as JSON. Raises ApiError 404."""
        sql = f"SELECT {COLUMNS} FROM operations WHERE dataset = ? AND id = ?"  # noqa: S608
        with self._index.reading() as db, contextlib.suppress(ValueError, OverflowError):
            row = db.execute(sql, (dataset, int(number))).fetchone()
            if row:
                return _shown(row)
        raise ApiError(404, f"Operation not found: {number}")

    def list(self, dataset: str) -> list[dict[str, Any]]:
        """Every operation of a dataset, the newest last."""
        sql = f"SELECT {COLUMNS} FROM operations WHERE dataset = ? ORDER BY created, id"  # noqa: S608
        with self._index.reading() as db:
            return [_shown(row) for row in db.execute(sql, (dataset,)).fetchall()]

    def cancel(self, dataset: str, number: str) -> None:
        """Cancel it: it ends with code 1 and does nothing, unless its work has already begun.

        Raises:
            ApiError: 404, there is none.
        """
        self.get(dataset, number)
        with self._lock:
            waits = int(number) in self._waiting
            self._waiting.discard(int(number))
        sql = "UPDATE operations SET cancelled = 1 WHERE id = ? AND ended IS NULL"
        with self._index.writing() as db:
            db.execute(sql, (int(number),))
        if waits:
            self._end(int(number), code=CANCELLED, message="The operation was cancelled.")


def _new_number() -> int:
    """A large decimal number, like the service's (fact sheet section 7)."""
    return secrets.randbits(62) | 1 << 61


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row as google.longrunning.Operation; zeros are left out, as in every proto3 JSON."""
    one = dict(zip(COLUMNS.split(", "), row, strict=True))
    api = f"google.cloud.healthcare.{one['version']}"
    metadata: dict[str, Any] = {
        "@type": f"type.googleapis.com/{api}.OperationMetadata",
        "apiMethodName": f"{api}.{one['method']}",
        "createTime": timestamp(one["created"]),
    }
    if one["ended"]:
        metadata["endTime"] = timestamp(one["ended"])
        counts = {name: str(one[name]) for name in ("success", "failure") if one[name]}
        metadata["counter"] = counts
        metadata["logsUrl"] = "https://console.cloud.google.com/logs"
    if one["cancelled"]:
        metadata["cancelRequested"] = True
    shown: dict[str, Any] = {
        "name": f"{one['dataset']}/operations/{one['id']}",
        "metadata": metadata,
    }
    if not one["ended"]:
        return shown
    shown["done"] = True
    if one["code"]:
        shown["error"] = {"code": one["code"], "message": one["message"]}
    elif one["method"] == CREATE_DATASET:
        kind = f"type.googleapis.com/{api}.dataset.Dataset"
        shown["response"] = {"@type": kind, "name": one["dataset"]}
    else:
        shown["response"] = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    return shown

"""Long-running operations: deletes of studies and series, and storage class changes (sheet sections
6, 7, 13)."""

import contextlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from infra.local.dicomstore.index import Index, Instance, Uids
from infra.local.dicomstore.media import ApiError

DELETE_METHODS = {
    "study": "dicomweb.DicomWebService.DeleteStudy",
    "series": "dicomweb.DicomWebService.DeleteSeries",
}
SET_CLASS = "storageinfo.StorageInfoService.SetBlobStorageSettings"
COLUMNS = "id, dataset, version, method, created, ended, success, failure, code, message, cancelled"
CANCELLED = 1  # google.rpc.Code


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Operations:
    """Starts, finishes, lists and cancels operations; they survive a restart."""

    def __init__(
        self, index: Index, duration_s: float, tell: Callable[[str, int, list[Instance], str], None]
    ) -> None:
        self._index = index
        self._duration_s = duration_s
        self._tell = tell
        self._lock = threading.Lock()
        self._waiting: set[int] = set()  # operations not at work yet: only these can be cancelled
        self._deletes: dict[
            int, tuple[int, str]
        ] = {}  # deletes that have not ended: store and target path
        with index.reading() as db:
            left = db.execute(
                "SELECT id, method, store, target FROM operations WHERE ended IS NULL"
            ).fetchall()
        for number, method, store, target in left:
            self._enter(number, method, store, target)
            self._finish(number, {})

    def start(
        self, dataset: str, version: str, method: str, store: int, targets: list[Uids], argument: str,
        fault: dict[str, Any],
    ) -> str:  # fmt: skip
        """Start one on some resources and return its name; with no duration it has ended when this
        returns."""
        number = secrets.randbits(62) | 1 << 61
        target = "\n".join(uids.path for uids in targets)
        with self._index.writing() as db:
            db.execute(
                "INSERT INTO operations (id, dataset, version, method, store, target, argument, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (number, dataset, version, method, store, target, argument, time.time()),
            )
            self._enter(
                number, method, store, target
            )  # in here: what is stored comes wholly before or not at all
        duration_s = fault.get("seconds", self._duration_s)
        if duration_s > 0:
            timer = threading.Timer(duration_s, self._finish, (number, fault))
            timer.daemon = True
            timer.start()
        else:
            self._finish(number, fault)
        return f"{dataset}/operations/{number}"

    def _enter(self, number: int, method: str, store: int, target: str) -> None:
        with self._lock:
            self._waiting.add(number)
            if method != SET_CLASS:
                self._deletes[number] = (store, target)

    def blocks(self, store: int, uids: Uids) -> bool:
        """Whether a running delete keeps this instance from being stored."""
        if not self._deletes:
            return False
        with self._lock:
            targets = [target for at, target in self._deletes.values() if at == store]
        return any(f"{uids.path}/".startswith(f"{target}/") for target in targets)

    def _finish(self, number: int, fault: dict[str, Any]) -> None:
        with self._lock:
            if number not in self._waiting:
                return
            self._waiting.remove(number)
        done, failure, code = 0, 0, int(fault.get("code", 0))
        message = "fault on demand" if code else ""
        if not code:
            try:
                done, failure = self._work(number)
            except (OSError, sqlite3.OperationalError) as error:
                code, message = 14, f"{type(error).__name__}"
        self._end(number, done, failure + int(fault.get("failure", 0)), code, message)

    def _end(self, number: int, done: int, failure: int, code: int, message: str) -> None:
        with self._lock:
            self._deletes.pop(number, None)
        with self._index.writing() as db:
            db.execute(
                "UPDATE operations SET ended = ?, success = ?, failure = ?, code = ?, message = ? WHERE id = ?",
                (time.time(), done, failure, code, message, number),
            )

    def _work(self, number: int) -> tuple[int, int]:
        """Do it: how many instances it changed, and how many of its targets had none."""
        with self._index.reading() as db:
            sql = "SELECT method, store, target, argument FROM operations WHERE id = ?"
            method, store, target, argument = db.execute(sql, (number,)).fetchone()
        targets = [Uids.parse(path) for path in target.split("\n")]
        if method == SET_CLASS:
            return self._set_class(store, targets, argument)
        gone = self._index.remove(store, targets[0])
        self._tell("DeleteInstances", store, gone, "")
        return len(gone), 0

    def _set_class(self, store: int, targets: list[Uids], storage_class: str) -> tuple[int, int]:
        found = [self._index.instances(store, uids) for uids in targets]
        changed = {one.id: one for instances in found for one in instances}
        with self._index.writing() as db:
            sql = "UPDATE instances SET storage_class = ?, class_time = ? WHERE id = ?"
            db.executemany(sql, [(storage_class, time.time(), number) for number in changed])
        self._tell("SetBlobSettings", store, [*changed.values()], storage_class)
        return len(changed), found.count([])

    def get(self, dataset: str, number: str) -> dict[str, Any]:
        """One operation as JSON. Raises ApiError 404."""
        with self._index.reading() as db, contextlib.suppress(ValueError, OverflowError):
            sql = f"SELECT {COLUMNS} FROM operations WHERE dataset = ? AND id = ?"  # noqa: S608
            row = db.execute(sql, (dataset, int(number))).fetchone()
            if row:
                return _shown(row)
        raise ApiError(404, f"Operation not found: {number}")

    def list(self, dataset: str) -> list[dict[str, Any]]:
        """Every operation of a dataset, the newest last."""
        with self._index.reading() as db:
            sql = f"SELECT {COLUMNS} FROM operations WHERE dataset = ? ORDER BY created, id"  # noqa: S608
            return [_shown(row) for row in db.execute(sql, (dataset,)).fetchall()]

    def cancel(self, dataset: str, number: str) -> None:
        """Cancel it: it ends with code 1 and does nothing, unless it is at work already. Raises
        ApiError 404."""
        self.get(dataset, number)
        with self._lock:
            waits = int(number) in self._waiting
            self._waiting.discard(int(number))
        with self._index.writing() as db:
            db.execute(
                "UPDATE operations SET cancelled = 1 WHERE id = ? AND ended IS NULL", (int(number),)
            )
        if waits:
            self._end(int(number), 0, 0, CANCELLED, "The operation was cancelled.")


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    number, dataset, version, method, created, ended, success, failure, code, message, cancelled = (
        row
    )
    api = f"google.cloud.healthcare.{version}"
    metadata: dict[str, Any] = {
        "@type": f"type.googleapis.com/{api}.OperationMetadata",
        "apiMethodName": f"{api}.{method}",
        "createTime": timestamp(created),
    }
    if ended:
        metadata["endTime"] = timestamp(ended)
        counter = {"success": str(success), "failure": str(failure)}
        metadata["counter"] = {key: value for key, value in counter.items() if value != "0"}
        metadata["logsUrl"] = "https://console.cloud.google.com/logs"
    if cancelled:
        metadata["cancelRequested"] = True
    shown: dict[str, Any] = {"name": f"{dataset}/operations/{number}", "metadata": metadata}
    if not ended:
        return shown
    if code:
        return {**shown, "done": True, "error": {"code": code, "message": message}}
    return {
        **shown,
        "done": True,
        "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    }

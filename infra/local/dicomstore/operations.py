"""Long-running operations: deletes of studies and series, and storage class changes (sheet sections 6, 7, 13)."""

import contextlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from infra.local.dicomstore.index import LIVE, Index, Instance, Uids, scope
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

    def __init__(self, index: Index, duration_s: float, tell: Callable[[str, int, list[Instance], str], None]) -> None:
        self._index = index
        self._duration_s = duration_s
        self._tell = tell
        self._lock = threading.Lock()
        self._running: dict[int, tuple[int, str]] = {}  # operation: store and target path
        with index.reading() as db:
            left = db.execute("SELECT id, store, target FROM operations WHERE ended IS NULL").fetchall()
        for number, store, target in left:
            self._running[number] = (store, target)
            self._finish(number, {})

    def start(
        self, dataset: str, version: str, method: str, store: int, uids: Uids, argument: str, fault: dict[str, Any]
    ) -> str:
        """Start one and return its name; with no duration it has ended when this returns."""
        number = secrets.randbits(62) | 1 << 61
        with self._index.writing() as db:
            db.execute(
                "INSERT INTO operations (id, dataset, version, method, store, target, argument, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (number, dataset, version, method, store, uids.path, argument, time.time()),
            )
            with self._lock:  # inside the transaction: what is stored comes wholly before or not at all
                self._running[number] = (store, uids.path)
        duration_s = fault.get("seconds", self._duration_s)
        if duration_s > 0:
            timer = threading.Timer(duration_s, self._finish, (number, fault))
            timer.daemon = True
            timer.start()
        else:
            self._finish(number, fault)
        return f"{dataset}/operations/{number}"

    def blocks(self, store: int, uids: Uids) -> bool:
        """Whether a running operation keeps this instance from being stored."""
        if not self._running:
            return False
        with self._lock:
            targets = [target for at, target in self._running.values() if at == store]
        return any(f"{uids.path}/".startswith(f"{target}/") for target in targets)

    def _finish(self, number: int, fault: dict[str, Any]) -> None:
        with self._lock:
            target = self._running.get(number)
        if not target:
            return
        try:
            self._work(number, fault, target[0], Uids.parse(target[1]))
        finally:
            with self._lock:
                self._running.pop(number, None)

    def _work(self, number: int, fault: dict[str, Any], store: int, uids: Uids) -> None:
        with self._index.reading() as db:
            method, argument = db.execute("SELECT method, argument FROM operations WHERE id = ?", (number,)).fetchone()
        done, failure, code = 0, int(fault.get("failure", 0)), int(fault.get("code", 0))
        message = "fault on demand" if code else ""
        if not code:
            try:
                done = self._set_class(store, uids, argument) if method == SET_CLASS else self._delete(store, uids)
            except (OSError, sqlite3.OperationalError) as error:
                code, message = 14, f"{type(error).__name__}"
        with self._index.writing() as db:
            db.execute(
                "UPDATE operations SET ended = ?, success = ?, failure = ?, code = ?, message = ?"
                " WHERE id = ? AND ended IS NULL",
                (time.time(), done, failure, code, message, number),
            )

    def _delete(self, store: int, uids: Uids) -> int:
        gone = self._index.remove(store, uids)
        self._tell("DeleteInstances", store, gone, "")
        return len(gone)

    def _set_class(self, store: int, uids: Uids, storage_class: str) -> int:
        changed = self._index.instances(store, uids)
        where, values = scope(store, uids)
        sql = f"UPDATE instances SET storage_class = ?, class_time = ? WHERE id IN (SELECT i.id {LIVE} WHERE {where})"  # noqa: S608
        with self._index.writing() as db:
            db.execute(sql, (storage_class, time.time(), *values))
        self._tell("SetBlobSettings", store, changed, storage_class)
        return len(changed)

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
        """Cancel it when it still runs: it ends with code 1 and does nothing. Raises ApiError 404."""
        self.get(dataset, number)
        with self._lock:
            running = self._running.pop(int(number), None)
        if running:
            with self._index.writing() as db:
                db.execute(
                    "UPDATE operations SET ended = ?, code = ?, message = ?, cancelled = 1"
                    " WHERE id = ? AND ended IS NULL",
                    (time.time(), CANCELLED, "The operation was cancelled.", int(number)),
                )


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    number, dataset, version, method, created, ended, success, failure, code, message, cancelled = row
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
    return {**shown, "done": True, "response": {"@type": "type.googleapis.com/google.protobuf.Empty"}}

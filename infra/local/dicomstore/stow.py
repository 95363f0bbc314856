"""Store (STOW-RS): bodies stream to files, files become instances (sheet section 3)."""

import contextlib
import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from infra.local.dicomstore import choices, media, nativexml
from infra.local.dicomstore.index import BlockedError, Index, instance_of
from infra.local.dicomstore.rows import Found, Uids
from infra.local.dicomstore.scan import PIECE, NotDicomError, scan

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

ATTEMPTS = 50  # attempts to store an instance that others delete and store at the same time
STORAGE_CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
ANSWERS = (media.Media("application/dicom+xml"), media.Media("application/dicom+json"))
LIKE_DEFAULT = media.Media("application/dicom")  # asks for the default answer (`choices.py`)


class Stream(Protocol):
    """A request body."""

    def read(self, size: int = -1) -> bytes:
        """Up to size bytes."""


class Outcome(NamedTuple):
    """The result of one instance; `failure` is empty when it is stored."""

    uids: Uids
    sop_class: str
    failure: str = ""
    modality: str = ""
    new: bool = False


class RejectedError(Exception):
    """This instance cannot be stored; the message is its FailureDetail."""


class Receiver:
    """One store request and its results so far.

    Args:
        index: where instances are kept.
        store: the id of the store.
        study: the study in the URL; empty: instances may be of any.
        storage_class: of the new instances.
        blocked: whether an operation keeps an instance from being stored.
    """

    def __init__(
        self,
        index: Index,
        store: int,
        study: str,
        storage_class: str,
        blocked: Callable[[Uids], bool],
    ) -> None:
        self.index = index
        self.store = store
        self.study = study
        self.storage_class = storage_class
        self.blocked = blocked
        self.outcomes: list[Outcome] = []

    def single(self, stream: Stream) -> None:
        """The body is one Part 10 file."""
        with self.new_file() as (name, path, file):
            whole = piece = stream.read(PIECE)
            while piece:
                file.write(piece)
                piece = stream.read(PIECE)
                if piece:
                    whole = b""  # it came in several pieces: read it again from the file
            self.take(name, path, file, whole)

    def multipart(self, stream: Stream, boundary: str) -> None:
        """Each part is one Part 10 file. Raises ApiError 400: not a whole multipart body."""
        parts = _Parts(self)
        feed(stream, boundary, parts.callbacks(), parts.abandon)

    @contextlib.contextmanager
    def new_file(self) -> Any:
        """A new open file, with its name in the index and its path; deleted unless it became an
        instance."""
        name, path = self.index.new_file()
        try:
            with path.open("wb") as file:
                yield name, path, file
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def take(self, name: str, path: Path, file: BinaryIO, whole: bytes = b"") -> None:
        """Make a written file an instance and record the result; `whole` is its content, if in
        memory."""
        file.flush()  # before the row is committed
        try:
            outcome = self._take(name, path, whole)
        except (RejectedError, NotDicomError) as error:
            outcome = Outcome(Uids(self.study), "", failure=str(error))
        if not outcome.new:
            path.unlink(missing_ok=True)
        self.outcomes.append(outcome)

    def _take(self, name: str, path: Path, whole: bytes) -> Outcome:
        """The result of a file. Raises NotDicomError, RejectedError."""
        size = path.stat().st_size
        found = _described(path, whole)
        _check_uids(found.uids)
        outcome = Outcome(found.uids, found.sop_class, modality=found.levels.modality)
        if self.study and found.uids.study != self.study:
            return outcome._replace(failure=choices.OTHER_STUDY_DETAIL)
        for _ in range(ATTEMPTS):
            try:
                if self._add(found, name, size):
                    return outcome._replace(new=True)
                if self._same(found.uids, path, size):
                    return outcome
                break
            except BlockedError:
                return outcome._replace(failure=choices.BEING_DELETED_DETAIL)
            except FileNotFoundError:
                continue  # the one that was there has just been deleted
        return outcome._replace(failure=choices.DUPLICATE_DETAIL)

    def _add(self, found: Found, name: str, size: int) -> bool:
        """Add an instance; False when its UIDs are taken."""
        return self.index.add(
            store=self.store,
            found=found,
            file=name,
            size=size,
            storage_class=self.storage_class,
            blocked=self.blocked,
        )

    def _same(self, uids: Uids, path: Path, size: int) -> bool:
        """Whether the stored instance has these bytes. Raises FileNotFoundError: there is none any
        more."""
        stored = self.index.find(self.store, uids)
        if not stored:
            raise FileNotFoundError
        if stored.size != size:
            return False
        with (self.index.files / stored.file).open("rb") as old, path.open("rb") as new:
            piece = old.read(PIECE)
            while piece and piece == new.read(PIECE):
                piece = old.read(PIECE)
        return not piece


def _described(path: Path, whole: bytes) -> Found:
    """The index entry of a file. Raises NotDicomError."""
    if whole or not path.stat().st_size:
        return instance_of(scan(whole, path.parent))
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return instance_of(scan(data, path.parent))


def _check_uids(uids: Uids) -> None:
    """Raises RejectedError: one is missing, or none (fact sheet 3.1)."""
    for uid, what in zip(uids, ("Study", "Series", "SOP"), strict=True):
        if not uid or len(uid) > choices.MAX_UID or uid.strip("0123456789."):
            raise RejectedError(f"{what} Instance UID is missing or not a UID.")


class _Parts:
    """Callbacks of the multipart parser: each part of a store request to a file of its own."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.open: Any = None
        self.part: tuple[str, Path, BinaryIO] | None = None

    def callbacks(self) -> "MultipartCallbacks":
        return {"on_part_begin": self.begin, "on_part_data": self.data, "on_part_end": self.end}

    def begin(self) -> None:
        self.open = self.receiver.new_file()
        self.part = self.open.__enter__()

    def data(self, data: bytes, start: int, end: int) -> None:
        assert self.part
        self.part[2].write(memoryview(data)[start:end])

    def end(self) -> None:
        assert self.part
        self.receiver.take(*self.part)
        self.open.__exit__(None, None, None)
        self.part = None

    def abandon(self) -> None:
        """The body broke off: drop the part that was being written."""
        if self.part:
            with contextlib.suppress(OSError):  # its buffered bytes may not fit on the disk
                self.part[2].close()
            self.part[1].unlink(missing_ok=True)
            self.part = None


def feed(
    stream: Stream,
    boundary: str,
    callbacks: "MultipartCallbacks",
    abandon: Callable[[], None],
) -> None:
    """Run a multipart body through the parser.

    Raises:
        ApiError: 400, it is malformed, or has no closing boundary.
    """
    ended: list[bool] = []
    callbacks["on_end"] = lambda: ended.append(True)
    try:
        parser = MultipartParser(boundary.encode("latin-1"), callbacks)
        while piece := stream.read(PIECE):
            parser.write(piece)
    except MultipartParseError as error:
        abandon()
        raise media.ApiError(400, f"malformed multipart body: {error}", "array") from error
    except BaseException:
        abandon()
        raise
    if not ended:
        abandon()
        raise media.ApiError(400, "malformed multipart body: no closing boundary", "array")


def report(outcomes: list[Outcome], base: str, study: str) -> dict[str, Any]:
    """The response data set; FailureDetail in its XML form."""
    studies = [outcome.uids.study for outcome in outcomes if outcome.uids.study]
    failed = []
    stored = []
    for outcome in outcomes:
        if outcome.failure:
            failed.append(_failed(outcome))
        else:
            stored.append(_referenced(outcome, base))
    if studies:
        study = studies[0]
    found: dict[str, Any] = {}
    if study:
        found["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{study}"]}
    if failed:
        found["00081198"] = {"vr": "SQ", "Value": failed}
    if stored:
        found["00081199"] = {"vr": "SQ", "Value": stored}
    return found


def _referenced(outcome: Outcome, base: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "00081150": {"vr": "UI", "Value": [outcome.sop_class]},
        "00081155": {"vr": "UI", "Value": [outcome.uids.instance]},
    }
    if base:
        item["00081190"] = {"vr": "UR", "Value": [f"{base}/{outcome.uids.path}"]}
    return item


def _failed(outcome: Outcome) -> dict[str, Any]:
    item: dict[str, Any] = {}
    if choices.FAILED_ITEM_UIDS and outcome.uids.instance:
        item = _referenced(outcome, "")
    item["00081197"] = {"vr": "US", "Value": [choices.FAILURE_REASON]}
    item["00090097"] = {
        "vr": "LT",
        "Value": [outcome.failure],
        "keyword": "FailureDetail",
        "privateCreator": "GOOGLE",
    }
    return item


def render(found: dict[str, Any], as_json: bool) -> str:
    """The report as the client asked for it; JSON has its own private attribute for the detail
    (sheet 3.2)."""
    if not as_json:
        return nativexml.report(found)
    for item in found.get("00081198", {}).get("Value", ()):
        detail = item.pop("00090097")["Value"]
        item["00090010"] = {"vr": "LO", "Value": ["GOOGLE"]}
        item["00091097"] = {"vr": choices.JSON_DETAIL_VR, "Value": detail}
    return json.dumps(found, ensure_ascii=False)

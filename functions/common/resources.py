"""Names of the DICOM store, of resources in it, and of objects and folders. All are validated when
they are created."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self
from urllib.parse import quote

from functions.common.errors import PermanentError

LEVELS: Final = ("studies", "series", "instances")
A_PATH: Final = "a path is studies/UID[/series/UID[/instances/UID]]"
# PS3.5 section 9.1: digits and dots, at most 64. Leading zeros are accepted, as by the DICOM store.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_UID_LENGTH = 64
_DATASET = r"projects/[\w:.-]+/locations/[\w-]+/datasets/[\w.-]{1,256}"
_STORE = re.compile(rf"({_DATASET})/dicomStores/[\w.-]{{1,256}}", re.ASCII)
_OPERATION = re.compile(rf"({_DATASET})/operations/[\w-]{{1,256}}", re.ASCII)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", re.ASCII)
_OBJECT_NAME_BYTES = 1024
_GENERATION_MAX = 2**63 - 1  # int64


def is_uid(text: str) -> bool:
    """Whether it is a DICOM UID: digits and dots, at most 64 characters (PS3.5 section 9.1)."""
    return len(text) <= _UID_LENGTH and _has_uid_form(text)


@lru_cache(maxsize=1024)  # every instance repeats the UIDs of its study and series
def _has_uid_form(text: str) -> bool:
    return _UID.fullmatch(text) is not None


@dataclass(frozen=True, order=True)
class Resource:
    """A study, series or instance, by its UIDs.

    Raises:
        PermanentError: invalid_command, when a UID is malformed or a level is missing.
    """

    study: str
    series: str = ""
    instance: str = ""

    def __post_init__(self) -> None:
        if self.instance and not self.series:
            raise PermanentError("invalid_command", "an instance needs its series")
        for uid in filter(None, (self.study, self.series, self.instance)):
            if not is_uid(uid):
                raise PermanentError(
                    "invalid_command", "a UID has only digits and dots, at most 64 characters"
                )
        if not self.study:
            raise PermanentError("invalid_command", "a study UID is needed")

    @classmethod
    def parse(cls, path: str) -> Self:
        """Parse `studies/1.2[/series/1.2.3[/instances/1.2.3.4]]`, with or without a leading slash.

        Raises:
            PermanentError: invalid_command, for any other text.
        """
        parts = path.strip().removeprefix("/").split("/")
        levels, uids = tuple(parts[0::2]), parts[1::2]
        if levels != LEVELS[: len(uids)] or not all(uids):
            raise PermanentError("invalid_command", A_PATH)
        return cls(*uids)

    def contains(self, other: "Resource") -> bool:
        """Whether the other is this resource or part of it."""
        return (
            other.study == self.study
            and self.series in ("", other.series)
            and self.instance in ("", other.instance)
        )

    def __str__(self) -> str:
        text = f"studies/{self.study}"
        if self.series:
            text += f"/series/{self.series}"
        if self.instance:
            text += f"/instances/{self.instance}"
        return text


@dataclass(frozen=True)
class DicomStoreName:
    """`projects/P/locations/L/datasets/D/dicomStores/S`.

    Raises:
        ValueError: any other form.
    """

    name: str

    def __post_init__(self) -> None:
        if not _STORE.fullmatch(self.name):
            raise ValueError("takes projects/P/locations/L/datasets/D/dicomStores/S")

    @property
    def dataset(self) -> str:
        """`projects/P/locations/L/datasets/D`, the parent of operations."""
        return self.name.rpartition("/dicomStores/")[0]

    def owns_operation(self, operation: str) -> bool:
        """Whether it is the name of an operation of this store's dataset."""
        found = _OPERATION.fullmatch(operation)
        return found is not None and found[1] == self.dataset


@dataclass(frozen=True)
class ObjectRef:
    """One object of a bucket at one generation (0: the live one).

    Raises:
        PermanentError: invalid_event, when the bucket or the object's name is not valid in Cloud
            Storage.
    """

    bucket: str
    name: str
    generation: int = 0

    def __post_init__(self) -> None:
        if not is_bucket(self.bucket):
            raise PermanentError("invalid_event", "not the name of a bucket")
        if not _is_object_name(self.name):
            raise PermanentError("invalid_event", "not the name of an object")
        if not 0 <= self.generation <= _GENERATION_MAX:
            raise PermanentError("invalid_event", "not the generation of an object")

    @property
    def quoted(self) -> str:
        """The name as one path segment of a URL."""
        return quote(self.name, safe="")


@dataclass(frozen=True)
class GcsPrefix:
    """`gs://bucket/prefix`, the prefix without leading or trailing slash, possibly empty.

    Raises:
        PermanentError: invalid_command, when the bucket is malformed or the prefix has empty, `.`
            or `..` segments or control characters.
    """

    bucket: str
    prefix: str = ""

    def __post_init__(self) -> None:
        is_prefix = not self.prefix or all(map(_is_segment, self.prefix.split("/")))
        if not is_bucket(self.bucket) or not is_prefix:
            raise PermanentError("invalid_command", "a destination must be gs://bucket/prefix")
        # The rest of an object's name is for the names below the prefix.
        if len(self.prefix.encode()) > _OBJECT_NAME_BYTES // 2:
            raise PermanentError("invalid_command", "a destination's prefix is too long")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `gs://bucket[/prefix[/]]`.

        Raises:
            PermanentError: invalid_command, for any other text.
        """
        if not text.startswith("gs://") or text.endswith("//"):
            raise PermanentError("invalid_command", "a destination must be gs://bucket/prefix")
        bucket, _, prefix = text.removeprefix("gs://").partition("/")
        return cls(bucket, prefix.removesuffix("/"))

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}".removesuffix("/")

    def contains(self, other: "GcsPrefix") -> bool:
        """Whether the other is this folder or a folder in it."""
        inside = (
            not self.prefix
            or other.prefix == self.prefix
            or other.prefix.startswith(self.prefix + "/")
        )
        return other.bucket == self.bucket and inside


def _is_object_name(text: str) -> bool:
    """Whether it is a valid name of an object: up to 1,024 bytes of UTF-8, without line breaks, not
    `.` or `..`."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False  # half of a surrogate pair
    if text in (".", "..") or "\r" in text or "\n" in text:
        return False
    return 0 < size <= _OBJECT_NAME_BYTES


def _is_segment(text: str) -> bool:
    """Whether it is a valid folder of a prefix."""
    if text in ("", ".", "..") or not text.isprintable():
        return False
    return len(text.encode()) <= 255


def is_bucket(text: str) -> bool:
    """Whether it is a valid name of a bucket."""
    return _BUCKET.fullmatch(text) is not None

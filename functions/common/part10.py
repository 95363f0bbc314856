"""What the first bytes of a DICOM Part 10 file (PS3.10 section 7) say about it."""

import io
from typing import Any, Final

import pydicom
import pydicom.errors

from functions.common.errors import PermanentError
from functions.common.resources import Resource

HEAD_BYTES: Final = 64 * 1024
_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def is_part10(head: bytes) -> bool:
    """Whether it begins as a Part 10 file does: a preamble of 128 bytes, then DICM."""
    return head[128:132] == b"DICM"


def identify(head: bytes) -> Resource:
    """The study, series and SOP Instance UIDs.

    Args:
        head: the first bytes of the file, pixel data not needed.

    Raises:
        PermanentError: unsupported_input, when it is no Part 10 file, the header cannot be read, or a UID is
            missing or malformed.
    """
    if not is_part10(head):
        raise PermanentError("unsupported_input", "not a DICOM Part 10 file")
    try:
        instance: Any = pydicom.dcmread(io.BytesIO(head), stop_before_pixels=True, specific_tags=list(_UIDS))
        return Resource(*(str(getattr(instance, keyword, "")) for keyword in _UIDS))
    except PermanentError:
        raise PermanentError("unsupported_input", "a UID is missing or malformed") from None
    except (EOFError, ValueError, OSError, AttributeError, pydicom.errors.InvalidDicomError):
        raise PermanentError("unsupported_input", "the header cannot be read") from None

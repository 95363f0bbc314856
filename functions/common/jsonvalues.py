"""JSON that others have sent, and its values, taken only where they are what they should be."""

import json
import re
from typing import Any, Final

_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_INT64_MAX: Final = 2**63 - 1


def parsed(document: bytes | str) -> Any:
    """What JSON says; None for what is not JSON, or is nested deeper than Python reads."""
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        return None


def text(value: object) -> str:
    """The value if it is text, else empty."""
    if not isinstance(value, str):
        return ""
    return value


def int64(value: object) -> int | None:
    """A whole number from 0 up to 64 bits, or its digits as text: Google's APIs send int64 so. None
    for anything else."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if not 0 <= value <= _INT64_MAX:
        return None
    return value

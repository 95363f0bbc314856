"""JSON from other systems; values are used only if they have the expected type."""

import json
import re
from typing import Any, Final

_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_INT64_MAX: Final = 2**63 - 1


def parsed(document: bytes | str) -> Any:
    """The value of a JSON text; None if it is not JSON, or is nested too deeply for Python."""
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        return None


def text(value: object) -> str:
    """The value if it is text, else an empty text."""
    if not isinstance(value, str):
        return ""
    return value


def int64(value: object) -> int | None:
    """A whole number from 0 up to 64 bits, also as text (Google's APIs send int64 as text). None
    for anything else."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if not 0 <= value <= _INT64_MAX:
        return None
    return value

"""Data as text for a terminal: control characters are shown, never sent to it."""

import json
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

# Control characters, invisible format characters (those that turn the direction of text among
# them), lone surrogates, and separators of lines.
_SHOWN_AS_CODE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_UNITS: Final = ("kB", "MB", "GB", "TB")
# What is counted in messages: many, and one of them. Other words have one form (`3 stored`).
_SINGULAR: Final = {
    "dead letters": "dead letter",
    "exports": "export",
    "failures": "failure",
    "files": "file",
    "instances": "instance",
    "objects": "object",
    "outcomes": "outcome",
    "studies": "study",
    "unreadable lines of the ledger": "unreadable line of the ledger",
    "unreadable sidecars": "unreadable sidecar",
}


def shown(value: Any) -> str:
    """A value on one line, as it can be printed on any terminal."""
    if value is None:
        return ""
    if isinstance(value, str):
        return "".join(map(_character, value))
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return shown(json.dumps(value))


def _character(character: str) -> str:
    if unicodedata.category(character) not in _SHOWN_AS_CODE:
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def local_time(value: Any) -> str:
    """An RFC 3339 time in the time zone of this machine, with the zone; other text as it is."""
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        return shown(value)
    if time.tzinfo is None:
        return shown(value)
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def size_text(value: Any) -> str:
    """A number of bytes for people, in powers of 1000."""
    if not isinstance(value, int):
        return shown(value)
    if value < 1000:
        return f"{value} B"
    size = float(value)
    unit = "B"
    for larger in _UNITS:
        if size < 1000:
            break
        size /= 1000
        unit = larger
    return f"{size:.1f} {unit}"


def amount(count: int, word: str) -> str:
    """A number with its noun: `2 studies`, `1 study`.

    Args:
        word: the plural, or a word that has one form only.
    """
    if count == 1:
        word = _SINGULAR.get(word, word)
    return f"{count} {shown(word)}"


def counted(counts: Mapping[str, int]) -> str:
    """`280 stored, 18 duplicate`: the counts that are not zero."""
    return ", ".join(amount(count, word) for word, count in counts.items() if count)

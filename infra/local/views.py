"""Tables for people."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.local.running import value

_BAD = frozenset({"rejected", "conflict", "partial"})
_STYLES = {
    "stored": "green",
    "deleted": "green",
    "exported": "green",
    "duplicate": "cyan",
    "superseded": "cyan",
}
# Heading, attribute, by level of the search. The Healthcare API counts nothing and has no
# ModalitiesInStudy.
_COLUMNS = {
    "studies": (
        ("date", "00080020"),
        ("patient id", "00100020"),
        ("description", "00081030"),
        ("study", "0020000D"),
    ),
    "series": (
        ("modality", "00080060"),
        ("description", "0008103E"),
        ("series", "0020000E"),
        ("study", "0020000D"),
    ),
    "instances": (
        ("number", "00200013"),
        ("class", "00080016"),
        ("instance", "00080018"),
        ("series", "0020000E"),
    ),
}
# What the API leaves out unless asked for.
_NOT_DEFAULT = {"studies": ("StudyDescription",), "series": (), "instances": ("SeriesInstanceUID",)}


def wide_console() -> Console:
    """A terminal as it is; in a pipe or a file lines are not folded at 80 characters."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=250)


def wanted(level: str) -> list[tuple[str, str]]:
    """The parameters that ask for what the table shows beyond the defaults."""
    return [("includefield", keyword) for keyword in _NOT_DEFAULT[level]]


def size_text(size_bytes: int) -> str:
    """A size for people, in powers of 1000."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def word(outcome: Mapping[str, Any] | None) -> str:
    """An outcome's word with its colour; an ellipsis while there is none."""
    if outcome is None:
        return "[dim]…[/dim]"
    text = str(outcome["outcome"])
    return f"[{_STYLES.get(text, 'yellow')}]{text}[/]"


def is_good(outcome: Mapping[str, Any]) -> bool:
    """Whether a person may be content with it."""
    return outcome["outcome"] not in _BAD


def subject(outcome: Mapping[str, Any]) -> str:
    """What an outcome is about: the object, or the request."""
    name = str(outcome.get("name") or outcome.get("request_id") or "")
    return f"{name} : {outcome['member']}" if outcome.get("member") else name


def outcome_row(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of the outcomes' table."""
    reason = ": ".join(str(outcome[key]) for key in ("reason", "detail") if outcome.get(key))
    counts = ", ".join(
        f"{count} {what}" for what, count in outcome.get("counts", {}).items() if count
    )
    return (
        str(outcome.get("time", ""))[11:19],
        word(outcome),
        subject(outcome),
        str(outcome.get("function", "")),
        size_text(int(outcome.get("bytes") or 0)),
        "; ".join(filter(None, (counts, reason))),
    )


def outcomes_table(outcomes: Iterable[Mapping[str, Any]]) -> Table:
    """Outcomes, one a line."""
    table = Table(
        "time",
        "outcome",
        "input",
        "function",
        "size",
        "counts and reason",
        box=None,
        pad_edge=False,
    )
    for outcome in outcomes:
        table.add_row(*outcome_row(outcome))
    return table


def search_table(level: str, items: Iterable[Mapping[str, Any]]) -> Table:
    """Search results, one a line."""
    table = Table(box=None, pad_edge=False)
    columns = _COLUMNS[level]
    for heading, _tag in columns:
        table.add_column(heading, overflow="fold")
    for item in items:
        table.add_row(*(value(item, tag) for _heading, tag in columns))
    return table

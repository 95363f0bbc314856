"""The results: a table for a person, and a report to send in."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from cli.conformance.question import Answer, Question

SAME: Final = "same"
DIFFERENT: Final = "different"
NOT_SEEN: Final = "not seen"
FAILED: Final = "failed"
_CELL: Final = 44  # characters of an answer in the table


@dataclass(frozen=True)
class Row:
    """One question and its result.

    Attributes:
        question: what was asked.
        verdict: SAME, DIFFERENT, NOT_SEEN (it could not be observed) or FAILED (an error).
        found: the answer, or why there is none.
    """

    question: Question
    verdict: str
    found: Answer

    def as_json(self) -> dict[str, Any]:
        """The row as in the report."""
        return {
            "question": self.question.name,
            "section": self.question.section,
            "text": self.question.text,
            "choices": list(self.question.choices),
            "assumed": self.question.assumed,
            "found": self.found,
            "verdict": self.verdict,
        }


def document(rows: Iterable[Row], about: dict[str, str]) -> dict[str, Any]:
    """The report: which service was asked and when, and every row."""
    return {**about, "rows": [row.as_json() for row in rows]}


def scrubbed(found: Answer, secrets: dict[str, str]) -> Answer:
    """An answer without the names of the caller's project, so that the report can be sent in."""
    text = json.dumps(found)
    for secret, replacement in secrets.items():
        text = text.replace(secret, replacement)
    return json.loads(text)


def table(rows: list[Row]) -> str:
    """One line for each question, then the full answers that are not the assumed ones."""
    name_width = max((len(row.question.name) for row in rows), default=0)
    header = _line("verdict", "section", "question", name_width, "assumed", "found")
    lines = [header, "-" * len(header)]
    for row in rows:
        question = row.question
        assumed, found = _short(question.assumed), _short(row.found)
        line = _line(row.verdict, question.section, question.name, name_width, assumed, found)
        lines.append(line.rstrip())
    for row in rows:
        if row.verdict != SAME:
            lines += _in_full(row)
    lines += ["", summary(rows)]
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """How many are the same, different, not seen, failed."""
    counts = []
    for verdict in (SAME, DIFFERENT, NOT_SEEN, FAILED):
        count = sum(row.verdict == verdict for row in rows)
        if count or verdict == SAME:
            counts.append(f"{count} {verdict}")
    return f"{len(rows)} questions: {', '.join(counts)}"


def _line(verdict: str, section: str, name: str, name_width: int, assumed: str, found: str) -> str:
    return f"{verdict:<9}  {section:<7}  {name:<{name_width}}  {assumed:<{_CELL}}  {found}"


def _short(answer: Answer) -> str:
    text = _text(answer)
    if len(text) > _CELL:
        return f"{text[: _CELL - 1]}…"
    return text


def _text(answer: Answer) -> str:
    """An answer on one line; JSON escapes control characters."""
    return json.dumps(answer)


def _in_full(row: Row) -> list[str]:
    return [
        "",
        f"{row.question.name} ({row.verdict}), fact sheet section {row.question.section}",
        f"  {row.question.text}",
        f"  assumed: {_text(row.question.assumed)}",
        f"  found:   {_text(row.found)}",
    ]

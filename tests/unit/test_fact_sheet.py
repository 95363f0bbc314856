"""Every citation of the fact sheet leads to a section of it, and its open points to a question."""

import re
from pathlib import Path

import pytest

from cli.conformance import run as _every_question  # noqa: F401 - puts them on the list
from cli.conformance.question import QUESTIONS

ROOT = Path(__file__).parents[2]
SHEET = (ROOT / "docs" / "healthcare-api.md").read_text()
FOLDERS = ("functions", "infra", "cli", "tests", "benchmarks")
NUMBERS = r"\d+(?:\.\d+)?(?:(?:,| and| to) \d+(?:\.\d+)?)*"
CITATION = re.compile(
    rf"\bsheet,?(?: sections?)? ({NUMBERS})|\bsections? ({NUMBERS}) of the fact sheet"
)


def sections() -> set[str]:
    """The numbers of the headings, and of the items of section 15."""
    found = set(re.findall(r"^##+ (\d+(?:\.\d+)?)\.? ", SHEET, re.MULTILINE))
    chosen = SHEET.partition("\n## 15. ")[2].partition("\n## ")[0]
    return found | {f"15.{number}" for number in re.findall(r"^(\d+)\. ", chosen, re.MULTILINE)}


def citations(path: Path) -> set[str]:
    """The sections that a file cites; a citation may go on on the next line."""
    text = re.sub(r"\s*\n\s*(?:#|//)?\s*", " ", path.read_text())
    found: set[str] = set()
    for match in CITATION.finditer(text):
        found |= set(re.findall(r"\d+(?:\.\d+)?", match[1] or match[2]))
    return found


def citing() -> dict[str, set[str]]:
    """The files that cite the fact sheet, and what each of them cites."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            cited = citations(path)
            if cited and path != Path(__file__):
                found[str(path.relative_to(ROOT))] = cited
    return found


CITING = citing()


def test_the_code_cites_the_fact_sheet() -> None:
    assert len(CITING) > 20


@pytest.mark.parametrize("path", CITING)
def test_every_citation_leads_to_a_section(path: str) -> None:
    assert CITING[path] - sections() == set()


def test_every_line_of_choices_names_a_section() -> None:
    text = (ROOT / "infra" / "local" / "dicomstore" / "choices.py").read_text()
    names = re.findall(r"^[A-Z0-9_]+ =", text, re.MULTILINE)
    openings = re.findall(rf"^# ({NUMBERS})(?:[:;]|$)", text, re.MULTILINE)
    cited = {number for opening in openings for number in re.findall(r"[\d.]+", opening)}
    assert len(openings) == len(names)
    assert cited - sections() == set()


def test_every_question_names_a_section() -> None:
    assert {question.section for question in QUESTIONS} - sections() == set()


def test_every_question_is_named_where_the_fact_sheet_leaves_it_open() -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", SHEET))
    assert {question.name for question in QUESTIONS} - named == set()


def test_every_open_point_has_a_question_or_says_why_not() -> None:
    names = {question.name for question in QUESTIONS}
    open_points = re.findall(r"\[(?:[^\[\]]*; )?unsure[^\[\]]*\]", SHEET)
    assert len(open_points) > 30
    for point in open_points:
        asked = set(re.findall(r"`([a-z0-9_]+)`", point))
        assert asked or "not asked" in point, point
        assert asked <= names, point


def test_every_statement_says_how_sure_it_is() -> None:
    """Every item of the sections on the service has a mark in brackets, or refers to one that
    has."""
    body = SHEET.partition("\n## 1. ")[2].partition("\n## 15. ")[0]
    marks = re.compile(r"\[[^\[\]]*(?:confirmed|documented|seen|unsure)[^\[\]]*\]|\d\.\d\)")
    for item in re.split(r"\n(?=- |\n)", body):
        if item.strip().startswith("- "):
            assert marks.search(item), item

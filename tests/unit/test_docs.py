"""The documents say what the code does."""

import re
from pathlib import Path

import click
import pytest

from cli.app import app
from functions.api.formats import FORMATS
from tests import settings_table

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_every_setting_is_documented_as_it_is() -> None:
    page = settings_table.PAGE.read_text()
    assert page == settings_table.with_table(page), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            assert heading in headings_of(page.parent / target if target else page), heading


def headings_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_document_can_be_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text()))
    for page in PAGES:
        if page.name != "README.md":
            assert page.relative_to(ROOT).as_posix() in linked


def code_of(page: Path) -> str:
    """What stands in code: in prose "make sure" is no target."""
    text = page.read_text()
    blocks = re.findall(r"```(?:\w+)?\n(.*?)```", text, re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", text)])


def commands_of(page: Path) -> list[list[str]]:
    """The words of each call of dicom-functions, up to what the shell does with it."""
    found = re.findall(r"\bdicom-functions ([^\n|>)#\"]+)", code_of(page))
    return [line.replace("'", "").split() for line in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_is_named_exists(page: Path) -> None:
    for words in commands_of(page):
        command: click.Command | None = app
        context = click.Context(app)
        while words and isinstance(command, click.Group) and words[0].islower():
            command = command.get_command(context, words.pop(0))
        assert command is not None, words
        options = {name for param in command.params for name in param.opts} | {"--help"}
        for word in words:
            assert not word.startswith("--") or word in options, (command.name, word)


@pytest.mark.parametrize("name", app.list_commands(click.Context(app)))
def test_every_command_is_in_the_list(name: str) -> None:
    table = (ROOT / "docs/commands.md").read_text()
    assert re.search(rf"^\|.*`{name}\b.*\|.*\|$", table, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_and_module_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = code_of(page)
    for name in re.findall(r"\bmake ([a-z-]+)", code):
        assert name in targets, f"make {name}"
    for module in re.findall(r"python3? -m ((?:infra|cli|benchmarks|tests)[\w.]*)", code):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_every_format_of_an_export_is_documented() -> None:
    text = (ROOT / "docs/delete-and-export.md").read_text()
    for name in FORMATS:
        assert re.search(rf"^\|( `\w+`,)? `{name}`(, `\w+`)? \|", text, re.MULTILINE), name

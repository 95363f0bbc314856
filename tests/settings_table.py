"""Writes the table of docs/settings.md from the code: `make docs`. A test fails when the two
differ."""

from pathlib import Path

from functions.common.settings import ALL, SETTINGS, Setting

PAGE = Path(__file__).parents[1] / "docs/settings.md"
_BEGIN = "<!-- settings: begin -->"
_END = "<!-- settings: end -->"


def settings_table() -> str:
    """The table, one row for each setting."""
    rows = ["| variable | default | used by | what it is |", "| --- | --- | --- | --- |"]
    for setting in SETTINGS:
        default = _default(setting)
        functions = _functions(setting)
        rows.append(f"| `{setting.name}` | {default} | {functions} | {setting.help} |")
    return "\n".join(rows)


def _default(setting: Setting) -> str:
    if setting.default is None:
        return "*required*"
    if setting.default == "":
        return "empty"
    return f"`{setting.default}`"


def _functions(setting: Setting) -> str:
    if setting.used_by == ALL:
        return "all"
    return ", ".join(f"`{name}`" for name in setting.used_by)


def with_table(page: str) -> str:
    """The page with the right table.

    Raises:
        ValueError: the page has no place marked for it.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("docs/settings.md has no place for the table")
    return f"{before}{_BEGIN}\n{settings_table()}\n{_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))

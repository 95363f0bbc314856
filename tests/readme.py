"""Writes the settings table of the README from the code: `make docs`. A test fails when the two
differ."""

from pathlib import Path

from functions.common.settings import ALL, SETTINGS

PAGE = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- settings: begin -->", "<!-- settings: end -->"


def settings_table() -> str:
    """The table, one row for each setting."""
    rows = ["| variable | default | used by | what it is |", "| --- | --- | --- | --- |"]
    for setting in SETTINGS:
        default = (
            "*required*"
            if setting.default is None
            else f"`{setting.default}`"
            if setting.default
            else "empty"
        )
        functions = (
            "all"
            if setting.functions == ALL
            else ", ".join(f"`{name}`" for name in setting.functions)
        )
        rows.append(f"| `{setting.name}` | {default} | {functions} | {setting.help} |")
    return "\n".join(rows)


def with_table(page: str) -> str:
    """The page with the table as it should be.

    Raises:
        ValueError: the page has no place marked for it.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("README.md has no place for the table")
    return f"{before}{_BEGIN}\n{settings_table()}\n{_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))

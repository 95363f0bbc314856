"""Metadata and a JPEG are a pair by their names: `x.json` and `x.jpg` or `x.jpeg`."""

from typing import Final

ENDINGS: Final[dict[str, tuple[str, ...]]] = {"json": (".json",), "jpeg": (".jpg", ".jpeg")}
OTHER: Final = {"json": "jpeg", "jpeg": "json"}


def stem_of(name: str, kind: str) -> str:
    """The name without its ending, which both halves share; empty when it has no ending of this
    kind (json or jpeg), in any case."""
    for ending in ENDINGS[kind]:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return ""


def may_be_half(name: str) -> bool:
    """Whether an object of this name can be half of a pair."""
    return any(stem_of(name, kind) for kind in ENDINGS)


def beginnings(stem: str) -> tuple[str, ...]:
    """The prefixes by which all halves with this stem are listed, and few other objects."""
    # Every ending begins so, in any case.
    return (f"{stem}.j", f"{stem}.J")

"""Metadata and a JPEG belong together by their names: `x.json` and `x.jpg` or `x.jpeg`."""

from typing import Final

JSON_ENDINGS: Final = (".json",)
JPEG_ENDINGS: Final = (".jpg", ".jpeg")


def stem_of(name: str, endings: tuple[str, ...]) -> str:
    """The name without its ending, which both halves share; empty when it has none of these
    endings, in capitals or not."""
    for ending in endings:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return ""


def may_be_half(name: str) -> bool:
    """Whether an object of this name can be one half of a pair."""
    return bool(stem_of(name, JSON_ENDINGS + JPEG_ENDINGS))

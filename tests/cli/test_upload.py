"""`upload`: what it says before anything is stored."""

from pathlib import Path

import pytest

from cli.upload import Source, _alone


@pytest.mark.parametrize(
    ("names", "alone"),
    [
        (["a/x.json", "a/x.jpg"], []),
        (["a/x.json", "a/x.JPEG"], []),
        (["instance.json", "image.jpg"], ["image.jpg", "instance.json"]),
        (["a/x.json", "b/x.jpg"], ["a/x.json", "b/x.jpg"]),
        (["scan.dcm", "scan"], []),
    ],
)
def test_halves_that_are_uploaded_alone_are_named(names: list[str], alone: list[str]) -> None:
    assert _alone([Source(Path(name), name) for name in names]) == alone

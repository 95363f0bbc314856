"""Attributes that metadata gets from its JPEG."""

import json

import pytest

from functions.common.errors import PermanentError
from functions.store import metadata
from functions.store.jpeg import Colour, Frame
from functions.store.metadata import Metadata
from tests import scans

LOSSLESS = 0xC3
COLOURS = "00280004"


def described(colours: str = "") -> Metadata:
    """Metadata without the attributes of the image, except this photometric interpretation."""
    (document,) = json.loads(scans.metadata(("1.2", "1.2.3", "1.2.3.4")))
    given = {tag: value for tag, value in document.items() if not tag.startswith(("0002", "0028"))}
    if colours:
        given[COLOURS] = {"vr": "CS", "Value": [colours]}
    return metadata.parse(json.dumps([given]).encode())


def frame(colour: Colour) -> Frame:
    return Frame(LOSSLESS, 8, 16, 16, 3, 1, colour)


@pytest.mark.parametrize(("colour", "colours"), [("", "RGB"), ("RGB", "RGB"), ("YBR", "YBR_FULL")])
def test_a_lossless_colour_jpeg_is_not_said_to_be_subsampled(colour: Colour, colours: str) -> None:
    attributes = metadata.with_jpeg(described(), frame(colour))
    assert attributes[COLOURS]["Value"] == [colours]


@pytest.mark.parametrize(
    ("colour", "colours"),
    [("", "YBR_FULL_422"), ("YBR", "YBR_FULL_422"), ("YBR", "RGB"), ("RGB", "YBR_FULL")],
)
def test_other_colours_than_those_of_a_lossless_jpeg_are_refused(
    colour: Colour, colours: str
) -> None:
    with pytest.raises(PermanentError, match="rejected"):
        metadata.with_jpeg(described(colours), frame(colour))


@pytest.mark.parametrize(
    ("colour", "colours"), [("", "YBR_FULL"), ("", "RGB"), ("YBR", "YBR_FULL"), ("RGB", "RGB")]
)
def test_the_stated_colours_of_a_lossless_jpeg_are_kept(colour: Colour, colours: str) -> None:
    attributes = metadata.with_jpeg(described(colours), frame(colour))
    assert attributes[COLOURS]["Value"] == [colours]

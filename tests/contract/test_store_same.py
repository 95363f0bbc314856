"""Metadata with a JPEG that is compared with the stored instance: what is the same, and what is
not."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import scans
from tests.contract.landing import LANDING, Landing, landing, words

UIDS = ("1.2", "1.2.3", "1.2.3.4")
NOW = "2999-01-01T00:00:00Z"
STORED = ("stored", "")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Landing]:
    with landing(tmp_path) as made:
        yield made


def drop_pair(place: Landing, stem: str, text: bytes) -> list[tuple[str, str]]:
    """Upload and deliver both halves, in a new process; the outcomes."""
    place.restart()
    before = len(place.world.outcomes)
    halves = [
        place.upload(f"{stem}.json", text, created=NOW),
        place.upload(f"{stem}.jpg", scans.jpeg(), created=NOW),
    ]
    for half in halves:
        place.finish(half)
    return words(place.world.outcomes[before:])


def lose_answer_then_refuse(place: Landing) -> None:
    """The store stores the next instance, but its answer is lost, and the repetition is refused
    without a reason."""
    place.world.fault(method="POST", kind="reset", when="after", count=1)
    place.world.fault(method="POST", kind="status", status=409, body="no report", count=1)


@pytest.mark.parametrize(
    ("tag", "attribute"),
    [
        ("00101030", {"vr": "DS", "Value": ["70.50"]}),
        ("00101030", {"vr": "DS", "Value": ["70.0"]}),
        ("00101030", {"vr": "DS", "Value": [70]}),
        ("00200013", {"vr": "IS", "Value": ["007"]}),
        ("00189073", {"vr": "FD", "Value": [0.1]}),
        ("00089459", {"vr": "FL", "Value": [0.1]}),
        ("00282000", {"vr": "OB", "InlineBinary": base64.b64encode(b"\1\2\3\4").decode()}),
        ("00091010", {"vr": "UN", "InlineBinary": base64.b64encode(b"\1\2\3").decode()}),
        ("00281201", {"vr": "OW", "InlineBinary": base64.b64encode(b"\1\2" * 256).decode()}),
        ("00283006", {"vr": "US", "Value": list(range(600))}),
        ("00280009", {"vr": "AT", "Value": ["0018106a"]}),
        ("00080000", {"vr": "UL", "Value": [12]}),
        ("00080020", {"vr": "DA"}),
        ("00081030", {"vr": "LO", "Value": ["a\\b"]}),
        ("00080008", {"vr": "CS", "Value": ["A", None, "B"]}),
        ("00104000", {"vr": "LT", "Value": ["with spaces \r\n"]}),
        ("00100010", {"vr": "PN", "Value": [{"Alphabetic": "Doe^J", "Ideographic": ""}]}),
        ("00081140", {"vr": "SQ", "Value": [{}]}),
        ("00081140", {"vr": "SQ", "Value": [{"00101030": {"vr": "DS", "Value": ["1.50"]}}]}),
    ],
)
def test_a_pair_whose_answer_is_lost_is_stored_however_the_store_spells_its_values(
    place: Landing, tag: str, attribute: dict[str, Any]
) -> None:
    lose_answer_then_refuse(place)
    assert drop_pair(place, "1", scans.metadata(UIDS, **{tag: attribute})) == [STORED] * 2
    assert place.instances() == 1


PATIENT = {"vr": "LO", "Value": ["WRONG-PATIENT"]}
COMMENT = {"vr": "LT", "Value": ["of another patient"]}


@pytest.mark.parametrize(
    ("tag", "wrong", "right"),
    [
        ("00100020", PATIENT, None),
        ("00100020", PATIENT, {"vr": "LO"}),
        ("00100020", None, PATIENT),
        ("00101030", {"vr": "DS", "Value": ["70.5"]}, {"vr": "DS", "Value": ["70.6"]}),
        ("00091010", {"vr": "UN", "InlineBinary": "AQI="}, None),
        ("00081140", {"vr": "SQ", "Value": [{"00104000": COMMENT}]}, None),
        (
            "00081140",
            {"vr": "SQ", "Value": [{"00104000": COMMENT}]},
            {"vr": "SQ", "Value": [{}]},
        ),
        ("00081140", {"vr": "SQ", "Value": [{}, {}]}, {"vr": "SQ", "Value": [{}]}),
    ],
)
def test_a_corrected_pair_is_a_conflict_and_is_not_deleted(
    tmp_path: Path, tag: str, wrong: dict[str, Any] | None, right: dict[str, Any] | None
) -> None:
    def text(attribute: dict[str, Any] | None) -> bytes:
        if attribute is None:
            return scans.metadata(UIDS)
        return scans.metadata(UIDS, **{tag: attribute})

    with landing(tmp_path, SOURCE_DISPOSITION="delete", CONFLICT_POLICY="keep") as place:
        assert drop_pair(place, "1", text(wrong)) == [STORED] * 2
        assert drop_pair(place, "2", text(right)) == [("conflict", "conflict")] * 2
        assert place.buckets.names(LANDING) == ["2.jpg", "2.json"]


def test_a_stored_instance_with_more_metadata_than_a_pair_can_have_is_another_one(
    place: Landing,
) -> None:
    creator = scans.element(0x00090010, "LO", b"MAKER")
    large = scans.element(0x00091010, "UT", b"x" * 5_000_000)
    place.drop("a.dcm", scans.dicom(UIDS, private=creator + large))
    assert drop_pair(place, "1", scans.metadata(UIDS)) == [("conflict", "conflict")] * 2

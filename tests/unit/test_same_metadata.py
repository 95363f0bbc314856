"""Forms of metadata that the local DICOM store does not answer, and others may."""

from typing import Any

import pytest

from functions.store.same_metadata import is_same

URI = {"vr": "US", "BulkDataURI": "https://store.example/bulkdata/00283006"}


@pytest.mark.parametrize(
    ("ours", "stored"),
    [
        ({"vr": "FL", "Value": [0.1]}, {"vr": "FL", "Value": [0.10000000149011612]}),
        ({"vr": "DS", "Value": ["1e2"]}, {"vr": "DS", "Value": [100.0]}),
        ({"vr": "DS", "Value": ["-0.0"]}, {"vr": "DS", "Value": [0]}),
        ({"vr": "UV", "Value": ["18446744073709551615"]}, {"vr": "UV", "Value": [2**64 - 1]}),
        ({"vr": "US", "Value": [1, 2]}, URI),
        ({"vr": "LO", "Value": [""]}, None),
        ({"vr": "SQ", "Value": []}, None),
        ({"vr": "SQ", "Value": [{}] * 100_000}, None),
        (None, {"vr": "LO"}),
    ],
)
def test_another_form_of_a_value_is_the_same(ours: Any, stored: Any) -> None:
    assert is_same(_data_set(ours), _data_set(stored))


@pytest.mark.parametrize(
    ("ours", "stored"),
    [
        ({"vr": "FL", "Value": [0.1]}, {"vr": "FL", "Value": [0.1001]}),
        ({"vr": "FL", "Value": [1e39]}, {"vr": "FL", "Value": [2e39]}),
        ({"vr": "UV", "Value": [2**64 - 1]}, {"vr": "UV", "Value": [2**64 - 2]}),
        ({"vr": "LO", "Value": ["007"]}, {"vr": "LO", "Value": ["7"]}),
        ({"vr": "LO", "Value": ["a"]}, {"vr": "SH", "Value": ["a"]}),
        ({"vr": "DS", "Value": ["a"]}, {"vr": "DS", "Value": ["b"]}),
        ({"vr": "OF", "InlineBinary": "AAAAAA=="}, {"vr": "OF", "InlineBinary": "AAAAAQ=="}),
        ({"vr": "PN", "Value": [{"Phonetic": "a"}]}, {"vr": "PN", "Value": [{"Alphabetic": "a"}]}),
        ({"vr": "SQ", "Value": [{}]}, None),
        (None, {"vr": "SQ", "Value": [{}]}),
        (None, URI),
        (["no attribute"], {"vr": "LO", "Value": ["a"]}),
    ],
)
def test_another_value_is_not_the_same(ours: Any, stored: Any) -> None:
    assert not is_same(_data_set(ours), _data_set(stored))


@pytest.mark.parametrize("tag", ["00020012", "7FE00002", "00080005", "00080056", "00081190"])
def test_what_the_store_adds_is_no_difference(tag: str) -> None:
    assert is_same({}, {tag: {"vr": "UI", "Value": ["1.2"]}})


def _data_set(attribute: Any) -> dict[str, Any]:
    if attribute is None:
        return {}
    return {"00283006": attribute}

"""Commands: keys, values and queries, and what is refused."""

import json
from typing import Any

import pytest

from functions.api import commands
from functions.api.commands import Query
from functions.common.errors import PermanentError
from functions.common.events.messages import Message

_KEYS = {
    "path": commands.text,
    "dry_run": commands.flag,
    "max_studies": commands.whole(1, 10),
    "at": commands.time,
}


def _read(data: Any = None, **attributes: str) -> dict[str, Any]:
    return commands.read(
        Message(b"" if data is None else json.dumps(data).encode(), attributes), _KEYS
    )


def _refusal(data: Any = None, **attributes: str) -> str:
    with pytest.raises(PermanentError) as caught:
        _read(data, **attributes)
    assert caught.value.reason == "invalid_command"
    return caught.value.detail


def test_values_come_from_the_data_or_from_attributes() -> None:
    expected = {"path": "studies/1", "dry_run": True, "max_studies": 3}
    assert (
        _read(
            {
                "path": "studies/1",
                "dry_run": True,
                "max_studies": 3,
            }
        )
        == expected
    )
    assert _read(None, path="studies/1", dry_run="true", max_studies="3") == expected
    assert _read({"path": "studies/1"}, dry_run="true", max_studies="3") == expected


def test_a_key_given_twice_is_refused() -> None:
    assert "path" in _refusal({"path": "studies/1"}, path="studies/2")


def test_unknown_keys_are_counted_and_not_shown() -> None:
    taken = "takes path, dry_run, max_studies, at"
    assert _refusal({"path": "studies/1", "DoeJane": True}) == f"unknown keys: 1; {taken}"
    assert _refusal({"DoeJane": True, "x" * 40: 2}) == f"unknown keys: 2; {taken}"
    assert _refusal({"path": "studies/1"}, DoeJane="true") == f"unknown keys: 1; {taken}"


def test_attributes_of_the_transport_are_none_of_ours() -> None:
    attributes = {
        "path": "studies/1",
        "googclient_traceparent": "x",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
    }
    assert commands.read(Message(b"", attributes), _KEYS) == {"path": "studies/1"}


@pytest.mark.parametrize(
    "data",
    [
        {"path": ""},
        {"path": 7},
        {"path": None},
        {"dry_run": "yes"},
        {"dry_run": 1},
        {"max_studies": 0},
        {"max_studies": 11},
        {"max_studies": True},
        {"max_studies": "1e1"},
        {"max_studies": 1.5},
        {"at": "2026-01-31"},
        {"at": "yesterday"},
        {"at": "2026-01-31T08:00:00"},
    ],
)
def test_a_value_that_its_key_does_not_take_is_refused(data: dict[str, Any]) -> None:
    _refusal(data)


def test_a_time_has_an_offset() -> None:
    assert _read({"at": "2026-01-31T08:00:00.123456789Z"}) == {
        "at": "2026-01-31T08:00:00.123456789Z"
    }


def test_data_that_is_not_a_json_object_is_not_an_event() -> None:
    with pytest.raises(PermanentError) as caught:
        commands.read(Message(b"[1]"), _KEYS)
    assert caught.value.reason == "invalid_event"


@pytest.mark.parametrize(
    ("given", "level", "params"),
    [
        (
            "PatientID=1&StudyDate=20240101-",
            "studies",
            (("PatientID", "1"), ("StudyDate", "20240101-")),
        ),
        ("studies?PatientName=Doe%5EJane", "studies", (("PatientName", "Doe^Jane"),)),
        ("/series?Modality=CT", "series", (("Modality", "CT"),)),
        ("instances?00080018=1.2", "instances", (("00080018", "1.2"),)),
        ("StudyDate=-20240101", "studies", (("StudyDate", "-20240101"),)),
        ("00080020=20240101-20240131", "studies", (("00080020", "20240101-20240131"),)),
        ("StudyDate=20240101", "studies", (("StudyDate", "20240101"),)),
        ({"PatientID": "1"}, "studies", (("PatientID", "1"),)),
        ({"PatientName": "\u5c71*"}, "studies", (("PatientName", "\u5c71*"),)),
        (
            "PatientName=doe&fuzzymatching=true",
            "studies",
            (("PatientName", "doe"), ("fuzzymatching", "true")),
        ),
    ],
)
def test_a_query_is_read_from_text_and_from_json(
    given: object, level: str, params: tuple[tuple[str, str], ...]
) -> None:
    assert Query.parse(given) == Query(level, params)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "PatientID",
        "PatientID=",
        "PatientID=%20",
        "PatientName=*",
        "PatientID=1&PatientName=%3F*",
        {"PatientName": "^"},
        {"PatientName": "="},
        {"PatientName": "\u00a0"},
        {"PatientName": "\u200b"},
        {"PatientName": "\u2060"},
        {"PatientName": "\u3000"},
        {"PatientName": "\ufeff"},
        "StudyDate=-",
        "00080020=-",
        "studydate=-",
        "StudyDate=2024",
        "StudyDate=20240101-2024",
        "PatientID=1&StudyDate=*20240101",
        "PatientID=1&limit=5",
        "PatientID=1&offset=5",
        "PatientID=1&includefield=all",
        "PatientID=1&access_token=x",
        "PatientID=1&$.xgafv=1",
        "PatientID=1&alt=media",
        "fuzzymatching=true",
        "patients?PatientID=1",
        "studies/1/series?Modality=CT",
        "&".join(f"K{n}=1" for n in range(21)),
        {},
        {"PatientID": 1},
        {"PatientID": "1\n2"},
        ["PatientID"],
        7,
        None,
    ],
)
def test_a_query_that_is_malformed_or_would_match_everything_is_refused(given: object) -> None:
    with pytest.raises(PermanentError) as caught:
        Query.parse(given)
    assert caught.value.reason == "invalid_command"

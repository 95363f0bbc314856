"""ON_STUDY_COMPLETE as an operator can write it wrong: the function does not start."""

import json
from typing import Any

import pytest

from functions.common.deadline import Deadline
from functions.common.errors import SettingsError
from functions.common.events.runtime import Services
from functions.common.resources import Resource
from functions.common.settings import WATCH, Settings
from functions.watch import orders
from tests.search.kit import STORE, Answer, fake_store

EXPORT = {"destination": "gs://dicom-export/ct"}
ORDER = {"name": "ct", "match": {"Modality": "CT"}, "export": EXPORT}


def settings(text: str, **more: str) -> Settings:
    environ = {
        "DICOM_STORE": STORE,
        "STATE_BUCKET": "dicom-state",
        "OUTCOMES_TOPIC": "projects/p/topics/outcomes",
        "STUDIES_NEXT_TOPIC": "projects/p/topics/next",
        "EXPORTS_TOPIC": "projects/p/topics/exports",
        "EXPORT_DESTINATIONS": "gs://dicom-export",
        "ON_STUDY_COMPLETE": text,
        **more,
    }
    return Settings.load(WATCH, environ)


def read(text: str) -> tuple[orders.Order, ...]:
    return orders.read(settings(text))


def refused(text: str) -> str:
    with pytest.raises(SettingsError) as error:
        read(text)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_order_is_taken() -> None:
    first, second = read(json.dumps([ORDER, {"name": "all", "export": EXPORT}]))
    assert first == orders.Order("ct", (("Modality", "CT"),), EXPORT)
    assert second == orders.Order("all", (), EXPORT)


CHANGES: list[dict[str, Any]] = [
    {"more": 1},
    {"name": ""},
    {"name": "A"},
    {"name": "a" * 41},
    {"name": ["a"]},
    {"export": None},
    {"export": {}},
    {"export": {"destination": 7}},
    {"export": {"destination": "ct"}},
    {"export": {"destination": "gs://elsewhere/ct"}},
    {"export": {**EXPORT, "format": "gif"}},
    {"export": {**EXPORT, "path": "studies/1"}},
    {"export": {**EXPORT, "request_id": "a"}},
    {"export": {**EXPORT, "unheard-of": "a"}},
]
LISTS = ["{", "{}", "7", "[7]", "[null]", "[[]]", "[{}]", json.dumps([ORDER, ORDER])]


@pytest.mark.parametrize("text", [*LISTS, *(json.dumps([{**ORDER, **c}]) for c in CHANGES)])
def test_a_malformed_order_stops_the_function_with_one_line(text: str) -> None:
    assert "ON_STUDY_COMPLETE" in refused(text)


@pytest.mark.parametrize(
    "match",
    [
        None,
        [],
        {},
        {"Modality": ""},
        {"Modality": " "},
        {"Modality": "*"},
        {"PatientName": "**"},
        {"PatientID": "? *"},
        {"PatientID": "\\"},
        {"Modality": None},
        {"Modality": ["CT"]},
        {"Modality": "CT\n"},
        {"Modality": "CT\0"},
        {"StudyDate": "-"},
        {"StudyDate": "*"},
        {"StudyDate": "yesterday"},
        {"StudyDate": "2024"},
        {"StudyInstanceUID": "1.2.3"},
        {"includefield": "all"},
        {"fuzzymatching": "true"},
    ],
)
def test_a_match_that_could_match_everything_stops_the_function(match: Any) -> None:
    assert "the match of ct" in refused(json.dumps([{**ORDER, "match": match}]))


@pytest.mark.parametrize(
    "match",
    [
        {"StudyDate": "20240101"},
        {"StudyDate": "20240101-"},
        {"StudyDate": "-20240101"},
        {"StudyDate": "20240101-20240201"},
        {"PatientName": "Doe*"},
    ],
)
def test_a_date_a_range_and_the_beginning_of_a_name_are_taken(match: dict[str, str]) -> None:
    (order,) = read(json.dumps([{**ORDER, "match": match}]))
    assert dict(order.match) == match


def test_an_order_that_the_store_refuses_is_not_given_and_holds_up_nothing() -> None:
    with fake_store() as store:
        store.answers(Answer(400, b"{}"))
        loaded = settings(json.dumps([ORDER]), HEALTHCARE_ENDPOINT=f"{store.url}/v1")
        services = Services.of(loaded)
        given = orders.read(loaded)
        assert orders.publish(given, Resource("1.2.3"), 1, services, Deadline(20)) == 0

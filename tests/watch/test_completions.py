"""Which request an order of ON_STUDY_COMPLETE makes of each completion of a study."""

import json
from typing import Any

import pytest

from functions.common.errors import RetryableError
from tests.search.kit import Answer, Received
from tests.watch.place import EXPORTS, MARKER, OUTCOMES, ROWS, STATE, Place, ago, finds


def begin(place: Place) -> None:
    """A study of two instances that has been quiet for a while."""
    place.store.plan = finds(ROWS)
    place.mark(count=[2, 1], changed=ago(60))


def test_a_study_that_is_complete_again_with_as_many_instances_is_another_request(
    place: Place,
) -> None:
    begin(place)
    place.follow_up()
    place.store_record(ago(0))  # an instance was replaced
    place.mark(count=[2, 1], changed=ago(60))
    place.follow_up()
    first, second = place.published(EXPORTS)
    assert first["path"] == second["path"]
    assert first["request_id"] != second["request_id"]


def complete_twice(place: Place) -> None:
    """The process is killed before it closes the marker, and the message comes again."""
    begin(place)
    quiet = place.marker_blob
    place.follow_up()
    place.put_back(quiet)
    place.follow_up()


def test_a_completion_that_is_delivered_again_is_the_same_request(place: Place) -> None:
    complete_twice(place)
    first, again = place.published(EXPORTS)
    assert first["request_id"] == again["request_id"]


def test_a_completion_that_is_delivered_again_has_the_same_outcome(place: Place) -> None:
    complete_twice(place)
    first, again = place.published(OUTCOMES)
    assert first["id"] == again["id"]


def follow_up_after_the_quiet_time(place: Place, found: list[Any]) -> None:
    """The quiet time is over, and the store has had these instances since it began."""
    marker = {**place.marker, "count": [len(found), 1], "changed": ago(60)}
    place.buckets.put(STATE, MARKER, json.dumps(marker).encode())
    place.store.plan = finds(found)
    place.follow_up()


def test_a_study_that_was_deleted_before_it_was_reported_is_not_complete_again(
    place: Place,
) -> None:
    place.store_record(ago(0))
    follow_up_after_the_quiet_time(place, [])
    place.store_record(ago(0))
    follow_up_after_the_quiet_time(place, ROWS)
    (record,) = place.published(OUTCOMES)
    assert "again" not in record


def test_a_study_that_comes_back_while_it_is_counted_as_deleted_is_not_complete_again(
    place: Place,
) -> None:
    def nothing_while_a_record_comes(_: Received) -> Answer:
        place.store_record(ago(0))
        return Answer()

    place.mark(count=[0, 0], changed=ago(60))
    place.store.plan = nothing_while_a_record_comes
    with pytest.raises(RetryableError):
        place.follow_up()
    follow_up_after_the_quiet_time(place, ROWS)
    (record,) = place.published(OUTCOMES)
    assert "again" not in record


def test_a_study_that_was_reported_and_then_deleted_is_complete_again(place: Place) -> None:
    place.store_record(ago(0))
    follow_up_after_the_quiet_time(place, ROWS)
    place.store_record(ago(0))
    follow_up_after_the_quiet_time(place, [])
    place.store_record(ago(0))
    follow_up_after_the_quiet_time(place, ROWS)
    first, second = place.published(OUTCOMES)
    assert "again" not in first
    assert second["again"]


def test_a_study_that_is_reported_while_a_record_comes_is_complete_again_afterwards(
    place: Place,
) -> None:
    begin(place)
    page = finds(ROWS)

    def page_while_a_record_comes(request: Received) -> Answer:
        place.store_record(ago(0))
        return page(request)

    place.store.plan = page_while_a_record_comes
    with pytest.raises(RetryableError):
        place.follow_up()
    follow_up_after_the_quiet_time(place, ROWS)
    first, second = place.published(OUTCOMES)
    assert "again" not in first
    assert second["again"]

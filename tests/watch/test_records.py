"""What a record of a stored instance does to the quiet time of its study."""

from datetime import UTC, datetime

import pytest

from functions.common.deadline import rfc3339
from functions.common.errors import RetryableError
from functions.watch.memory import OpenStudies
from tests.watch.place import NEXT, OUTCOMES, QUIET_S, ROWS, Place, ago, finds


def test_a_replaced_instance_begins_a_new_quiet_time_although_the_number_is_the_same(
    place: Place,
) -> None:
    place.mark(count=[2, 1], changed=ago(60))
    place.store.plan = finds(ROWS)
    place.store_record(ago(0))
    with pytest.raises(RetryableError):
        place.follow_up()
    assert not place.published(OUTCOMES)


def test_a_record_that_is_delivered_late_begins_no_new_quiet_time(place: Place) -> None:
    place.mark(count=[2, 1], changed=ago(60))
    place.store.plan = finds(ROWS)
    place.store_record(ago(100))
    place.follow_up()
    assert len(place.published(OUTCOMES)) == 1


def test_records_in_quick_succession_write_the_marker_once(place: Place) -> None:
    time = datetime.now(UTC)
    place.mark(count=[2, 1], changed=ago(60))
    for number in range(20):
        # Each is the first one of its process.
        place.open_studies = OpenStudies()
        place.store_record(rfc3339(time), f"record-{number}")
    assert place.buckets.requests["create"] == 1


def test_a_process_that_saw_the_marker_does_not_read_it_for_the_next_record(
    place: Place,
) -> None:
    time = ago(0)
    place.mark(count=[2, 1], changed=time)
    for number in range(20):
        place.store_record(time, f"record-{number}")
    assert place.buckets.requests["read"] == 1


def test_a_process_that_saw_the_marker_lets_a_later_record_begin_a_new_quiet_time(
    place: Place,
) -> None:
    later = ago(0)
    place.mark(count=[2, 1], changed=ago(60))
    place.store_record(ago(QUIET_S), "earlier")
    place.store_record(later, "later")
    assert place.marker["changed"] == later


def test_a_record_whose_clock_is_ahead_does_not_keep_the_study_open(place: Place) -> None:
    place.store_record("9999-01-01T00:00:00.000000Z")
    assert place.marker["changed"] <= ago(0)


def open_without_follow_up(place: Place, time: str) -> None:
    """The first record of the study writes the marker, and its follow-up cannot be published."""
    place.topics.refuse = ["PERMISSION_DENIED"] * 8
    with pytest.raises(RetryableError):
        place.store_record(time, "first")
    place.topics.refuse = []


def test_the_replay_of_the_record_that_opened_the_study_publishes_its_follow_up(
    place: Place,
) -> None:
    time = ago(0)
    open_without_follow_up(place, time)
    place.store_record(time, "replay", record_id="first", replayed=True)
    assert len(place.published(NEXT)) == 1


def test_a_process_that_saw_the_marker_publishes_the_follow_up_of_a_replay_too(
    place: Place,
) -> None:
    time = ago(0)
    open_without_follow_up(place, time)
    place.store_record(time, "second")
    place.store_record(time, "replay", record_id="first", replayed=True)
    assert len(place.published(NEXT)) == 1


def test_replays_of_other_records_publish_no_follow_up(place: Place) -> None:
    time = ago(0)
    place.store_record(time, "first")
    for number in range(3):
        # Each is the first one of its process.
        place.open_studies = OpenStudies()
        place.store_record(time, f"replay-{number}", replayed=True)
    assert len(place.published(NEXT)) == 1


def test_a_record_that_was_published_twice_has_one_follow_up(place: Place) -> None:
    time = ago(0)
    place.store_record(time, "first")
    place.store_record(time, "again", record_id="first")
    assert len(place.published(NEXT)) == 1

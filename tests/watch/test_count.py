"""The count of a study in the DICOM store: what it says of the study's end."""

import pytest

from functions.common.errors import RetryableError
from tests.search.kit import Answer
from tests.watch.place import OUTCOMES, ROWS, Place, ago, finds


def test_the_time_that_a_count_takes_is_no_quiet_time(place: Place) -> None:
    place.mark(count=[1, 1], changed=ago(3))
    place.store.plan = finds(ROWS[:1], delay_s=1.5)
    with pytest.raises(RetryableError):
        place.follow_up()


def test_another_number_of_instances_begins_a_new_quiet_time(place: Place) -> None:
    place.mark(count=[1, 1], changed=ago(60))
    place.store.plan = finds(ROWS)
    with pytest.raises(RetryableError):
        place.follow_up()


def test_pages_that_miss_a_series_begin_no_new_quiet_time(place: Place) -> None:
    # The order of a search is not documented: with several pages, an instance may come twice and
    # another one be missing.
    place.mark(count=[2, 2], changed=ago(60))
    place.store.plan = finds(ROWS)
    place.follow_up()
    (record,) = place.published(OUTCOMES)
    assert record["counts"] == {"series": 2, "instances": 2, "exports": 1}


def test_a_count_that_the_store_refuses_is_tried_again(place: Place) -> None:
    place.mark(count=[2, 1], changed=ago(60))
    place.store.answers(Answer(status=400))
    with pytest.raises(RetryableError, match="unavailable"):
        place.follow_up()

import re

import pytest

from functions.common.deadline import Deadline, utc_now
from functions.common.errors import RetryableError


def test_a_spent_budget_raises() -> None:
    spent = Deadline(0)
    assert spent.remaining_s() == 0
    with pytest.raises(RetryableError, match="deadline_exceeded"):
        spent.check()
    with pytest.raises(RetryableError, match="deadline_exceeded"):
        spent.timeout_s(10)


def test_a_sleep_longer_than_the_time_left_is_not_begun() -> None:
    deadline = Deadline(20)
    assert not deadline.sleep(30)
    assert deadline.elapsed_s() < 20
    assert deadline.sleep(0.001)


def test_a_timeout_is_never_longer_than_the_time_left() -> None:
    assert Deadline(1000).timeout_s(10) == 10
    assert Deadline(5).timeout_s(10) <= 5


def test_times_sort_as_text() -> None:
    first = utc_now()
    second = utc_now()
    assert first <= second
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first)


def test_work_ends_earlier_by_what_is_reserved_and_at_most_by_a_quarter() -> None:
    assert Deadline(1000).reserving(20).budget_s == pytest.approx(980, abs=5)
    assert Deadline(40).reserving(20).budget_s == pytest.approx(30, abs=5)
    assert Deadline(0).reserving(20).budget_s == 1

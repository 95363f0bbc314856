from typing import get_args

import pytest

from functions.commands.refusals import RefusedError
from functions.common.errors import (
    DicomFunctionsError,
    PermanentError,
    PermanentReason,
    RetryableError,
    RetryableReason,
    SupersededError,
)


def test_the_two_branches_share_no_reason() -> None:
    assert not set(get_args(PermanentReason)) & set(get_args(RetryableReason))


def test_the_text_of_an_error_is_its_reason_and_nothing_else() -> None:
    assert str(PermanentError("rejected", "a detail")) == "rejected"
    assert str(RetryableError("unavailable", 5)) == "unavailable"
    assert str(SupersededError()) == "superseded"


@pytest.mark.parametrize(
    "error", [PermanentError("rejected"), RetryableError("unavailable"), SupersededError()]
)
def test_all_have_one_root_and_a_reason(error: DicomFunctionsError) -> None:
    assert isinstance(error, DicomFunctionsError)
    assert error.reason == str(error)


def test_a_refusal_is_hashable_like_every_exception() -> None:
    error = RefusedError("conflict")
    assert error in {error}

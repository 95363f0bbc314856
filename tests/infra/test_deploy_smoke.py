"""The smoke test at the end of deploy.sh: what it checks, what it skips, and that it removes
everything."""

import json
from typing import Any

import pytest

from tests.infra import stand_ins
from tests.infra.desk import Desk, deploy


def system(ingress: str = "ALLOW_ALL", **environments: dict[str, str]) -> dict[str, str]:
    """What the stand-in says of the deployed system."""
    found: dict[str, Any] = {**stand_ins.SYSTEM["environments"], **environments}
    return {"output -json system": json.dumps({"environments": found, "search_ingress": ingress})}


@pytest.mark.parametrize(
    ("say", "says"),
    [
        ({"curl .*/studies": "\n403"}, "add yourself to search_callers"),
        ({"curl .*/studies": "[]\n200"}, "search did not find the stored scan"),
        ({"curl .*/studies": "\n500"}, "search answered 500"),
    ],
)
def test_failures_of_search_are_distinguished_and_the_scan_is_still_deleted(
    desk: Desk, say: dict[str, str], says: str
) -> None:
    done = deploy(desk, "--yes", say=say)
    assert done.status == 1
    assert says in done.text
    assert done.called("topics publish dicom-deletes .*studies/2.25") == 1


def test_an_outcome_that_never_comes_ends_the_wait(desk: Desk) -> None:
    done = deploy(desk, "--yes", say={"subscriptions pull": "[]"}, limit_s=1)
    assert done.status == 1
    assert "no outcome within 1 s" in done.text
    assert "dicom-functions doctor" in done.text
    assert done.called("subscriptions delete dicom-smoke-test") == 1
    assert done.called("storage rm gs://p-dicom-landing/dicom-smoke-test.*scan.dcm") == 1


def test_a_wrong_outcome_is_reported(desk: Desk) -> None:
    (desk.cloud / "REJECT").touch()
    done = deploy(desk, "--yes")
    assert done.status == 1
    assert "the outcome was 'rejected unsupported_input " in done.text
    assert done.called("topics publish dicom-deletes") == 0


def test_only_its_own_outcomes_are_watched(desk: Desk) -> None:
    done = deploy(desk, "--yes")
    (made,) = (call for call in done.calls if "subscriptions create" in call)
    assert '--message-filter=attributes.study = "2.25.' in made


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            system("ALLOW_INTERNAL_AND_GCLB"),
            "search was skipped: search_ingress is ALLOW_INTERNAL_AND_GCLB",
        ),
        (
            system(search={"SEARCH_CALLERS": "a@example.org"}),
            "search was skipped: it accepts only callers in SEARCH_CALLERS",
        ),
    ],
)
def test_a_search_that_is_closed_to_operators_is_left_out(
    desk: Desk, settings: dict[str, str], says: str
) -> None:
    done = deploy(desk, "--yes", say=settings)
    assert done.status == 0, done.text
    assert says in done.text
    assert done.called("curl .*/studies") == 0
    assert done.called("topics publish dicom-deletes") == 1


def test_what_may_not_be_deleted_yet_is_named(desk: Desk) -> None:
    done = deploy(desk, "--yes", say=system(delete_resource={"DELETE_MIN_AGE_HOURS": "24"}))
    assert done.status == 0, done.text
    assert (
        "delete was skipped: DELETE_MIN_AGE_HOURS is 24. "
        "The synthetic scan stays in the DICOM store: studies/2.25." in done.text
    )
    assert done.called("topics publish") == 0


def test_the_copy_that_was_moved_is_taken_away_too(desk: Desk) -> None:
    done = deploy(desk, "--yes", say=system(store_upload={"MOVE_DESTINATION": "gs://done/scans"}))
    assert done.status == 0, done.text
    assert done.called("storage rm gs://done/scans/dicom-smoke-test-[0-9]*/scan.dcm") == 1

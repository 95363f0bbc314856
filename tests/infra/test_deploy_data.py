"""deploy.sh and resources with data: their region, what --destroy keeps, and how it is used
again."""

import re

import pytest

from tests.infra import stand_ins
from tests.infra.desk import PROJECT, STATE, Desk, Result, deploy

KEPT = stand_ins.RESOURCES[:3]
BINDING = stand_ins.RESOURCES[4][0]


def regions(done: Result) -> list[str]:
    """The region of each plan; empty: Terraform's own choice."""
    plans = [call for call in done.calls if re.search(r"terraform -chdir=\S+ plan", call)]
    return ["".join(re.findall(r"-var=region=(\S+)", call)) for call in plans]


def imported(done: Result) -> list[tuple[str, str]]:
    return [(call.split()[-2], call.split()[-1]) for call in done.calls if " import " in call]


def removed(done: Result) -> list[str]:
    """What was removed from Terraform's state."""
    return [call.split(" state rm ")[1] for call in done.calls if " state rm " in call]


# --- where --------------------------------------------------------------------------------------


def test_without_a_region_the_next_run_stays_where_the_data_is(desk: Desk) -> None:
    assert regions(deploy(desk, "--region", "europe-west4", "--yes", "--skip-smoke-test")) == [
        "europe-west4"
    ]
    again = deploy(desk, "--yes", "--skip-smoke-test")
    assert again.status == 0
    assert regions(again) == ["europe-west4"]
    assert regions(deploy(desk, "--plan")) == ["europe-west4"]


@pytest.mark.parametrize("action", ["--apply", "--plan"])
def test_another_region_than_that_of_the_data_is_refused(desk: Desk, action: str) -> None:
    deploy(desk, "--region", "europe-west4", "--yes", "--skip-smoke-test")
    done = deploy(desk, action, "--yes", "--region", "us-central1")
    assert done.status == 2
    assert regions(done) == []
    assert "this system is in europe-west4, and its data cannot move to us-central1" in done.text
    (desk.root / "infra/gcp/terraform.tfvars").write_text(
        'labels = {}\nregion  = "asia-east1" # moved\n'
    )
    assert "cannot move to asia-east1" in deploy(desk, action, "--yes").text


def test_the_region_of_the_variables_file_is_used_from_the_start(desk: Desk) -> None:
    (desk.root / "infra/gcp/terraform.tfvars").write_text(
        '# region = "x"\nregion = "europe-west4"\n'
    )
    done = deploy(desk, "--yes", "--skip-smoke-test")
    assert regions(done) == ["europe-west4"]
    assert done.called("buckets create .*--location=europe-west4") == 1
    assert regions(deploy(desk, "--yes", "--skip-smoke-test")) == ["europe-west4"]


def test_without_a_word_terraform_chooses_the_region(desk: Desk) -> None:
    assert regions(deploy(desk, "--yes", "--skip-smoke-test")) == [""]


def test_an_unreadable_state_is_not_treated_as_an_empty_one(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    done = deploy(desk, "--yes", fail=("state pull",))
    assert done.status == 1
    assert regions(done) == []
    assert "could not read the state" in done.text


# --- taking it down -----------------------------------------------------------------------------


def test_destroy_keeps_the_data_and_a_later_deployment_takes_it_up_again(desk: Desk) -> None:
    deploy(desk, "--region", "europe-west4", "--yes", "--skip-smoke-test")
    down = deploy(desk, "--destroy", typed=f"{PROJECT}\n")
    assert down.status == 0, down.text
    assert sorted(removed(down)) == sorted([*(address for address, _ in KEPT), BINDING])
    order = down.order(
        f"storage cp .*kept.tsv {STATE}/kept-.*.tsv", "state rm", "destroy .*-auto-approve"
    )
    assert order == sorted(order)
    planned = deploy(desk, "--plan")
    assert "p-dicom-landing" in planned.text
    assert imported(planned) == []
    up = deploy(desk, "--yes", "--skip-smoke-test")
    assert sorted(imported(up)) == sorted(KEPT)
    assert regions(up) == ["europe-west4"], "what was kept is where it was"
    assert imported(deploy(desk, "--yes", "--skip-smoke-test")) == []


def test_destroy_leaves_the_owners_their_roles_on_the_buckets_that_it_keeps(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    down = deploy(desk, "--destroy", "--yes")
    assert BINDING in removed(down)
    order = down.order("state rm .*iam_binding", "destroy .*-auto-approve")
    assert order == sorted(order)
    assert "legacyBucketOwner" not in down.text.rpartition("Kept: ")[2]
    assert sorted(imported(deploy(desk, "--yes", "--skip-smoke-test"))) == sorted(KEPT)


@pytest.mark.parametrize("fail", ["state rm google_storage_bucket", "terraform .* destroy"])
def test_a_destroy_that_was_cut_off_and_run_again_forgets_nothing(desk: Desk, fail: str) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    cut = deploy(desk, "--destroy", "--yes", fail=(fail,))
    assert cut.status == 1
    assert "run the same command again to continue" in cut.text
    again = deploy(desk, "--destroy", "--yes")
    assert again.status == 0, again.text
    assert all(name in again.text.rpartition("Kept: ")[2] for _, name in KEPT)
    assert sorted(imported(deploy(desk, "--yes", "--skip-smoke-test"))) == sorted(KEPT)


def test_what_can_not_be_taken_up_stays_on_the_list(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    deploy(desk, "--destroy", "--yes")
    done = deploy(desk, "--yes", fail=("import .*google_storage_bucket",))
    assert done.status == 1
    assert "could not import p-dicom-landing" in done.text
    again = deploy(desk, "--yes", "--skip-smoke-test")
    assert again.status == 0
    assert imported(again) == [KEPT[2]], "the others are in the state already"


def test_what_the_settings_no_longer_name_stays_on_the_list_and_the_rest_is_used_again(
    desk: Desk,
) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    deploy(desk, "--destroy", "--yes")
    role, name = KEPT[1]
    (desk.cloud / "unnamed").write_text(role)
    done = deploy(desk, "--yes", "--skip-smoke-test")
    assert done.status == 0, done.text
    assert f"not used: {name} (the present settings do not name it" in done.text
    assert sorted(imported(done)) == sorted(KEPT)
    (desk.cloud / "unnamed").unlink()
    assert imported(deploy(desk, "--yes", "--skip-smoke-test")) == [KEPT[1]]
    assert imported(deploy(desk, "--yes", "--skip-smoke-test")) == []


def test_nobody_is_told_to_delete_the_list_of_what_is_kept(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    deploy(desk, "--destroy", "--yes")
    done = deploy(desk, "--yes", fail=("import .*google_storage_bucket",))
    assert done.status == 1
    assert "storage rm" not in done.text


def test_destroy_asks_for_the_projects_name(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    for typed in ("yes\n", ""):
        done = deploy(desk, "--destroy", typed=typed)
        assert done.status == 3
        assert done.called("state rm|destroy") == 0


def test_destroy_does_nothing_if_it_cannot_write_what_it_keeps(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    done = deploy(desk, "--destroy", "--yes", fail=("storage cp .*kept.tsv",))
    assert done.status == 1
    assert done.called("state rm|terraform .*destroy") == 0


def test_destroy_of_nothing_says_so(desk: Desk) -> None:
    done = deploy(desk, "--destroy", "--yes")
    assert done.status == 2
    assert "nothing was deployed" in done.text

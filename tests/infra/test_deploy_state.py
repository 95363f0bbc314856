"""deploy.sh and the bucket with Terraform's state: its owner, and what else is kept in it."""

import json

import pytest

from tests.infra.desk import PROJECT, STATE, Desk, deploy

LOCK = "terraform.lock.hcl"


def test_nothing_is_written_to_a_bucket_of_another_project(desk: Desk) -> None:
    (desk.cloud / "state-bucket").write_text(json.dumps({"projectNumber": "666"}))
    done = deploy(desk, "--yes")
    assert done.status == 2
    assert f"{STATE} is not a bucket of {PROJECT}" in done.text
    assert "--state-bucket" in done.text
    assert done.called("terraform .* init|storage (cp|cat)|buckets (create|update)") == 0


@pytest.mark.parametrize("action", ["--apply", "--plan", "--destroy"])
def test_an_invisible_bucket_is_treated_as_somebody_elses(desk: Desk, action: str) -> None:
    done = deploy(desk, action, "--yes", say={"curl .*/storage/v1/b/": "\n403"})
    assert done.status == 2
    assert "not a bucket of" in done.text
    assert done.called("terraform .* init") == 0


@pytest.mark.parametrize("answer", ["\n500", "\n000"])
def test_without_an_answer_no_bucket_is_created(desk: Desk, answer: str) -> None:
    done = deploy(desk, "--yes", say={"curl .*/storage/v1/b/": answer})
    assert done.status == 1
    assert "could not look up" in done.text
    assert done.called("buckets create") == 0


def test_the_state_can_be_in_a_bucket_of_another_name(desk: Desk) -> None:
    done = deploy(desk, "--yes", "--skip-smoke-test", "--state-bucket", "our-own-state")
    assert done.status == 0, done.text
    assert done.called("buckets create gs://our-own-state ") == 1
    assert done.called("init .*-backend-config=bucket=our-own-state") == 1
    assert done.called(STATE) == 0


def test_viewers_and_editors_of_the_project_lose_access_to_the_state(desk: Desk) -> None:
    done = deploy(desk, "--yes", "--skip-smoke-test")
    for member, role in (
        ("projectViewer", "legacyBucketReader"),
        ("projectViewer", "legacyObjectReader"),
        ("projectEditor", "legacyBucketOwner"),
        ("projectEditor", "legacyObjectOwner"),
    ):
        wanted = f"--member={member}:{PROJECT} --role=roles/storage.{role} "
        assert done.called(f"remove-iam-policy-binding {STATE} {wanted}") == 1


def test_the_checksums_of_the_first_download_are_kept_and_used_from_then_on(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    kept = (desk.cloud / LOCK).read_text()
    local = desk.root / "infra/gcp" / f".{LOCK}"
    assert local.read_text() == kept
    local.unlink()
    again = deploy(desk, "--yes", "--skip-smoke-test")
    assert again.called("init .*-upgrade") == 1
    assert local.read_text() == kept
    assert again.called(f"storage cp .*{LOCK}") == 0, "nothing changed"


def test_unreadable_checksums_are_not_treated_as_missing(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    done = deploy(desk, "--yes", say={f"curl .*{LOCK}": "\n503"})
    assert done.status == 1
    assert done.called("terraform .* init") == 0


def test_the_token_is_renewed_after_the_question(desk: Desk) -> None:
    done = deploy(desk, "--skip-smoke-test", typed="yes\n")
    assert done.status == 0, done.text
    plan, apply = done.order("terraform .* plan", "terraform .* apply")
    assert any("print-access-token" in call for call in done.calls[plan:apply])


@pytest.mark.parametrize(
    ("setting", "permission"),
    [
        (
            'kms_key = "projects/k/locations/us-central1/keyRings/r/cryptoKeys/c"',
            "cloudkms.cryptoKeys.setIamPolicy",
        ),
        (
            'dataset_kms_key = "projects/k/locations/us/keyRings/r/cryptoKeys/c"',
            "cloudkms.cryptoKeys.setIamPolicy",
        ),
        ('billing_account = "000000-000000-000000"', "billing.budgets.create"),
    ],
)
def test_a_permission_outside_the_project_is_checked_where_it_is_used(
    desk: Desk, setting: str, permission: str
) -> None:
    asked = f"curl .*{permission}"
    assert deploy(desk, "--plan").called(asked) == 0
    desk.settings(f"{setting}\n")
    assert deploy(desk, "--plan").status == 0
    refused = deploy(desk, "--plan", say={asked: "{}"})
    assert refused.status == 2
    assert f"missing: the permission {permission} on " in refused.text
    unanswered = deploy(desk, "--plan", fail=(asked,))
    assert unanswered.status == 0
    assert f"could not check whether you have {permission} on " in unanswered.text

"""Failures of first deployments: deploy.sh recognises the message and says what to do."""

import json

import pytest

from tests.infra.desk import Desk, Result, deploy

# Messages of Google's APIs, in the frame and with the line breaks of Terraform.
RESTRICTED = """\
│ Error: Error waiting to create function: Error waiting for Creating function: Error code 9,
│ message: Build failed: failed precondition: due to quota restrictions, cannot
│ run builds in this region. Please contact support
"""
QUOTA = """\
│ Error: Could not create Cloud Run service dicom-store-upload.
│ spec.template.metadata.annotations[autoscaling.knative.dev/maxScale]: Max
│ instances must be set to 20 or fewer to set the requested total CPU.
│ Quota violated: CpuAllocPerProjectRegion requested: 100000 allowed: 20000
"""
DENIED = """\
│ Error: Build failed: build service account does not have permission: Permission
│ 'artifactregistry.repositories.uploadArtifacts' denied on resource
"""
POLICY = """\
│ Error: googleapi: Error 412: Constraint constraints/iam.disableServiceAccountCreation
│ violated for project demo-project
"""
TAKEN = "│ Error: googleapi: Error 409: Resource 'dicom-search' already exists\n"
FAILED = "projects/demo-project/locations/europe-west4/functions/dicom-store-upload"


def failing(desk: Desk, message: str, *arguments: str) -> Result:
    """A deployment whose apply fails with a message."""
    (desk.cloud / "apply-error").write_text(message)
    return deploy(desk, "--yes", "--skip-smoke-test", *arguments)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (RESTRICTED, ("europe-west1", "--region", "dataset_location", "worker_pool", "support")),
        (QUOTA, ("CpuAllocPerProjectRegion", "max_instances", "IAM & Admin > Quotas")),
        (DENIED, ("run the same command again",)),
        (POLICY, ("Your organization forbids", "docs/deploy.md")),
        (TAKEN, ("run the same command", "bucket_prefix")),
    ],
)
def test_a_known_failure_is_explained_with_what_to_do(
    desk: Desk, message: str, says: tuple[str, ...]
) -> None:
    done = failing(desk, message)
    assert done.status == 1
    explanation = done.text.rpartition("│")[2]
    for words in says:
        assert words in explanation


def test_an_unknown_failure_is_shown_without_an_explanation(desk: Desk) -> None:
    done = failing(desk, "│ Error: Invalid value for sugar\n")
    assert done.status == 1
    assert "Invalid value for sugar" in done.text
    assert "Do one of the following" not in done.text


def test_a_region_that_new_projects_may_not_build_in_is_named_before_the_question(
    desk: Desk,
) -> None:
    done = deploy(desk, "--region", "europe-west4", typed="no\n")
    assert done.status == 3
    assert "In europe-west4 the build may be refused" in done.text


@pytest.mark.parametrize("region", ["us-central1", "europe-west1"])
def test_a_region_that_every_project_may_build_in_is_not_warned_of(desk: Desk, region: str) -> None:
    assert "may be refused" not in deploy(desk, "--region", region, typed="no\n").text


def test_with_a_worker_pool_no_region_is_warned_of(desk: Desk) -> None:
    desk.settings('worker_pool = "projects/p/locations/europe-west4/workerPools/w"\n')
    assert "may be refused" not in deploy(desk, "--region", "europe-west4", typed="no\n").text


def test_what_a_failed_build_left_is_deleted_before_the_next_apply(desk: Desk) -> None:
    left = {"name": FAILED, "state": "FAILED"}
    (desk.cloud / "functions").write_text(json.dumps([left]))
    done = deploy(desk, "--yes", "--skip-smoke-test")
    assert done.status == 0, done.text
    assert f"deleting the function of a failed build: {FAILED}" in done.text
    order = done.order("DELETE .*dicom-store-upload", "terraform .* apply")
    assert order == sorted(order)


@pytest.mark.parametrize(
    "function",
    [
        {"name": FAILED, "state": "ACTIVE"},
        {"name": FAILED.replace("dicom-", "other-"), "state": "FAILED"},
    ],
)
def test_no_other_function_is_deleted(desk: Desk, function: dict[str, str]) -> None:
    (desk.cloud / "functions").write_text(json.dumps([function]))
    assert deploy(desk, "--yes", "--skip-smoke-test").called("DELETE") == 0


def test_a_failed_function_that_terraform_knows_is_left_to_terraform(desk: Desk) -> None:
    (desk.cloud / "functions").write_text(json.dumps([{"name": FAILED, "state": "FAILED"}]))
    instances = [{"attributes": {"id": FAILED}}]
    known = {
        "type": "google_cloudfunctions2_function",
        "name": "this",
        "instances": instances,
    }
    say = {"state pull": json.dumps({"resources": [known]})}
    done = deploy(desk, "--yes", "--skip-smoke-test", say=say)
    assert done.status == 0, done.text
    assert done.called("DELETE") == 0


def test_a_plan_and_a_refusal_delete_nothing(desk: Desk) -> None:
    (desk.cloud / "functions").write_text(json.dumps([{"name": FAILED, "state": "FAILED"}]))
    assert deploy(desk, "--plan").called("DELETE") == 0
    assert deploy(desk, typed="no\n").called("DELETE") == 0

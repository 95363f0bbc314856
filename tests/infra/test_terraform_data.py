"""infra/gcp: resources with data, and messages."""

import re
from pathlib import Path

import pytest

from functions.export.parts import PART_SUFFIX
from tests.infra import stand_ins, terraform
from tests.infra.chosen import DELIVERY, EVERYTHING, TOPOLOGY, bound
from tests.infra.terraform import PROJECT, Plan, TerraformError

pytestmark = pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())


def test_every_bucket_is_uniform_and_never_public(plan: Plan) -> None:
    buckets = plan.by_name("google_storage_bucket")
    assert set(buckets) == {
        f"{PROJECT}-{name}" for name in [*TOPOLOGY["buckets"].values(), "dicom-source"]
    }
    for name, bucket in buckets.items():
        assert bucket["uniform_bucket_level_access"] is True, name
        assert bucket["public_access_prevention"] == "enforced", name
        assert bucket["force_destroy"] is (name == f"{PROJECT}-dicom-source"), name


def test_no_plan_destroys_resources_with_data() -> None:
    """Neither in another region nor with a store that is named later: Google deletes a dataset with
    all its scans."""
    dataset = "google_healthcare_dataset.this"
    store = "google_healthcare_dicom_store.this"
    bucket = "google_storage_bucket.data"
    other = f"projects/{PROJECT}/locations/us-central1/datasets/clinic/dicomStores/pacs"
    with terraform.applied(store, bucket) as planned:
        for variables, refused in (
            ({"region": "europe-west4"}, {dataset, bucket}),
            ({"dicom_store": other}, {dataset}),
        ):
            with pytest.raises(TerraformError, match="Instance cannot be destroyed") as said:
                planned(**variables)
            assert (
                set(re.findall(r"Resource (google_\w+\.\w+)\S* has", str(said.value))) >= refused
            ), variables


def test_terraform_says_of_an_import_that_the_settings_do_not_name_it(tmp_path: Path) -> None:
    """By this text deploy.sh knows that what it kept is not used now."""
    role = 'google_project_iam_custom_role.roles["dicomObjectCreator"]'
    command = ["import", "-input=false", "-no-color", "-lock=false", f"-state={tmp_path}/state"]
    command += [f"-var=project={PROJECT}", role, f"projects/{PROJECT}/roles/dicomObjectCreator"]
    with pytest.raises(TerraformError, match=stand_ins.NOT_NAMED):
        terraform.run(terraform.workspace(), *command)


def test_what_holds_data_is_created_after_the_functions_are_built() -> None:
    """A project that may not build in a region must be able to move on to another one."""
    for address in ("google_healthcare_dataset.this", "google_storage_bucket.data"):
        awaited = terraform.plan().dependencies(address)
        assert {"module.event_function", "module.search", "module.commands"} <= awaited, address


def test_no_bucket_deletes_by_itself_unless_asked(plan: Plan) -> None:
    deleting = {
        name
        for name, bucket in plan.by_name("google_storage_bucket").items()
        for rule in bucket["lifecycle_rule"]
        if rule["action"][0]["type"] == "Delete" and not rule["condition"][0]["matches_suffix"]
    } - {f"{PROJECT}-dicom-state"}
    assert deleting <= {f"{PROJECT}-dicom-export"}
    assert not deleting or plan is terraform.plan(**EVERYTHING)


def test_parts_of_a_zip_that_were_left_in_the_export_bucket_go_too(plan: Plan) -> None:
    bucket = plan.by_name("google_storage_bucket")[f"{PROJECT}-dicom-export"]
    (condition,) = (
        rule["condition"][0]
        for rule in bucket["lifecycle_rule"]
        if rule["condition"][0]["matches_suffix"]
    )
    assert condition["matches_suffix"] == [PART_SUFFIX]
    assert condition["age"] == TOPOLOGY["state_expires_days"]


def test_state_outlives_the_dead_letter_that_needs_it_and_then_goes_by_itself(plan: Plan) -> None:
    bucket = plan.by_name("google_storage_bucket")[f"{PROJECT}-dicom-state"]
    (condition,) = (
        rule["condition"][0]
        for rule in bucket["lifecycle_rule"]
        if rule["action"][0]["type"] == "Delete"
    )
    assert condition["age"] == TOPOLOGY["state_expires_days"]
    assert condition["age"] * 86400 > DELIVERY["dead_letter_retention_s"]


def test_all_state_goes_by_itself_but_that_a_webhook_has_ended() -> None:
    plan = terraform.plan(**EVERYTHING)
    bucket = plan.by_name("google_storage_bucket")[f"{PROJECT}-dicom-state"]
    (prefixes,) = (
        rule["condition"][0]["matches_prefix"]
        for rule in bucket["lifecycle_rule"]
        if rule["action"][0]["type"] == "Delete"
    )
    kept = {
        values["condition"][0]["title"].removeprefix("only ") + "/"
        for _, values in plan.resources("google_storage_bucket_iam_member")
        if values["bucket"] == f"{PROJECT}-dicom-state"
    }
    assert kept - set(prefixes) == {"webhooks/"}


def test_every_subscription_never_expires_and_has_a_dead_letter_or_is_one(plan: Plan) -> None:
    holds = {item["dead_letter_subscription"] for item in bound(plan)}
    for name, subscription in plan.by_name("google_pubsub_subscription").items():
        assert subscription["expiration_policy"] == [{"ttl": ""}], name
        assert bool(subscription["dead_letter_policy"]) is (name not in holds), name
        assert subscription["retain_acked_messages"] in (None, False), name


def test_messages_stay_in_the_region(plan: Plan) -> None:
    for name, topic in plan.by_name("google_pubsub_topic").items():
        assert topic["message_storage_policy"][0]["allowed_persistence_regions"] == [
            "us-central1"
        ], name


def test_one_key_is_on_all_that_holds_data() -> None:
    plan = terraform.plan(**EVERYTHING)
    key = EVERYTHING["kms_key"]
    for name, bucket in plan.by_name("google_storage_bucket").items():
        wanted = [] if name.endswith("dicom-source") else [{"default_kms_key_name": key}]
        assert bucket["encryption"] == wanted, name
    assert {t["kms_key_name"] for t in plan.by_name("google_pubsub_topic").values()} == {key}
    assert [d["encryption_spec"] for _, d in plan.resources("google_healthcare_dataset")] == [
        [{"kms_key_name": key}]
    ]


def test_queries_of_searches_are_not_logged(plan: Plan) -> None:
    (exclusion,) = plan.by_name("google_logging_project_exclusion").values()
    assert 'service_name="dicom-search"' in exclusion["filter"]
    assert 'requestUrl:"?"' in exclusion["filter"]
    assert not exclusion["disabled"]

"""infra/gcp: who may do what."""

import json
import re
from collections import defaultdict

import pytest

from functions.api import page_uploads
from tests.infra import iam_table, terraform
from tests.infra.chosen import EVERYTHING, PAGE, TOPOLOGY, TURNED, bound
from tests.infra.terraform import PROJECT, Plan, TerraformError

pytestmark = pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())


def test_nothing_is_bound_on_the_project_but_the_build(plan: Plan) -> None:
    kinds = {
        kind
        for kind in plan.types()
        if kind.startswith(("google_project_iam_", "google_folder_", "google_org"))
    }
    harmless = {
        "google_project_iam_audit_config",
        "google_project_iam_custom_role",
    }  # they bind nobody
    assert kinds - harmless == {"google_project_iam_member"}
    bindings = [values for _, values in plan.resources("google_project_iam_member")]
    assert {b["member"] for b in bindings} == {
        f"serviceAccount:dicom-build@{PROJECT}.iam.gserviceaccount.com"
    }
    roles = {b["role"]: b["condition"] for b in bindings}
    assert roles["roles/logging.logWriter"] == []
    assert "/buckets/gcf-v2-sources-" in roles["roles/storage.objectViewer"][0]["expression"]
    assert len(roles) == 2


def test_with_a_build_account_of_ones_own_nothing_at_all_is_bound_on_the_project() -> None:
    assert "google_project_iam_member" not in terraform.plan(**TURNED).types()


def test_nobody_is_everybody(plan: Plan) -> None:
    for address, values in plan.resources():
        assert "allUsers" not in json.dumps(values), address
        assert "allAuthenticatedUsers" not in json.dumps(values), address


def test_everybody_must_be_asked_for_twice() -> None:
    with pytest.raises(TerraformError, match="set search_public too"):
        terraform.plan(search_callers=["allUsers"])


@pytest.mark.parametrize("member", ["allUsers", "allAuthenticatedUsers"])
def test_everybody_can_neither_upload_nor_command(member: str) -> None:
    with pytest.raises(TerraformError, match="name the uploaders"):
        terraform.plan(uploaders=[member])
    for topic in ("deletes", "exports"):
        with pytest.raises(TerraformError, match="name the publishers"):
            terraform.plan(command_publishers={topic: [member]})


def test_only_additive_bindings(plan: Plan) -> None:
    """A `_binding` or `_policy` would remove grants of others. Only the default bindings of buckets
    are removed, which nobody granted."""
    kinds = {kind for kind in plan.types() if re.search(r"_iam_(binding|policy)$", kind)}
    assert kinds == {"google_storage_bucket_iam_binding"}


def test_no_basic_or_administrator_roles(plan: Plan) -> None:
    for address, values in plan.resources():
        # Here these roles are taken away.
        if address.startswith("google_storage_bucket_iam_binding.convenience"):
            continue
        role = values.get("role") or ""
        assert not re.search(r"roles/(owner|editor|viewer)$|admin|legacy", role, re.IGNORECASE), (
            address
        )


def test_of_the_projects_basic_roles_only_owners_reach_into_the_buckets(plan: Plan) -> None:
    """Cloud Storage lets viewers read, and editors write, every object of a new bucket."""
    owners = [f"projectOwner:{PROJECT}"]
    wanted = {
        "roles/storage.legacyBucketReader": [],
        "roles/storage.legacyObjectReader": [],
        "roles/storage.legacyBucketOwner": owners,
        "roles/storage.legacyObjectOwner": owners,
    }
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for _, values in plan.resources("google_storage_bucket_iam_binding"):
        found[values["bucket"]][values["role"]] = values["members"]
    assert set(found) == {f"{PROJECT}-{name}" for name in TOPOLOGY["buckets"].values()}
    for bucket, roles in found.items():
        assert roles == wanted, bucket


def test_only_a_function_reaches_its_state_and_only_in_its_folder(plan: Plan) -> None:
    state = f"{PROJECT}-dicom-state"
    folders = set()
    for _, values in plan.resources("google_storage_bucket_iam_member"):
        if values["bucket"] == state:
            account = values["member"].partition(":")[2].partition("@")[0]
            place = f'startsWith\\("projects/_/buckets/{state}/objects/([a-z]+)/"\\)'
            found = re.search(place, values["condition"][0]["expression"])
            assert found, account
            folders.add((account, found[1]))
    wanted = {("dicom-store-upload", "pairs"), ("dicom-export-resource", "exports")}
    if plan is terraform.plan(**EVERYTHING):
        wanted |= {
            ("dicom-commands", "requests"),
            ("dicom-search", "requests"),
            ("dicom-notify", "requests"),
            ("dicom-notify", "webhooks"),
            ("dicom-watch-studies", "studies"),
        }
    assert folders == wanted


def test_only_a_function_publishes_its_follow_ups(plan: Plan) -> None:
    published = defaultdict(set)
    for _, values in plan.resources("google_pubsub_topic_iam_member"):
        account = values["member"].partition(":")[2].partition("@")[0]
        published[values["topic"]].add(account)
    if plan is terraform.plan(**EVERYTHING):
        assert published["dicom-studies-next"] == {"dicom-watch-studies"}
    for name, item in TOPOLOGY["functions"].items():
        topic = TOPOLOGY["topics"][item["follow_ups"]["topic"]]
        assert published[topic] == {f"dicom-{name.replace('_', '-')}"}
        # Nor does a function need its commands' topic.
        assert f"dicom-{name.replace('_', '-')}" not in published[TOPOLOGY["topics"][item["topic"]]]


def test_the_table_of_rights_is_the_one_in_the_documents() -> None:
    """After a change of grants: `python -m tests.infra.iam_table` writes the tables."""
    for table in iam_table.TABLES:
        assert table.in_document() == table.made(), table.document


def test_the_store_function_can_not_delete_and_search_can_only_read() -> None:
    allowed = iam_table.permissions(terraform.plan())
    assert not [
        p for p in allowed["dicom-store-upload"] if p.startswith("healthcare.") and "elete" in p
    ]
    assert allowed["dicom-search"] == {"healthcare.dicomStores.dicomWebRead"}
    overwriting = iam_table.permissions(terraform.plan(**EVERYTHING))
    assert "healthcare.dicomStores.dicomWebDelete" in overwriting["dicom-store-upload"]
    assert overwriting["dicom-search"] == {
        "healthcare.dicomStores.dicomWebRead",
        "roles/pubsub.publisher",
        "storage.objects.create",
        "storage.objects.get",
        "storage.objects.list",
    }


def test_the_store_function_can_compare_an_object_that_it_finds_where_it_moves_one_to() -> None:
    """Without read, a name that was uploaded twice would be 403 at each delivery."""
    found = [
        allowed
        for account, _, name, allowed in iam_table.rights(terraform.plan(**EVERYTHING))
        if (account, name) == ("dicom-store-upload", "done-bucket")
    ]
    wanted = {"create", "delete", "get", "list"}
    assert [set(allowed) for allowed in found] == [{f"storage.objects.{verb}" for verb in wanted}]


@pytest.mark.parametrize("name", ["landing", "quarantine", "ledger", "state"])
def test_exports_can_not_write_to_the_systems_other_buckets(name: str) -> None:
    bucket = f"gs://{PROJECT}-dicom-{name}"
    for place in (bucket, f"{bucket}/folder"):
        with pytest.raises(TerraformError, match="Not in the landing, quarantine, ledger or state"):
            terraform.plan(export_destinations=["gs://research-bucket/in", place])


def test_search_can_create_objects_in_the_folder_of_its_uploads_only() -> None:
    (found,) = [
        values
        for _, values in terraform.plan(**PAGE).resources("google_storage_bucket_iam_member")
        if values["bucket"] == f"{PROJECT}-dicom-landing" and "dicom-search@" in values["member"]
    ]
    place = f"projects/_/buckets/{PROJECT}-dicom-landing/objects/{page_uploads.FOLDER}"
    assert f'resource.name.startsWith("{place}")' in found["condition"][0]["expression"]


def test_search_may_only_read_the_state_of_requests() -> None:
    kept = [r for r in iam_table.rights(terraform.plan(**PAGE)) if r[2] == "dicom-state/requests/"]
    allowed = {account: permissions for account, _, _, permissions in kept}
    assert allowed["dicom-search"] == ("storage.objects.get", "storage.objects.list")
    assert set(allowed) == {"dicom-notify", "dicom-search"}


def test_nobody_uploads_through_a_public_search() -> None:
    with pytest.raises(TerraformError, match="anyone could upload"):
        terraform.plan(search_uploads=True, search_public=True)


def test_every_function_may_publish_to_its_topics() -> None:
    granted = {
        (values["topic"], values["member"].split("@")[0].removeprefix("serviceAccount:"))
        for _, values in terraform.plan().resources("google_pubsub_topic_iam_member")
    }
    for name, item in TOPOLOGY["functions"].items():
        account = f"dicom-{name.replace('_', '-')}"
        assert (TOPOLOGY["topics"]["outcomes"], account) in granted
        assert (TOPOLOGY["topics"][item["follow_ups"]["topic"]], account) in granted


def test_pubsub_may_move_dead_letters_out_of_each_subscription_and_into_each_topic(
    plan: Plan,
) -> None:
    agent = "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    topics = {
        v["topic"]
        for _, v in plan.resources("google_pubsub_topic_iam_member")
        if v["member"] == agent
    }
    subscriptions = {
        v["subscription"] for _, v in plan.resources("google_pubsub_subscription_iam_member")
    }
    assert topics == {item["dead_letter_topic"] for item in bound(plan)}
    assert subscriptions == {item.get("subscription") or item["name"] for item in bound(plan)}


def test_a_subscription_that_is_replaced_keeps_its_way_to_the_dead_letters() -> None:
    """Another filter replaces a subscription: the new one has the same name and no bindings."""
    webhook = {"url": "https://ris.example.org/", "secret": "ris", "events": ["stored"]}
    changed = {**webhook, "events": ["rejected"]}
    notify = 'module.event_function["notify"].google_pubsub_subscription'
    member = "google_pubsub_subscription_iam_member"
    with terraform.applied(
        f'{notify}_iam_member.dead_letters["webhook ris"]',
        f"{member}.outcomes_dead",
        variables={"webhooks": {"ris": webhook}},
    ) as planned:
        said = planned("-replace=google_pubsub_subscription.ledger", webhooks={"ris": changed})
    replaced = set(re.findall(r"# (.+) will be replaced due to changes in", said))
    assert replaced == {
        f'{notify}_iam_member.dead_letters["webhook ris"]',
        f"{member}.outcomes_dead",
    }

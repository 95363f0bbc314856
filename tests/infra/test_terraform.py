"""infra/gcp, checked with the real terraform and no cloud: what may never be otherwise, and what
agrees with what."""

import itertools
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from functions.common.settings import SETTINGS, Settings
from tests.infra import iam_table, terraform
from tests.infra.terraform import GCP, PROJECT, ROOT, Plan, TerraformError

pytestmark = [
    pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not()),
]

TOPOLOGY = json.loads((ROOT / "infra" / "topology.json").read_text())
DELIVERY = TOPOLOGY["delivery"]
LEDGER = TOPOLOGY["ledger_subscription"]
FOLLOW_UPS = [item["follow_ups"] for item in TOPOLOGY["functions"].values()]
BOUND = [*TOPOLOGY["functions"].values(), *FOLLOW_UPS, LEDGER]  # what has a dead letter
# Read by functions-framework and not by us.
PLATFORM_VARIABLES = {"THREADS", "LOG_EXECUTION_ID"}
EVERYTHING: dict[str, Any] = {
    "conflict_policy": "overwrite",
    "source_disposition": "move",
    "move_destination": "gs://done-bucket/scans",
    "delete_stores": [
        f"projects/{PROJECT}/locations/us-central1/datasets/research/dicomStores/mri"
    ],
    "search_exports": True,
    "search_retrieve": True,
    "uploaders": ["group:modalities@example.org"],
    "search_callers": ["group:readers@example.org"],
    "command_publishers": {
        "deletes": ["user:head@example.org"],
        "exports": ["group:readers@example.org"],
    },
    "export_destinations": ["gs://research-bucket/in"],
    "kms_key": "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/k",
    "audit_logs": True,
    "alert_email": "oncall@example.org",
    "billing_account": "000000-000000-000000",
    "budget": 100,
    "retention_days": {"export": 30},
    "vpc_connector": f"projects/{PROJECT}/locations/us-central1/connectors/c",
}
TURNED: dict[str, Any] = {
    "worker_pool": f"projects/{PROJECT}/locations/us-central1/workerPools/w",
    "build_service_account": f"builder@{PROJECT}.iam.gserviceaccount.com",
    "extra_environment": {"export_resource": {"BUDGET_S": "100"}},
    "functions": {"store_upload": {"max_instances": 300}},
}


@pytest.fixture(params=["defaults", "everything"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return terraform.plan(**(EVERYTHING if request.param == "everything" else {}))


def test_it_is_formatted_and_valid() -> None:
    terraform.run(GCP, "fmt", "-check", "-recursive", "-diff")
    assert "valid" in terraform.run(terraform.workspace(), "validate", "-no-color")


def test_its_own_tests_pass() -> None:
    said = terraform.run(terraform.workspace(), "test", "-no-color")
    assert re.search(r"Success! [1-9][0-9]* passed, 0 failed", said)


def test_the_lock_file_of_whichever_providers_are_here_is_not_committed() -> None:
    assert ".terraform.lock.hcl" in (ROOT / ".gitignore").read_text().split()


# --- what may never be otherwise -----------------------------------------------------------------


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


def test_only_additive_bindings(plan: Plan) -> None:
    """A `_binding` or `_policy` would take away what others granted. Only the convenience bindings
    of buckets are taken away, which nobody granted."""
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


def test_every_bucket_is_uniform_and_never_public(plan: Plan) -> None:
    buckets = plan.by_name("google_storage_bucket")
    assert set(buckets) == {
        f"{PROJECT}-{name}" for name in [*TOPOLOGY["buckets"].values(), "dicom-source"]
    }
    for name, bucket in buckets.items():
        assert bucket["uniform_bucket_level_access"] is True, name
        assert bucket["public_access_prevention"] == "enforced", name
        assert bucket["force_destroy"] is (name == f"{PROJECT}-dicom-source"), name


def test_no_plan_destroys_what_holds_data() -> None:
    """Neither in another region nor with a store that is named later: Google deletes a dataset with
    all its scans."""
    dataset, store = "google_healthcare_dataset.this", "google_healthcare_dicom_store.this"
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


def test_what_holds_data_is_created_after_the_functions_are_built() -> None:
    """A project that may not build in a region must be able to move on to another one."""
    for address in ("google_healthcare_dataset.this", "google_storage_bucket.data"):
        awaited = terraform.plan().dependencies(address)
        assert {"module.event_function", "module.search"} <= awaited, address


def test_a_plan_after_an_apply_shows_no_change() -> None:
    with terraform.applied() as planned:
        assert "No changes." in planned()


def test_permissions_have_minutes_to_spread() -> None:
    """Before a build, before what uses a new permission, and before what has a key."""
    names = {"time_sleep.build_grants", "time_sleep.rights"}
    for plan, wanted in (
        (terraform.plan(), names),
        (terraform.plan(**EVERYTHING), {*names, "time_sleep.keys[0]"}),
    ):
        waits = {
            address: values["create_duration"] for address, values in plan.resources("time_sleep")
        }
        assert {address for address, wait in waits.items() if wait == "180s"} == wanted


def test_no_default_exceeds_the_quota_of_a_new_project() -> None:
    """Cloud Run refuses a revision that may use more CPU than the region's quota: 10 vCPU."""
    for name, function in terraform.plan().by_name("google_cloudfunctions2_function").items():
        service = function["service_config"][0]
        assert service["max_instance_count"] * float(service["available_cpu"]) <= 10, name


def test_a_worker_pool_builds_every_function() -> None:
    pool = f"projects/{PROJECT}/locations/us-central1/workerPools/w"
    for plan, wanted in ((terraform.plan(), None), (terraform.plan(**TURNED), pool)):
        for name, function in plan.by_name("google_cloudfunctions2_function").items():
            assert function["build_config"][0]["worker_pool"] == wanted, name


def test_no_bucket_deletes_by_itself_unless_asked(plan: Plan) -> None:
    deleting = {
        name
        for name, bucket in plan.by_name("google_storage_bucket").items()
        for rule in bucket["lifecycle_rule"]
        if rule["action"][0]["type"] == "Delete"
    } - {f"{PROJECT}-dicom-state"}
    assert deleting <= {f"{PROJECT}-dicom-export"}
    assert not deleting or plan is terraform.plan(**EVERYTHING)


def test_state_outlives_the_dead_letter_that_needs_it_and_then_goes_by_itself(plan: Plan) -> None:
    bucket = plan.by_name("google_storage_bucket")[f"{PROJECT}-dicom-state"]
    (age,) = (
        rule["condition"][0]["age"]
        for rule in bucket["lifecycle_rule"]
        if rule["action"][0]["type"] == "Delete"
    )
    assert age == TOPOLOGY["state_expires_days"]
    assert age * 86400 > DELIVERY["dead_letter_retention_s"]


def test_only_a_function_writes_its_state_and_only_in_its_folder(plan: Plan) -> None:
    state = f"{PROJECT}-dicom-state"
    folders = {}
    for _, values in plan.resources("google_storage_bucket_iam_member"):
        if values["bucket"] == state:
            account = values["member"].partition(":")[2].partition("@")[0]
            folders[account] = values["condition"][0]["expression"]
    assert set(folders) == {"dicom-store-upload", "dicom-export-resource"}
    for account, folder in (("dicom-store-upload", "pairs"), ("dicom-export-resource", "exports")):
        wanted = f'startsWith("projects/_/buckets/{state}/objects/{folder}/")'
        assert wanted in folders[account]


def test_only_a_function_publishes_its_follow_ups(plan: Plan) -> None:
    published = defaultdict(set)
    for _, values in plan.resources("google_pubsub_topic_iam_member"):
        account = values["member"].partition(":")[2].partition("@")[0]
        published[values["topic"]].add(account)
    for name, item in TOPOLOGY["functions"].items():
        topic = TOPOLOGY["topics"][item["follow_ups"]["topic"]]
        assert published[topic] == {f"dicom-{name.replace('_', '-')}"}
        # Nor does a function need its commands' topic.
        assert f"dicom-{name.replace('_', '-')}" not in published[TOPOLOGY["topics"][item["topic"]]]


def test_every_subscription_never_expires_and_has_a_dead_letter_or_is_one(plan: Plan) -> None:
    holds = {item["dead_letter_subscription"] for item in BOUND}
    for name, subscription in plan.by_name("google_pubsub_subscription").items():
        assert subscription["expiration_policy"] == [{"ttl": ""}], name
        assert bool(subscription["dead_letter_policy"]) is (name not in holds), name
        assert subscription["retain_acked_messages"] in (None, False), name


def test_messages_stay_in_the_region(plan: Plan) -> None:
    for name, topic in plan.by_name("google_pubsub_topic").items():
        assert topic["message_storage_policy"][0]["allowed_persistence_regions"] == [
            "us-central1"
        ], name


def test_the_event_functions_take_internal_traffic_only(plan: Plan) -> None:
    for name, function in plan.by_name("google_cloudfunctions2_function").items():
        wanted = "ALLOW_ALL" if name == "dicom-search" else "ALLOW_INTERNAL_ONLY"
        assert function["service_config"][0]["ingress_settings"] == wanted, name
        assert function["event_trigger"] == [], name


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


# --- the one source of names and numbers
# --------------------------------------------------------------


def test_the_same_names_as_the_topology(plan: Plan) -> None:
    dead = {item["dead_letter_topic"] for item in BOUND}
    assert set(plan.by_name("google_pubsub_topic")) == {*TOPOLOGY["topics"].values(), *dead}
    subscriptions = {item.get("subscription") or item["name"] for item in BOUND}
    holds = {item["dead_letter_subscription"] for item in BOUND}
    assert set(plan.by_name("google_pubsub_subscription")) == subscriptions | holds
    functions = {
        f"dicom-{name.replace('_', '-')}"
        for name in [*TOPOLOGY["functions"], *TOPOLOGY["http_functions"]]
    }
    assert set(plan.by_name("google_cloudfunctions2_function")) == functions


def test_the_same_numbers_as_the_topology(plan: Plan) -> None:
    subscriptions = plan.by_name("google_pubsub_subscription")
    for item in BOUND:
        live = subscriptions[item.get("subscription") or item["name"]]
        assert (
            live["dead_letter_policy"][0]["max_delivery_attempts"] == item["max_delivery_attempts"]
        )
        assert live["message_retention_duration"] == f"{DELIVERY['retention_s']}s"
        assert live["ack_deadline_seconds"] == DELIVERY["ack_deadline_s"]
        (retry,) = live["retry_policy"]
        assert retry["minimum_backoff"] == f"{DELIVERY['minimum_backoff_s']}s"
        assert retry["maximum_backoff"] == f"{DELIVERY['maximum_backoff_s']}s"
        hold = subscriptions[item["dead_letter_subscription"]]
        assert hold["message_retention_duration"] == f"{DELIVERY['dead_letter_retention_s']}s"
    for name, function in plan.by_name("google_cloudfunctions2_function").items():
        assert function["service_config"][0]["timeout_seconds"] == DELIVERY["function_timeout_s"], (
            name
        )


def test_the_numbers_are_those_of_the_design() -> None:
    assert (
        DELIVERY["budget_s"]
        == 480
        < DELIVERY["function_timeout_s"]
        == 540
        < DELIVERY["ack_deadline_s"]
        == 600
    )
    assert (DELIVERY["minimum_backoff_s"], DELIVERY["maximum_backoff_s"]) == (10, 600)
    attempts = {name: item["max_delivery_attempts"] for name, item in TOPOLOGY["functions"].items()}
    assert attempts == {"store_upload": 20, "delete_resource": 10, "export_resource": 10}


def test_the_ledger_is_written_as_the_topology_says(plan: Plan) -> None:
    (storage,) = plan.by_name("google_pubsub_subscription")[LEDGER["name"]]["cloud_storage_config"]
    assert storage["bucket"] == f"{PROJECT}-{TOPOLOGY['buckets'][LEDGER['bucket']]}"
    assert (storage["filename_prefix"], storage["filename_suffix"]) == (
        LEDGER["filename_prefix"],
        LEDGER["filename_suffix"],
    )
    assert (storage["max_duration"], storage["max_bytes"]) == (
        f"{LEDGER['max_duration_s']}s",
        LEDGER["max_bytes"],
    )
    assert storage["avro_config"] == []  # text, one JSON object a line


def test_what_is_only_known_in_the_cloud_is_wired_to_the_right_thing() -> None:
    plan = terraform.plan()
    topics = plan.references("google_pubsub_subscription", "topic")
    assert topics["google_pubsub_subscription.ledger"][0] == "google_pubsub_topic.outcomes.id"
    assert (
        topics["google_pubsub_subscription.outcomes_dead_hold"][0]
        == "google_pubsub_topic.outcomes_dead.id"
    )
    dead = plan.references("google_pubsub_subscription", "dead_letter_policy.dead_letter_topic")
    assert dead["google_pubsub_subscription.ledger"][0] == "google_pubsub_topic.outcomes_dead.id"
    module = "module.event_function.google_pubsub_subscription"
    assert "google_pubsub_topic.dead" in dead[f"{module}.push"]
    assert "google_pubsub_topic.this" in topics[f"{module}.push"]
    assert "google_pubsub_topic.dead" in topics[f"{module}.hold"]
    (notified,) = plan.references("google_storage_notification", "topic").values()
    assert notified[0] == 'module.event_function["store_upload"].topic_id'
    (landing,) = (values for _, values in plan.resources("google_storage_notification"))
    assert landing["event_types"] == ["OBJECT_FINALIZE"]
    assert landing["payload_format"] == "JSON_API_V1"


# --- the functions
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TOPOLOGY["functions"], *TOPOLOGY["http_functions"]])
def test_every_variable_is_a_setting_and_every_required_setting_is_set(
    plan: Plan, name: str
) -> None:
    function = plan.by_name("google_cloudfunctions2_function")[f"dicom-{name.replace('_', '-')}"]
    assert function["build_config"][0]["entry_point"] == name
    environment = function["service_config"][0]["environment_variables"]
    ours = {key: value for key, value in environment.items() if key not in PLATFORM_VARIABLES}
    assert ours.keys() <= {setting.name for setting in SETTINGS}
    Settings.load(name, ours)  # nothing is missing, nothing malformed
    assert environment["LOG_EXECUTION_ID"] == "false"


def test_extra_settings_arrive() -> None:
    plan = terraform.plan(**TURNED)
    function = plan.by_name("google_cloudfunctions2_function")["dicom-export-resource"]
    assert function["service_config"][0]["environment_variables"]["BUDGET_S"] == "100"


def test_sizes_can_be_turned_one_by_one() -> None:
    plan = terraform.plan(**TURNED)
    functions = plan.by_name("google_cloudfunctions2_function")
    turned = functions["dicom-store-upload"]["service_config"][0]
    assert (turned["max_instance_count"], turned["available_memory"]) == (300, "512Mi")
    assert turned["environment_variables"]["THREADS"] == str(
        turned["max_instance_request_concurrency"]
    )


def test_the_archive_holds_what_runs_and_nothing_else() -> None:
    gcp = terraform.workspace()
    terraform.run(
        gcp, "plan", "-input=false", "-target=data.archive_file.source", f"-var=project={PROJECT}"
    )
    (archive,) = (gcp / ".build").glob("source-*.zip")
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        contents = {name: opened.read(name) for name in names}
    files = [
        p for p in (ROOT / "functions").rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    wanted = {"main.py", "requirements.txt", *(str(p.relative_to(ROOT)) for p in files)}
    assert set(names) == wanted
    assert all((ROOT / name).read_bytes() == data for name, data in contents.items())
    # Named by what is in it: new code, new object, new revision.
    uploaded = {
        values["name"] for _, values in terraform.plan().resources("google_storage_bucket_object")
    }
    assert uploaded == {f"{archive.stem.removeprefix('source-')}.zip"}


# --- rights
# -----------------------------------------------------------------------------------------------


def test_the_table_of_rights_is_the_one_in_the_documents() -> None:
    """After a change of rights: `python -m tests.infra.iam_table` writes the table anew."""
    assert iam_table.in_documents() == iam_table.of(terraform.plan())


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
    }


def test_every_function_may_publish_what_it_must() -> None:
    granted = {
        (values["topic"], values["member"].split("@")[0].removeprefix("serviceAccount:"))
        for _, values in terraform.plan().resources("google_pubsub_topic_iam_member")
    }
    for name, item in TOPOLOGY["functions"].items():
        account = f"dicom-{name.replace('_', '-')}"
        assert (TOPOLOGY["topics"]["outcomes"], account) in granted
        assert (TOPOLOGY["topics"][item["follow_ups"]["topic"]], account) in granted


def test_pubsub_may_move_dead_letters_out_of_each_subscription_and_into_each_topic() -> None:
    plan = terraform.plan()
    agent = "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    topics = {
        v["topic"]
        for _, v in plan.resources("google_pubsub_topic_iam_member")
        if v["member"] == agent
    }
    subscriptions = {
        v["subscription"] for _, v in plan.resources("google_pubsub_subscription_iam_member")
    }
    assert topics == {item["dead_letter_topic"] for item in BOUND}
    assert subscriptions == {item.get("subscription") or item["name"] for item in BOUND}


# --- operations
# --------------------------------------------------------------------------------------------


def test_there_is_an_alert_for_each_thing_that_should_wake_somebody(plan: Plan) -> None:
    policies = {a.split('"')[1]: v for a, v in plan.resources("google_monitoring_alert_policy")}
    wanted = {
        "dead_letters",
        "oldest_message",
        "quarantine",
        "server_errors",
        "out_of_memory",
        "unauthorized",
        "bugs",
    }
    assert set(policies) == wanted
    for name, policy in policies.items():
        assert policy["documentation"][0]["content"], name
        threshold = policy["conditions"][0]["condition_threshold"][0]
        assert bool(threshold["denominator_filter"]) is bool(
            threshold["denominator_aggregations"]
        ), name
    text = json.dumps(policies["dead_letters"])
    assert all(item["dead_letter_subscription"] in text for item in BOUND)


def test_the_dashboard_has_no_overlapping_tiles(plan: Plan) -> None:
    ((_, values),) = plan.resources("google_monitoring_dashboard")
    tiles = json.loads(values["dashboard_json"])["mosaicLayout"]["tiles"]
    assert len(tiles) >= 8
    for one, other in itertools.combinations(tiles, 2):
        apart_x = one.get("xPos", 0) + one["width"] <= other.get("xPos", 0) or other.get(
            "xPos", 0
        ) + other["width"] <= one.get("xPos", 0)
        apart_y = one.get("yPos", 0) + one["height"] <= other.get("yPos", 0) or other.get(
            "yPos", 0
        ) + other["height"] <= one.get("yPos", 0)
        assert apart_x or apart_y


def test_the_dashboard_has_nothing_that_the_api_leaves_out(plan: Plan) -> None:
    """Zeros and empty values do not come back, and every plan would show a change."""

    def values(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            for inner in node.values():
                yield from values(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from values(inner)
        yield node

    ((_, dashboard),) = plan.resources("google_monitoring_dashboard")
    assert all(values(json.loads(dashboard["dashboard_json"])))


# --- documents
# ---------------------------------------------------------------------------------------------


def test_every_variable_is_in_the_documents_and_says_what_it_is() -> None:
    text = (GCP / "variables.tf").read_text()
    documented = (ROOT / "docs" / "deploy.md").read_text()
    for block in re.findall(r'^variable "(\w+)" \{(.*?)^\}', text, re.DOTALL | re.MULTILINE):
        assert "description" in block[1], block[0]
        assert re.search(rf"^\| `{block[0]}` \|", documented, re.MULTILINE), block[0]


def test_every_file_of_the_house_keeps_to_its_length() -> None:
    for path in [*GCP.rglob("*.tf"), *GCP.rglob("*.hcl"), *GCP.rglob("*.sh"), ROOT / "deploy.sh"]:
        if (
            not {".terraform", ".build"} & set(path.relative_to(ROOT).parts)
            and path.name != ".terraform.lock.hcl"
        ):
            assert len(path.read_text().splitlines()) <= 400, path

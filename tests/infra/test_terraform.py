"""infra/gcp, checked with the real terraform and no cloud: it is valid, the functions, operations,
and what the documents say of it."""

import itertools
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from functions.common.settings import SETTINGS, Settings
from tests.infra import terraform
from tests.infra.chosen import (
    EVERYTHING,
    OPTIONAL,
    PLATFORM_VARIABLES,
    TOPOLOGY,
    TURNED,
    bound,
)
from tests.infra.terraform import GCP, PROJECT, ROOT, Plan

pytestmark = pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())


def test_it_is_formatted_and_valid() -> None:
    terraform.run(GCP, "fmt", "-check", "-recursive", "-diff")
    assert "valid" in terraform.run(terraform.workspace(), "validate", "-no-color")


def test_its_own_tests_pass() -> None:
    said = terraform.run(terraform.workspace(), "test", "-no-color")
    assert re.search(r"Success! [1-9][0-9]* passed, 0 failed", said)


def test_the_lock_file_of_whichever_providers_are_here_is_not_committed() -> None:
    assert ".terraform.lock.hcl" in (ROOT / ".gitignore").read_text().split()


@pytest.mark.parametrize("variables", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_a_plan_after_an_apply_shows_no_change(variables: dict[str, Any]) -> None:
    with terraform.applied(variables=variables) as planned:
        assert "No changes." in planned(**variables)


def test_permissions_have_minutes_to_spread() -> None:
    """Before a build, before what uses a new permission, and before what has a key."""
    names = {"time_sleep.build_grants", "time_sleep.rights"}
    secrets = 'module.event_function["notify"].module.function.time_sleep.secrets[0]'
    for plan, wanted in (
        (terraform.plan(), names),
        (terraform.plan(**EVERYTHING), {*names, "time_sleep.keys[0]", secrets}),
    ):
        waits = {
            address: values["create_duration"] for address, values in plan.resources("time_sleep")
        }
        assert {address for address, wait in waits.items() if wait == "180s"} == wanted


def test_no_default_exceeds_the_quota_of_a_new_project() -> None:
    """Cloud Run refuses a revision that may use more CPU than the region's quota: 10 vCPU."""
    functions = terraform.plan(**EVERYTHING).by_name("google_cloudfunctions2_function")
    for name, function in functions.items():
        service = function["service_config"][0]
        assert service["max_instance_count"] * float(service["available_cpu"]) <= 10, name


def test_a_worker_pool_builds_every_function() -> None:
    pool = f"projects/{PROJECT}/locations/us-central1/workerPools/w"
    for plan, wanted in ((terraform.plan(), None), (terraform.plan(**TURNED), pool)):
        for name, function in plan.by_name("google_cloudfunctions2_function").items():
            assert function["build_config"][0]["worker_pool"] == wanted, name


def test_the_event_functions_take_internal_traffic_only(plan: Plan) -> None:
    for name, function in plan.by_name("google_cloudfunctions2_function").items():
        called_by_people = name in ("dicom-search", "dicom-commands")
        wanted = "ALLOW_ALL" if called_by_people else "ALLOW_INTERNAL_ONLY"
        assert function["service_config"][0]["ingress_settings"] == wanted, name
        assert function["event_trigger"] == [], name


@pytest.mark.parametrize("name", [*TOPOLOGY["functions"], *TOPOLOGY["http_functions"]])
def test_every_variable_is_a_setting_and_every_required_setting_is_set(
    plan: Plan, name: str
) -> None:
    check_settings(plan, name)


@pytest.mark.parametrize("name", [*OPTIONAL["functions"], *OPTIONAL["http_functions"]])
def test_every_required_setting_of_an_optional_function_is_set(name: str) -> None:
    check_settings(terraform.plan(**EVERYTHING), name)


def check_settings(plan: Plan, name: str) -> None:
    """Each variable is a setting, and none is missing or malformed."""
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
    assert turned["max_instance_count"] == 300
    assert turned["available_memory"] == "512Mi"
    assert turned["environment_variables"]["THREADS"] == str(
        turned["max_instance_request_concurrency"]
    )


def test_the_archive_contains_only_deployed_code() -> None:
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
    # Named by its contents: new code, new object, new revision.
    uploaded = {
        values["name"] for _, values in terraform.plan().resources("google_storage_bucket_object")
    }
    assert uploaded == {f"{archive.stem.removeprefix('source-')}.zip"}


def test_there_is_an_alert_for_each_thing_that_should_wake_somebody(plan: Plan) -> None:
    policies = {a.split('"')[1]: v for a, v in plan.resources("google_monitoring_alert_policy")}
    webhooks = set(policies) & {"webhook"}
    assert bool(webhooks) is (plan is terraform.plan(**EVERYTHING))
    wanted = {
        "dead_letters",
        "oldest_message",
        "quarantine",
        "server_errors",
        "out_of_memory",
        "unauthorized",
        "bugs",
    }
    assert set(policies) == wanted | webhooks
    for name, policy in policies.items():
        assert policy["documentation"][0]["content"], name
        threshold = policy["conditions"][0]["condition_threshold"][0]
        assert bool(threshold["denominator_filter"]) is bool(
            threshold["denominator_aggregations"]
        ), name
    text = json.dumps(policies["dead_letters"])
    assert all(item["dead_letter_subscription"] in text for item in bound(plan))


def apart(one: dict[str, int], other: dict[str, int], position: str, size: str) -> bool:
    """Whether two tiles do not meet in one direction. A position of 0 is left out."""
    start = one.get(position, 0)
    other_start = other.get(position, 0)
    if start + one[size] <= other_start:
        return True
    return other_start + other[size] <= start


def test_the_dashboard_has_no_overlapping_tiles(plan: Plan) -> None:
    ((_, values),) = plan.resources("google_monitoring_dashboard")
    tiles = json.loads(values["dashboard_json"])["mosaicLayout"]["tiles"]
    assert len(tiles) >= 8
    for one, other in itertools.combinations(tiles, 2):
        side_by_side = apart(one, other, "xPos", "width")
        one_above_the_other = apart(one, other, "yPos", "height")
        assert side_by_side or one_above_the_other


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


def test_every_variable_is_in_the_documents_with_its_description() -> None:
    text = "".join(path.read_text() for path in GCP.glob("variables*.tf"))
    documented = (ROOT / "docs" / "deploy.md").read_text()
    for name, block in re.findall(r'^variable "(\w+)" \{(.*?)^\}', text, re.DOTALL | re.MULTILINE):
        row = re.search(rf"^\| `{name}` \|.*$", documented, re.MULTILINE)
        assert row, name
        description = re.search(r'^  description = "(.*)"$', block, re.MULTILINE)
        if name == "functions":  # several lines long
            continue
        assert description, name
        assert description[1].replace('\\"', '"') in row[0], name


def test_every_file_of_the_house_keeps_to_its_length() -> None:
    paths = [ROOT / "deploy.sh"]
    for kind in ("tf", "hcl", "sh"):
        paths += GCP.rglob(f"*.{kind}")
    for path in paths:
        made = {".terraform", ".build"} & set(path.relative_to(ROOT).parts)
        if not made and path.name != ".terraform.lock.hcl":
            assert len(path.read_text().splitlines()) <= 400, path

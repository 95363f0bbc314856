"""deploy.sh with stand-ins for gcloud, terraform and curl: the happy path, and each way that it can
fail."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest

from cli import scan
from tests.infra import stand_ins, terraform
from tests.infra.desk import PROJECT, STATE, Desk, deploy
from tests.infra.terraform import GCP, ROOT


def test_shellcheck_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("there is no shellcheck here")
    done = subprocess.run(
        ["shellcheck", "-x", "deploy.sh"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == ""


def test_help_needs_nothing(desk: Desk) -> None:
    done = desk.run("--help")
    assert done.status == 0
    assert done.calls == []
    for flag in (
        "--project",
        "--region",
        "--state-bucket",
        "--plan",
        "--apply",
        "--destroy",
        "--yes",
        "--skip-smoke-test",
    ):
        assert flag in done.text


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--project",),
        ("--project", "X"),
        ("--project", PROJECT, "--region", "us"),
        ("--project", PROJECT, "--region"),
        ("--project", PROJECT, "--region="),
        ("--project", PROJECT, "--state-bucket"),
        ("--project", PROJECT, "--state-bucket", "No Bucket"),
        ("--project", PROJECT, "-x"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything(
    desk: Desk, arguments: tuple[str, ...]
) -> None:
    done = desk.run(*arguments)
    assert done.status == 2
    assert done.calls == []
    assert "--help" in done.text or "Usage" in done.text


def test_from_nothing_to_the_running_system(desk: Desk) -> None:
    done = deploy(desk, "--region", "europe-west4", typed="yes\n")
    assert done.status == 0, done.text
    order = done.order(
        "auth list",
        "billing projects describe",
        "testIamPermissions",
        f"storage buckets create {STATE} .*--location=europe-west4 .*--public-access-prevention",
        f"init .*-backend-config=bucket={PROJECT}-dicom-functions-state",
        "plan .*-var=project=demo-project -var=region=europe-west4",
        "apply .*plan$",
        "subscriptions create dicom-smoke-test",
        "storage cp .*/scan.dcm gs://p-dicom-landing/",
        f"curl .*{stand_ins.SEARCH_URL}/studies\\?StudyInstanceUID=2.25",
        "topics publish dicom-deletes",
        "output -raw next_steps",
        "subscriptions delete dicom-smoke-test",
    )
    assert order == sorted(order)
    assert "it works" in done.text
    assert "<next_steps>" in done.text
    assert (desk.root / ".deploy/system.json").read_text() == json.dumps(stand_ins.SYSTEM) + "\n"
    (sent,) = (call for call in done.calls if "topics publish" in call)
    assert re.search(r'"path":"studies/2\.25\.\d+/series/2\.25\.\d+/instances/2\.25\.\d+"', sent)
    assert not list(desk.cloud.parent.glob("tmp.*")), "scratch files are left"


def test_terraform_gets_the_token_by_environment(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    lines = [json.loads(line) for line in (desk.cloud / "calls").read_text().splitlines()]
    assert {line["token"] for line in lines if " init " in line["call"]} == {stand_ins.TOKEN}


def test_the_second_run_changes_nothing_and_tests_again(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    again = deploy(desk, "--yes")
    assert again.status == 0, again.text
    assert "no changes" in again.text
    assert again.called("terraform .*apply") == 0
    assert again.called("buckets create") == 0
    assert "it works" in again.text


def test_no_is_no(desk: Desk) -> None:
    for typed in ("no\n", "", "y\n"):
        done = deploy(desk, typed=typed)
        assert done.status == 3
        assert done.called("terraform .*apply") == 0


def test_plan_changes_nothing(desk: Desk) -> None:
    done = deploy(desk, "--plan")
    assert done.status == 0, done.text
    assert "the plan" in done.text
    changing = r"\b(create|update|enable|apply|import|rm|cp|publish|destroy)\b"
    assert not [call for call in done.calls if re.search(changing, call) and "testIam" not in call]
    assert not (desk.root / "infra/gcp/backend_override.tf").exists()


def test_plan_of_a_deployed_system_uses_its_state(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    done = deploy(desk, "--plan")
    assert done.status == 0
    assert done.called("init .*-backend-config=bucket=") == 1


def test_the_smoke_test_can_be_left_out(desk: Desk) -> None:
    done = deploy(desk, "--yes", "--skip-smoke-test")
    assert done.status == 0
    assert done.called("^gcloud pubsub") == 0


def test_services_that_come_first_are_enabled(desk: Desk) -> None:
    done = deploy(
        desk, "--yes", "--skip-smoke-test", say={"gcloud services list": "storage.googleapis.com"}
    )
    assert done.status == 0
    assert done.called("services enable cloudresourcemanager.* iam.* serviceusage") == 1
    planned = deploy(desk, "--plan", say={"gcloud services list": "storage.googleapis.com"})
    assert planned.status == 2
    assert planned.text.count("fix: gcloud services enable ") == 3


# --- each thing that can be missing ---------------------------------------------------------------


@pytest.mark.parametrize("tool", ["gcloud", "terraform", "curl", "python3"])
def test_a_missing_tool_is_named(desk: Desk, tool: str) -> None:
    (desk.bin / tool).unlink()
    done = deploy(desk, "--yes")
    assert done.status == 2
    assert f"missing: {tool}\n         fix: install" in done.text
    assert "nothing has been changed" in done.text


def test_all_that_is_missing_is_named_at_once(desk: Desk) -> None:
    for tool in ("gcloud", "terraform", "curl"):
        (desk.bin / tool).unlink()
    assert "prerequisites missing: 3" in deploy(desk).text


@pytest.mark.parametrize("version", ["1.8.5", "1.0.0", "0.15"])
def test_an_old_terraform_is_named(desk: Desk, version: str) -> None:
    done = deploy(desk, say={"terraform version": f"Terraform v{version}"})
    assert done.status == 2
    assert f"this is {version}" in done.text


def test_an_old_python_is_named(desk: Desk) -> None:
    program = "#!/bin/sh\n[ $1 = -V ] && echo Python 3.9.2\nexit 1\n"
    (desk.bin / "python3").write_text(program)
    done = deploy(desk)
    assert done.status == 2
    assert "missing: python3 3.11 (this is Python 3.9.2)" in done.text


@pytest.mark.parametrize(
    ("fail", "what", "fix"),
    [
        ("auth print-access-token", "a login to Google Cloud", "gcloud auth login"),
        ("auth list", "a login to Google Cloud", "gcloud auth login"),
        ("gcloud projects describe", f"the project {PROJECT}", "gcloud projects create"),
        ("billing projects describe", f"billing on {PROJECT}", "gcloud billing projects link"),
        (
            "curl .*testIamPermissions",
            "the list of your permissions",
            "gcloud services enable cloudresourcemanager",
        ),
    ],
)
def test_what_is_missing_is_named_with_how_to_fix_it(
    desk: Desk, fail: str, what: str, fix: str
) -> None:
    done = deploy(desk, "--yes", fail=(fail,))
    assert done.status == 2
    assert f"missing: {what}" in done.text
    assert f"fix: {fix}" in done.text
    assert done.called(" (create|apply|plan) ") == 0


def test_billing_that_is_off_is_named(desk: Desk) -> None:
    assert "missing: billing" in deploy(desk, say={"billing projects describe": "False"}).text


def test_every_missing_permission_is_named_with_its_role(desk: Desk) -> None:
    done = deploy(
        desk, "--yes", say={"testIamPermissions": '{"permissions": ["pubsub.topics.create"]}'}
    )
    assert done.status == 2
    assert "missing: the permission pubsub.topics.create" not in done.text
    assert "missing: the permission pubsub.subscriptions.create" in done.text
    assert "--role=roles/pubsub.admin" in done.text
    assert done.called("buckets create") == 0


def test_webhooks_take_the_right_to_let_their_secrets_be_read(desk: Desk) -> None:
    said = {"testIamPermissions": '{"permissions": ["pubsub.topics.create"]}'}
    missing = "missing: the permission secretmanager.secrets.setIamPolicy"
    assert missing not in deploy(desk, "--yes", say=said).text
    desk.settings('webhooks = { a = { url = "https://a.example.org/", secret = "a" } }\n')
    assert missing in deploy(desk, "--yes", say=said).text


# --- each step that can fail


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        ("gcloud storage buckets create", ""),
        ("terraform .* init", ""),
        ("terraform .* plan", "the plan failed, see above; nothing was changed"),
        ("terraform .* apply", "run the same command again to continue"),
        ("subscriptions create", "could not subscribe to the outcomes"),
        ("storage cp .*scan.dcm", "could not write to gs://p-dicom-landing"),
        ("print-identity-token", "no identity token"),
        ("curl .*/studies", "search cannot be reached"),
        ("topics publish", "could not publish the delete"),
    ],
)
def test_a_failed_step_ends_the_run_and_the_next_run_continues(
    desk: Desk, fail: str, says: str
) -> None:
    done = deploy(desk, "--yes", fail=(fail,))
    assert done.status == 1
    assert says in done.text
    if "subscribe" not in says:
        # Where the smoke test began, its subscription is deleted.
        begun = done.called("storage cp .*scan.dcm")
        assert done.called("subscriptions delete") == begun
    again = deploy(desk, "--yes")
    assert again.status == 0, again.text


# --- the scan, and the real terraform


def uids_of(made: scan.Scan) -> tuple[str, str, str]:
    return made.study, made.series, made.instance


def test_the_synthetic_scan_is_valid_dicom(tmp_path: Path) -> None:
    made = scan.make()
    path = tmp_path / "scan.dcm"
    path.write_bytes(made.data)
    read = pydicom.dcmread(path)
    assert f"studies/{read.StudyInstanceUID}/series/{read.SeriesInstanceUID}" in made.path
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == made.instance
    assert read.pixel_array.shape == (8, 8)
    assert max(len(uid) for uid in uids_of(made)) <= 64


def test_every_synthetic_scan_has_uids_of_its_own() -> None:
    uids = [*uids_of(scan.make()), *uids_of(scan.make())]
    assert len(set(uids)) == 6


@pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())
def test_the_first_plan_with_the_real_terraform(desk: Desk) -> None:
    terraform.plan()  # skips where only real providers are
    real = shutil.which("terraform")
    assert real
    variables = {
        key: value
        for key, value in terraform.environment().items()
        if key.startswith(("TF", "CHECKPOINT"))
    }
    (desk.bin / "terraform").write_text(
        f'#!/bin/sh\nPATH="{os.environ["PATH"]}" exec "{real}" "$@"\n'
    )
    done = deploy(desk, "--region", "europe-west4", "--plan", more=variables)
    assert done.status == 0, done.text
    text = re.sub("\x1b\\[[0-9;]*m", "", done.text)
    assert re.search(r"Plan: \d+ to add, 0 to change, 0 to destroy", text)
    assert f"{PROJECT}-dicom-landing" in done.text
    assert not list((desk.root / "infra/gcp").glob(".terraform*")), "the checkout was touched"


@pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())
def test_every_resource_that_deploy_names_and_every_output_that_is_read_exists() -> None:
    scripts = [ROOT / "deploy.sh", *GCP.glob("*.sh")]
    text = "\n".join(script.read_text() for script in scripts)
    plan = terraform.plan()
    addresses = {address.split("[")[0] for address, _ in plan.resources()}
    named = re.findall(r'"(google_\w+\.\w+)"', text)
    assert len(named) == 5
    assert set(named) <= addresses
    outputs = (ROOT / "infra/gcp/outputs.tf").read_text()
    for name in re.findall(r"output (?:-raw|-json) (\w+)", text):
        assert f'output "{name}"' in outputs
    topics = {values["name"] for _, values in plan.resources("google_pubsub_topic")}
    assert set(re.findall(r"(?:--topic=|publish )(dicom-\w+)", text)) <= topics
    assert os.access(ROOT / "deploy.sh", os.X_OK)

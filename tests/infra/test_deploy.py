"""deploy.sh with stand-ins for gcloud, terraform and curl: the happy path, and each way that it can fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from ops import scan
from tests.infra import stand_ins, terraform
from tests.infra.terraform import ROOT

PROJECT = "demo-project"
STATE = f"gs://{PROJECT}-dicom-functions-state"
USED = (
    "bash cat cp cut date dirname env grep head mkdir mktemp printf rm sed sleep sort tr true touch mv"  # and python3
)


@dataclass
class Result:
    status: int
    text: str
    calls: list[str]

    def called(self, pattern: str) -> int:
        """How often a call was made."""
        return sum(1 for call in self.calls if re.search(pattern, call))

    def order(self, *patterns: str) -> list[int]:
        """Where in the run the first call of each kind was made."""
        return [next(i for i, call in enumerate(self.calls) if re.search(p, call)) for p in patterns]


class Desk:
    """A copy of the repository's deployable part, and a PATH on which only stand-ins can be found."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.cloud = folder / "repository", folder / "bin", folder / "cloud"
        for place in (self.root, self.bin, self.cloud):
            place.mkdir()
        for name in ("deploy.sh", "main.py", "requirements.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("ops", "functions", "infra/gcp"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__", ".terraform*"))
        shutil.copy(ROOT / "infra/topology.json", self.root / "infra/topology.json")
        for name in USED.split():
            (self.bin / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        (self.bin / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        for name in ("gcloud", "terraform", "curl"):
            code = f'#!/bin/sh\nexec {sys.executable} -I -S {ROOT / "tests/infra/stand_ins.py"} {name} "$@"\n'
            (self.bin / name).write_text(code)
        for name in ("python3", "gcloud", "terraform", "curl"):
            (self.bin / name).chmod(0o755)

    def run(
        self,
        *arguments: str,
        fail: tuple[str, ...] = (),
        say: dict[str, str] | None = None,
        typed: str = "",
        limit_s: int = 20,
        more: dict[str, str] | None = None,
    ) -> Result:
        (self.cloud / "FAIL").write_text(json.dumps(fail))
        (self.cloud / "SAY").write_text(json.dumps(say or {}))
        (self.cloud / "calls").unlink(missing_ok=True)
        environment = {
            "PATH": str(self.bin),
            "STAND_INS": str(self.cloud),
            "TMPDIR": str(self.cloud.parent),
            "DEPLOY_POLL_S": "0.05",
            "DEPLOY_LIMIT_S": str(limit_s),
            **(more or {}),
        }
        done = subprocess.run(
            ["bash", str(self.root / "deploy.sh"), *arguments],
            env=environment,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        lines = (self.cloud / "calls").read_text().splitlines() if (self.cloud / "calls").exists() else []
        result = Result(done.returncode, done.stdout + done.stderr, [json.loads(line)["call"] for line in lines])
        for secret in (stand_ins.TOKEN, stand_ins.IDENTITY):
            assert secret not in result.text
            assert not any(secret in call for call in result.calls)
        assert "unbound variable" not in result.text
        return result


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))  # a name without words that calls are searched for


def deploy(desk: Desk, *arguments: str, **options: object) -> Result:
    return desk.run("--project", PROJECT, *arguments, **options)  # type: ignore[arg-type]


def test_shellcheck_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("there is no shellcheck here")
    done = subprocess.run(["shellcheck", ROOT / "deploy.sh"], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""


def test_help_needs_nothing(desk: Desk) -> None:
    done = desk.run("--help")
    assert (done.status, done.calls) == (0, [])
    for flag in ("--project", "--region", "--plan", "--apply", "--destroy", "--yes", "--skip-smoke-test"):
        assert flag in done.text


@pytest.mark.parametrize(
    "arguments",
    [(), ("--project",), ("--project", "X"), ("--project", PROJECT, "--region", "us"), ("--project", PROJECT, "-x")],
)
def test_a_wrong_command_line_is_refused_before_anything(desk: Desk, arguments: tuple[str, ...]) -> None:
    done = desk.run(*arguments)
    assert (done.status, done.calls) == (2, [])
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
    assert (desk.root / ".deploy/system.json").read_text() == "<system>\n"
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


def test_plan_of_what_is_deployed_uses_its_state(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    done = deploy(desk, "--plan")
    assert done.status == 0
    assert done.called("init .*-backend-config=bucket=") == 1


def test_the_smoke_test_can_be_left_out(desk: Desk) -> None:
    done = deploy(desk, "--yes", "--skip-smoke-test")
    assert done.status == 0
    assert done.called("^gcloud pubsub") == 0


def test_services_that_come_first_are_enabled(desk: Desk) -> None:
    done = deploy(desk, "--yes", "--skip-smoke-test", say={"gcloud services list": "storage.googleapis.com"})
    assert done.status == 0
    assert done.called("services enable cloudresourcemanager.* iam.* serviceusage") == 1
    planned = deploy(desk, "--plan", say={"gcloud services list": "storage.googleapis.com"})
    assert planned.status == 2
    assert planned.text.count("mend: gcloud services enable ") == 3


# --- each thing that can be missing ---------------------------------------------------------------


@pytest.mark.parametrize("tool", ["gcloud", "terraform", "curl", "python3"])
def test_a_missing_tool_is_named(desk: Desk, tool: str) -> None:
    (desk.bin / tool).unlink()
    done = deploy(desk, "--yes")
    assert done.status == 2
    assert f"missing: {tool}\n         mend: install" in done.text
    assert "nothing has been changed" in done.text


def test_all_that_is_missing_is_named_at_once(desk: Desk) -> None:
    for tool in ("gcloud", "terraform", "curl"):
        (desk.bin / tool).unlink()
    assert "3 thing(s) missing" in deploy(desk).text


@pytest.mark.parametrize("version", ["1.8.5", "1.0.0", "0.15"])
def test_an_old_terraform_is_named(desk: Desk, version: str) -> None:
    done = deploy(desk, say={"terraform version": f"Terraform v{version}"})
    assert done.status == 2
    assert f"this is {version}" in done.text


@pytest.mark.parametrize(
    ("fail", "what", "mend"),
    [
        ("auth print-access-token", "a login to Google Cloud", "gcloud auth login"),
        ("auth list", "a login to Google Cloud", "gcloud auth login"),
        ("gcloud projects describe", f"the project {PROJECT}", "gcloud projects create"),
        ("billing projects describe", f"billing on {PROJECT}", "gcloud billing projects link"),
        ("curl .*testIamPermissions", "an answer to which permissions", "gcloud services enable cloudresourcemanager"),
    ],
)
def test_what_is_missing_is_named_with_how_to_mend_it(desk: Desk, fail: str, what: str, mend: str) -> None:
    done = deploy(desk, "--yes", fail=(fail,))
    assert done.status == 2
    assert f"missing: {what}" in done.text
    assert f"mend: {mend}" in done.text
    assert done.called(" (create|apply|plan) ") == 0


def test_billing_that_is_off_is_named(desk: Desk) -> None:
    assert "missing: billing" in deploy(desk, say={"billing projects describe": "False"}).text


def test_every_missing_permission_is_named_with_its_role(desk: Desk) -> None:
    done = deploy(desk, "--yes", say={"testIamPermissions": '{"permissions": ["pubsub.topics.create"]}'})
    assert done.status == 2
    assert "missing: the permission pubsub.topics.create" not in done.text
    assert "missing: the permission pubsub.subscriptions.create" in done.text
    assert "--role=roles/pubsub.admin" in done.text
    assert done.called("buckets create") == 0


# --- each step that can fail -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        ("gcloud storage buckets create", ""),
        ("terraform .* init", ""),
        ("terraform .* plan", "the plan failed, see above; nothing has been changed"),
        ("terraform .* apply", "run the same command again to go on"),
        ("subscriptions create", "could not subscribe to the outcomes"),
        ("storage cp .*scan.dcm", "could not write to gs://p-dicom-landing"),
        ("print-identity-token", "no identity token"),
        ("curl .*/studies", "search can not be reached"),
        ("topics publish", "could not order the delete"),
    ],
)
def test_a_step_that_fails_ends_the_run_and_the_next_run_goes_on(desk: Desk, fail: str, says: str) -> None:
    done = deploy(desk, "--yes", fail=(fail,))
    assert done.status == 1
    assert says in done.text
    assert done.called("subscriptions delete") == done.called("storage cp .*scan.dcm") or "subscribe" in says
    again = deploy(desk, "--yes")
    assert again.status == 0, again.text


@pytest.mark.parametrize(
    ("say", "says"),
    [
        ({"curl .*/studies": "\n403"}, "add yourself to search_callers"),
        ({"curl .*/studies": "[]\n200"}, "search did not find the scan"),
        ({"curl .*/studies": "\n500"}, "search answered 500"),
    ],
)
def test_search_that_does_not_work_is_told_apart(desk: Desk, say: dict[str, str], says: str) -> None:
    done = deploy(desk, "--yes", say=say)
    assert done.status == 1
    assert says in done.text


def test_an_outcome_that_never_comes_ends_the_wait(desk: Desk) -> None:
    done = deploy(desk, "--yes", say={"subscriptions pull": "[]"}, limit_s=1)
    assert done.status == 1
    assert "no outcome after 1 s" in done.text
    assert "ops doctor" in done.text
    assert done.called("subscriptions delete dicom-smoke-test") == 1
    assert done.called("storage rm gs://p-dicom-landing/dicom-smoke-test.*scan.dcm") == 1


# --- taking it down -------------------------------------------------------------------------------------------


def test_destroy_keeps_the_data_and_a_later_deployment_takes_it_up_again(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    down = deploy(desk, "--destroy", typed=f"{PROJECT}\n")
    assert down.status == 0, down.text
    removed = [call.split(" state rm ")[1] for call in down.calls if " state rm " in call]
    assert removed == ["google_healthcare_dataset.this[0]", 'google_storage_bucket.data["landing"]']
    order = down.order(f"storage cp .*kept.tsv {STATE}/kept.tsv", "state rm", "destroy .*-auto-approve")
    assert order == sorted(order)
    up = deploy(desk, "--yes", "--skip-smoke-test")
    imported = [call.split("-var=region=us-central1 ")[1] for call in up.calls if " import " in call]
    assert imported == [" ".join(pair) for pair in stand_ins.RESOURCES[:2]]
    assert deploy(desk, "--yes", "--skip-smoke-test").called(" import ") == 0


def test_destroy_asks_for_the_projects_name(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    for typed in ("yes\n", ""):
        done = deploy(desk, "--destroy", typed=typed)
        assert done.status == 3
        assert done.called("state rm|destroy") == 0


def test_destroy_without_a_note_of_what_is_kept_does_nothing(desk: Desk) -> None:
    deploy(desk, "--yes", "--skip-smoke-test")
    done = deploy(desk, "--destroy", "--yes", fail=("storage cp .*kept.tsv",))
    assert done.status == 1
    assert done.called("state rm|terraform .*destroy") == 0


def test_destroy_of_nothing_says_so(desk: Desk) -> None:
    done = deploy(desk, "--destroy", "--yes")
    assert done.status == 2
    assert "nothing was deployed from here" in done.text


# --- the scan, and the real terraform ---------------------------------------------------------------------------


def test_the_synthetic_scan_is_valid_dicom(tmp_path: Path) -> None:
    made, other = scan.make(), scan.make()
    assert len({made.study, made.series, made.instance, other.study, other.series, other.instance}) == 6
    path = tmp_path / "scan.dcm"
    path.write_bytes(made.data)
    read = pydicom.dcmread(path)
    assert f"studies/{read.StudyInstanceUID}/series/{read.SeriesInstanceUID}" in made.path
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == made.instance
    assert read.pixel_array.shape == (8, 8)
    assert all(len(uid) <= 64 for uid in (made.study, made.series, made.instance))


@pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())
def test_the_first_plan_with_the_real_terraform(desk: Desk) -> None:
    terraform.plan()  # skips where only real providers are
    real = shutil.which("terraform")
    assert real
    variables = {key: value for key, value in terraform.environment().items() if key.startswith(("TF", "CHECKPOINT"))}
    (desk.bin / "terraform").write_text(f'#!/bin/sh\nPATH={os.environ["PATH"]} exec {real} "$@"\n')
    done = deploy(desk, "--region", "europe-west4", "--plan", more=variables)
    assert done.status == 0, done.text
    text = re.sub("\x1b\\[[0-9;]*m", "", done.text)
    assert re.search(r"Plan: \d+ to add, 0 to change, 0 to destroy", text)
    assert f"{PROJECT}-dicom-landing" in done.text
    assert not list((desk.root / "infra/gcp").glob(".terraform*")), "the checkout was touched"


@pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())
def test_every_resource_that_is_kept_and_every_output_that_is_read_exists() -> None:
    text = (ROOT / "deploy.sh").read_text()
    plan = terraform.plan()
    addresses = {address.split("[")[0] for address, _ in plan.resources()}
    kept = re.findall(r'"(google_\w+\.\w+)"', text)
    assert len(kept) == 3
    assert set(kept) <= addresses
    outputs = (ROOT / "infra/gcp/outputs.tf").read_text()
    for name in re.findall(r"output (?:-raw|-json) (\w+)", text):
        assert f'output "{name}"' in outputs
    topics = {values["name"] for _, values in plan.resources("google_pubsub_topic")}
    assert set(re.findall(r"(?:--topic=|publish )(dicom-\w+)", text)) <= topics
    assert os.access(ROOT / "deploy.sh", os.X_OK)

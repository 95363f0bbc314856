"""The doctor, on the whole local stack, and on a cloud as Terraform would make it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import needs
from cli.app import COMMANDS, main
from cli.errors import NoSystemError
from cli.system import System
from infra.local.stack import Stack
from tests.cli.conftest import QUICK, Command
from tests.infra import terraform
from tests.infra.chosen import EVERYTHING
from tests.infra.fake_cloud import (
    DELIVERY,
    INSTANCE_PATH,
    PLACE,
    SERVICES,
    STORE,
    FakeCloud,
)
from tests.infra.terraform import PROJECT, ROOT

needs_terraform = pytest.mark.skipif(bool(terraform.why_not()), reason=terraform.why_not())


def doctor(
    file: Path, *arguments: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, str]]]:
    """Exit status and findings."""
    capsys.readouterr()
    options = ("--system", str(file), "--format", "json", "--timeout", "60")
    status = main(["doctor", *options, *arguments])
    return status, json.loads(capsys.readouterr().out)


def failed(findings: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    for finding in findings:
        assert bool(finding["fix"]) or finding["status"] != "failed", finding
    return [(f["check"], f["subject"], f["detail"]) for f in findings if f["status"] == "failed"]


# --- the local stack


def test_a_healthy_stack_is_healthy_and_the_probe_leaves_nothing_behind(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stack.pubsub.subscriptions("local")
    status, findings = doctor(stack.data / "stack.json", capsys=capsys)
    assert status == 0
    assert failed(findings) == []
    probe = {f["subject"]: f["detail"] for f in findings if f["check"] == "probe"}
    assert list(probe) == ["upload", "outcome", "search", "delete"]
    assert probe["outcome"].startswith("stored")
    assert stack.pubsub.subscriptions("local") == before
    assert stack.buckets.objects("dicom-landing", "dicom-probe") == []


def test_the_table_lists_each_check(command: Command) -> None:
    done = command("doctor", "--no-probe")
    assert done.returncode == 0
    assert "ok      bucket        dicom-landing" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("the system on this machine: ")
    assert "probe" not in done.stdout.partition("\n\n")[2]


@pytest.fixture
def spoilt(tmp_path: Path) -> Iterator[Stack]:
    """A stack for one test, which breaks it."""
    with Stack(tmp_path, overrides=QUICK) as running:
        yield running


def test_each_fault_in_the_local_system_is_named(
    spoilt: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    file = spoilt.data / "stack.json"
    spoilt.pubsub.delete_subscription("projects/local/subscriptions/dicom-exports-export")
    spoilt.pubsub.publish("projects/local/topics/dicom-deletes-dead", b"{}")
    state = json.loads(file.read_text())
    state["buckets"]["quarantine"] = "no-such-bucket"
    broken = spoilt.data / "broken.json"
    broken.write_text(json.dumps(state))
    status, findings = doctor(broken, "--no-probe", capsys=capsys)
    assert status == 1
    assert set(failed(findings)) == {
        ("bucket", "no-such-bucket", "does not exist"),
        ("subscription", "dicom-exports-export", "does not exist"),
        ("dead letters", "dicom-deletes-dead-hold", "has messages that failed too often"),
    }
    again = doctor(broken, "--no-probe", capsys=capsys)[1]
    assert failed(again) == failed(findings), "looking took the message away"


def test_a_scan_that_never_arrives_is_noticed(
    spoilt: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt.pubsub.delete_subscription("projects/local/subscriptions/dicom-uploads-store")
    status, findings = doctor(spoilt.data / "stack.json", "--timeout", "1", capsys=capsys)
    assert status == 1
    assert ("probe", "outcome", "no outcome within 1 s") in failed(findings)
    assert not [name for name in spoilt.pubsub.subscriptions("local") if "dicom-probe" in name]


def test_steps_that_the_settings_prevent_are_skipped_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The probe's scan is stored, and may be neither searched for nor deleted; that is not a
    fault."""
    with Stack(tmp_path, overrides=QUICK) as stack:
        state = json.loads((stack.data / "stack.json").read_text())
        state["env"] |= {"DELETE_MIN_AGE_HOURS": "24", "SEARCH_CALLERS": "a@example.org"}
        closed = tmp_path / "closed.json"
        closed.write_text(json.dumps(state))
        status, findings = doctor(closed, capsys=capsys)
        probe = {
            f["subject"]: (f["status"], f["detail"]) for f in findings if f["check"] == "probe"
        }
        assert status == 0
        assert probe["search"] == (
            "skipped",
            "it accepts only callers in SEARCH_CALLERS, with tokens for SEARCH_AUDIENCE",
        )
        assert probe["delete"][0] == "skipped"
        assert "DELETE_MIN_AGE_HOURS is 24" in probe["delete"][1]


def test_a_missing_system_is_not_reported_as_a_faulty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--system", str(tmp_path / "none.json")]) == 2
    assert "none.json does not exist" in capsys.readouterr().err
    with pytest.raises(NoSystemError):
        System.find(ROOT / "infra" / "topology.json")


def test_commands_and_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in listed
        assert main([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: dicom-functions {name} ")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dicom-functions, version ")


def test_a_shell_completes_commands_and_options() -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "_DICOM_FUNCTIONS_COMPLETE": "bash_complete",
        "COMP_WORDS": "dicom-functions rep",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "cli"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "plain,replay\n"


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Usage: dicom-functions quarantine ")
    assert "\nCommands:\n" in printed
    assert "error:" not in printed


def test_a_mistyped_command_gets_a_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serach"]) == 2
    assert "Did you mean 'search'?" in capsys.readouterr().err


def test_without_its_packages_it_says_how_to_install_them() -> None:
    command = [sys.executable, "-S", "-m", "cli", "doctor"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: click is not installed; to install it: python3 -m venv .venv"
    )


# --- a cloud as Terraform would make it


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    made = FakeCloud(terraform.plan())
    yield made
    made.close()


@pytest.fixture
def file(cloud: FakeCloud, tmp_path: Path) -> Path:
    path = tmp_path / "system.json"
    path.write_text(json.dumps(cloud.system_file()))
    return path


@needs_terraform
def test_what_terraform_makes_is_healthy(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, findings = doctor(file, "--no-probe", capsys=capsys)
    assert status == 0
    assert failed(findings) == []
    assert not [f for f in findings if f["status"] == "skipped"]
    assert {f["check"] for f in findings} >= {"notification", "permissions", "delivery", "function"}


@needs_terraform
def test_googles_agents_may_use_customer_managed_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = EVERYTHING["kms_key"]
    cloud = FakeCloud(terraform.plan(kms_key=key))
    path = tmp_path / "system.json"
    path.write_text(json.dumps(cloud.system_file()))
    status, findings = doctor(path, "--no-probe", capsys=capsys)
    subjects = {f["subject"] for f in findings if f["check"] == "encryption"}
    assert status == 0
    assert failed(findings) == []
    assert subjects == {
        "Cloud Storage uses the key of the buckets",
        "Pub/Sub uses the key of the buckets",
        "the Healthcare API uses the key of the dataset",
    }
    cloud.answers[f"/v1/{key}:getIamPolicy"] = (200, {})
    lacking = failed(doctor(path, "--no-probe", capsys=capsys)[1])
    cloud.close()
    assert {subject for _, subject, _ in lacking} == subjects


@needs_terraform
@pytest.mark.parametrize("variables", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_terraform_grants_exactly_what_the_code_needs(
    tmp_path: Path, variables: dict[str, Any]
) -> None:
    cloud = FakeCloud(terraform.plan(**variables))
    cloud.close()
    path = tmp_path / "system.json"
    path.write_text(json.dumps(cloud.system_file()))
    system = System.find(path)
    accounts = {name: email.partition("@")[0] for name, email in system.accounts.items()}
    needed = {
        (accounts[need.function], need.resource.removeprefix(f"{PROJECT}-")): set(need.permissions)
        for need in needs.of(system)
    }
    granted = {
        (account, resource.removeprefix(f"{PROJECT}-")): permissions
        for (account, resource), permissions in cloud.allowed.items()
        if account in accounts.values()
    }
    assert granted == needed


@needs_terraform
@pytest.mark.parametrize(
    ("path", "answer", "wanted"),
    [
        (f"/storage/v1/b/{PROJECT}-dicom-landing", (404, {}), "does not exist"),
        (f"/storage/v1/b/{PROJECT}-dicom-landing", (403, {}), "you may not see it"),
        (
            f"/storage/v1/b/{PROJECT}-dicom-ledger",
            (200, {"iamConfiguration": {}}),
            "has no uniform bucket-level access",
        ),
        (
            f"/storage/v1/b/{PROJECT}-dicom-landing/notificationConfigs",
            (200, {}),
            "uploads are not processed",
        ),
        (f"/v1/projects/{PROJECT}/topics/dicom-uploads-dead", (404, {}), "does not exist"),
        (
            f"/v1/projects/{PROJECT}/subscriptions/dicom-uploads-store",
            (200, {}),
            "has no dead letters",
        ),
        (
            f"/v1/projects/{PROJECT}/subscriptions/dicom-outcomes-ledger",
            (200, {}),
            "does not write to the ledger",
        ),
        (
            f"/v1/projects/{PROJECT}/subscriptions/dicom-uploads-dead-hold",
            (200, {}),
            "bound to another topic",
        ),
        (
            f"/v1/projects/{PROJECT}/subscriptions/dicom-uploads-dead-hold:pull",
            (400, {}),
            "Pub/Sub answered 400",
        ),
        (
            f"/v1/projects/{PROJECT}/subscriptions/dicom-uploads-dead-hold:pull",
            (403, {}),
            "you may not see it",
        ),
        (f"/v1/{STORE}/dicomWeb/instances", (404, {}), "answers 404"),
        (
            f"/v1/{STORE}/dicomWeb/{INSTANCE_PATH}:getStorageInfo",
            (200, {}),
            "has no storageClassUpdateTime",
        ),
        (
            f"/v2/{SERVICES}/dicom-search".replace("services", "functions"),
            (200, {"state": "FAILED"}),
            "is FAILED",
        ),
        (
            f"/v2/{SERVICES}/dicom-store-upload:getIamPolicy",
            (200, {}),
            "roles/run.invoker is missing",
        ),
        (
            f"/v1/projects/{PROJECT}/topics/dicom-uploads-dead:getIamPolicy",
            (200, {}),
            "publisher is missing",
        ),
        (
            f"/v1/projects/{PROJECT}/topics/dicom-outcomes-dead:getIamPolicy",
            (200, {}),
            "publisher is missing",
        ),
        (
            f"/v1/projects/{PROJECT}/subscriptions/dicom-outcomes-ledger:getIamPolicy",
            (200, {}),
            "subscriber is missing",
        ),
        (
            f"/v1/projects/{PROJECT}/topics/dicom-uploads:getIamPolicy",
            (200, {}),
            "publisher is missing",
        ),
        (
            f"/storage/v1/b/{PROJECT}-dicom-ledger/iam",
            (200, {}),
            "it has no role on the bucket",
        ),
        (
            f"/v1/projects/{PROJECT}/serviceAccounts/{DELIVERY}:getIamPolicy",
            (200, {}),
            "serviceAccountTokenCreator is missing",
        ),
        (
            f"/v1/{PLACE}/repositories/dicom-functions:getIamPolicy",
            (200, {}),
            "artifactregistry.writer is missing",
        ),
        (
            f"/v1/projects/{PROJECT}:getIamPolicy",
            (200, {}),
            "logging.logWriter is missing",
        ),
    ],
)
def test_each_fault_is_named(
    cloud: FakeCloud,
    file: Path,
    path: str,
    answer: tuple[int, Any],
    wanted: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert path in cloud.answers
    cloud.answers[path] = answer
    status, findings = doctor(file, "--no-probe", capsys=capsys)
    assert status == 1
    assert any(wanted in detail for _, _, detail in failed(findings)), failed(findings)


@needs_terraform
def test_the_fix_for_dead_letters_is_a_command_for_their_function(
    cloud: FakeCloud, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {"receivedMessages": [{"ackId": "a"}]}
    for path in cloud.answers:
        if path.endswith("-hold:pull"):
            cloud.answers[path] = (200, held)
    findings = [
        f for f in doctor(file, "--no-probe", capsys=capsys)[1] if f["check"] == "dead letters"
    ]
    # A function's command replays its follow-ups too.
    functions = ["store_upload", "delete_resource", "export_resource"] * 2 + ["ledger"]
    assert sorted(f["fix"].rpartition("after the fix: ")[2] for f in findings) == sorted(
        f"dicom-functions replay dead-letters --function {name}" for name in functions
    )


@needs_terraform
def test_a_number_that_was_changed_by_hand_is_named(
    cloud: FakeCloud, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, subscription = cloud.answers[f"/v1/projects/{PROJECT}/subscriptions/dicom-uploads-store"]
    subscription |= {"ackDeadlineSeconds": 10, "expirationPolicy": {"ttl": "2678400s"}}
    ((_, _, detail),) = failed(doctor(file, "--no-probe", capsys=capsys)[1])
    assert detail == "ack deadline is 10 and not 600; expires when it is not used"


@needs_terraform
def test_each_missing_permission_is_named(
    cloud: FakeCloud, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.allowed[("dicom-store-upload", STORE)] = {"healthcare.dicomStores.dicomWebRead"}
    ((check, subject, detail),) = failed(doctor(file, "--no-probe", capsys=capsys)[1])
    assert check == "permissions"
    assert subject == "store_upload on store scans"
    assert detail == "missing: healthcare.dicomStores.dicomWebWrite"


@needs_terraform
def test_without_the_right_to_act_as_the_accounts_the_role_is_named(
    cloud: FakeCloud, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.may_impersonate = False
    status, findings = doctor(file, "--no-probe", capsys=capsys)
    skipped = [f for f in findings if f["status"] == "skipped"]
    assert status == 0
    assert len(skipped) == 4
    assert all("roles/iam.serviceAccountTokenCreator" in f["fix"] for f in skipped)


@needs_terraform
def test_an_invalid_setting_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = json.loads(file.read_text())
    del system["environments"]["store_upload"]["QUARANTINE_BUCKET"]
    file.write_text(json.dumps(system))
    assert any(
        "QUARANTINE_BUCKET is not set" in d
        for _, _, d in failed(doctor(file, "--no-probe", capsys=capsys)[1])
    )


@needs_terraform
def test_the_system_file_has_the_keys_of_terraforms_output() -> None:
    text = (
        (ROOT / "infra/gcp/outputs.tf")
        .read_text()
        .partition('output "system"')[2]
        .partition("\n}\n")[0]
    )
    made = FakeCloud(terraform.plan())
    made.close()
    for key in made.system_file().keys() - {"endpoints"}:
        assert f"    {key} " in text, key

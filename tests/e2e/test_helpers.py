"""The helper commands, as a person or a program uses them, on a running system."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from rich.console import Console

from infra.local.clients import ClientError, Watch, check_object_name
from infra.local.demo import Demo, DemoError
from infra.local.running import Running
from infra.local.stack import Stack
from infra.local.topology import ROOT
from tests.e2e.conftest import QUICK
from tests.e2e.test_stack import wait_until

Helper = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def helper(stack: Stack) -> Helper:
    def call(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "infra.local", name, "--data", str(stack.data), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    return call


def records(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert not done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_life_of_a_scan(
    stack: Stack, helper: Helper, scans: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "night" / "deep").mkdir(parents=True)
    (tmp_path / "night" / "deep" / "one").write_bytes(scans["CT_small.dcm"].read_bytes())
    (tmp_path / "night" / "two.dcm").write_bytes(scans["MR_small.dcm"].read_bytes())
    done = helper("upload", str(tmp_path / "night"), "--prefix", "in/", "--json")
    assert done.returncode == 0, done.stdout
    stored = {record["name"]: record for record in records(done)}
    assert set(stored) == {"in/night/deep/one", "in/night/two.dcm"}
    assert {record["outcome"] for record in stored.values()} <= {"stored", "duplicate"}

    study = stored["in/night/deep/one"]["study"]
    found = json.loads(helper("search", f"StudyInstanceUID={study}", "--json").stdout)
    assert [item["0020000D"]["Value"] for item in found] == [[study]]
    table = helper("search", "--level", "instances", "--in", f"studies/{study}")
    assert stored["in/night/deep/one"]["instance"] in table.stdout
    assert table.stdout.endswith("1 instances\n")

    exported = helper("export", f"studies/{study}", "--to", "gs://dicom-export/mine", "--json")
    assert [record["outcome"] for record in records(exported)] == ["exported"]
    objects = [item["name"] for item in stack.buckets.objects("dicom-export", "mine/")]
    assert "mine/manifest.json" in objects
    assert f"mine/{study}" in "".join(objects)

    deleted = helper("delete", f"studies/{study}")
    assert deleted.returncode == 0
    assert "deleted" in deleted.stdout
    assert helper("search", f"StudyInstanceUID={study}").stdout.endswith("0 studies\n")
    wait_until(lambda: "deleted" in helper("outcomes").stdout)
    assert len(records(helper("outcomes", "--json", "--limit", "3"))) == 3


def test_a_zip_and_a_delete_of_what_is_too_new(
    stack: Stack, helper: Helper, scans: dict[str, Path]
) -> None:
    (stored,) = records(helper("upload", str(scans["rtplan.dcm"]), "--json"))
    path = f"studies/{stored['study']}"
    exported = helper(
        "export", path, "--to", "gs://dicom-export/zipped", "--format", "zip", "--json"
    )
    assert [record["outcome"] for record in records(exported)] == ["exported"]
    assert stack.buckets.exists("dicom-export", f"zipped/{stored['study']}.zip")
    refused = helper("delete", path, "--stored-before", "2000-01-01T00:00:00Z", "--json")
    assert [record["outcome"] for record in records(refused)] == ["rejected"]
    (deleted,) = records(
        helper("delete", path, "--stored-before", "2100-01-01T00:00:00Z", "--json")
    )
    assert deleted["outcome"] == "deleted"


def test_the_dicom_store_reads_lists_from_the_bucket_server(
    stack: Stack, helper: Helper, scans: dict[str, Path]
) -> None:
    (stored,) = records(helper("upload", str(scans["rtplan.dcm"]), "--json"))
    stack.buckets.upload("dicom-export", "lists/cold", f"/studies/{stored['study']}\n".encode())
    body = {
        "blobStorageSettings": {"blobStorageClass": "COLDLINE"},
        "filterConfig": {"resourcePathsGcsUri": "gs://dicom-export/lists/cold"},
    }
    web = stack.addresses.dicomweb_url
    answer = requests.post(
        f"{web.removesuffix('/dicomWeb')}:setBlobStorageSettings", json=body, timeout=60
    )
    assert answer.status_code == 200, answer.text
    path = f"studies/{stored['study']}/series/{stored['series']}/instances/{stored['instance']}"
    info = requests.get(f"{web}/{path}:getStorageInfo", timeout=60).json()
    assert info["blobStorageInfo"]["storageClass"] == "COLDLINE"


def test_an_archive_shows_every_member_and_itself(
    helper: Helper, scans: dict[str, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("rtplan.dcm", "SC_rgb_rle.dcm"):
            archive.write(scans[name], name)
    done = helper("upload", str(tmp_path / "two.zip"), "--json")
    assert done.returncode == 0, done.stdout
    assert [record.get("member", "") for record in records(done)][-1] == ""
    assert {record.get("member", "") for record in records(done)} == {
        "rtplan.dcm",
        "SC_rgb_rle.dcm",
        "",
    }


def test_what_goes_wrong_has_a_status_and_one_line(helper: Helper, tmp_path: Path) -> None:
    (tmp_path / "broken.dcm").write_bytes(b"not a scan")
    done = helper("upload", str(tmp_path / "broken.dcm"))
    assert done.returncode == 1
    assert "rejected" in done.stdout
    for arguments, text in (
        (("upload", str(tmp_path / "missing")), "there is no"),
        (("upload", str(tmp_path / "broken.dcm"), "--prefix", "../"), "cannot hold"),
        (("search", "PatientID"), "KEY=VALUE"),
    ):
        done = helper(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    assert helper("export", "studies/1.2", "--to", "gs://elsewhere/x").returncode == 1
    assert helper("delete").returncode == 2


def test_no_wait(helper: Helper, scans: dict[str, Path]) -> None:
    done = helper("upload", str(scans["rtplan.dcm"]), "--no-wait")
    assert (done.returncode, done.stdout) == (0, "1 uploaded to gs://dicom-landing\n")
    (asked,) = records(helper("delete", "studies/1.2.3", "--no-wait", "--json"))
    assert asked["request_id"].startswith("local-")


def test_outcomes_follow(stack: Stack, scans: dict[str, Path]) -> None:
    command = [
        sys.executable,
        "-m",
        "infra.local",
        "outcomes",
        "--follow",
        "--json",
        "--data",
        str(stack.data),
    ]

    def watched() -> bool:
        return any(f"/{Watch.PREFIX}" in name for name in stack.pubsub.subscriptions("local"))

    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as follower:
        try:
            wait_until(watched)
            stack.buckets.upload("dicom-landing", "followed", scans["SC_rgb_rle.dcm"])
            assert follower.stdout
            while (record := json.loads(follower.stdout.readline())).get("name") != "followed":
                pass
            assert record["outcome"] in ("stored", "duplicate")
            follower.send_signal(signal.SIGINT)
            assert follower.wait(30) == 130
        finally:
            follower.kill()
    assert not watched()


def test_env(stack: Stack, helper: Helper) -> None:
    values = json.loads(helper("env", "--json").stdout)
    assert values.items() >= stack.env.items()
    assert values["SEARCH_URL"] == stack.function_url("search")
    command = shlex.join([sys.executable, "-m", "infra.local", "env", "--data", str(stack.data)])
    shell = f'eval "$({command})"; echo $DICOM_STORE'
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["sh", "-c", shell], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == stack.env["DICOM_STORE"]


def test_the_demo_says_which_step_went_wrong(tmp_path: Path) -> None:
    with Stack(tmp_path, overrides=QUICK, env={"EXPORT_DESTINATIONS": "gs://elsewhere/x"}) as stack:
        demo = Demo(Running(stack.state()), Console(file=io.StringIO()), stack.check)
        with pytest.raises(DemoError, match="the export ended as rejected"):
            demo.run()


def test_no_stack(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.local", "outcomes", "--data", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: no stack is running on {tmp_path}")


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/./b", "a/", "x" * 256])
def test_names_that_files_cannot_have(name: str) -> None:
    with pytest.raises(ClientError):
        check_object_name(name)

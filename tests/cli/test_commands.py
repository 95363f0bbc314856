"""The commands as a person or a program uses them, each a process, on a running system."""

import json
import os
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from cli.clients import Clients
from cli.demo import Demo, DemoError
from cli.system import ROOT, System
from infra.local.clients import Watch
from infra.local.stack import Stack
from tests.cli.conftest import QUICK, Command, run
from tests.e2e.test_stack import wait_until

Done = subprocess.CompletedProcess[str]
NDJSON = ("--format", "ndjson")


def records(done: Done) -> list[dict[str, Any]]:
    assert not done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def started(stack: Stack, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that runs until it is stopped."""
    environment = {**os.environ, "DICOM_FUNCTIONS_SYSTEM": str(stack.data)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def watched(stack: Stack) -> bool:
    return any(f"/{Watch.PREFIX}" in name for name in stack.pubsub.subscriptions("local"))


def test_a_scan_is_uploaded_found_exported_and_deleted(
    stack: Stack, command: Command, scans: dict[str, Path], tmp_path: Path
) -> None:
    night = tmp_path / "night"
    (night / "deep").mkdir(parents=True)
    (night / "deep" / "one").write_bytes(scans["CT_small.dcm"].read_bytes())
    (night / "two.dcm").write_bytes(scans["MR_small.dcm"].read_bytes())
    done = command("upload", str(night), "--prefix", "in/", *NDJSON)
    assert done.returncode == 0, done.stdout
    stored = {record["name"]: record for record in records(done)}
    assert set(stored) == {"in/night/deep/one", "in/night/two.dcm"}
    assert {record["outcome"] for record in stored.values()} <= {"stored", "duplicate"}

    study = stored["in/night/deep/one"]["study"]
    by_uid = f"StudyInstanceUID={study}"
    found = json.loads(command("search", by_uid, "--format", "json").stdout)
    assert [item["0020000D"]["Value"] for item in found] == [[study]]
    table = command("search", "--level", "instances", "--in", f"studies/{study}")
    assert stored["in/night/deep/one"]["instance"] in table.stdout
    assert table.stdout.endswith("\n1 instance\n")

    exported = command("export", f"studies/{study}", "--to", "gs://dicom-export/mine", *NDJSON)
    assert [record["outcome"] for record in records(exported)] == ["exported"]
    objects = [item["name"] for item in stack.buckets.objects("dicom-export", "mine/")]
    assert "mine/manifest.json" in objects
    assert f"mine/{study}" in "".join(objects)

    deleted = command("delete", f"studies/{study}")
    assert deleted.returncode == 0
    assert "deleted: 1 instance" in deleted.stdout
    assert command("search", by_uid).stdout.endswith("0 studies\n")
    wait_until(lambda: "deleted" in command("outcomes").stdout)
    last = command("outcomes", *NDJSON, "--limit", "3")
    assert len(records(last)) == 3


def test_a_study_is_found_with_its_modality_and_counts(
    command: Command, scans: dict[str, Path]
) -> None:
    (stored,) = records(command("upload", str(scans["rtplan.dcm"]), *NDJSON))
    query = f"StudyInstanceUID={stored['study']}"
    done = command("search", query, "--format", "value(modality,series,instances,PatientID)")
    assert done.stdout == "RTPLAN\t1\t1\tid00001\n"


def test_series_of_a_study_have_its_uid_and_counts(
    command: Command, scans: dict[str, Path]
) -> None:
    (stored,) = records(command("upload", str(scans["rtplan.dcm"]), *NDJSON))
    within = ("search", "--level", "series", "--in", f"studies/{stored['study']}")
    done = command(*within, "--format", "value(study,instances)")
    assert done.stdout == f"{stored['study']}\t1\n"


def test_results_are_sorted_and_cut(command: Command, scans: dict[str, Path]) -> None:
    files = [str(scans[name]) for name in ("rtplan.dcm", "CT_small.dcm", "SC_rgb_rle.dcm")]
    assert command("upload", *files).returncode == 0
    every = command("search", "--sort-by", "~date", "--format", "value(date)").stdout.split("\n")
    assert len(every) > 3
    assert every == sorted(every, reverse=True)
    first = command("search", "--sort-by", "~date", "--limit", "1", "--format", "csv(date)")
    assert first.stdout == f"date\n{every[0]}\n"


def test_an_upload_ends_in_a_summary_and_shows_failures(
    command: Command, scans: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "good.dcm").write_bytes(scans["MR_small.dcm"].read_bytes())
    (tmp_path / "broken.dcm").write_bytes(b"not a scan")
    done = command("upload", str(tmp_path / "good.dcm"), str(tmp_path / "broken.dcm"))
    assert done.returncode == 1
    assert "unsupported_input" in done.stdout
    assert "good.dcm" not in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("2 files: ")
    assert "1 rejected" in last
    assert last.endswith(", in gs://dicom-landing")
    verbose = command("upload", str(tmp_path / "good.dcm"), "-v")
    assert "good.dcm" in verbose.stdout


def test_an_export_without_a_destination_gets_a_new_folder(
    stack: Stack, command: Command, scans: dict[str, Path]
) -> None:
    (stored,) = records(command("upload", str(scans["rtplan.dcm"]), *NDJSON))
    done = command("export", f"studies/{stored['study']}")
    assert done.returncode == 0, done.stderr
    place, _, folder = done.stdout.splitlines()[-1].removeprefix("to ").partition(", on this ")
    assert place.startswith("gs://dicom-export/cli-")
    assert (Path(folder.removeprefix("machine ")) / "manifest.json").exists()


def test_a_zip_export_and_a_delete_that_is_too_early(
    stack: Stack, command: Command, scans: dict[str, Path]
) -> None:
    (stored,) = records(command("upload", str(scans["rtplan.dcm"]), *NDJSON))
    path = f"studies/{stored['study']}"
    exported = command("export", path, "--to", "gs://dicom-export/zipped", "--as", "zip", *NDJSON)
    assert [record["outcome"] for record in records(exported)] == ["exported"]
    assert stack.buckets.exists("dicom-export", f"zipped/{stored['study']}.zip")
    refused = command("delete", path, "--stored-before", "2000-01-01T00:00:00Z", *NDJSON)
    assert [record["outcome"] for record in records(refused)] == ["rejected"]
    (deleted,) = records(
        command("delete", path, "--stored-before", "2100-01-01T00:00:00Z", *NDJSON)
    )
    assert deleted["outcome"] == "deleted"


def test_the_dicom_store_reads_lists_from_the_bucket_server(
    stack: Stack, command: Command, scans: dict[str, Path]
) -> None:
    (stored,) = records(command("upload", str(scans["rtplan.dcm"]), *NDJSON))
    stack.buckets.upload("dicom-export", "lists/cold", f"/studies/{stored['study']}\n".encode())
    body = {
        "blobStorageSettings": {"blobStorageClass": "COLDLINE"},
        "filterConfig": {"resourcePathsGcsUri": "gs://dicom-export/lists/cold"},
    }
    web = stack.addresses.dicomweb_url
    store = web.removesuffix("/dicomWeb")
    answer = requests.post(f"{store}:setBlobStorageSettings", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    path = f"studies/{stored['study']}/series/{stored['series']}/instances/{stored['instance']}"
    info = requests.get(f"{web}/{path}:getStorageInfo", timeout=60).json()
    assert info["blobStorageInfo"]["storageClass"] == "COLDLINE"


def test_an_archive_shows_every_member_and_itself(
    command: Command, scans: dict[str, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("rtplan.dcm", "SC_rgb_rle.dcm"):
            archive.write(scans[name], name)
    done = command("upload", str(tmp_path / "two.zip"), *NDJSON)
    assert done.returncode == 0, done.stdout
    members = [record.get("member", "") for record in records(done)]
    assert members[-1] == ""
    assert set(members) == {"rtplan.dcm", "SC_rgb_rle.dcm", ""}


def test_a_watched_folder_is_uploaded_as_it_fills(
    stack: Stack, scans: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "here.dcm").write_bytes(scans["SC_rgb_rle.dcm"].read_bytes())
    with started(stack, "upload", "--watch", str(tmp_path), *NDJSON) as watcher:
        assert watcher.stdout
        assert watcher.stderr
        first = json.loads(watcher.stdout.readline())
        (tmp_path / "later.dcm").write_bytes(scans["rtplan.dcm"].read_bytes())
        second = json.loads(watcher.stdout.readline())
        names = [Path(record["name"]).name for record in (first, second)]
        assert names == ["here.dcm", "later.dcm"]
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 130
        assert "2 files: " in watcher.stderr.read()


def test_ctrl_c_says_what_continues(stack: Stack) -> None:
    stack.kill("delete_resource")
    beside = "projects/local/subscriptions/beside"
    stack.pubsub.ensure_subscription(beside, stack.topology.topics["deletes"], {})
    try:
        with started(stack, "delete", "studies/1.2.3") as waiting:
            assert waiting.stderr
            # When the command is published, its outcome is waited for.
            wait_until(lambda: stack.pubsub.pull(beside))
            assert watched(stack)
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(30) == 130
            message = waiting.stderr.read()
    finally:
        stack.pubsub.delete_subscription(beside)
        stack.launch("delete_resource")
    assert message.startswith("stopped waiting; cli-")
    assert "continues" in message
    assert not watched(stack)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("upload", "/no/such/file"), "/no/such/file does not exist"),
        (("upload", "README.md", "--prefix", "../"), "cannot hold"),
        (("upload",), "give files or folders"),
        (("search", "PatientID"), "KEY=VALUE"),
        (("search", "StudyDescription=x"), "StudyDescription cannot be searched for"),
        (("search", "--in", "1.2"), "--in must be studies/UID"),
        (("export", "1.2.3"), "did you mean studies/1.2.3?"),
        (("export", "studies/1.2", "--to", "somewhere"), "--to must be gs://BUCKET/FOLDER"),
        (("delete",), "give either PATH"),
        (("delete", "--query", "PatientID=1"), "--max-studies"),
        (("quarantine", "show", "nothing"), "has no object nothing"),
        (("dead-letters", "show", "1"), "no dead letter has the ID 1"),
        (("reconcile", "--since", "yesterday"), "--since must be a date"),
    ],
)
def test_an_error_is_one_line_and_an_exit_status(
    command: Command, arguments: tuple[str, ...], text: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert text in errors[0]
    assert "Traceback" not in done.stderr


def test_a_field_that_no_row_has_is_named_with_those_that_exist(
    command: Command, scans: dict[str, Path]
) -> None:
    assert command("upload", str(scans["rtplan.dcm"])).returncode == 0
    done = command("search", "--format", "value(nothing)")
    assert done.returncode == 1
    assert "error: there is no field nothing; the fields are" in done.stderr


def test_a_refused_export_has_an_exit_status_and_no_place(command: Command) -> None:
    done = command("export", "studies/1.2", "--to", "gs://elsewhere/x")
    assert done.returncode == 1
    assert done.stdout.endswith("\nrejected\n")


def test_without_waiting_the_commands_say_what_was_sent(
    command: Command, scans: dict[str, Path]
) -> None:
    done = command("upload", str(scans["rtplan.dcm"]), "--no-wait")
    assert done.returncode == 0
    assert done.stdout == "1 file uploaded to gs://dicom-landing\n"
    (published,) = records(command("delete", "studies/1.2.3", "--no-wait", *NDJSON))
    assert published["request_id"].startswith("cli-")


def test_outcomes_are_followed_until_ctrl_c(stack: Stack, scans: dict[str, Path]) -> None:
    with started(stack, "outcomes", "--follow", *NDJSON) as follower:
        wait_until(lambda: watched(stack))
        stack.buckets.upload("dicom-landing", "followed", scans["SC_rgb_rle.dcm"])
        assert follower.stdout
        while (record := json.loads(follower.stdout.readline())).get("name") != "followed":
            pass
        assert record["outcome"] in ("stored", "duplicate")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(30) == 130
    assert not watched(stack)


def test_quarantined_objects_are_listed_and_shown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "junk.dcm").write_bytes(b"not a scan")
    assert command("upload", str(tmp_path / "junk.dcm")).returncode == 1
    listed = command("quarantine", "list", "--reason", "unsupported_input", *NDJSON)
    (record,) = [one for one in records(listed) if one["name"] == "junk.dcm"]
    assert record["object"] == "gs://dicom-quarantine/unsupported_input/junk.dcm"
    shown = json.loads(command("quarantine", "show", record["object"]).stdout)
    assert shown["reason"] == "unsupported_input"


def test_env_sends_gcloud_and_libraries_here(stack: Stack, command: Command) -> None:
    values = {one["name"]: one["value"] for one in records(command("env", *NDJSON))}
    assert values.items() >= stack.env.items()
    assert values["SEARCH_URL"] == stack.function_url("search")
    assert values["CLOUDSDK_AUTH_DISABLE_CREDENTIALS"] == "true"
    assert values["CLOUDSDK_CORE_PROJECT"] == values["GOOGLE_CLOUD_PROJECT"] == "local"
    gcs = f"http://{stack.addresses.gcs}/storage/v1/"
    assert values["CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE"] == gcs
    pubsub = f"http://{stack.addresses.pubsub}/"
    assert values["CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB"] == pubsub
    healthcare = f"http://{stack.addresses.dicomstore}/"
    assert values["CLOUDSDK_API_ENDPOINT_OVERRIDES_HEALTHCARE"] == healthcare


def test_a_shell_takes_the_environment(stack: Stack) -> None:
    python = shlex.join([sys.executable, "-m", "cli", "env", "--system", str(stack.data)])
    done = subprocess.run(
        ["sh", "-c", f'eval "$({python})"; echo $DICOM_STORE'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.stdout.strip() == stack.env["DICOM_STORE"]


def test_the_demo_says_which_step_went_wrong(tmp_path: Path) -> None:
    with Stack(tmp_path, overrides=QUICK, env={"EXPORT_DESTINATIONS": "gs://elsewhere/x"}) as stack:
        demo = Demo(Clients(System.find(tmp_path)), stack.check)
        with pytest.raises(DemoError, match="the export ended as rejected"):
            demo.run()


def test_a_folder_without_a_system_is_named(tmp_path: Path) -> None:
    done = run("outcomes", system=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path} has no system")

"""The store function in the whole system: dead letters replayed, and a short test with faults."""

import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import requests

from benchmarks import chaos
from benchmarks import store as store_benchmark
from infra.local.clients import Watch
from infra.local.stack import Stack
from infra.local.topology import ROOT, Overrides
from tests import ledger, scans
from tests.e2e.conftest import Seen


def functions(stack: Stack, *arguments: str) -> str:
    """`dicom-functions …` on the system, and what it prints."""
    command = [sys.executable, "-m", "cli", *arguments, "--system", str(stack.data)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.serial
def test_what_was_dead_lettered_is_replayed_after_the_fix(tmp_path: Path) -> None:
    quick = Overrides(0.1, 0.1, 60, 5, 1)
    with Stack(tmp_path, overrides=quick, functions=["store_upload"]) as stack:
        faults = f"http://{stack.addresses.dicomstore}/_faults"
        requests.post(
            faults,
            json={
                "kind": "status",
                "status": 403,
                "method": "POST",
            },
            timeout=10,
        )
        uids = ("1.2", "1.2.3", "1.2.3.4")
        name = f"projects/local/subscriptions/seen-{uuid.uuid4().hex}"
        with Watch(stack.pubsub, stack.topology.topics["outcomes"], name) as watch:
            stack.buckets.upload(stack.topology.buckets["landing"], "a.dcm", scans.dicom(uids))
            waiting = ""
            while waiting != "1 to replay, 1 of store_upload":
                stack.check()
                waiting = functions(stack, "replay", "dead-letters", "--dry-run")
            requests.delete(faults, timeout=10)
            done = functions(stack, "replay", "dead-letters")
            assert done == "1 replayed, 1 of store_upload"
            seen = Seen(watch)
            assert seen.of("a.dcm")[0]["outcome"] == "stored"
            assert functions(stack, "replay", "dead-letters") == "0 replayed"
        assert "1 with an outcome" in _until_in_ledger(stack)


def _until_in_ledger(stack: Stack) -> str:
    for _ in range(100):
        said = functions(stack, "reconcile", "--older-than-s", "0", "--dry-run")
        if "0 to publish" in said:
            return said
    raise AssertionError(said)


@pytest.mark.serial
def test_memory_does_not_grow_with_the_size(tmp_path: Path) -> None:
    with Stack(tmp_path, functions=[]) as stack:
        small = store_benchmark.upload(stack, "small.dcm", scans.dicom(("1.5", "1.5", "1.5")))
        instance = store_benchmark.planted(
            stack, "big.dcm", store_benchmark.big_instance(tmp_path, 128)
        )
        noise = np.random.default_rng(1)
        archive = store_benchmark.planted(
            stack, "big.zip", store_benchmark.big_zip(tmp_path, 64, noise)
        )
        assert store_benchmark.memory(stack, "instance", instance, small) <= 32
        assert store_benchmark.memory(stack, "zip", archive, small) <= 32
        assert (
            len(requests.get(f"{stack.addresses.dicomweb_url}/instances", timeout=30).json())
            == 128 + 1
        )


def test_a_dicom_store_that_is_down_loses_nothing(stack: Stack, seen: Seen) -> None:
    stack.kill("dicomstore")
    for number in range(5):
        data = scans.dicom(("1.9", "1.9.1", f"1.9.1.{number}"))
        stack.buckets.upload(stack.topology.buckets["landing"], f"down/{number}.dcm", data)
    while stack.log("store_upload").count("handed_back") < 5:
        stack.check()
    stack.launch("dicomstore")
    records = seen.until(lambda found: len({record["name"] for record in found}) >= 5)
    assert {record["outcome"] for record in records} == {"stored"}


@pytest.mark.serial
def test_a_short_night_of_chaos(tmp_path: Path) -> None:
    assert (
        chaos.night(
            tmp_path,
            uploads=80,
            seed=7,
            kill_every_s=2.5,
            timeout_s=450,
        )
        == []
    )


@pytest.mark.serial
def test_the_ledger_has_one_record_for_each_input(tmp_path: Path) -> None:
    plan = ledger.plan_of(pairs=60, archives=20, others=60)
    report = ledger.run(tmp_path, plan, timeout_s=300)
    assert report.problems == []
    assert set(report.ids.values()) == {1}
    assert len(report.ids) == report.inputs

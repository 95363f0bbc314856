"""Export and delete while functions are killed every few seconds and the DICOM store and the bucket
fault at random.

    python -m tests.chaos [--instances 5000] [--joined 300] [--studies 50] [--kill-every 3] [--seed
    1]

A study of `--instances` is exported as DICOM files, one of `--joined` as a zip and as metadata,
which are joined of parts.

Prints what is wrong, and ends with status 1 if anything is.
"""

import argparse
import base64
import concurrent.futures
import io
import json
import random
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import requests

from functions.export.parts import PART_SUFFIX
from infra.local.clients import Watch
from infra.local.stack import Stack
from infra.local.topology import Overrides
from tests.contract.world import instance
from tests.faulty import Chances, FaultyProxy, faulty

FUNCTIONS = ("delete_resource", "export_resource")
QUICK = Overrides(
    minimum_backoff_s=0.2, maximum_backoff_s=2, ack_deadline_s=60, max_delivery_attempts=100
)
BUCKET_FAULTS = Chances(refused=0.03, reset=0.02, lost=0.02, cut=0.01)
STORE_FAULTS = [
    {"kind": "status", "status": 503, "probability": 0.03},
    {"kind": "status", "status": 429, "retry_after": 0, "probability": 0.01},
    {"kind": "reset", "probability": 0.02},
    {"kind": "reset", "when": "after", "probability": 0.02},
    {
        "kind": "truncate",
        "bytes": 200_000,
        "path": "studies/[^/]+(/series/[^/]+)?$",
        "method": "GET",
        "probability": 0.5,
    },
    {"kind": "truncate", "probability": 0.01},
    {"kind": "operation", "code": 14, "method": "DELETE", "probability": 0.05},
    {"kind": "operation", "failure": 1, "method": "DELETE", "probability": 0.05},
]
SETTLING_S = 120.0  # for messages that are still waiting after all outcomes
STUDY = "1.5"
JOINED = "1.7"
# The format by request id.
EXPORTS = {
    "export": "dicom",
    "zip": "zip",
    "metadata": "metadata",
}


@dataclass(frozen=True)
class Options:
    """The number of inputs, and of faults."""

    instances: int = 5000
    joined: int = 300
    studies: int = 50
    kill_every_s: float = 3.0
    slice_size: int = 250
    seed: int = 1
    timeout_s: float = 900.0


@dataclass
class Report:
    """What happened; `wrong` is empty when everything is right."""

    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    records: int = 0
    repeated: int = 0
    left_over: int = 0  # objects that wait for the lifecycle rules


def run(options: Options, folder: Path) -> Report:
    """Fill the store, send the commands, kill until all outcomes are there, and compare."""
    report = Report()
    with faulty("", BUCKET_FAULTS, options.seed) as proxy:
        # Every kill is one more delivery, for which nothing may be given up.
        env = {"EXPORT_SLICE": str(options.slice_size), "EXPORT_GIVE_UP_ATTEMPT": "100"}
        env["STORAGE_EMULATOR_HOST"] = proxy.url
        slow = ["--operation-s", "0.5"]
        with Stack(
            folder, overrides=QUICK, env=env, functions=FUNCTIONS, dicomstore_options=slow
        ) as stack:
            proxy.upstream = stack.addresses.gcs
            stored = _fill(stack, options)
            _set_faults(stack, options.seed)
            name = "projects/local/subscriptions/chaos"
            with Watch(stack.pubsub, stack.topology.topics["outcomes"], name) as watch:
                wanted = _send(stack, options)
                records = _kill_until(stack, watch, wanted, options, report)
            requests.delete(f"http://{stack.addresses.dicomstore}/_faults", timeout=30)
            _check(stack, stored, records, wanted, proxy, report)
            report.faults = dict(proxy.seen.faults)
    return report


def _fill(stack: Stack, options: Options) -> dict[str, bytes]:
    """The studies to export, by the path of each instance, and the studies to delete."""
    exported = _paths(STUDY, options.instances) | _paths(JOINED, options.joined)
    deleted = [
        (f"1.9.{s}", f"1.9.{s}.1", f"1.9.{s}.1.{n}")
        for s in range(options.studies)
        for n in range(1, 5)
    ]
    url = f"{stack.addresses.dicomweb_url}/studies"

    def put(data: bytes) -> None:
        answer = requests.post(url, data, headers={"Content-Type": "application/dicom"}, timeout=60)
        assert answer.status_code == 200, answer.text

    files = {name: instance(*uids, pixels=64) for name, uids in exported.items()}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(put, files.values()))
        half = options.studies // 2 * 4
        names = ["Doe^Jane"] * half + ["Roe^Richard"] * (len(deleted) - half)
        list(
            pool.map(
                put,
                [
                    instance(*uids, PatientName=name)
                    for uids, name in zip(deleted, names, strict=True)
                ],
            )
        )
    return files


def _paths(study: str, instances: int) -> dict[str, tuple[str, str, str]]:
    """The UIDs of each instance, by its path: four series of different sizes."""
    sizes = [instances // 2, instances // 4, instances // 8]
    sizes.append(instances - sum(sizes))
    uids = [
        (study, f"{study}.{e}", f"{study}.{e}.{n}")
        for e, size in enumerate(sizes, 1)
        for n in range(1, size + 1)
    ]
    return {"/".join(one): one for one in uids}


def _set_faults(stack: Stack, seed: int) -> None:
    rules = [{**rule, "seed": seed + n} for n, rule in enumerate(STORE_FAULTS)]
    requests.post(
        f"http://{stack.addresses.dicomstore}/_faults", json=rules, timeout=30
    ).raise_for_status()


def _send(stack: Stack, options: Options) -> set[tuple[str, str]]:
    """Publish the commands; returns the outcomes to come, as request id and member."""
    topics = stack.topology.topics
    bucket = stack.topology.buckets["export"]
    for name, format_ in EXPORTS.items():
        path = f"studies/{STUDY if format_ == 'dicom' else JOINED}"
        command = {
            "path": path,
            "destination": f"gs://{bucket}/{name}",
            "format": format_,
            "request_id": name,
        }
        stack.pubsub.publish(topics["exports"], command)
    wanted = {*((name, "") for name in EXPORTS), ("query", "")}
    for s in range(options.studies // 2):
        stack.pubsub.publish(
            topics["deletes"], {"path": f"studies/1.9.{s}", "request_id": f"delete-{s}"}
        )
        wanted.add((f"delete-{s}", ""))
    studies = [f"1.9.{s}" for s in range(options.studies // 2, options.studies)]
    query = {
        "query": "PatientName=Roe^Richard",
        "max_studies": len(studies),
        "request_id": "query",
    }
    stack.pubsub.publish(topics["deletes"], query)
    return wanted | {("query", f"studies/{study}") for study in studies}


def _kill_until(
    stack: Stack, watch: Watch, wanted: set[tuple[str, str]], options: Options, report: Report
) -> list[dict[str, Any]]:
    chance = random.Random(options.seed)
    records = list[dict[str, Any]]()
    began = time.monotonic()
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(options.kill_every_s * chance.uniform(0.5, 1.5)):
            stack.kill_function(chance.choice(FUNCTIONS))
            report.kills += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while missing := wanted - {(r["request_id"], r.get("member", "")) for r in records}:
            if time.monotonic() - began > options.timeout_s:
                report.wrong.append(
                    f"{len(missing)} outcomes never came, such as {sorted(missing)[:3]}"
                )
                break
            records += watch.take(1.0)
    finally:
        report.seconds = time.monotonic() - began
        stop.set()
        killer.join()
    # Messages that are still waiting: redeliveries after lost acknowledgements. A command that
    # comes again after its export ended is processed again, and found to be done.
    end = time.monotonic() + SETTLING_S
    while time.monotonic() < end:
        late = watch.take(5.0)
        records += late
        if not late and not _plans(stack):
            break
    return records


def _check(
    stack: Stack,
    stored: dict[str, bytes],
    records: list[dict[str, Any]],
    wanted: set[tuple[str, str]],
    proxy: FaultyProxy,
    report: Report,
) -> None:
    first: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda r: str(r["time"])):
        first.setdefault(record["id"], record)
    report.records = len(records)
    report.repeated = len(records) - len(first)
    reported = [(r["request_id"], r.get("member", "")) for r in first.values()]
    if sorted(reported) != sorted(wanted):
        report.wrong.append(f"outcomes: {len(reported)} ids for {len(wanted)} inputs")
    for record in first.values():
        request_id = record["request_id"]
        expected = "exported" if request_id in EXPORTS else "deleted"
        if record["outcome"] != expected:
            reason = record.get("reason", "")
            report.wrong.append(f"{request_id}: {record['outcome']} {reason}")
    _check_objects(stack, stored, proxy, report)
    _check_studies(stack, report)


def _check_studies(stack: Stack, report: Report) -> None:
    """Only the studies that were exported are left, and no instance of another one."""
    url = stack.addresses.dicomweb_url
    answer = requests.get(f"{url}/instances?StudyInstanceUID=1.9.0", timeout=60)
    if answer.status_code != 204:
        report.wrong.append("study 1.9.0 is not gone")
    left = requests.get(f"{url}/studies?limit=100", timeout=60).json()
    if {item["0020000D"]["Value"][0] for item in left} != {STUDY, JOINED}:
        report.wrong.append(f"{len(left)} studies are left, and only two should be")


def _check_objects(
    stack: Stack, stored: dict[str, bytes], proxy: FaultyProxy, report: Report
) -> None:
    bucket = stack.topology.buckets["export"]
    objects = _list(stack, bucket)
    _check_left_over(stack, objects, report)
    files = {
        f"export/{path}.dcm": data for path, data in stored.items() if path.startswith(f"{STUDY}/")
    }
    joined = {path: data for path, data in stored.items() if path.startswith(f"{JOINED}/")}
    alone = [*files, *(f"metadata/{path}.json" for path in joined)]
    others = [
        f"zip/{JOINED}.zip",
        "metadata/metadata.ndjson",
        *(f"{name}/manifest.json" for name in EXPORTS),
    ]
    if missing := {*alone, *others} - objects.keys():
        report.wrong.append(f"{len(missing)} objects are missing, such as {sorted(missing)[:3]}")
        return
    if more := objects.keys() - {*alone, *others}:
        report.wrong.append(f"{len(more)} objects too many, such as {sorted(more)[:3]}")
    if differing := [
        name for name, data in files.items() if objects[name]["crc32c"] != _crc32c(data)
    ]:
        report.wrong.append(f"{len(differing)} objects differ")
    with zipfile.ZipFile(
        io.BytesIO(stack.buckets.download(bucket, f"zip/{JOINED}.zip"))
    ) as archive:
        if {name: archive.read(name) for name in archive.namelist()} != {
            f"{p}.dcm": d for p, d in joined.items()
        }:
            report.wrong.append(
                f"the zip of {len(archive.namelist())} members does not hold what is stored"
            )
    lines = [
        json.loads(line)
        for line in stack.buckets.download(bucket, "metadata/metadata.ndjson").splitlines()
    ]
    if sorted(f"{one['study']}/{one['series']}/{one['instance']}" for one in lines) != sorted(
        joined
    ):
        report.wrong.append(f"the metadata has {len(lines)} lines for {len(joined)} instances")
    members = [f"{path}.dcm" for path in joined]
    for name, wanted in (
        ("export", list(files)),
        ("zip", members),
        ("metadata", alone[len(files) :]),
    ):
        _check_manifest(
            json.loads(stack.buckets.download(bucket, f"{name}/manifest.json")),
            wanted,
            objects,
            report,
        )
    made = {
        path.rpartition(" ")[2]: n
        for (m, path, status), n in proxy.seen.answers.items()
        if status == 200
    }
    if twice := [name for name in alone if made.get(name, 1) != 1]:
        report.wrong.append(f"{len(twice)} objects were written more than once")


def _plans(stack: Stack) -> list[str]:
    """The running exports."""
    state = _list(stack, stack.topology.buckets["state"])
    return [name for name in state if name.endswith("/plan.json")]


def _check_left_over(stack: Stack, objects: dict[str, dict[str, Any]], report: Report) -> None:
    """A kill may leave slices of a plan that was started again, or the part that a late delivery
    was writing. Lifecycle rules of both buckets delete them (infra/gcp/storage.tf); here they are
    removed from `objects`. A kill leaves at most those of one run, and no plan."""
    parts = [name for name in objects if name.endswith(PART_SUFFIX)]
    for name in parts:
        del objects[name]
    state = _list(stack, stack.topology.buckets["state"])
    runs = {name.rpartition("/")[0] for name in (*state, *parts)}
    report.left_over = len(state) + len(parts)
    if plans := _plans(stack):
        report.wrong.append(f"{len(plans)} exports were not cleared away")
    if len(runs) > report.kills:
        report.wrong.append(f"{len(runs)} runs were left by {report.kills} kills")


def _check_manifest(
    manifest: dict[str, Any], wanted: list[str], objects: dict[str, dict[str, Any]], report: Report
) -> None:
    named = [entry["name"] for entry in manifest["objects"]]
    if sorted(named) != sorted(wanted) or not manifest["complete"]:
        report.wrong.append(
            f"a manifest names {len(named)} objects, complete: {manifest['complete']}"
        )
    if [
        one
        for one in manifest["objects"]
        if "crc32c" in one and one["crc32c"] != objects[one["name"]]["crc32c"]
    ]:
        report.wrong.append("a manifest has a wrong checksum")


def _list(stack: Stack, bucket: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    token = ""
    while True:
        url = f"http://{stack.addresses.gcs}/storage/v1/b/{bucket}/o"
        answer = requests.get(url, {"pageToken": token, "maxResults": "1000"}, timeout=60).json()
        found |= {item["name"]: item for item in answer.get("items", [])}
        if not (token := answer.get("nextPageToken", "")):
            return found


def _crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def main() -> int:
    """Run it with the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--instances", type=int, default=5000)
    parser.add_argument("--joined", type=int, default=300)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--kill-every", type=float, default=3.0, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    options = Options(
        flags.instances, flags.joined, flags.studies, flags.kill_every, seed=flags.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        report = run(options, Path(folder))
    print(
        f"{options.instances} instances exported, {options.studies} studies deleted in"
        f" {report.seconds:.0f} s"
    )
    print(f"kill -9: {report.kills}; faults of the bucket: {report.faults}")
    print(
        f"outcome records: {report.records}, of these {report.repeated} repeated under an id that"
        " had come before"
    )
    print(f"objects left to the lifecycle rules: {report.left_over}")
    for line in report.wrong:
        print(f"WRONG: {line}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

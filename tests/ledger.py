"""Many uploads at once by the official client: is there exactly one record for each in the ledger?

    python -m tests.ledger [--pairs 300] [--archives 100] [--others 300]

Pairs of metadata and JPEG (either one first, both at once, and seconds apart), archives of pairs,
and other inputs of every kind are uploaded to a local stack by google-cloud-storage. No fault is
injected. Prints the counts, and ends with a status other than 0 when an id has no record, more than
one, or a wrong outcome.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from infra.local.stack import Stack
from infra.local.topology import Overrides
from tests import scans

QUICK: Final = Overrides(0.2, 3, 60, 20, 1)
PAIR_WAIT_S: Final = 20  # longer than the halves of a pair are apart
QUIET_S: Final = 6.0  # so long nothing may come any more: five times what the ledger gathers
THREADS: Final = 16
PAIRS_IN_ARCHIVE: Final = 6
_PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(500)

Key = tuple[str, str]  # name of the object, name of the member


@dataclass(frozen=True)
class Upload:
    """One object.

    Args:
        pause_s: before it is written.
    """

    name: str
    data: bytes
    pause_s: float = 0.0


@dataclass
class Plan:
    """The uploads, and the expected outcome of each record.

    Args:
        sequences: each is written in its order, several at the same time.
        words: for each object and each member.
    """

    seed: int
    sequences: list[list[Upload]] = field(default_factory=list)
    words: dict[Key, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._count = 0

    def uids(self) -> scans.Uids:
        """New ones."""
        self._count += 1
        study = f"1.2.826.0.1.3680043.10.1462.7.{self._count // 20}"
        return study, f"{study}.1", f"{study}.1.{self._count}"

    def add_pair(self, number: int) -> None:
        """Metadata and a JPEG; how they come is decided by the number."""
        name = f"pairs/{number}"
        halves = [
            Upload(f"{name}.json", scans.metadata(self.uids())),
            Upload(f"{name}.jpg", scans.jpeg(number)),
        ]
        for half in halves:
            self.words[half.name, ""] = "stored"
        if number % 2:
            halves.reverse()
        manner = number % 3
        if manner == 0:
            self.sequences.append(halves)
        elif manner == 1:
            self.sequences += [[half] for half in halves]
        else:
            later = halves[1]
            pause_s = self._random.uniform(0.5, 4)
            self.sequences.append([halves[0], Upload(later.name, later.data, pause_s)])

    def add_archive(self, number: int) -> None:
        """Pairs in an archive, in one of three orders."""
        kind = ("zip", "tar", "tar.gz")[number % 3]
        name = f"archives/{number}.{kind}"
        texts = []
        pictures = []
        for pair in range(PAIRS_IN_ARCHIVE):
            texts.append((f"{pair}.json", scans.metadata(self.uids())))
            pictures.append((f"{pair}.jpg", scans.jpeg(pair)))
        files = [*texts, *pictures]
        order = number // 3 % 3
        if order == 1:
            files = [*pictures, *texts]
        elif order == 2:
            self._random.shuffle(files)
        for member, _ in files:
            self.words[name, member] = "stored"
        self.words[name, ""] = "stored"
        data = scans.zipped(files)
        if kind != "zip":
            data = scans.tarred(files, "w:gz" if kind == "tar.gz" else "w")
        self.sequences.append([Upload(name, data)])

    def add_other(self, number: int) -> None:
        """One of the other kinds of input."""
        uids = self.uids()
        scan = scans.dicom(uids, scans.noise(number, 20_000))
        body = scans.multipart_request(scans.metadata(uids), scans.jpeg(number))
        wrong = scans.metadata(uids, **{"00280010": {"vr": "US", "Value": [99]}})
        kinds = [
            [("scan.dcm", scan, "stored")],
            [("scan.jpg", scan, "stored")],
            [("multipart-request.file", body, "stored")],
            [("text.txt", scans.noise(number, 3000), "rejected")],
            [("cut.dcm", scan[:-99], "rejected")],
            [("picture.jpg", _PNG, "rejected")],
            [("image.jpg", scans.jpeg(number), "rejected")],
            [("instance.json", scans.metadata(uids), "rejected")],
            [("wrong.json", wrong, "rejected"), ("wrong.jpg", scans.jpeg(number), "rejected")],
            [("folder/", b"", "skipped")],
        ]
        sequence = []
        for ending, data, word in kinds[number % len(kinds)]:
            name = f"others/{number}-{ending}"
            sequence.append(Upload(name, data))
            self.words[name, ""] = word
        self.sequences.append(sequence)


def plan_of(pairs: int, archives: int, others: int, seed: int = 1) -> Plan:
    """Inputs in a random order."""
    plan = Plan(seed)
    for number in range(pairs):
        plan.add_pair(number)
    for number in range(archives):
        plan.add_archive(number)
    for number in range(others):
        plan.add_other(number)
    random.Random(seed).shuffle(plan.sequences)
    return plan


@dataclass
class Report:
    """The ledger at the end."""

    inputs: int
    records: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ids(self) -> Counter[str]:
        """Records of each id."""
        return Counter(record["id"] for record in self.records)


class Run:
    """One run on a stack that is running."""

    def __init__(self, stack: Stack, plan: Plan) -> None:
        self._stack = stack
        self._plan = plan
        self._client = storage.Client(
            project="local",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": f"http://{stack.addresses.gcs}"},
        )

    def run(self, timeout_s: float) -> Report:
        """Upload, wait until nothing changes any more, and compare with the plan."""
        self._upload()
        report = Report(len(self._plan.words))
        end = time.monotonic() + timeout_s
        quiet_since = time.monotonic()
        while time.monotonic() < end:
            before = len(report.records)
            report.records = list(self._ledger())
            if len(report.records) > before or len(report.ids) < report.inputs:
                quiet_since = time.monotonic()
            if time.monotonic() - quiet_since > QUIET_S:
                break
            time.sleep(0.5)
        self._check(report)
        return report

    def _upload(self) -> None:
        bucket = self._client.bucket(self._stack.topology.buckets["landing"])

        def write(sequence: list[Upload]) -> None:
            for upload in sequence:
                time.sleep(upload.pause_s)
                bucket.blob(upload.name).upload_from_string(upload.data)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(write, self._plan.sequences))

    def _ledger(self) -> Iterator[dict[str, Any]]:
        bucket = self._client.bucket(self._stack.topology.buckets["ledger"])
        for blob in bucket.list_blobs(prefix="outcomes/"):
            for line in blob.download_as_bytes().splitlines():
                yield json.loads(line)

    def _check(self, report: Report) -> None:
        missing = dict(self._plan.words)
        for record in report.records:
            key = (record["name"], record.get("member", ""))
            word = missing.pop(key, None)
            if word is None:
                report.problems.append(f"{key}: one more record, {record['outcome']}")
            elif record["outcome"] != word:
                report.problems.append(f"{key}: {record['outcome']}, not {word}")
        report.problems += [f"{key}: no record" for key in missing]


def run(folder: Path, plan: Plan, timeout_s: float) -> Report:
    """One run in this folder, with a stack of its own."""
    env = {"PAIR_WAIT_S": str(PAIR_WAIT_S)}
    with Stack(folder, overrides=QUICK, functions=["store_upload"], env=env) as stack:
        return Run(stack, plan).run(timeout_s)


def main() -> None:
    """Read the arguments, run, and end with status 1 when something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--archives", type=int, default=100)
    parser.add_argument("--others", type=int, default=300)
    parser.add_argument("--timeout-s", type=float, default=900)
    flags = parser.parse_args()
    plan = plan_of(flags.pairs, flags.archives, flags.others)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), plan, flags.timeout_s)
    most = max(report.ids.values(), default=0)
    print(f"{report.inputs} inputs and members in {time.monotonic() - began:.0f} s")
    print(f"{len(report.records)} records of {len(report.ids)} ids, at most {most} of one")
    for problem in report.problems[:40]:
        print(" ", problem)
    print(f"{len(report.problems)} problems" if report.problems else "one record for each")
    sys.exit(bool(report.problems))


if __name__ == "__main__":
    main()

"""Uploads under faults: does each end in exactly one outcome, and is nothing lost?

    python -m benchmarks.chaos [--uploads 2000] [--seed 1] [--kill-every-s 4]

Instances, pairs, archives, unusable files, duplicates, conflicts and overwrites are uploaded to a
local stack; their events are delivered several times and out of order; the DICOM store answers a
third of all requests with 429, 500, 503, a reset, a cut or a late answer, or loses its answer after
the work is done; and the function is killed (kill -9) every few seconds. Prints the counts, and
ends with a status other than 0 when a promise is broken.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests

from infra.local.clients import Watch
from infra.local.stack import Stack
from infra.local.topology import Overrides
from tests import scans

# A third of the requests: each rule acts on its part of those that earlier rules left.
FAULTS: Final = (
    {"kind": "status", "status": 429, "retry_after": 1, "probability": 0.06},
    {"kind": "status", "status": 500, "probability": 0.06},
    {"kind": "status", "status": 503, "probability": 0.06},
    {"kind": "reset", "probability": 0.06},
    {"kind": "truncate", "probability": 0.06},
    {"kind": "slow", "delay_s": 0.3, "probability": 0.06},
    {"kind": "status", "status": 503, "when": "after", "probability": 0.03},
    {"kind": "reset", "when": "after", "probability": 0.03},
)
# The topology's numbers, 50 times as fast; more attempts, because there are many more faults than
# with a real store.
QUICK: Final = Overrides(0.2, 3, 60, 100, 1)
QUIET_S: Final = 4.0
_BAD: Final = ("rejected", "conflict", "partial")


@dataclass(frozen=True)
class Input:
    """One object to upload, and its expected end.

    Args:
        outcomes: the outcomes that its first record may have.
        reason: the reason with which it must be in quarantine, or empty.
        members: of an archive, each with its possible outcomes.
        stored: what the DICOM store must contain, by UIDs; None if only the store decides.
    """

    name: str
    data: bytes
    outcomes: tuple[str, ...]
    reason: str = ""
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stored: dict[scans.Uids, bytes | None] = field(default_factory=dict)


GOOD: Final = ("stored", "duplicate")


class Plan:
    """Makes inputs; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._count = 0

    def make(self, uploads: int) -> list[list[Input]]:
        """Steps of one or more inputs; those of one step must be uploaded in their order, steps in
        any."""
        kinds = {
            self.instance: 60,
            self.junk: 6,
            self.cut: 6,
            self.twins: 6,
            self.rivals: 5,
            self.pair: 6,
            self.archive: 6,
            self.overwrite: 5,
        }
        steps: list[list[Input]] = []
        while sum(map(len, steps)) < uploads:
            steps.append(self._random.choices([*kinds], [*kinds.values()])[0]())
        return steps

    def new(self) -> tuple[str, scans.Uids, bytes]:
        """A new name, new UIDs and a file."""
        self._count += 1
        study = f"1.2.826.0.1.3680043.10.1462.{self._seed}.{self._count // 10 + 1}"
        uids = (study, f"{study}.1", f"{study}.1.{self._count}")
        size = self._random.choice((500, 4_000, 30_000, 300_000))
        return (
            f"night/{self._count // 100}/{self._count}",
            uids,
            scans.dicom(uids, scans.noise(self._count, size)),
        )

    def instance(self) -> list[Input]:
        """A file that can be stored."""
        name, uids, data = self.new()
        return [Input(f"{name}.dcm", data, ("stored",), stored={uids: data})]

    def junk(self) -> list[Input]:
        """Bytes of no known kind."""
        name, _, _ = self.new()
        return [
            Input(f"{name}.txt", scans.noise(self._count, 3000), ("rejected",), "unsupported_input")
        ]

    def cut(self) -> list[Input]:
        """A file that ends too early."""
        name, _, data = self.new()
        return [Input(f"{name}-cut.dcm", data[:-99], ("rejected",), "rejected")]

    def twins(self) -> list[Input]:
        """The same bytes under two names."""
        name, uids, data = self.new()
        return [Input(f"{name}-{twin}.dcm", data, GOOD, stored={uids: data}) for twin in "ab"]

    def rivals(self) -> list[Input]:
        """Other bytes under the same UIDs: one is stored, the other quarantined."""
        name, uids, data = self.new()
        other = data[:-4] + bytes(4)
        return [
            Input(f"{name}-{i}.dcm", d, (*GOOD, "conflict"), stored={uids: None})
            for i, d in enumerate((data, other))
        ]

    def pair(self) -> list[Input]:
        """Metadata and a JPEG, in either order."""
        name, uids, _ = self.new()
        halves = [
            Input(f"{name}.json", scans.metadata(uids), GOOD, stored={uids: None}),
            Input(f"{name}.jpg", scans.jpeg(self._count), GOOD, stored={uids: None}),
        ]
        self._random.shuffle(halves)
        return halves

    def overwrite(self) -> list[Input]:
        """Two instances, one after the other under one name."""
        name, uids, data = self.new()
        _, later_uids, later = self.new()
        return [
            Input(f"{name}-over.dcm", data, ("stored", "superseded"), stored={uids: data}),
            Input(f"{name}-over.dcm", later, ("stored",), stored={later_uids: later}),
        ]

    def archive(self) -> list[Input]:
        """An archive of several members, some of them bad in every third."""
        name, _, _ = self.new()
        files: list[tuple[str, bytes]] = [("README.txt", b"a CD")]
        words: dict[str, tuple[str, ...]] = {"README.txt": ("skipped",)}
        stored: dict[scans.Uids, bytes | None] = {}
        for _ in range(self._random.randrange(2, 12)):
            _, uids, data = self.new()
            files.append((f"images/{uids[2]}", data))
            words[files[-1][0]], stored[uids] = GOOD, data
        bad = self._random.random() < 0.33
        if bad:
            _, _, data = self.new()
            files.append(("images/cut", data[:-99]))
            words["images/cut"] = ("rejected",)
        self._random.shuffle(files)
        ending = self._random.choice(["zip", "tar", "tar.gz"])
        data = (
            scans.zipped(files)
            if ending == "zip"
            else scans.tarred(files, "w:gz" if ending == "tar.gz" else "w")
        )
        outcomes, reason = (("partial",), "rejected") if bad else (GOOD, "")
        return [Input(f"{name}.{ending}", data, outcomes, reason, words, stored)]


class Night:
    """One run."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._random = random.Random(seed)
        self._landing = stack.topology.buckets["landing"]
        self.uploaded: dict[tuple[str, str], Input] = {}  # by name and generation
        self.first: dict[str, dict[str, Any]] = {}  # each id's first record
        self.words: dict[str, set[str]] = {}  # all words of each id
        self.records = 0
        self.kills = self.faults = 0
        self.deliveries = 0
        self.problems: list[str] = []

    def run(self, steps: list[list[Input]], kill_every_s: float, timeout_s: float) -> None:
        """Upload, deliver again, kill, until every input has its outcome and nothing changes any
        more."""
        topic = self._stack.topology.topics["outcomes"]
        faults = f"http://{self._stack.addresses.dicomstore}/_faults"
        rules = [
            {**rule, "method": "POST", "path": "/studies$", "seed": n}
            for n, rule in enumerate(FAULTS)
        ]
        requests.post(faults, json=rules, timeout=10).raise_for_status()
        queue = [list(step) for step in steps]
        self._random.shuffle(queue)
        end, next_kill = time.monotonic() + timeout_s, time.monotonic() + kill_every_s
        with Watch(self._stack.pubsub, topic, "projects/local/subscriptions/chaos") as watch:
            quiet_since = time.monotonic()
            while queue or self._missing() or time.monotonic() - quiet_since < QUIET_S:
                self._upload(queue)
                if self._note(watch.take(0 if queue else 0.2)):
                    quiet_since = time.monotonic()
                if time.monotonic() > next_kill and (queue or self._missing()):
                    began = time.monotonic()
                    self._stack.kill_function("store_upload")
                    self.kills += 1
                    # On a busy machine, a start and the work after it take longer.
                    started = time.monotonic()
                    next_kill = started + max(kill_every_s, 4 * (started - began))
                if time.monotonic() > end:
                    self.problems += [
                        f"no outcome in time: {item}" for item in list(self._missing())[:20]
                    ]
                    break
        self.faults = sum(
            rule["acted"] for rule in requests.get(faults, timeout=10).json()["rules"]
        )
        requests.delete(faults, timeout=10)

    def _upload(self, queue: list[list[Input]]) -> None:
        """One object of one of the next steps; now and then an old event once more."""
        if queue:
            at = self._random.randrange(min(8, len(queue)))
            one = queue[at].pop(0)
            generation = self._stack.buckets.upload(self._landing, one.name, one.data)
            self.uploaded[(one.name, str(generation))] = one
            if not queue[at]:
                queue.pop(at)
            if self._random.random() < 0.25:
                self._deliver_again()

    def _deliver_again(self) -> None:
        (name, generation), one = self._random.choice(list(self.uploaded.items()))
        event = {
            "bucket": self._landing,
            "name": name,
            "generation": generation,
            "size": str(len(one.data)),
        }
        event["timeCreated"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        attributes = {"eventType": "OBJECT_FINALIZE", "bucketId": self._landing, "objectId": name}
        for _ in range(self._random.randrange(1, 4)):
            self._stack.pubsub.publish(self._stack.topology.topics["uploads"], event, attributes)
            self.deliveries += 1

    def _note(self, records: list[dict[str, Any]]) -> int:
        for record in sorted(records, key=lambda r: str(r["time"])):
            self.words.setdefault(record["id"], set()).add(record["outcome"])
            known = self.first.get(record["id"])
            if known is None or record["time"] < known["time"]:
                self.first[record["id"]] = record
        self.records += len(records)
        return len(records)

    def _of(self, member: bool) -> dict[tuple[str, str], list[dict[str, Any]]]:
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for record in self.first.values():
            if ("member" in record) == member:
                found.setdefault((record["name"], record["generation"]), []).append(record)
        return found

    def _missing(self) -> set[tuple[str, str]]:
        return self.uploaded.keys() - self._of(member=False).keys()

    # What must be true at the end

    def check(self) -> Counter[str]:
        """Check every promise; broken ones are in `problems`.

        Returns:
            The number of inputs by outcome.
        """
        whole, parts = self._of(member=False), self._of(member=True)
        words: Counter[str] = Counter()
        for key, one in self.uploaded.items():
            for record in whole.get(key, [{}]):
                word = str(record.get("outcome"))
                words[word] += 1
                self._claim(
                    word in one.outcomes,
                    f"{key}: {word} {record.get('reason')}, not {one.outcomes}",
                )
            self._claim(len(whole.get(key, [])) == 1, f"{key}: {len(whole.get(key, []))} outcomes")
            members = {record["member"]: record["outcome"] for record in parts.get(key, [])}
            self._claim(
                members.keys() == one.members.keys(), f"{key}: outcomes of {len(members)} members"
            )
            for name, word in members.items():
                self._claim(word in one.members.get(name, ()), f"{key}: member {name} is {word}")
        self._claim(whole.keys() == self.uploaded.keys(), "outcomes of what was never uploaded")
        self._check_pairs()
        self._check_quarantine(whole)
        self._check_store(whole)
        dead = self._stack.pubsub.pull(
            self._stack.topology.dead_letters["store_upload"], wait=False
        )
        self._claim(not dead, f"{len(dead)} dead letters")
        return words

    def _check_pairs(self) -> None:
        """A repeated record of half a pair has the same outcome as the first."""
        for identity, record in self.first.items():
            if "member" not in record and record["name"].endswith((".json", ".jpg")):
                words = self.words[identity]
                self._claim(len(words) == 1, f"{record['name']}: {sorted(words)}")

    def _check_quarantine(self, whole: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
        bucket = self._stack.topology.buckets["quarantine"]
        there = {item["name"] for item in self._stack.buckets.objects(bucket)}
        landing = {item["name"] for item in self._stack.buckets.objects(self._landing)}
        wanted = set()
        for key, one in self.uploaded.items():
            record = whole.get(key, [{}])[0]
            if record.get("outcome") not in _BAD:
                continue
            reason = one.reason or "conflict"
            self._claim(
                record.get("reason") == reason,
                f"{key}: reason {record.get('reason')}, not {reason}",
            )
            wanted |= {f"{reason}/{one.name}", f"{reason}/{one.name}.reason.json"}
            self._claim(one.name not in landing, f"{key}: still in the landing bucket")
            kept = (
                self._stack.buckets.download(bucket, f"{reason}/{one.name}")
                if wanted <= there
                else b""
            )
            self._claim(kept == one.data, f"{key}: other bytes in quarantine")
        self._claim(
            there == wanted,
            f"quarantine: {len(there - wanted)} too many, {len(wanted - there)} missing",
        )

    def _check_store(self, whole: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
        wanted: dict[scans.Uids, bytes | None] = {}
        maybe: dict[
            scans.Uids, bytes | None
        ] = {}  # stored, killed before the outcome was published, and overwritten: superseded
        for key, one in self.uploaded.items():
            word = whole.get(key, [{}])[0].get("outcome")
            if word != "conflict":
                (maybe if word == "superseded" else wanted).update(one.stored)
        there = 0
        for uids, data in {**maybe, **wanted}.items():
            found = self._retrieved(uids)
            there += found is not None
            self._claim(found is not None or uids in maybe, f"{uids[2]}: not in the store")
            self._claim(
                None in (data, found) or found == data, f"{uids[2]}: other bytes in the store"
            )
        url = self._stack.addresses.dicomweb_url.removesuffix("/dicomWeb")
        metrics = requests.get(f"{url}:getDICOMStoreMetrics", timeout=30).json()
        self._claim(
            int(metrics["instanceCount"]) == there,
            f"{metrics['instanceCount']} in the store, not {there}",
        )

    def _retrieved(self, uids: scans.Uids) -> bytes | None:
        path = f"studies/{uids[0]}/series/{uids[1]}/instances/{uids[2]}"
        headers = {"Accept": "application/dicom; transfer-syntax=*"}
        answer = requests.get(
            f"{self._stack.addresses.dicomweb_url}/{path}", headers=headers, timeout=30
        )
        return answer.content if answer.status_code == 200 else None

    def _claim(self, true: bool, else_: str) -> None:
        if not true:
            self.problems.append(else_)


def night(data: Path, uploads: int, seed: int, kill_every_s: float, timeout_s: float) -> list[str]:
    """One run in this folder; prints the counts and returns the problems."""
    began = time.monotonic()
    # With a short budget, larger archives continue in follow-up messages.
    with Stack(data, overrides=QUICK, functions=["store_upload"], env={"BUDGET_S": "6"}) as stack:
        chaos = Night(stack, seed)
        chaos.run(Plan(seed).make(uploads), kill_every_s, timeout_s)
        words = chaos.check()
    print(
        f"{len(chaos.uploaded)} uploads in {time.monotonic() - began:.0f} s:"
        f" {dict(words.most_common())}"
    )
    print(f"{chaos.kills} kills, {chaos.faults} faults, {chaos.deliveries} deliveries more")
    print(f"{len(chaos.first)} outcomes, members of archives included, in {chaos.records} records")
    print("every promise kept" if not chaos.problems else f"{len(chaos.problems)} PROBLEMS")
    for problem in chaos.problems[:40]:
        print(" ", problem)
    return chaos.problems


def main() -> None:
    """Read the arguments, run, and end with status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-every-s", type=float, default=4)
    parser.add_argument("--timeout-s", type=float, default=1800)
    parser.add_argument("--data", type=Path, help="keep everything here; else a temporary folder")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = flags.data or Path(folder)
        sys.exit(bool(night(data, flags.uploads, flags.seed, flags.kill_every_s, flags.timeout_s)))


if __name__ == "__main__":
    main()

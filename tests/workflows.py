"""From stored instances to webhooks, while functions are killed and a receiver is away.

    python -m tests.workflows [--studies 100] [--records 20] [--uploads 20] [--requests 20]
        [--kill-every 3] [--down 20] [--seed 1]

Three kinds of input come at once:

- `--studies` simulated studies: the DICOM store has 3 instances of each, and `--records` stored
  records for each are published out of order, a tenth of them twice. When all are complete, one
  more instance comes for every third.
- `--uploads` studies of 5 instances dropped in the landing bucket.
- `--requests` exports by HTTP, each sent three times at once under one Idempotency-Key.

Two webhooks are called; the receiver of one is away for the first `--down` seconds. `watch_studies`
and `notify` are killed every `--kill-every` seconds (0: never, and every record is counted).

Ends with status 1 and says what is wrong, if anything is.
"""

import argparse
import base64
import concurrent.futures
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import pubsub_v1, storage
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from standardwebhooks.webhooks import Webhook

from infra.local.stack import Stack
from infra.local.topology import Overrides
from tests.contract.world import instance
from tests.ports import free_port
from tests.webhooks.receiver import Call, Receiver

QUIET_S = 2
EVENTS = ("study_complete", "exported")
MR_EVERY = 10  # of the simulated studies one is of MR, and an order asks for its export
HELD = 3  # instances of a simulated study
UPLOADED = 5  # instances of an uploaded study
SENDS = 3  # of each request
SETTLING_S = 5.0
KILLED = ("watch_studies", "notify")
FUNCTIONS = ("store_upload", "export_resource", "commands", *KILLED)
SECRET = "whsec_" + base64.b64encode(b"a secret for these tests alone, 32 b").decode()
ORDER = {
    "name": "mr",
    "match": {"Modality": "MR"},
    "export": {"destination": "gs://dicom-export/mr", "format": "metadata"},
}
QUICK = Overrides(
    minimum_backoff_s=0.2, maximum_backoff_s=1, ack_deadline_s=60, max_delivery_attempts=100
)
Record = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How much, and how hard."""

    studies: int = 100
    records: int = 20
    uploads: int = 20
    requests: int = 20
    kill_every_s: float = 3.0
    down_s: float = 20.0
    seed: int = 1
    timeout_s: float = 900.0


@dataclass
class Report:
    """What happened; `wrong` is empty when everything is right."""

    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    published: int = 0  # stored records that were simulated
    seconds: float = 0.0
    completes: int = 0
    repeated: int = 0  # records under an id that had come before
    calls: Counter[str] = field(default_factory=Counter)  # of each receiver


@dataclass
class Sent:
    """What was put in, and when."""

    counts: dict[str, int] = field(default_factory=dict)  # instances of each study
    began: dict[str, list[float]] = field(default_factory=dict)  # when each was sent
    late: set[str] = field(default_factory=set)  # studies that get one more
    requests: list[str] = field(default_factory=list)

    def add(self, study: str) -> None:
        """One more instance is about to be stored."""
        self.counts[study] = self.counts.get(study, 0) + 1
        self.began.setdefault(study, []).append(time.time())


def run(options: Options, folder: Path) -> Report:
    """Put everything in, wait until it is through, and compare."""
    with free_port() as steady, free_port() as away:
        webhooks = {
            name: {"url": f"http://127.0.0.1:{port}/", "events": [*EVENTS]}
            for name, port in (("steady", steady), ("away", away))
        }
        env = {
            "STUDY_QUIET_S": str(QUIET_S),
            "ON_STUDY_COMPLETE": json.dumps([ORDER]),
            "WEBHOOKS": json.dumps(webhooks),
            "WEBHOOK_SECRET_STEADY": SECRET,
            "WEBHOOK_SECRET_AWAY": SECRET,
            "COMMANDS_PER_MINUTE": "100000",
        }
        with Stack(folder, overrides=QUICK, env=env, functions=FUNCTIONS) as stack:
            return _Run(stack, options, {"steady": steady, "away": away}).run()


class _Run:
    """One run on a stack that is running."""

    def __init__(self, stack: Stack, options: Options, ports: dict[str, int]) -> None:
        self._stack = stack
        self._options = options
        self._ports = ports
        self._report = Report()
        self._sent = Sent()
        self._records: list[Record] = []
        self._receivers: dict[str, Receiver] = {}
        self._chance = random.Random(options.seed)
        self._seen = ""
        self._end = 0.0
        self._stop = threading.Event()
        address = stack.addresses.pubsub
        self._publisher = pubsub_v1.PublisherClient(
            pubsub_v1.types.BatchSettings(max_messages=200, max_latency=0.05),
            transport=PublisherGrpcTransport(channel=grpc.insecure_channel(address)),
        )
        self._subscriber = SubscriberClient(
            transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(address))
        )
        self._storage = storage.Client(
            project="local",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": f"http://{stack.addresses.gcs}"},
        )

    def run(self) -> Report:
        """All of it."""
        topics = self._stack.topology.topics
        others = 'attributes.outcome != "stored"'
        self._seen = self._subscribe("workflows-seen", topics["outcomes"], others)
        asked = self._subscribe("workflows-asked", topics["exports"], "")
        for name in self._ports:
            path = f"{self._stack.function_url('notify')}/webhooks/{name}"
            self._subscribe(f"workflows-{name}", topics["outcomes"], others, path)
        began = time.monotonic()
        self._end = began + self._options.timeout_s
        away = self._options.down_s
        tasks = (self._kill, self._receiving("steady", 0.0), self._receiving("away", away))
        threads = [threading.Thread(target=task) for task in tasks]
        for thread in threads:
            thread.start()
        try:
            self._put_in()
            self._until(self._all_complete, "not every study was complete")
            self._late()
            self._until(self._all_complete, "not every study was complete again")
            self._until(self._all_exported, "not everything was exported")
            self._until(self._all_called, "not every webhook was called")
            self._report.seconds = time.monotonic() - began
            time.sleep(SETTLING_S)  # for what should not come
            self._records += self._pull(self._seen, whole=True)
            self._check_studies()
            self._check_requests(self._pull(asked, whole=True))
            self._check_calls()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        return self._report

    # What is put in

    def _put_in(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            tasks = [pool.submit(task) for task in (self._simulate, self._upload, self._ask)]
            for task in tasks:
                task.result()

    def _simulate(self) -> None:
        """Studies of which the store has a few instances and the topic has many records."""
        studies = [f"1.3.{number}" for number in range(1, self._options.studies + 1)]
        for number, study in enumerate(studies):
            modality = "CT" if number % MR_EVERY else "MR"
            for one in range(HELD):
                self._store(study, one, modality)
        records = [record for study in studies for record in self._stored(study)]
        again = self._chance.sample(records, len(records) // 10)
        everything = records + again
        self._chance.shuffle(everything)
        self._publish(everything)
        self._sent.late = set(studies[::3])

    def _late(self) -> None:
        """One more instance for some studies, after all of them were complete."""
        for study in sorted(self._sent.late):
            self._store(study, HELD, "CT")
            self._publish([self._stored(study)[-1]])

    def _store(self, study: str, number: int, modality: str) -> None:
        data = instance(study, f"{study}.1", f"{study}.1.{number + 1}", Modality=modality)
        self._sent.add(study)
        url = f"{self._stack.addresses.dicomweb_url}/studies"
        head = {"Content-Type": "application/dicom"}
        answer = requests.post(url, data, headers=head, timeout=60)
        assert answer.status_code == 200, answer.text

    def _stored(self, study: str) -> list[Record]:
        """Records as store_upload publishes them, all of them made after the instances were."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return [
            {
                "id": f"{study}-{number}",
                "time": now,
                "outcome": "stored",
                "function": "store_upload",
                "study": study,
                "attempt": 1,
                "duration_ms": 50,
            }
            for number in range(self._options.records)
        ]

    def _publish(self, records: list[Record]) -> None:
        topic = self._stack.topology.topics["outcomes"]
        sent = [
            self._publisher.publish(
                topic,
                json.dumps(record).encode(),
                outcome="stored",
                function="store_upload",
                study=record["study"],
            )
            for record in records
        ]
        for one in sent:
            one.result(120)
        self._report.published += len(sent)

    def _upload(self) -> None:
        """Scans dropped in the landing bucket, the instances of all studies mixed."""
        scans = [
            (f"1.4.{study}", number)
            for study in range(1, self._options.uploads + 1)
            for number in range(1, UPLOADED + 1)
        ]
        random.Random(self._options.seed).shuffle(scans)
        bucket = self._storage.bucket(self._stack.topology.buckets["landing"])
        for study, number in scans:
            data = instance(study, f"{study}.1", f"{study}.1.{number}", Modality="CT")
            self._sent.add(study)
            bucket.blob(f"{study}/{number}.dcm").upload_from_string(data)

    def _ask(self) -> None:
        """Exports by HTTP, each sent several times at once."""
        self._store("1.5.1", 0, "CT")
        self._sent.counts.pop("1.5.1")
        self._sent.requests = [f"night-{number}" for number in range(self._options.requests)]
        with concurrent.futures.ThreadPoolExecutor(2 * SENDS) as pool:
            for answers in [
                [pool.submit(self._post, name) for _ in range(SENDS)]
                for name in self._sent.requests
            ]:
                statuses = sorted(answer.result() for answer in answers)
                # Who comes while the first is being published is told to come again.
                if statuses[0] != 202 or not set(statuses) <= {202, 409}:
                    self._report.wrong.append(f"a request was answered {statuses}")

    def _post(self, name: str) -> int:
        command = {"path": "studies/1.5.1", "destination": f"gs://dicom-export/asked/{name}"}
        url = f"{self._stack.function_url('commands')}/exports"
        head = {"Idempotency-Key": name}
        return requests.post(url, json=command, headers=head, timeout=60).status_code

    # What happens meanwhile

    def _kill(self) -> None:
        every_s = self._options.kill_every_s
        while every_s and not self._stop.wait(every_s * self._chance.uniform(0.5, 1.5)):
            self._stack.kill_function(KILLED[self._report.kills % len(KILLED)])
            self._report.kills += 1

    def _receiving(self, name: str, after_s: float) -> Callable[[], None]:
        def serve() -> None:
            if self._stop.wait(after_s):
                return
            receiver = Receiver(self._ports[name])
            self._receivers[name] = receiver
            thread = threading.Thread(target=receiver.serve_forever)
            thread.start()
            self._stop.wait()
            receiver.shutdown()
            thread.join()
            receiver.server_close()

        return serve

    # What comes out

    def _subscribe(self, name: str, topic: str, filter_: str, push: str = "") -> str:
        full = f"projects/local/subscriptions/{name}"
        request: dict[str, Any] = {
            "name": full,
            "topic": topic,
            "filter": filter_,
            "ack_deadline_seconds": 60,
            "retry_policy": {"minimum_backoff": {"seconds": 1}, "maximum_backoff": {"seconds": 2}},
        }
        if push:
            request["push_config"] = {"push_endpoint": push}
        self._subscriber.create_subscription(request=request)
        return full

    def _pull(self, subscription: str, *, whole: bool = False) -> list[Record]:
        """What has come; all of it, or one batch."""
        found: list[Record] = []
        while True:
            answer = self._subscriber.pull(
                subscription=subscription, max_messages=500, return_immediately=True
            )
            messages = answer.received_messages
            if messages:
                ids = [message.ack_id for message in messages]
                self._subscriber.acknowledge(subscription=subscription, ack_ids=ids)
            found += [json.loads(message.message.data) for message in messages]
            if not messages or not whole:
                return found

    def _until(self, true: Callable[[], bool], what: str) -> None:
        """Take in outcomes until it is true."""
        while not true():
            if time.monotonic() > self._end:
                self._report.wrong.append(f"in {self._options.timeout_s:.0f} s: {what}")
                return
            self._records += self._pull(self._seen)
            time.sleep(0.1)

    def _all_complete(self) -> bool:
        found = {(r["study"], r["counts"]["instances"]) for r in self._completes()}
        return self._sent.counts.items() <= found

    def _all_exported(self) -> bool:
        exports = [r for r in self._records if r["outcome"] == "exported"]
        requested = {r["request_id"] for r in exports}
        ordered = {(r["study"], r["counts"]["objects"]) for r in exports}
        return requested.issuperset(self._sent.requests) and ordered >= self._ordered()

    def _all_called(self) -> bool:
        wanted = {r["id"] for r in self._records if r["outcome"] in EVENTS}
        called = [{c.headers["webhook-id"] for c in r.calls} for r in self._receivers.values()]
        return len(called) == len(self._ports) and all(wanted <= ids for ids in called)

    def _completes(self) -> list[Record]:
        return [r for r in self._records if r["outcome"] == "study_complete"]

    def _ordered(self) -> set[tuple[str, int]]:
        """The studies that the workflow's order is given for, and their instances."""
        studies = [f"1.3.{number}" for number in range(1, self._options.studies + 1)]
        return {(study, self._sent.counts[study]) for study in studies[::MR_EVERY]}

    # What is right

    def _check_studies(self) -> None:
        completes = self._completes()
        self._report.completes = len(completes)
        first: dict[str, Record] = {}
        for record in sorted(completes, key=lambda r: str(r["time"])):
            first.setdefault(record["id"], record)
        self._report.repeated = len(completes) - len(first)
        for record in first.values():
            self._check_quiet(record)
        if self._report.kills:
            return
        if self._report.repeated:
            self._report.wrong.append(f"{self._report.repeated} records came twice, without a kill")
        said = Counter(record["study"] for record in first.values())
        for number in range(1, self._options.studies + 1):
            study = f"1.3.{number}"
            periods = 2 if study in self._sent.late else 1
            if said[study] != periods:
                self._report.wrong.append(f"{study}: {said[study]} reports of {periods} periods")

    def _check_quiet(self, record: Record) -> None:
        """Of so many instances the last one was sent at least the quiet time before."""
        study = record["study"]
        count = record["counts"]["instances"]
        began = sorted(self._sent.began[study])
        quiet_s = datetime.fromisoformat(record["time"]).timestamp() - began[count - 1]
        if quiet_s < QUIET_S:
            self._report.wrong.append(f"{study} was reported after {quiet_s:.2f} s")

    def _check_requests(self, asked: list[Record]) -> None:
        published = Counter(command["request_id"] for command in asked)
        for name in self._sent.requests:
            if published[name] != 1:
                self._report.wrong.append(f"{name} was published {published[name]} times")
            url = f"{self._stack.function_url('commands')}/requests/{name}"
            answer = requests.get(url, timeout=60).json()
            if answer.get("state") != "done" or answer["outcome"]["outcome"] != "exported":
                self._report.wrong.append(f"{name} ends as {answer}")

    def _check_calls(self) -> None:
        for name, receiver in self._receivers.items():
            self._report.calls[name] = len(receiver.calls)
            wrong = sum(not _is_signed(call) for call in receiver.calls)
            if wrong:
                self._report.wrong.append(f"{wrong} calls of {name} do not verify")


def _is_signed(call: Call) -> bool:
    """As `Webhook.verify`, which refuses calls of more than five minutes ago."""
    sent = datetime.fromtimestamp(int(call.headers["webhook-timestamp"]), UTC)
    wanted = Webhook(SECRET).sign(call.headers["webhook-id"], sent, call.body.decode())
    return call.headers["webhook-signature"] == wanted


def main() -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.workflows", description=__doc__)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--records", type=int, default=20, help="of each study")
    parser.add_argument("--uploads", type=int, default=20)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--kill-every", type=float, default=3.0, help="seconds, on average")
    parser.add_argument("--down", type=float, default=20.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    options = Options(
        studies=flags.studies,
        records=flags.records,
        uploads=flags.uploads,
        requests=flags.requests,
        kill_every_s=flags.kill_every,
        down_s=flags.down,
        seed=flags.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        report = run(options, Path(folder))
    print(f"stored records published: {report.published}; through in {report.seconds:.0f} s")
    print(f"study_complete: {report.completes}, of these {report.repeated} under an id once more")
    print(f"kill -9: {report.kills}; calls of webhooks: {dict(report.calls)}")
    for line in report.wrong:
        print(f"WRONG: {line}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

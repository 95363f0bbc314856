"""How long commands and webhooks take on the local stack, and how fast `commands` starts.

    python -m benchmarks.webhooks [--commands 200] [--outcomes 100] [--burst 1000] [--rounds 7]
        [--python INTERPRETER]

Prints figures without targets. `--python` is the interpreter of an environment with only
requirements.txt, as deployed; a cold start is from the start of the process to its first answer,
compared with a function that answers a constant.
"""

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import requests
from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from infra.local.stack import Stack
from tests.commands.conftest import DELETES, EXPORT, EXPORTS, STATE, environment
from tests.contract.strictbucket import strict_buckets
from tests.contract.topics import topic_server
from tests.ports import free_port
from tests.webhooks.receiver import Receiver, receiver

ROOT = Path(__file__).parents[1]
SECRET = "whsec_" + base64.b64encode(b"a secret for this benchmark alone").decode()
BARE = """
import functions_framework

@functions_framework.http
def bare(request):
    return "{}"
"""


def main() -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description=__doc__)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--outcomes", type=int, default=100, help="one after the other")
    parser.add_argument("--burst", type=int, default=1000, help="outcomes at once")
    parser.add_argument("--rounds", type=int, default=7, help="of cold starts")
    parser.add_argument("--python", default=sys.executable, help="what is started cold")
    flags = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {load:.1f} before the run")
    with tempfile.TemporaryDirectory() as folder:
        on_the_stack(Path(folder), flags)
        cold_starts(Path(folder), flags.python, flags.rounds)
    return 0


def on_the_stack(folder: Path, flags: argparse.Namespace) -> None:
    """The figures of the running system."""
    with receiver() as calls:
        env = {
            "WEBHOOKS": json.dumps({"measured": {"url": calls.url}}),
            "WEBHOOK_SECRET_MEASURED": SECRET,
            "COMMANDS_PER_MINUTE": "100000",
        }
        with Stack(folder / "stack", env=env, functions=["commands", "notify"]) as stack:
            times_ms = commands_ms(stack, flags.commands)
            show("POST /exports to 202", times_ms)
            topic = stack.topology.topics["outcomes"]
            name = "projects/local/subscriptions/measured"
            push = {"pushEndpoint": f"{stack.function_url('notify')}/webhooks/measured"}
            stack.pubsub.ensure_subscription(name, topic, {"pushConfig": push})
            channel = grpc.insecure_channel(stack.addresses.pubsub)
            publisher = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=channel))
            show("outcome published to receiver called", calls_ms(publisher, topic, calls, flags))
            rate = rate_per_s(publisher, topic, calls, flags.burst)
            print(f"{flags.burst} outcomes at once: {rate:.0f} a second to one receiver")


def commands_ms(stack: Stack, count: int) -> list[float]:
    """Exports by one caller, one after the other."""
    url = f"{stack.function_url('commands')}/exports"
    times = []
    with requests.Session() as session:
        for number in range(count + 1):
            start = time.perf_counter()
            answer = session.post(url, json={**EXPORT, "request_id": f"measured-{number}"})
            times.append((time.perf_counter() - start) * 1000)
            assert answer.status_code == 202, answer.text
    return times[1:]  # without the first publish of the process


def record(number: int) -> bytes:
    """An outcome record."""
    return json.dumps(
        {
            "id": f"{number:032d}",
            "time": "2026-11-24T10:00:00.000000Z",
            "outcome": "stored",
            "function": "store_upload",
            "study": "1.2.3",
        }
    ).encode()


def calls_ms(
    publisher: pubsub_v1.PublisherClient, topic: str, calls: Receiver, flags: argparse.Namespace
) -> list[float]:
    """From the publish of one outcome to its call, one after the other."""
    times = []
    for number in range(flags.outcomes + 1):
        before = len(calls.calls)
        start = time.time()
        publisher.publish(topic, record(number), outcome="stored").result(60)
        wait_for(calls, before + 1)
        times.append((calls.calls[-1].at_s - start) * 1000)
    return times[1:]


def rate_per_s(
    publisher: pubsub_v1.PublisherClient, topic: str, calls: Receiver, count: int
) -> float:
    """How fast a backlog of so many outcomes is worked off."""
    before = len(calls.calls)
    start = time.time()
    sent = [publisher.publish(topic, record(n), outcome="stored") for n in range(count)]
    for one in sent:
        one.result(60)
    wait_for(calls, before + count)
    return count / (calls.calls[-1].at_s - start)


def wait_for(calls: Receiver, count: int) -> None:
    """Wait until so many calls came."""
    end = time.monotonic() + 300
    while len(calls.calls) < count:
        assert time.monotonic() < end, "the calls did not come"
        time.sleep(0.001)


def cold_starts(folder: Path, python: str, rounds: int) -> None:
    """From the start of a process to its first answer, compared with a bare function."""
    source = folder / "bare.py"
    source.write_text(BARE)
    bare, refused, published = list[float](), list[float](), list[float]()
    with strict_buckets(STATE) as buckets, topic_server(EXPORTS, DELETES) as topics:
        environ = environment(buckets, topics)
        main_file = ROOT / "main.py"
        for _ in range(rounds + 1):
            bare.append(cold_start_s(python, source, "bare", environ, {}))
            refused.append(cold_start_s(python, main_file, "commands", environ, {}))
            published.append(cold_start_s(python, main_file, "commands", environ, EXPORT))
    base = statistics.median(bare[1:])
    print(f"cold start of a bare function: {base:.2f} s")
    for name, times in (("a refusal", refused), ("the first publish", published)):
        taken = statistics.median(times[1:])
        print(f"cold start of commands to {name}: {taken:.2f} s, {taken / base:.2f} times")


def cold_start_s(
    python: str, source: Path, target: str, environ: Mapping[str, str], body: Mapping[str, Any]
) -> float:
    """Start it, send one command until it is answered, and stop it."""
    start = time.perf_counter()
    with serving(python, source, target, environ) as url:
        while True:
            with contextlib.suppress(requests.ConnectionError):
                answer = requests.post(f"{url}/exports", json=body, timeout=60)
                taken = time.perf_counter() - start
                expected = {"bare": 200}.get(target, 202 if body else 400)
                assert answer.status_code == expected, answer.text
                return taken
            time.sleep(0.002)


@contextlib.contextmanager
def serving(python: str, source: Path, target: str, environ: Mapping[str, str]) -> Iterator[str]:
    """A function under functions-framework until the `with` block ends; yields its URL."""
    with free_port() as port:
        options = ["--target", target, "--source", str(source), "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [python, "-m", "functions_framework", *options, "--port", str(port)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def show(what: str, times_ms: list[float]) -> None:
    """Median and 95th percentile."""
    last = statistics.quantiles(times_ms, n=20)[-1]
    print(f"{what}: median {statistics.median(times_ms):.0f} ms, p95 {last:.0f} ms")


if __name__ == "__main__":
    sys.exit(main())

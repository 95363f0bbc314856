"""What limits the store function at 10, 1,000 and 100,000 instances a second: arrivals,
concurrency, retries, quota.

    python -m benchmarks.scale_simulation [--seconds 3600] [--seed 1] [--json FILE] [--plot FILE]

A model, not a measurement: messages arrive at random, wait in Pub/Sub, are pushed to instances that
take time to start, and call a DICOM store that takes some time and refuses calls over its quota.
Then they are retried within the invocation, later by Pub/Sub with its back-off, and in the end they
are dead letters. The numbers of the system are read from infra/topology.json; values that depend on
the cloud (the time of a store call, the quota) are parameters. Of many messages, one in `weight` is
simulated, with capacity and quota in proportion.
"""

import argparse
import heapq
import json
import math
import random
import statistics
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOPOLOGY = json.loads((ROOT / "infra" / "topology.json").read_text())
DELIVERY = TOPOLOGY["delivery"]
MAX_ATTEMPTS = int(TOPOLOGY["functions"]["store_upload"]["max_delivery_attempts"])

INLINE_TRIES = 4  # functions/common/clients/transport.py: the first and three more
INLINE_BACKOFF_S = 0.5
INLINE_BACKOFF_MAX_S = 8.0
REFUSAL_S = 0.02  # a 429 comes back at once
FOLLOWED_PER_S = 60  # messages a second that are simulated


@dataclass(frozen=True)
class Scenario:
    """One load on one size of the system.

    Args:
        rate: instances (messages) a second.
        max_instances, concurrency: of the function.
        call_s: seconds from delivery to outcome without waiting, on average.
        quota: store calls a second that the DICOM store accepts; 0: no limit.
        cold_start_s: until an instance accepts its first request.
        starts_per_s: instances that Cloud Run starts a second, at most.
        load_s: how long messages arrive.
    """

    name: str
    rate: float
    max_instances: int
    concurrency: int
    call_s: float = 0.4
    quota: float = 0.0
    cold_start_s: float = 2.0
    starts_per_s: float = 10.0
    load_s: float = 300.0


@dataclass
class Result:
    """The result; each simulated message stands for `weight` messages."""

    scenario: Scenario
    weight: float
    arrived: int = 0
    done: int = 0
    dead: int = 0
    deliveries: int = 0
    store_calls: int = 0
    refused: int = 0
    instances: int = 0
    ended_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    backlog: list[tuple[float, float]] = field(default_factory=list)
    finished: list[tuple[float, float]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The numbers of the table."""
        waits = sorted(self.waits_s) or [math.nan]
        return {
            **asdict(self.scenario),
            "needed_slots": round(self.scenario.rate * self.scenario.call_s),
            "slots": self.scenario.max_instances * self.scenario.concurrency,
            "stored_per_s": round(self.done * self.weight / max(self.ended_s, 1), 1),
            "p50_s": round(statistics.median(waits), 1),
            "p99_s": round(waits[min(len(waits) - 1, int(len(waits) * 0.99))], 1),
            "peak_backlog": round(max((count for _, count in self.backlog), default=0)),
            "drained_s": round(self.ended_s) if self.done + self.dead == self.arrived else None,
            "waiting_at_the_end": round((self.arrived - self.done - self.dead) * self.weight),
            "dead_letters": round(self.dead * self.weight),
            "deliveries_each": round(self.deliveries / max(self.arrived, 1), 2),
            "store_calls_each": round(self.store_calls / max(self.arrived, 1), 2),
            "refused_share": round(self.refused / max(self.store_calls, 1), 3),
            "instances": round(self.instances),
        }


@dataclass(order=True)
class _Event:
    at_s: float
    order: int
    kind: str = field(compare=False)
    message: "_Message | None" = field(compare=False, default=None)


@dataclass
class _Message:
    arrived_s: float
    attempt: int = 0
    tries: int = 0


class Simulation:
    """Runs one scenario, event by event."""

    def __init__(self, scenario: Scenario, seconds: float, seed: int) -> None:
        self.scenario, self.seconds = scenario, seconds
        self.random = random.Random(seed)
        self.weight = max(1.0, scenario.rate / FOLLOWED_PER_S)
        self.result = Result(scenario, self.weight)
        self.events: list[_Event] = []
        self.order = 0
        self.queue: deque[_Message] = deque()
        self.running = 0
        self.ready_slots = 0.0
        self.tokens = 0.0
        self.tokens_at_s = 0.0
        self.starting = 0.0
        self.instances = 0.0

    def run(self) -> Result:
        """Run until all messages are done, or the time is over."""
        self._push(self.random.expovariate(self.scenario.rate / self.weight), "arrive")
        self._push(0.0, "second")
        while self.events:
            event = heapq.heappop(self.events)
            if event.at_s > self.seconds:
                break
            getattr(self, f"_{event.kind}")(event)
            if event.kind != "second":
                self.result.ended_s = event.at_s
        self.result.instances = math.ceil(self.instances)
        return self.result

    def _push(self, at_s: float, kind: str, message: _Message | None = None) -> None:
        self.order += 1
        heapq.heappush(self.events, _Event(at_s, self.order, kind, message))

    def _arrive(self, event: _Event) -> None:
        self.result.arrived += 1
        self._deliverable(event.at_s, _Message(event.at_s))
        following = event.at_s + self.random.expovariate(self.scenario.rate / self.weight)
        if following < self.scenario.load_s:
            self._push(following, "arrive")

    def _deliverable(self, at_s: float, message: _Message) -> None:
        self.queue.append(message)
        self._dispatch(at_s)

    def _redeliver(self, event: _Event) -> None:
        assert event.message
        self._deliverable(event.at_s, event.message)

    def _dispatch(self, at_s: float) -> None:
        """Push while an instance has room."""
        while self.queue and self.running < self.ready_slots:
            message = self.queue.popleft()
            message.attempt += 1
            message.tries = 0
            self.result.deliveries += 1
            self.running += 1
            self._call(at_s, message)

    def _call(self, at_s: float, message: _Message) -> None:
        """One store call: accepted, or refused at once."""
        message.tries += 1
        self.result.store_calls += 1
        if self._take_token(at_s):
            # Long tail: one call in a hundred takes four times as long as the middle one.
            took_s = self.scenario.call_s * self.random.lognormvariate(-0.18, 0.6)
            self._push(at_s + took_s, "stored", message)
            return
        self.result.refused += 1
        if message.tries < INLINE_TRIES:
            ceiling_s = min(INLINE_BACKOFF_MAX_S, INLINE_BACKOFF_S * 2**message.tries)
            self._push(at_s + REFUSAL_S + self.random.uniform(0, ceiling_s), "again", message)
        else:
            self._push(at_s + REFUSAL_S, "hand_back", message)

    def _again(self, event: _Event) -> None:
        assert event.message
        self._call(event.at_s, event.message)

    def _stored(self, event: _Event) -> None:
        assert event.message
        self.result.done += 1
        self.result.waits_s.append(event.at_s - event.message.arrived_s)
        self._free(event.at_s)

    def _hand_back(self, event: _Event) -> None:
        """503: Pub/Sub waits longer each time, and gives up after so many."""
        message = event.message
        assert message
        if message.attempt >= MAX_ATTEMPTS:
            self.result.dead += 1
        else:
            least, most = DELIVERY["minimum_backoff_s"], DELIVERY["maximum_backoff_s"]
            wait_s = min(most, least * 2 ** (message.attempt - 1)) * self.random.uniform(0.9, 1.1)
            self._push(event.at_s + wait_s, "redeliver", message)
        self._free(event.at_s)

    def _free(self, at_s: float) -> None:
        self.running -= 1
        self._dispatch(at_s)

    def _take_token(self, at_s: float) -> bool:
        """A bucket of ten seconds' worth, filled at the quota's rate."""
        if not self.scenario.quota:
            return True
        rate = self.scenario.quota / self.weight
        self.tokens = min(rate * 10, self.tokens + (at_s - self.tokens_at_s) * rate)
        self.tokens_at_s = at_s
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def _second(self, event: _Event) -> None:
        """Scale like Cloud Run: instances for all running and waiting requests, at 60 % of their
        concurrency."""
        scenario = self.scenario
        waiting = len(self.queue) * self.weight
        wanted = (self.running * self.weight + waiting) / (scenario.concurrency * 0.6)
        wanted = min(scenario.max_instances, max(wanted, 1.0))
        start = min(max(0.0, wanted - self.instances - self.starting), scenario.starts_per_s)
        if start > 0:
            self.starting += start
            self._push(event.at_s + scenario.cold_start_s, "started", _Message(start))
        unfinished = self.result.arrived - self.result.done - self.result.dead
        self.result.backlog.append((event.at_s, unfinished * self.weight))
        self.result.finished.append((event.at_s, self.result.done * self.weight))
        if event.at_s < scenario.load_s or unfinished:
            self._push(event.at_s + 1, "second")

    def _started(self, event: _Event) -> None:
        assert event.message
        self.instances += event.message.arrived_s  # carries how many
        self.starting -= event.message.arrived_s
        self.ready_slots = self.instances * self.scenario.concurrency / self.weight
        self._dispatch(event.at_s)


SCENARIOS = (
    Scenario("10/s, defaults", 10, 10, 8),
    Scenario("100/s, defaults", 100, 10, 8),
    Scenario("1,000/s, defaults", 1_000, 10, 8),
    Scenario("1,000/s, 100 instances", 1_000, 100, 8),
    Scenario("1,000/s, 100 instances, quota 500/s", 1_000, 100, 8, quota=500),
    Scenario("1,000/s, 30 instances, quota 500/s", 1_000, 30, 8, quota=500),
    Scenario("100,000/s, 1,000 instances", 100_000, 1_000, 8, starts_per_s=50),
    Scenario("100,000/s, 10,000 instances", 100_000, 10_000, 8, starts_per_s=50),
    Scenario(
        "100,000/s, 10,000 instances, quota 5,000/s",
        100_000,
        10_000,
        8,
        quota=5_000,
        starts_per_s=50,
    ),
)


def table(results: Sequence[Result]) -> str:
    """The table of docs/scale.md."""
    rows = [
        "| load and size | slots needed / there | stored a second | p50, p99 to outcome "
        "| most waiting | done after | still waiting | dead letters | deliveries each "
        "| store calls refused |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        s = result.summary()
        done = "–" if s["drained_s"] is None else f"{s['drained_s']:,} s"
        cells = (
            s["name"],
            f"{s['needed_slots']:,} / {s['slots']:,}",
            f"{s['stored_per_s']:,.0f}",
            f"{s['p50_s']:g} s, {s['p99_s']:g} s",
            f"{s['peak_backlog']:,}",
            done,
            f"{s['waiting_at_the_end']:,}",
            f"{s['dead_letters']:,}",
            f"{s['deliveries_each']:g}",
            f"{s['refused_share']:.0%}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def plot(results: Sequence[Result], path: Path) -> None:
    """Waiting and stored messages over time, one panel for each load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    loads = sorted({result.scenario.rate for result in results})
    figure, panels = pyplot.subplots(2, len(loads), figsize=(5 * len(loads), 6.5), squeeze=False)
    for column, load in enumerate(loads):
        for result in results:
            if result.scenario.rate == load:
                label = result.scenario.name.partition(", ")[2]
                for row, series in enumerate((result.backlog, result.finished)):
                    panels[row][column].plot(
                        [t for t, _ in series], [n for _, n in series], label=label
                    )
        panels[0][column].set_title(f"{load:,.0f} instances a second for 5 minutes")
        panels[1][column].set_xlabel("seconds")
        panels[0][column].legend(fontsize=7)
    panels[0][0].set_ylabel("waiting or in work")
    panels[1][0].set_ylabel("stored")
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})


def main(arguments: list[str] | None = None) -> int:
    """Run every scenario."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale_simulation", description="Scale on paper."
    )
    parser.add_argument("--seconds", type=float, default=3600, help="of simulated time at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--plot", type=Path, help="draw the picture here (needs matplotlib)")
    options = parser.parse_args(arguments)
    results = [Simulation(scenario, options.seconds, options.seed).run() for scenario in SCENARIOS]
    print(table(results))
    if options.json:
        options.json.write_text(
            json.dumps([result.summary() for result in results], indent=2) + "\n"
        )
    if options.plot:
        plot(results, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

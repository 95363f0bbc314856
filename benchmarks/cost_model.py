"""What a month costs: this system, the naive function, and the native bulk import.

    python -m benchmarks.cost_model [--measured FILE] [--instance-kib 513] [--largest-mib 1024]
    [--latency 0.3]

CPU and memory of one instance come from benchmarks/cost_measure.py. Prices are list prices in USD
for us-central1, without discounts, each with the date on which it was looked up. They change: check
them before relying on a figure. Values that could be neither measured nor looked up are parameters.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MIB: Final = 1024**2
GIB: Final = 1024**3
MONTHS_OF_DAYS: Final = 30
VOLUMES: Final = (1_000, 1_000_000, 100_000_000)
MEASURED: Final = Path(__file__).parent / "cost_measured.json"


@dataclass(frozen=True)
class Price:
    """A list price in USD.

    Args:
        usd: for one unit.
        unit: the unit.
        free: how many units a month are free.
        page: below cloud.google.com, where it is published.
        looked_up: the date of the last comparison with the page.
    """

    what: str
    usd: float
    unit: str
    free: float
    page: str
    looked_up: str

    def of(self, units: float) -> float:
        """USD of so many units in a month."""
        return max(0.0, units - self.free) * self.usd


def _price(what: str, usd: float, unit: str, page: str, free: float = 0.0) -> Price:
    return Price(what, usd, unit, free, page, looked_up="2026-11-24")


# Request-based billing in a region of tier 1.
CPU: Final = _price("Cloud Run, CPU", 0.000024, "vCPU-second", "run/pricing", free=180_000)
MEMORY: Final = _price("Cloud Run, memory", 0.0000025, "GiB-second", "run/pricing", free=360_000)
REQUESTS: Final = _price("Cloud Run, requests", 0.40, "million", "run/pricing", free=2)
# Pub/Sub counts at least 1,000 bytes a request, both when published and when delivered.
MESSAGES: Final = _price(
    "Pub/Sub, messages (40 a TiB)", 40 / 1024, "GiB", "pubsub/pricing", free=10
)
MESSAGES_TO_BUCKET: Final = _price(
    "Pub/Sub into a bucket (50 a TiB)", 50 / 1024, "GiB", "pubsub/pricing"
)
BUCKET: Final = _price("Cloud Storage, Standard", 0.020, "GiB", "storage/pricing")
CLASS_A: Final = _price("Cloud Storage, writes", 0.005, "thousand", "storage/pricing")
CLASS_B: Final = _price("Cloud Storage, reads", 0.0004, "thousand", "storage/pricing")
STORE_REQUESTS: Final = _price(
    "DICOM store, requests", 0.39, "100,000", "healthcare-api/pricing", free=0.25
)
BLOBS: Final = _price("DICOM store, blobs", 0.02, "GiB", "healthcare-api/pricing", free=1)
STRUCTURED: Final = _price("DICOM store, metadata", 0.24, "GiB", "healthcare-api/pricing", free=1)
STRUCTURED_ABOVE: Final = _price(
    "DICOM store, metadata above 1,024 GiB", 0.19, "GiB", "healthcare-api/pricing", free=1024
)
LOGS: Final = _price("Cloud Logging", 0.50, "GiB", "stackdriver/pricing", free=50)
PRICES: Final = (
    CPU,
    MEMORY,
    REQUESTS,
    MESSAGES,
    MESSAGES_TO_BUCKET,
    BUCKET,
    CLASS_A,
    CLASS_B,
    STORE_REQUESTS,
    BLOBS,
    STRUCTURED,
    STRUCTURED_ABOVE,
    LOGS,
)

NOTICE_BYTES: Final = 2_000  # a notification of Cloud Storage, with attributes
OUTCOME_BYTES: Final = 1_000  # less than that, and so the minimum
LOG_BYTES: Final = 1_600  # the outcome's line and Cloud Run's own
METADATA_BYTES: Final = 4_096  # the DICOM store's metadata of one instance
SOFT_DELETE_DAYS: Final = 7  # infra/gcp/storage.tf: how long deleted objects are paid for
LEDGER_OBJECTS: Final = 60 * 24 * MONTHS_OF_DAYS  # one a minute


@dataclass(frozen=True)
class Way:
    """One way to get instances into the store.

    Args:
        cpu_s: measured CPU seconds of an instance.
        memory_gib: of a function's instance.
        concurrency: requests at a time in one instance.
        outcomes: whether there are outcome records and a ledger.
        function: whether there is a function at all.
    """

    name: str
    cpu_s: float
    memory_gib: float
    concurrency: int
    outcomes: bool
    function: bool = True

    def instance_s(self, latency_s: float) -> float:
        """Seconds of a function's instance for one object: it waits together with other objects,
        but computes alone."""
        return max(self.cpu_s / 0.7, (self.cpu_s + latency_s) / self.concurrency)


def step(gib: float) -> float:
    """The next size of memory that Cloud Run functions come in."""
    return max(0.25, 2.0 ** math.ceil(math.log2(gib)))


def cost(way: Way, count: int, size_bytes: float, latency_s: float) -> dict[str, float]:
    """USD of a month by purpose, after free tiers."""
    lines = {
        "function": 0.0,
        "Pub/Sub": 0.0,
        "requests to the store": 0.0,
        "bucket": _bucket(way, count, size_bytes),
        "logs": 0.0,
        "DICOM storage": dicom_storage(count, size_bytes),
    }
    if way.function:
        lines["function"] = _function(way, count, latency_s)
        lines["Pub/Sub"] = _messages(way, count)
        lines["requests to the store"] = STORE_REQUESTS.of(count / 100_000)
        lines["logs"] = LOGS.of(count * LOG_BYTES / GIB)
    return lines


def _function(way: Way, count: int, latency_s: float) -> float:
    seconds = count * way.instance_s(latency_s)
    return CPU.of(seconds) + MEMORY.of(seconds * way.memory_gib) + REQUESTS.of(count / 1e6)


def _messages(way: Way, count: int) -> float:
    notices = 2 * NOTICE_BYTES * count
    if not way.outcomes:
        return MESSAGES.of(notices / GIB)
    outcomes = OUTCOME_BYTES * count
    return MESSAGES.of((notices + outcomes) / GIB) + MESSAGES_TO_BUCKET.of(outcomes / GIB)


def _bucket(way: Way, count: int, size_bytes: float) -> float:
    """Each object is written and read once, and paid for until its soft delete ends."""
    kept_bytes = size_bytes * count * SOFT_DELETE_DAYS / MONTHS_OF_DAYS
    writes = count
    if way.outcomes:
        kept_bytes += count * OUTCOME_BYTES
        writes += min(LEDGER_OBJECTS, count)
    return BUCKET.of(kept_bytes / GIB) + CLASS_A.of(writes / 1000) + CLASS_B.of(count / 1000)


def dicom_storage(count: int, size_bytes: float) -> float:
    """USD a month for so many instances in the DICOM store."""
    metadata_gib = count * METADATA_BYTES / GIB
    return (
        BLOBS.of(count * size_bytes / GIB)
        + STRUCTURED.of(min(metadata_gib, STRUCTURED_ABOVE.free))
        + STRUCTURED_ABOVE.of(metadata_gib)
    )


def ways(measured: Mapping[str, Any], largest_bytes: float) -> tuple[Way, ...]:
    """The three ways, sized for the largest instance."""
    ours, naive = measured["ours"], measured["naive"]
    large_bytes = float(measured["large_bytes"])
    grew_bytes = (naive["large_peak_mib"] - naive["idle_mib"]) * MIB
    grows = grew_bytes / large_bytes
    naive_gib = step((naive["idle_mib"] * MIB + grows * largest_bytes) / GIB)
    return (
        Way("this system", ours["cpu_s"], 0.5, 8, outcomes=True),
        Way("naive function", naive["cpu_s"], naive_gib, 1, outcomes=False),
        Way("native import", 0.0, 0.0, 1, outcomes=False, function=False),
    )


def table(found: tuple[Way, ...], size_bytes: float, latency_s: float) -> str:
    """The tables of docs/cost.md."""
    lines = []
    for count in VOLUMES:
        costs = {way.name: cost(way, count, size_bytes, latency_s) for way in found}
        lines += [f"**{count:,} instances a month** ({count * size_bytes / GIB:,.1f} GiB)", ""]
        lines += [f"| USD | {' | '.join(costs)} |", "|---|" + "---:|" * len(costs)]
        for part in costs[found[0].name]:
            lines.append(
                f"| {part} | {' | '.join(f'{one[part]:,.2f}' for one in costs.values())} |"
            )
        sums = [f"**{sum(one.values()):,.2f}**" for one in costs.values()]
        moved = [f"{sum(one.values()) - one['DICOM storage']:,.2f}" for one in costs.values()]
        lines += [
            f"| **all** | {' | '.join(sums)} |",
            f"| without DICOM storage | {' | '.join(moved)} |",
            "",
        ]
    ours, _, native = (cost(way, VOLUMES[-1], size_bytes, latency_s) for way in found)
    saved = (sum(ours.values()) - sum(native.values())) / (VOLUMES[-1] * size_bytes / GIB)
    lines += [
        f"Import saves at most {saved:.4f} USD a GiB; "
        "its own price a GiB (ETL operations) is not in the table."
    ]
    return "\n".join(lines)


def price_table() -> str:
    """The prices in docs/cost.md."""
    lines = [
        "| what | USD | for each | free a month | page | looked up |",
        "|---|---:|---|---:|---|---|",
    ]
    for price in PRICES:
        cells = (
            price.what,
            f"{price.usd:.7f}".rstrip("0"),
            price.unit,
            f"{price.free:,g}",
            f"[{price.page}](https://cloud.google.com/{price.page})",
            price.looked_up,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost_model", description="What a month costs."
    )
    parser.add_argument(
        "--measured", type=Path, default=MEASURED, help="of benchmarks/cost_measure.py"
    )
    parser.add_argument(
        "--instance-kib", type=float, default=513, help="size of an instance (a CT slice)"
    )
    parser.add_argument(
        "--largest-mib", type=float, default=1024, help="the largest that the function must take"
    )
    parser.add_argument(
        "--latency",
        type=float,
        default=0.3,
        help="seconds that bucket and store take, in the cloud",
    )
    parser.add_argument("--prices", action="store_true", help="print the prices instead")
    options = parser.parse_args(arguments)
    if options.prices:
        print(price_table())
        return 0
    found = ways(json.loads(options.measured.read_text()), options.largest_mib * MIB)
    for way in found[:2]:
        seconds = way.instance_s(options.latency)
        print(
            f"{way.name}: {way.memory_gib:g} GiB, "
            f"{seconds * 1000:.1f} ms of an instance for each object"
        )
    print()
    print(table(found, options.instance_kib * 1024, options.latency))
    return 0


if __name__ == "__main__":
    sys.exit(main())

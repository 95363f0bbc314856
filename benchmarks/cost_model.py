"""What a month costs: this system, the naive function, and the native bulk import.

    python -m benchmarks.cost_model [--measured FILE] [--instance-kib 513] [--largest-mib 1024]
    [--latency 0.3]

CPU and memory of one instance come from benchmarks/cost_measure.py. Prices are list prices in USD
for us-central1, without discounts; they change, so check them before relying on a figure. What
could be neither measured nor looked up is a parameter.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GIB: Final = 1024**3
TIB: Final = 1024**4
MONTHS_OF_DAYS: Final = 30
VOLUMES: Final = (1_000, 1_000_000, 100_000_000)
MEASURED: Final = Path(__file__).parent / "cost_measured.json"

# Cloud Run, request-based billing, tier 1 (cloud.google.com/run/pricing).
CPU_S, MEMORY_GIB_S, REQUESTS_M = 0.000024, 0.0000025, 0.40
FREE_CPU_S, FREE_GIB_S, FREE_REQUESTS = 180_000, 360_000, 2_000_000
# Pub/Sub (cloud.google.com/pubsub/pricing): at least 1,000 bytes a request; a subscription into a
# bucket costs more.
PUBSUB_TIB, PUBSUB_TO_STORAGE_TIB, FREE_PUBSUB_BYTES = 40.0, 50.0, 10 * GIB
# Cloud Storage, Standard in one region (cloud.google.com/storage/pricing).
STORAGE_GIB, CLASS_A, CLASS_B = 0.020, 0.005 / 1000, 0.0004 / 1000
# Healthcare API (cloud.google.com/healthcare-api/pricing): a store request is a standard one.
HEALTHCARE_REQUEST, FREE_HEALTHCARE = 0.39 / 100_000, 25_000
BLOB_GIB, STRUCTURED_GIB = 0.02, 0.24
# Cloud Logging.
LOG_GIB, FREE_LOG_BYTES = 0.50, 50 * GIB

NOTICE_BYTES: Final = 2_000  # what Cloud Storage says of an object, attributes included
OUTCOME_BYTES: Final = 1_000  # less than that, and so the minimum
LOG_BYTES: Final = 1_600  # the outcome's line and Cloud Run's own
METADATA_BYTES: Final = 4_096  # what the DICOM store keeps for searching, of one instance
SOFT_DELETE_DAYS: Final = 7  # infra/gcp/storage.tf: what is deleted is paid for so long
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
        """Seconds of a function's instance for one object: it waits for the store with others, but
        computes alone."""
        return max(self.cpu_s / 0.7, (self.cpu_s + latency_s) / self.concurrency)


def step(gib: float) -> float:
    """The next size of memory that Cloud Run functions come in."""
    return max(0.25, 2.0 ** math.ceil(math.log2(gib)))


def cost(way: Way, count: int, size_bytes: float, latency_s: float) -> dict[str, float]:
    """USD of a month by what they are for, free tiers taken off."""
    lines = {
        "function": 0.0,
        "Pub/Sub": 0.0,
        "requests to the store": 0.0,
        "bucket": 0.0,
        "logs": 0.0,
    }
    if way.function:
        seconds = count * way.instance_s(latency_s)
        lines["function"] = (
            max(0.0, seconds - FREE_CPU_S) * CPU_S
            + max(0.0, seconds * way.memory_gib - FREE_GIB_S) * MEMORY_GIB_S
            + max(0, count - FREE_REQUESTS) / 1e6 * REQUESTS_M
        )
        volume = count * (2 * NOTICE_BYTES + (OUTCOME_BYTES if way.outcomes else 0))
        lines["Pub/Sub"] = max(0.0, volume - FREE_PUBSUB_BYTES) / TIB * PUBSUB_TIB
        if way.outcomes:
            lines["Pub/Sub"] += count * OUTCOME_BYTES / TIB * PUBSUB_TO_STORAGE_TIB
        lines["requests to the store"] = max(0, count - FREE_HEALTHCARE) * HEALTHCARE_REQUEST
        lines["logs"] = max(0.0, count * LOG_BYTES - FREE_LOG_BYTES) / GIB * LOG_GIB
    kept = size_bytes * count * SOFT_DELETE_DAYS / MONTHS_OF_DAYS
    lines["bucket"] = kept / GIB * STORAGE_GIB + count * (CLASS_A + CLASS_B)
    if way.outcomes:
        lines["bucket"] += (
            min(LEDGER_OBJECTS, count) * CLASS_A + count * OUTCOME_BYTES / GIB * STORAGE_GIB
        )
    lines["DICOM storage"] = count * (size_bytes * BLOB_GIB + METADATA_BYTES * STRUCTURED_GIB) / GIB
    return lines


def ways(measured: Mapping[str, Mapping[str, float]], largest_bytes: float) -> tuple[Way, ...]:
    """The three, sized for the largest instance that may come."""
    ours, naive = measured["ours"], measured["naive"]
    grows = (naive["large_peak_mib"] - naive["idle_mib"]) * 1024**2 / float(measured["large_bytes"])  # type: ignore[arg-type]
    naive_gib = step((naive["idle_mib"] * 1024**2 + grows * largest_bytes) / GIB)
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
        f"Import saves at most {saved:.4f} USD a GiB; its own price a GiB (ETL operations) is not in the table."
    ]
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
    options = parser.parse_args(arguments)
    found = ways(json.loads(options.measured.read_text()), options.largest_mib * 1024**2)
    for way in found[:2]:
        seconds = way.instance_s(options.latency)
        print(
            f"{way.name}: {way.memory_gib:g} GiB, {seconds * 1000:.1f} ms of an instance for each object"
        )
    print()
    print(table(found, options.instance_kib * 1024, options.latency))
    return 0


if __name__ == "__main__":
    sys.exit(main())

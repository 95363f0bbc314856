"""The cost model and the scale simulation: they add up, and the documents show what they print."""

import json
from datetime import date

import pytest

from benchmarks import cost_model
from benchmarks.scale_simulation import MAX_ATTEMPTS, SCENARIOS, Scenario, Simulation, table
from tests.infra.terraform import ROOT


def between(document: str, name: str) -> str:
    """What stands between two marks of a document."""
    text = (ROOT / "docs" / document).read_text()
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0].strip()


def run(scenario: Scenario, seconds: float = 3600) -> dict[str, float]:
    result = Simulation(scenario, seconds, seed=7).run()
    waiting = result.arrived - result.done - result.dead
    assert waiting >= 0
    assert len(result.waits_s) == result.done
    assert result.deliveries <= result.arrived * MAX_ATTEMPTS
    assert result.store_calls == result.refused + result.done or waiting
    return result.summary()


def test_with_room_everything_is_stored_at_once() -> None:
    found = run(Scenario("room", 20, 20, 8, load_s=60))
    assert found["waiting_at_the_end"] == 0
    assert found["dead_letters"] == 0
    assert found["deliveries_each"] == 1
    assert found["p50_s"] < 1


def test_too_small_is_later_and_not_less() -> None:
    found = run(Scenario("small", 50, 2, 4, load_s=60))
    assert found["waiting_at_the_end"] == 0
    assert found["dead_letters"] == 0
    assert found["stored_per_s"] <= 2 * 4 / 0.4 * 1.15  # the slots, and nothing above
    assert found["drained_s"] > 120


def test_quota_holds_and_retries_do_not_multiply_calls_for_ever() -> None:
    found = run(Scenario("quota", 50, 20, 8, quota=20, load_s=60))
    assert found["stored_per_s"] <= 21 + 20 * 10 / found["drained_s"]
    assert found["refused_share"] > 0.2


def test_a_store_that_takes_nothing_ends_in_dead_letters() -> None:
    found = run(
        Scenario(
            "closed",
            5,
            5,
            4,
            quota=0.0001,
            load_s=10,
        ),
        seconds=20_000,
    )
    assert found["dead_letters"] > 0
    assert found["waiting_at_the_end"] == 0


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert run(SCENARIOS[0], 120) == run(SCENARIOS[0], 120)


def test_the_document_shows_what_the_simulation_prints() -> None:
    results = [Simulation(scenario, 3600, 1).run() for scenario in SCENARIOS]
    assert between("scale.md", "simulation") == table(results)


def test_the_document_shows_what_the_cost_model_prints(capsys: pytest.CaptureFixture[str]) -> None:
    cost_model.main([])
    assert between("cost.md", "costs") == capsys.readouterr().out.strip()


def test_the_document_shows_what_was_measured() -> None:
    measured = json.loads(cost_model.MEASURED.read_text())
    shown = between("cost.md", "measured")
    for name in ("ours", "naive"):
        assert f"{measured[name]['cpu_s'] * 1000:.1f} ms" in shown
        assert f"{measured[name]['large_peak_mib']:.0f} MiB" in shown


def test_more_instances_never_cost_less() -> None:
    way = cost_model.Way("x", 0.005, 0.5, 8, outcomes=True)
    sums = [sum(cost_model.cost(way, 10**power, 500_000, 0.3).values()) for power in range(2, 10)]
    assert sums == sorted(sums)


def test_the_document_shows_each_price_with_its_page_and_date() -> None:
    assert between("cost.md", "prices") == cost_model.price_table()
    for price in cost_model.PRICES:
        assert price.page.endswith("/pricing"), price.what
        date.fromisoformat(price.looked_up)


def test_the_first_gib_in_the_dicom_store_is_free() -> None:
    per_gib = cost_model.GIB // cost_model.METADATA_BYTES
    assert cost_model.dicom_storage(per_gib, cost_model.METADATA_BYTES) == 0
    assert cost_model.dicom_storage(1, 2 * cost_model.GIB) == pytest.approx(0.02)


def test_metadata_above_a_tebibyte_costs_less() -> None:
    per_gib = cost_model.GIB // cost_model.METADATA_BYTES

    def metadata(gib: int) -> float:
        return cost_model.dicom_storage(gib * per_gib, size_bytes=0)

    assert metadata(1024) == pytest.approx(1023 * 0.24)
    assert metadata(1025) - metadata(1024) == pytest.approx(0.19)

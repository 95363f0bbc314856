"""Outputs of benchmarks are written into their own place of a document."""

import pytest

from benchmarks import record

PAGE = "# Page\n<!-- store: begin -->\nold\n<!-- store: end -->\nafter\n"


def test_an_output_replaces_the_old_one_and_nothing_else() -> None:
    page = record.with_output(PAGE, "store", "new\n")
    assert page == "# Page\n<!-- store: begin -->\nnew\n<!-- store: end -->\nafter\n"


def test_a_document_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place named export"):
        record.with_output(PAGE, "export", "new\n")


@pytest.mark.parametrize("run", record.BENCH, ids=lambda run: run.name)
def test_every_benchmark_has_its_place(run: record.Run) -> None:
    page = (record.ROOT / "docs/benchmarks.md").read_text()
    assert "only this" in record.with_output(page, run.name, "only this\n")


@pytest.mark.parametrize("run", record.CHAOS, ids=lambda run: run.name)
def test_every_test_under_faults_has_its_place(run: record.Run) -> None:
    page = (record.ROOT / "docs/reliability.md").read_text()
    assert "only this" in record.with_output(page, run.name, "only this\n")

"""The pictures of docs/benchmarks.md, drawn from what the benchmarks write with `--json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

_OURS: Final = "#2f6f9f"
_PEER: Final = "#b9c4cc"
_FACE: Final = "white"  # a page in dark mode shows the picture on a light ground


def draw(figures: Mapping[str, Any], folder: Path) -> None:
    """Draw a picture for each benchmark whose figures are there.

    Args:
        figures: by name of the benchmark: store, export, search.
        folder: where the pictures go.
    """
    # Text stays text: it can be searched, and the file is small.
    plt.rcParams["svg.fonttype"] = "none"
    plt.rcParams["svg.hashsalt"] = "dicom-functions"
    if "speed" in figures.get("store", {}):
        _peers(
            figures["store"]["speed"],
            ours="store_upload",
            columns={"mb_per_s": "MB/s", "cpu_s": "CPU s", "peak_mib": "peak MiB"},
            file=folder / "bench-store.svg",
        )
    if "by_thousand" in figures.get("store", {}):
        _each_upload(figures["store"]["by_thousand"], folder / "bench-store-items.svg")
    if "export" in figures:
        retrieved = figures["export"]["retrieve"]["local"]
        _peers(
            retrieved,
            ours="this project",
            columns={"s": "seconds", "cpu_s": "CPU s", "peak_mib": "peak MiB"},
            file=folder / "bench-export.svg",
        )
        seconds = figures["export"]["function"]["seconds_each_thousand"]
        _each_exported(seconds, folder / "bench-export-items.svg")
    if "search" in figures:
        _peers(
            {name: row for name, row in figures["search"]["speed"].items() if name != "direct"},
            ours="search",
            columns={"ms": "ms for one request", "rate": "requests per second"},
            file=folder / "bench-search.svg",
        )


def _peers(
    rows: Mapping[str, Mapping[str, float]], ours: str, columns: Mapping[str, str], file: Path
) -> None:
    """Bars beside bars: one chart for each column, one bar for each program."""
    height = 0.8 + 0.35 * len(rows)
    figure, charts = plt.subplots(
        1, len(columns), figsize=(9, height), sharey=True, facecolor=_FACE, squeeze=False
    )
    names = list(rows)[::-1]
    colours = [_OURS if name == ours else _PEER for name in names]
    for chart, (key, label) in zip(charts[0], columns.items(), strict=True):
        values = [rows[name][key] for name in names]
        bars = chart.barh(names, values, color=colours)
        chart.bar_label(bars, fmt="%.3g", padding=3)
        chart.set_title(label, fontsize=10)
        chart.set_xlim(0, max(values) * 1.25)
        chart.set_xticks([])
        chart.spines[["top", "right", "bottom"]].set_visible(False)
    _save(figure, file)


def _each_upload(rows: Sequence[Mapping[str, float]], file: Path) -> None:
    """Time and memory from the first thousand uploads to the last."""
    figure, charts = plt.subplots(1, 2, figsize=(9, 2.6), facecolor=_FACE)
    uploads = [row["from"] for row in rows]
    for chart, key, label in (
        (charts[0], "ms", "ms for each upload"),
        (charts[1], "mib", "MiB of the worker"),
    ):
        chart.plot(uploads, [row[key] for row in rows], marker="o", color=_OURS)
        chart.set_title(label, fontsize=10)
        chart.set_xlabel("uploads before", fontsize=9)
        chart.set_ylim(bottom=0)
        chart.spines[["top", "right"]].set_visible(False)
    _save(figure, file)


def _each_exported(seconds: Sequence[float], file: Path) -> None:
    """Time from the first thousand exported instances to the last."""
    figure, chart = plt.subplots(figsize=(4.5, 2.6), facecolor=_FACE)
    chart.plot([1000 * n for n in range(len(seconds))], seconds, marker="o", color=_OURS)
    chart.set_title("ms for each exported instance", fontsize=10)
    chart.set_xlabel("instances before", fontsize=9)
    chart.set_ylim(bottom=0)
    chart.spines[["top", "right"]].set_visible(False)
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)

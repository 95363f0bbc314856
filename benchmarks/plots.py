"""The pictures of docs/benchmarks.md, drawn from the benchmarks' `--json` files."""

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
    """Draw a picture for each benchmark that has figures.

    Args:
        figures: by name of the benchmark: store, export, search.
        folder: for the pictures.
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
        _lines(
            figures["store"]["by_thousand"],
            along=("from", "uploads before"),
            columns={"ms": "ms for each upload", "mib": "MiB of the worker"},
            file=folder / "bench-store-items.svg",
        )
    if "export" in figures:
        retrieved = figures["export"]["retrieve"]["local"]
        _peers(
            retrieved,
            ours="this project",
            columns={"s": "seconds", "cpu_s": "CPU s", "peak_mib": "peak MiB"},
            file=folder / "bench-export.svg",
        )
        _lines(
            figures["export"]["function"]["many"],
            along=("count", "instances of one export"),
            columns={"ms": "ms for each instance", "peak_mib": "peak MiB over the idle worker"},
            file=folder / "bench-export-items.svg",
            scale="log",
        )
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


def _lines(
    rows: Sequence[Mapping[str, float]],
    along: tuple[str, str],
    columns: Mapping[str, str],
    file: Path,
    scale: str = "linear",
) -> None:
    """A chart for each column, one beside the other.

    Args:
        along: the column of the horizontal axis, and what it is called.
        columns: what each chart shows, by its column.
        scale: of the horizontal axis.
    """
    figure, charts = plt.subplots(1, len(columns), figsize=(9, 2.6), facecolor=_FACE, squeeze=False)
    places = [row[along[0]] for row in rows]
    for chart, (key, label) in zip(charts[0], columns.items(), strict=True):
        chart.plot(places, [row[key] for row in rows], marker="o", color=_OURS)
        chart.set_title(label, fontsize=10)
        chart.set_xlabel(along[1], fontsize=9)
        chart.set_xscale(scale)
        chart.set_ylim(bottom=0)
        chart.spines[["top", "right"]].set_visible(False)
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)

"""Pictures of the figures, as SVG for the page and as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.pipeline.host import Run

_PERCENTILES = (50, 95, 99)
_OTHERS = 0.02
"""Units below this share of a core are shown together."""


def draw(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Both pictures in `folder`, which is made; the files."""
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures make the same file
    folder.mkdir(parents=True, exist_ok=True)
    return _save(_latency(runs), folder / "benchmark-latency") + _save(_cpu(runs), folder / "benchmark-cpu")


def _save(figure: Figure, stem: Path) -> list[Path]:
    files = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    for path in files:
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    return files


def _latency(runs: Sequence[Run]) -> Figure:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    sides = figure.subplots(1, 2, sharey=True)
    for axes, limits in zip(sides, (True, False), strict=True):
        for percentile, style in zip(_PERCENTILES, ("-", "--", ":"), strict=True):
            points = sorted((run.rate, run.stages["effect"][f"p{percentile}"]) for run in runs if run.limits is limits)
            axes.plot(*zip(*points, strict=True), style, marker="o", markersize=4, label=f"p{percentile}")
        axes.axhline(50, color="grey", linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="messages a second")
        axes.set_title("default limits" if limits else "without limits")
        axes.grid(visible=True, which="both", linewidth=0.3)
        axes.legend()
    sides[0].set_ylabel("ms from receipt to effect (grey: 50 ms)")
    figure.suptitle("Latency over rate")
    return figure


def _cpu(runs: Sequence[Run]) -> Figure:
    free = sorted({run.rate: run for run in runs if not run.limits}.values(), key=lambda run: run.rate)
    names = sorted({name for run in free for name, used in run.cpu.items() if used >= _OTHERS})
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    labels = [f"{run.rate:,.0f}" for run in free]
    below = [0.0] * len(free)
    for name in (*names, None):
        heights = [
            run.cpu.get(name, 0.0) if name else sum(used for unit, used in run.cpu.items() if unit not in names)
            for run in free
        ]
        axes.bar(labels, heights, bottom=below, label=name or "all others")
        below = [base + height for base, height in zip(below, heights, strict=True)]
    axes.set(xlabel="messages a second", ylabel="cores")
    axes.set_title("Where the processors' time goes, without limits (the simulator not counted)")
    axes.legend(loc="upper left", fontsize="small")
    return figure

"""Draws the dashboards from what a Prometheus has. usage: python -m tools.dashboards.pictures ADDRESS FOLDER [MINUTES]

Not Grafana: a sketch of each panel with the same expressions, units and limits, for the documents.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import matplotlib as mpl
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from roles.monitoring.files.dashboard_check import expressions
from tools.dashboards.page import Page, Panel
from tools.dashboards.pages import PAGES

_LABEL = "drawn from a running stack's Prometheus, not by Grafana"
_COLUMNS, _PER_COLUMN, _PER_LINE = 24, 0.62, 0.34
_POINTS = 120
_SERIES = 12
"""Series of a panel that are named; more are drawn without a name."""

Series = list[tuple[str, list[tuple[float, float]]]]


def asked(address: str, expression: str, legend: str, minutes: float) -> Series:
    """The series of an expression over the last minutes, named by `legend`; times are minutes before now."""
    now = time.time()
    span = {"start": now - minutes * 60, "end": now, "step": max(5.0, minutes * 60 / _POINTS)}
    with urlopen(f"{address}/api/v1/query_range?{urlencode({'query': expression, **span})}", timeout=30) as answer:  # noqa: S310
        found = json.load(answer)["data"]["result"]
    return [
        (
            _named(legend, one["metric"]),
            [((float(at) - now) / 60, float(value)) for at, value in one["values"]],
        )
        for one in found
    ]


def _named(legend: str, labels: Mapping[str, str]) -> str:
    for name in ("instance", *labels):
        legend = legend.replace(f"{{{{{name}}}}}", labels.get(name, ""))
    return legend or "value"


def draw(page: Page, limits: Mapping[str, Any], address: str, minutes: float) -> Figure:
    """One page; `limits` are the role's settings."""
    heights = [_height(row.panels) for row in page.rows]
    lines = sum(heights) + len(heights) * 2 + 3
    figure = Figure(figsize=(_COLUMNS * _PER_COLUMN, lines * _PER_LINE))
    figure.text(0.01, 1 - 1.2 / lines, page.title, fontsize=15, weight="bold", va="center")
    figure.text(0.99, 1 - 1.2 / lines, _LABEL, fontsize=9, color="grey", ha="right", va="center")
    top = 3.0
    for row, height in zip(page.rows, heights, strict=True):
        figure.text(0.01, 1 - (top + 0.7) / lines, row.title, fontsize=11, weight="bold", va="center")
        _row(figure, row.panels, top + 2, lines, limits, address, minutes)
        top += height + 2
    return figure


def _size(panel: Panel) -> int:
    return 5 if panel.kind == "stat" else 9


def _placed(panels: Any) -> list[tuple[Panel, int, int]]:
    placed, left, below, height = [], 0, 0, 0
    for panel in panels:
        if left + panel.width > _COLUMNS:
            left, below, height = 0, below + height, 0
        placed.append((panel, left, below))
        left, height = left + panel.width, max(height, _size(panel))
    return placed


def _height(panels: Any) -> int:
    return max(below + _size(panel) for panel, _, below in _placed(panels))


def _row(
    figure: Figure, panels: Any, top: float, lines: float, limits: Mapping[str, Any], address: str, minutes: float
) -> None:
    for panel, left, below in _placed(panels):
        bottom = 1 - (top + below + _size(panel) - 1.6) / lines
        box = (
            (left + 0.9) / _COLUMNS,
            bottom,
            (panel.width - 1.2) / _COLUMNS,
            (_size(panel) - 2.9) / lines,
        )
        axes = figure.add_axes(box)
        axes.set_title(f"{panel.title} ({panel.unit})", fontsize=8, loc="left")
        series: Series = []
        for query in panel.queries:
            target = {"panels": [{"targets": [{"expr": query.expr}]}]}
            (expression,) = expressions(target, __rate_interval=limits["rate_interval"])
            for name, value in limits.items():
                expression = expression.replace(f"[[ {name} ]]", str(value))
            series += asked(address, expression, query.legend, minutes)
        (_stat if panel.kind == "stat" else _lines)(axes, panel, series, limits)


def _stat(axes: Axes, panel: Panel, series: Series, limits: Mapping[str, Any]) -> None:
    axes.axis("off")
    states = dict(panel.states)
    shown = [
        (name, states.get(points[-1][1], f"{points[-1][1]:,.4g}"), points[-1][1] in panel.bad if states else False)
        for name, points in series
        if points
    ]
    if not shown:
        axes.text(0.0, 0.5, "no data", fontsize=9, color="grey", va="center")
    rows = max(1, min(3, len(shown)))
    columns = -(-len(shown) // rows) or 1
    for index, (name, value, bad) in enumerate(shown):
        at = (index // rows) / columns, 0.85 - (index % rows) / rows
        axes.text(*at, f"{value}", fontsize=9, weight="bold", color="tab:red" if bad else "tab:green", va="center")
        axes.text(at[0] + 0.42 / columns, at[1], name[:26], fontsize=6.5, va="center")


def _lines(axes: Axes, panel: Panel, series: Series, limits: Mapping[str, Any]) -> None:
    for number, (name, points) in enumerate(series):
        times, values = zip(*points, strict=True)
        axes.plot(times, values, linewidth=0.9, label=name if number < _SERIES else None)
    if panel.limit is not None:
        value = panel.limit.value
        level = float(limits[value.strip("[] ")]) if isinstance(value, str) else value
        axes.axhline(level, color="tab:red", linewidth=0.8, linestyle="--", label=f"limit {level:g}")
    if series:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.legend(fontsize=5.5, ncols=2, loc="upper left", framealpha=0.6)
    else:
        axes.text(0.5, 0.5, "no data", fontsize=9, color="grey", transform=axes.transAxes, ha="center")
    axes.tick_params(labelsize=6)
    axes.grid(visible=True, linewidth=0.3)


def settings() -> dict[str, Any]:
    """The role's defaults, and the window of rates."""
    found: dict[str, Any] = {"rate_interval": "1m"}
    roles = Path(__file__).resolve().parents[2] / "roles"
    for role in ("common", "monitoring"):
        found |= yaml.safe_load((roles / role / "defaults/main.yml").read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Draw every page into a folder, each as a PNG."""
    address, folder = sys.argv[1].rstrip("/"), Path(sys.argv[2])
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else 15.0
    mpl.rcParams["font.family"] = "DejaVu Sans"
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        draw(page, settings(), address, minutes).savefig(folder / f"dashboard-{page.name}.png", dpi=75)


if __name__ == "__main__":
    main()

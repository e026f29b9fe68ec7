"""Draws the dashboards from what a Prometheus has. usage: python -m tools.dashboards.pictures ADDRESS FOLDER [MINUTES]

Not Grafana: a sketch of each panel with the same expressions, units and limits, for the documents.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import matplotlib as mpl
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator
from roles.monitoring.files.dashboard_check import expressions

from tools.dashboards.page import Limit, Page, Panel, Query
from tools.dashboards.pages import PAGES

_LABEL = "drawn from a running stack's Prometheus, not by Grafana"
_COLUMNS, _PER_COLUMN, _PER_LINE = 24, 0.5, 0.26
_POINTS = 120
_BINARY = ("", "Ki", "Mi", "Gi", "Ti")
_DECIMAL = ("", "k", "M", "G", "T")
_UNITS: Mapping[str, tuple[str, int, Sequence[str]]] = {
    "bytes": ("B", 1024, _BINARY),
    "Bps": ("B/s", 1000, _DECIMAL),
    "cps": ("/s", 1000, _DECIMAL),
    "ops": ("ops/s", 1000, _DECIMAL),
    "reqps": ("req/s", 1000, _DECIMAL),
    "short": ("", 1000, _DECIMAL),
    "ms": ("ms", 1000, ("",)),
    "us": ("µs", 1000, ("",)),
    "s": ("s", 1000, ("",)),
    "h": ("h", 1000, ("",)),
    "percent": ("%", 1000, ("",)),
    "bool": ("", 1000, ("",)),
}
"""Of each of Grafana's units that is used: how it is written, and what a larger one is called after so many."""
_HANDLE, _LETTER = 0.4, 0.043
"""Inches that a column of a legend takes beside its words, and that a letter takes."""
_NAMED = 6
"""Lines of a panel that are named in a column of its legend; more are drawn without a name."""

Series = list[tuple[str, list[tuple[float, float]]]]


@dataclass(frozen=True)
class Data:
    """What a Prometheus has of the last minutes, and the role's `settings`."""

    address: str
    minutes: float
    settings: Mapping[str, Any]

    def of(self, panel: Panel) -> Series:
        """The series of a panel's expressions by their legends; times are minutes before now."""
        return [one for query in panel.queries for one in self._series(query)]

    def limit(self, limit: Limit) -> float:
        """The number behind a limit."""
        value = limit.value
        return float(self.settings[value.strip("[] ")] if isinstance(value, str) else value)

    def _series(self, query: Query) -> Series:
        (expression,) = expressions({"panels": [{"targets": [{"expr": query.expr}]}]})
        expression = re.sub(r"\[\[ (\w+) \]\]", lambda name: str(self.settings[name[1]]), expression)
        now = time.time()
        span = {"start": now - self.minutes * 60, "end": now, "step": max(5.0, self.minutes * 60 / _POINTS)}
        asked = f"{self.address}/api/v1/query_range?{urlencode({'query': expression, **span})}"
        with urlopen(asked, timeout=30) as answer:  # noqa: S310  # the caller's own Prometheus
            found = json.load(answer)["data"]["result"]
        return [
            (
                _named(query.legend, one["metric"]),
                [((float(at) - now) / 60, float(value)) for at, value in one["values"]],
            )
            for one in found
        ]


def _named(legend: str, labels: Mapping[str, str]) -> str:
    for name in ("instance", *labels):
        legend = legend.replace(f"{{{{{name}}}}}", labels.get(name, ""))
    return legend or "value"


def with_unit(value: float, unit: str) -> str:
    """`value` as people read it: 0.0125 ``s`` is 12.5 ms, 262144 ``bytes`` are 256 KiB."""
    if unit == "percentunit":
        value, unit = value * 100, "percent"
    if unit == "s" and 0 < abs(value) < 1:
        value, unit = value * 1000, "ms"
    if unit == "s" and abs(value) >= 7200:
        value, unit = value / 3600, "h"
    if unit == "ms" and 0 < abs(value) < 1:
        value, unit = value * 1000, "us"
    written, step, larger = _UNITS[unit]
    power = 0
    while abs(value) >= step and power < len(larger) - 1:
        value, power = value / step, power + 1
    return f"{value:,.4g} {larger[power]}{written}".rstrip()


def draw(page: Page, data: Data) -> Figure:
    """One page."""
    heights = [_height(row.panels) for row in page.rows]
    lines = sum(heights) + len(heights) * 2 + 3
    figure = Figure(figsize=(_COLUMNS * _PER_COLUMN, lines * _PER_LINE))
    figure.text(0.01, 1 - 1.2 / lines, page.title, fontsize=15, weight="bold", va="center")
    figure.text(0.99, 1 - 1.2 / lines, _LABEL, fontsize=9, color="grey", ha="right", va="center")
    top = 3.0
    for row, height in zip(page.rows, heights, strict=True):
        figure.text(0.01, 1 - (top + 0.7) / lines, row.title, fontsize=11, weight="bold", va="center")
        _row(figure, row.panels, (top + 2, lines), data)
        top += height + 2
    return figure


def _size(panel: Panel) -> int:
    return 5 if panel.kind == "stat" else 9


def _placed(panels: Sequence[Panel]) -> list[tuple[Panel, int, int]]:
    placed, left, below, height = [], 0, 0, 0
    for panel in panels:
        if left + panel.width > _COLUMNS:
            left, below, height = 0, below + height, 0
        placed.append((panel, left, below))
        left, height = left + panel.width, max(height, _size(panel))
    return placed


def _height(panels: Sequence[Panel]) -> int:
    return max(below + _size(panel) for panel, _, below in _placed(panels))


def _row(figure: Figure, panels: Sequence[Panel], at: tuple[float, float], data: Data) -> None:
    """Draw `panels` below the line `at[0]` of `at[1]` lines."""
    top, lines = at
    for panel, left, below in _placed(panels):
        bottom = 1 - (top + below + _size(panel) - 1.6) / lines
        width = (panel.width - 1.7) / _COLUMNS
        axes = figure.add_axes(((left + 1.3) / _COLUMNS, bottom, width, (_size(panel) - 2.9) / lines))
        axes.set_title(panel.title, fontsize=8, loc="left")
        if panel.kind == "stat":
            _stat(axes, panel, data.of(panel))
        else:
            _lines(axes, panel, data)


def _stat(axes: Axes, panel: Panel, series: Series) -> None:
    axes.axis("off")
    states = dict(panel.states)
    shown = [
        (
            name,
            states.get(points[-1][1], with_unit(points[-1][1], panel.unit)),
            points[-1][1] in panel.bad if states else False,
        )
        for name, points in series
        if points and points[-1][0] > -1  # what has ended is no state of now
    ]
    if not shown:
        axes.text(0.0, 0.5, "no data", fontsize=9, color="grey", va="center")
    rows = max(1, min(3, len(shown)))
    columns = -(-len(shown) // rows) or 1
    for index, (name, value, bad) in enumerate(shown):
        at = (index // rows) / columns, 0.85 - (index % rows) / rows
        shown_value = axes.text(
            *at, value, fontsize=9, weight="bold", color="tab:red" if bad else "tab:green", va="center"
        )
        axes.annotate(
            name[:20], (1, 0.5), (4, 0), shown_value, textcoords="offset points", fontsize=6.5, va="center"
        )  # behind the value


def _lines(axes: Axes, panel: Panel, data: Data) -> None:
    series = data.of(panel)
    inches = (panel.width - 1.7) * _PER_COLUMN
    if panel.limit is not None:
        level = data.limit(panel.limit)
        axes.axhline(
            level, color="tab:red", linewidth=0.8, linestyle="--", label=f"limit {with_unit(level, panel.unit)}"
        )
    for name, points in series:
        times, values = zip(*points, strict=True)
        axes.plot(times, values, linewidth=0.9, label=name)
    if series:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.xaxis.set_major_locator(MaxNLocator(max(3, int(inches * 2))))
        legend(axes, inches)
    else:
        axes.text(0.5, 0.5, "no data", fontsize=9, color="grey", transform=axes.transAxes, ha="center")
        axes.set(xticks=[], yticks=[])
    axes.tick_params(labelsize=6)
    if panel.unit == "bytes" and series:
        axes.yaxis.set_major_locator(MultipleLocator(2 ** round(log2(max(axes.get_ylim()[1], 8) / 6))))
    axes.yaxis.set_major_formatter(lambda value, _: with_unit(value, panel.unit))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    axes.grid(visible=True, linewidth=0.3)


def legend(axes: Axes, inches: float) -> None:
    """Name the lines, in two columns where they fit side by side; longer names are cut."""
    handles, names = axes.get_legend_handles_labels()
    letters = max((len(name) for name in names), default=0)
    columns = 2 if 2 * (_HANDLE + letters * _LETTER) <= inches else 1
    room = int((inches - _HANDLE) / _LETTER)
    shown = _NAMED * columns
    cut = [name if len(name) <= room else f"{name[: room - 1]}…" for name in names[:shown]]
    axes.legend(handles[:shown], cut, fontsize=5.5, ncols=columns, loc="upper left", framealpha=0.6)


def settings() -> dict[str, Any]:
    """The role's defaults."""
    found: dict[str, Any] = {}
    roles = Path(__file__).resolve().parents[2] / "roles"
    for role in ("common", "monitoring"):
        found |= yaml.safe_load((roles / role / "defaults/main.yml").read_text(encoding="utf-8"))
    return found


def write(address: str, folder: Path, minutes: float) -> None:
    """Draw every page into `folder`, each as a PNG of the last `minutes`. Raises OSError without a Prometheus there."""
    mpl.rcParams["font.family"] = "DejaVu Sans"
    folder.mkdir(parents=True, exist_ok=True)
    data = Data(address.rstrip("/"), minutes, settings())
    for page in PAGES:
        draw(page, data).savefig(folder / f"dashboard-{page.name}.png", dpi=90)


def main() -> None:
    """Draw every page into a folder."""
    write(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 15.0)


if __name__ == "__main__":
    main()

"""The figures as a table on the screen, as JSON and as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.database.timing import Timings


@dataclass(frozen=True)
class Side:
    """What one of the sides took for a figure, in `unit` of it."""

    median: float
    p95: float
    calls: int
    note: str = ""

    @classmethod
    def of(cls, timings: Timings, note: str = "") -> Side:
        """Milliseconds."""
        return cls(timings.median_ms, timings.p95_ms, len(timings.seconds), note)


@dataclass(frozen=True)
class Figure:
    """One workload: what is wanted of it and what each side reached, in `unit`."""

    name: str
    unit: str
    bar: str
    ours: Side
    legacy: Mapping[str, Side]

    @property
    def faster(self) -> bool:
        """Whether a larger number is the better one."""
        return self.unit == "rows/s"

    def ratio(self, shape: str) -> float:
        """How many times better ours is, by the median."""
        ours, theirs = self.ours.median, self.legacy[shape].median
        return ours / theirs if self.faster else theirs / ours


def machine(server_facts: Mapping[str, str]) -> dict[str, str]:
    """What the figures were taken on: no host name, no path."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        **server_facts,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def document(figures: Sequence[Figure], facts: Mapping[str, str], run: Mapping[str, Any]) -> dict[str, Any]:
    """The whole run as plain data."""
    return {
        "run": dict(run),
        "machine": dict(facts),
        "figures": [
            {**asdict(figure), "ratios": {shape: figure.ratio(shape) for shape in figure.legacy}} for figure in figures
        ],
    }


def rows(figures: Sequence[Figure]) -> list[list[str]]:
    """Header and lines of the table."""
    shapes = list(figures[0].legacy)
    header = ["figure", "bar", "ours: median", "p95"]
    for shape in shapes:
        header += [f"legacy {shape}: median", "p95", "ratio"]
    lines = [header]
    for figure in figures:
        line = [f"{figure.name}, {figure.unit}", figure.bar, _number(figure.ours.median), _number(figure.ours.p95)]
        for shape in shapes:
            side = figure.legacy[shape]
            line += [_number(side.median), _number(side.p95), f"{_number(figure.ratio(shape))} x"]
        lines.append(line)
    return lines


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def text(figures: Sequence[Figure]) -> str:
    """The table for a terminal."""
    table = rows(figures)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    aligned = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    return "\n".join(line.rstrip() for line in aligned)


_INTRODUCTION = """
# Figures of the database

Written by `make benchmark-database`; do not edit. Ours and the legacy schema in one run, on one server, with the same
settings (those of the role `timescaledb`; every commit is on disk). Single calls are made with pauses of 5 ms.

"""
_EXPLANATION = """
Shape A is the legacy hypertable by `created_at`, here in daily partitions, with its trigger; shape B is the plain table
that the legacy gateway makes itself. A ratio says how many times better ours is, by the median.

"""


def markdown(figures: Sequence[Figure], facts: Mapping[str, str], run: Mapping[str, Any]) -> str:
    """The page docs/benchmarks-database.md."""
    table = rows(figures)
    lines = ["| " + " | ".join(line) + " |" for line in table]
    lines.insert(1, "|---|---|" + "---:|" * (len(table[0]) - 2))
    notes = [
        f"* {figure.name}, legacy {shape}: {side.note}"
        for figure in figures
        for shape, side in figure.legacy.items()
        if side.note
    ]
    settled = f"{run['rows']:,} messages in {run['channels']} channels over {run['days']} days"
    lines = [f"{settled}, {run['date']}, commit {run['commit']}.", "", *lines]
    about = [*notes, "", *(f"* {name}: {value}" for name, value in facts.items())]
    return _INTRODUCTION.lstrip() + "\n".join(lines) + "\n" + _EXPLANATION + "\n".join(about) + "\n"

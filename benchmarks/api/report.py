"""The figures as a table on the screen and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.api.load import Answered

_HEADER = ("API", "requests/s", "p50, ms", "p95, ms", "p99, ms", "bar", "refused")
_INTRODUCTION = """\
# Figures of the API

Written by `make benchmark-api`; do not edit. `GET /api/messages`, the 50 newest of a channel, each time another one.
Requests begin when they are due (open loop), on at most 32 connections; latency counts from then. Load generator, API,
pooler, cache and database share the machine.

"""


@dataclass(frozen=True)
class Row:
    """One situation."""

    name: str
    bar: str
    answered: Answered


def _cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        _HEADER,
        *(
            (
                row.name, f"{row.answered.rate:g}", f"{row.answered.p50:.1f}", f"{row.answered.p95:.1f}",
                f"{row.answered.p99:.1f}", row.bar, str(row.answered.refused),
            )
            for row in rows
        ),
    ]  # fmt: skip


def text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    table = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
    return "\n".join(map(str.rstrip, lines))


def markdown(rows: Sequence[Row], facts: Mapping[str, str], run: str) -> str:
    """The page docs/benchmarks-api.md."""
    lines = ["| " + " | ".join(line) + " |" for line in _cells(rows)]
    lines.insert(1, "|---|" + "---:|" * (len(_HEADER) - 1))
    about = "\n".join(f"* {name}: {value}" for name, value in facts.items())
    return f"{_INTRODUCTION}{run}.\n\n" + "\n".join(lines) + f"\n\n{about}\n"

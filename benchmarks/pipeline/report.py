"""The pipeline's figures as a table on the screen, and as a page with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.pipeline.host import Run
from benchmarks.pipeline.legacy import POLL_ROWS, POLL_SECONDS, STATEMENTS, LegacyCalls, LegacyRun


@dataclass(frozen=True)
class Measured:
    """Everything of one invocation. `calls` are our single calls (p95 in milliseconds) by the names of `calls`."""

    legacy_calls: LegacyCalls
    legacy_runs: Sequence[LegacyRun]
    calls: Mapping[str, float]
    runs: Sequence[Run]

    def at(self, rate: float, *, limits: bool) -> list[Run]:
        """The runs at one rate."""
        return [run for run in self.runs if run.rate == rate and run.limits is limits]

    def ceiling(self, *, limits: bool) -> Run | None:
        """The fastest run that kept up."""
        good = [run for run in self.runs if run.limits is limits and run.kept_up]
        return max(good, key=lambda run: run.rate, default=None)


Row = tuple[str, str, str, str, str]
_BEYOND = f"it polls {POLL_ROWS / POLL_SECONDS:g} msg/s"
HEAD: Row = ("figure", "target", "legacy path", "ours, default limits", "ours, no limits")


def rows(measured: Measured) -> list[Row]:
    """The table: figure, target, legacy, ours inside the default limits, ours without limits."""
    calls, theirs = measured.legacy_calls, measured.calls

    def effect(rate: float, percentile: str) -> tuple[str, str]:
        return _effect(measured.at(rate, limits=True), percentile), _effect(measured.at(rate, limits=False), percentile)

    slow = {run.rate: run for run in measured.legacy_runs}
    return [
        ("poll of 100 unprocessed, p95", "≤ 2 ms", _ms(calls.poll), _ms(theirs["poll of 100"]), "same"),
        ("dedup check, p95", "≤ 0.8 ms", _ms(calls.dedup), _ms(theirs["dedup check"]), "same"),
        ("status update, p95", "≤ 2 ms", _ms(calls.status), _ms(theirs["status update"]), "same"),
        ("end to end at 20 msg/s, p50", "", _legacy(slow.get(20.0), "p50"), *effect(20.0, "p50")),
        ("end to end at 50 msg/s, p50", "≤ 8 ms", _legacy(slow.get(50.0), "p50"), *effect(50.0, "p50")),
        ("end to end at 500 msg/s, p99", "≤ 50 ms", _BEYOND, *effect(500.0, "p99")),
        ("end to end at 1,000 msg/s, p99", "≤ 50 ms", _BEYOND, *effect(1000.0, "p99")),
        (
            "kept up with, at most",
            "≥ 1,500 msg/s",
            f"{_legacy_ceiling(measured.legacy_runs)} (store alone {calls.store_rate:,.0f})",
            _rate(measured.ceiling(limits=True)), _rate(measured.ceiling(limits=False)),
        ),
        (
            "statements a message at 500 msg/s", "≤ 0.5", f"{STATEMENTS:g}",
            _statements(measured.at(500.0, limits=True)), _statements(measured.at(500.0, limits=False)),
        ),
        (
            "gateway's memory at most, long at 750 msg/s", "≤ 300 MB", "",
            _memory(measured.at(750.0, limits=True)), "",
        ),
    ]  # fmt: skip


_PAGE = """\
# Figures of the pipeline

Written by `make benchmark`; do not edit. Both paths in one run on one machine, with the same settings of PostgreSQL.
Ours is the demo's host with everything deployed, monitoring, replica and Sentinel too; the simulator that posts runs
beside it on the same processors. End to end counts from the gateway's receipt to the worker's commit; each rate ran
{seconds:g} s after {settling:g} s of settling, 750 msg/s {long:g} s, 1,500 msg/s {sustained:g} s. Single calls are made
with pauses of 5 ms.

{date}, commit {commit}.

{table}

![Latency over rate](images/benchmark-latency.svg)

![Where the processors' time goes](images/benchmark-cpu.svg)

## Every run

Milliseconds from receipt to the committed effect. Where a rate ran several times, the table above has the median.
What the machine gave stands at the end: how long a million additions in Python took before the run, and the part of
the processors' time that the hypervisor gave to other machines during it.

{ladder}

{facts}
"""


def text(measured: Measured) -> str:
    """For a terminal."""
    table = [HEAD, *rows(measured)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def markdown(measured: Measured, facts: Mapping[str, str], run: Mapping[str, Any]) -> str:
    """The page docs/benchmarks.md."""
    table = [_line(HEAD), _line(("---",) * 5), *(_line(row) for row in rows(measured))]
    ladder = [
        _line(("msg/s", "limits", "p50", "p95", "p99", "largest backlog", "gateway MB", "kept up", "loop", "stolen")),
        _line(("---",) * 10),
        *(_line(_run(one)) for one in sorted(measured.runs, key=lambda one: (not one.limits, one.rate))),
    ]
    facts_lines = "\n".join(f"* {name}: {value}" for name, value in facts.items())
    return _PAGE.format(table="\n".join(table), ladder="\n".join(ladder), facts=facts_lines, **run)


def document(measured: Measured, facts: Mapping[str, str], run: Mapping[str, Any]) -> dict[str, Any]:
    """The whole run as plain data."""
    return {"run": dict(run), "machine": dict(facts), **asdict(measured)}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _run(run: Run) -> tuple[str, ...]:
    effect = run.stages["effect"]
    shown = (f"{effect[name]:,.1f}" for name in ("p50", "p95", "p99"))
    limits = "default" if run.limits else "none"
    return (
        f"{run.rate:,.0f}",
        limits,
        *shown,
        str(run.behind),
        f"{run.gateway_megabytes:.0f}",
        "yes" if run.kept_up else "no",
        f"{run.loop_ms:.0f} ms",
        f"{run.stolen:.0%}",
    )


def _ms(value: float) -> str:
    return f"{value:,.2f} ms" if value < 10 else f"{value:,.0f} ms"


def _effect(runs: Sequence[Run], percentile: str) -> str:
    if not runs:
        return "not run"
    if not all(run.kept_up for run in runs):
        return "does not keep up"
    return _ms(median(run.stages["effect"][percentile] for run in runs))


def _legacy(run: LegacyRun | None, percentile: str) -> str:
    if run is None:
        return "not run"
    late = "" if run.done >= 0.98 * run.sent else f", {run.sent - run.done:,} of {run.sent:,} left"
    return f"{getattr(run, percentile):,.0f} ms{late}"


def _legacy_ceiling(runs: Sequence[LegacyRun]) -> str:
    return f"{max((run.rate for run in runs if run.done >= 0.98 * run.sent), default=0):g} msg/s"


def _rate(run: Run | None) -> str:
    return "none" if run is None else f"{run.rate:,.0f} msg/s"


def _statements(runs: Sequence[Run]) -> str:
    return f"{median(run.statements_per_message for run in runs):.2f}" if runs else "not run"


def _memory(runs: Sequence[Run]) -> str:
    if not runs:
        return "not run"
    run = runs[-1]
    return f"{run.gateway_megabytes:.0f} MB ({run.gateway_megabytes_before:.0f} MB before)"

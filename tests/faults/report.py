"""The report: a row for each component and fault, as JSON and as Markdown."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec
from tests import kept
from tests.faults.faults import ROWS, Row
from tests.faults.suite import CAUGHT_UP_SECONDS, DELETE_EVERY, EDIT_EVERY, RATE, Injection, Latencies
from tests.integration.servers import ROOT

_SUMS = (
    "sent", "edited", "deleted", "durable", "published", "published_again", "effects", "lost", "duplicate_effects",
    "reordered",
)  # fmt: skip


class State(msgspec.Struct):
    """What has been measured so far, by the row's name, and the attempts that broke off, with the reason."""

    injections: dict[str, list[Injection]] = msgspec.field(default_factory=dict)
    failures: dict[str, list[str]] = msgspec.field(default_factory=dict)
    commits: list[str] = msgspec.field(default_factory=list)


def results(state: State) -> list[dict[str, Any]]:
    """Every row that was begun, in the order of the suite."""
    return [
        _row(row, state.injections.get(name, []), state.failures.get(name, []))
        for name, row in ROWS.items()
        if state.injections.get(name) or state.failures.get(name)
    ]


def _row(row: Row, injections: Sequence[Injection], failures: Sequence[str]) -> dict[str, Any]:
    recoveries = sorted(injection.recovery for injection in injections)
    p50 = round(statistics.median(recoveries), 2) if recoveries else None
    sums = {name: sum(getattr(injection, name) for injection in injections) for name in _SUMS}
    return {
        "component": row.component,
        "fault": row.fault,
        "fault_seconds": row.seconds,
        "injections": len(injections),
        "injections_wanted": row.injections,
        **sums,
        "recovery_seconds": {"p50": p50, "max": recoveries[-1] if recoveries else None, "bar_p50": row.recovery_bar},
        "latency_seconds": {
            phase: _percentiles([getattr(injection, phase) for injection in injections])
            for phase in ("during", "after")
        },
        "seeds": [injection.seed for injection in injections],
        "restarts": dict(sum((Counter(injection.restarts) for injection in injections), Counter())),
        "said": _said(injections),
        "broken_off": list(failures),
        "passed": bool(
            len(injections) >= row.injections
            and not failures
            and sums["sent"]
            and not sums["lost"]
            and not sums["duplicate_effects"]
            and p50 is not None
            and (row.recovery_bar is None or p50 <= row.recovery_bar)
        ),
    }


def _said(injections: Sequence[Injection]) -> dict[str, list[str]]:
    said: dict[str, set[str]] = {}
    for injection in injections:
        for name, troubles in injection.troubles.items():
            said.setdefault(name, set()).update(troubles)
    return {name: sorted(troubles) for name, troubles in said.items() if troubles}


def _percentiles(parts: Sequence[Latencies]) -> dict[str, float | None]:
    whole = reduce(Latencies.plus, parts, Latencies())
    values = {"p50": whole.percentile(50), "p99": whole.percentile(99), "max": whole.highest or None}
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def write(state: State, folder: Path) -> None:
    """``faults.json``, and the table in ``faults.md`` between its marks."""
    rows = results(state)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "commits": state.commits,
        "machine": machine(),
        "rate": RATE,
        "edit_every": EDIT_EVERY,
        "delete_every": DELETE_EVERY,
        "caught_up_seconds": CAUGHT_UP_SECONDS,
    }
    (folder / "faults.json").write_bytes(msgspec.json.format(msgspec.json.encode({**about, "rows": rows}), indent=1))
    kept.tell(folder / "faults.md", f"{_intro(about, rows)}\n\n{table(rows)}\n{_broken_off(rows)}".removesuffix("\n"))


def _intro(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    complete = sum(row["injections"] >= row["injections_wanted"] for row in rows)
    return (
        f"Measured {about['date']} at {', '.join(about['commits'])} on {about['machine']}. Of {len(ROWS)} rows "
        f"{complete} are complete, {len(rows) - complete} were begun, {len(ROWS) - len(rows)} not."
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for people. Seconds, but latencies in milliseconds."""
    head = (
        "component", "fault", "injections", "sent", "durable", "published", "effects", "**lost**",
        "**duplicate effects**", "reordered", "recovery p50 / max", "during p50 / p99 / max", "after p50 / p99 / max",
        "bars",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        recovery = row["recovery_seconds"]
        cells = [
            row["component"], row["fault"], f"{row['injections']} of {row['injections_wanted']}",
            *(str(row[name]) for name in ("sent", "durable", "published", "effects", "lost", "duplicate_effects")),
            str(row["reordered"]), f"{_seconds(recovery['p50'])} / {_seconds(recovery['max'])}",
            *(_milliseconds(row["latency_seconds"][phase]) for phase in ("during", "after")), _verdict(row),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["passed"]:
        return "met"
    if row["broken_off"] or row["lost"] or row["duplicate_effects"]:
        return "**missed**"
    recovery = row["recovery_seconds"]
    if recovery["bar_p50"] is not None and recovery["p50"] is not None and recovery["p50"] > recovery["bar_p50"]:
        return "**missed**"
    return "so far"


def _broken_off(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"* `{row['component']}:{row['fault']}`: {text}" for row in rows for text in row["broken_off"]]
    return "\n".join(["", "Injections that broke off:", *lines, ""]) if lines else ""


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _milliseconds(latency: Mapping[str, float | None]) -> str:
    return " / ".join("-" if value is None else f"{value * 1000:.0f}" for value in latency.values())


def commit() -> str:
    """The commit that is checked out, with a mark when the tree differs from it."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout
    elsewhere = [*git, "status", "--porcelain", "--", ":!docs"]  # the report itself is there
    changed = subprocess.run(elsewhere, check=True, capture_output=True, text=True).stdout
    return f"{name.strip()}{' (changed)' if changed else ''}"


def machine() -> str:
    """What it ran on, without its name."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return f"{os.cpu_count()} cores, {pages:.0f} GiB, {system}, Python {platform.python_version()}"

"""usage: python -m benchmarks.database [--rows N] [--channels N]

Starts a PostgreSQL of its own with the role's settings, runs every workload on our schema and on the two legacy shapes,
and prints the figures. A run of the full size is written to docs/benchmarks-database.md and .json as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import psycopg
import yaml
from tests.integration.servers import Postgres, postgres

from benchmarks.database import report
from benchmarks.database.data import DAYS, channel_ids, messages
from benchmarks.database.legacy import Legacy
from benchmarks.database.ours import BATCH, Ours
from benchmarks.database.report import Figure, Side
from benchmarks.database.timing import Timings

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "timescaledb"
FULL = 1_000_000
SETTINGS = """
shared_buffers effective_cache_size work_mem maintenance_work_mem fsync synchronous_commit full_page_writes
wal_compression checkpoint_timeout checkpoint_completion_target max_wal_size min_wal_size jit random_page_cost
max_parallel_workers_per_gather autovacuum_naptime autovacuum_vacuum_scale_factor autovacuum_analyze_scale_factor
shared_preload_libraries track_io_timing timezone
"""


def main() -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.database", description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL, help="messages (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=200, help="channels (default: %(default)s)")
    options = parser.parse_args()
    if options.rows < 20_000 or options.channels < 1:
        parser.error("--rows has to be 20000 or more and --channels 1 or more: there is too little to poll otherwise")
    run = {
        "rows": options.rows,
        "channels": options.channels,
        "days": DAYS,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
    }
    before = os.getloadavg()[0]
    with postgres(**role_settings()) as server:
        figures, facts = measure(server, options.rows, options.channels)
    facts = report.machine(facts) | {"load": f"{before:.1f} before the run, {os.getloadavg()[0]:.1f} after it"}
    print(report.text(figures))
    if options.rows == FULL:
        page = ROOT / "docs" / "benchmarks-database.md"
        page.write_text(report.markdown(figures, facts, run))
        page.with_suffix(".json").write_text(json.dumps(report.document(figures, facts, run), indent=2) + "\n")
        print(f"written to {page.relative_to(ROOT)} and .json")
    return 0


def role_settings() -> dict[str, str]:
    """The server settings that the role `timescaledb` renders for its default budget, but for addresses and logs."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ROLE / "templates"), autoescape=False)  # noqa: S701
    values = {
        **yaml.safe_load((ROLE / "defaults" / "main.yml").read_text()),
        "_timescaledb_budget_mb": 2048,
        "telegram_bind_address": "127.0.0.1",
        "__timescaledb_library": {"stat": {"exists": False}},
    }
    environment.filters["dictsort"] = lambda mapping: sorted(mapping.items())
    environment.filters["unique"] = lambda items: list(dict.fromkeys(items))
    text = environment.get_template("telegram.conf.j2").render(values)
    lines = [line.split(" = ", 1) for line in text.splitlines() if " = " in line and not line.startswith("#")]
    return {name: value.strip("'") for name, value in lines if name in SETTINGS.split()}


def commit() -> str:
    """Short name of the commit that is measured."""
    shown = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or "unknown"


def say(what: str) -> None:
    """Tell what goes on, beside the figures."""
    print(f"... {what}", file=sys.stderr, flush=True)


def measure(server: Postgres, rows: int, channels: int) -> tuple[list[Figure], dict[str, str]]:
    """Every workload on every side, one after the other."""
    end = datetime.now(UTC)
    fresh = min(30_000, rows // 4)
    boundary = end - timedelta(days=DAYS) * fresh / rows
    calls = min(300, fresh // 100)
    with server.connect("postgres") as connection:
        facts = server_facts(connection)
        say(f"ours: {rows} rows in batches of {BATCH}")
        ours = Ours(connection)
        load = ours.load(messages(rows, channels, end))
        ours.settle(boundary)
        say("ours: single calls")
        ids = channel_ids(channels)
        polls, _ = ours.poll(calls)
        mine = {
            "poll": polls,
            "latest": ours.latest(ids, 500),
            "mark": ours.mark(min(50, rows // BATCH // 2)),
            "hourly": ours.hourly(100),
        }
        theirs = {shape: legacy(Legacy(connection, shape), rows, channels, end, boundary) for shape in ("A", "B")}
    return figures(load, mine, theirs), facts


def legacy(side: Legacy, rows: int, channels: int, end: datetime, boundary: datetime) -> dict[str, Timings]:
    """Every workload on one legacy shape; fewer calls, since each takes so long."""
    say(f"legacy {side.shape}: {rows} rows copied, then single calls")
    side.create(end)
    side.fill(messages(rows, channels, end), boundary)
    some = itertools.islice(messages(rows, channels, end), 2_000)
    return {
        "poll": side.poll(30),
        "latest": side.latest(channel_ids(channels), 60),
        "mark": side.mark(messages(rows, channels, end), 20),
        "hourly": side.hourly(20),
        "insert": side.insert(some),
    }


def figures(load: Timings, mine: dict[str, Timings], theirs: dict[str, dict[str, Timings]]) -> list[Figure]:
    """The figures of the report."""

    def figure(name: str, key: str, bar: str, factor: int = 1, note: str = "") -> Figure:
        sides = {shape: Side.of(timings[key].times(factor), note) for shape, timings in theirs.items()}
        return Figure(name, "ms", bar, Side.of(mine[key]), sides)

    return [
        Figure(
            f"store, ours in batches of {BATCH}, legacy row by row",
            "rows/s",
            ">= 25,000",
            _rate(load, BATCH),
            {shape: _rate(timings["insert"], 1) for shape, timings in theirs.items()},
        ),
        figure("poll of 100 unprocessed", "poll", "p95 <= 5"),
        figure("latest 50 of a channel", "latest", "p95 <= 2"),
        figure(
            f"status of {BATCH}, ours in one call",
            "mark",
            "<= 60",
            BATCH,
            f"20 updates of one row were measured, the figure is {BATCH} times theirs",
        ),
        figure("hourly counts of 7 days", "hourly", "<= 15"),
    ]


def _rate(timings: Timings, rows: int) -> Side:
    """Rows a second: overall as the median, and of the batch that only 5 % were slower than."""
    overall = rows * len(timings.seconds) / sum(timings.seconds)
    return Side(overall, rows * 1000 / timings.p95_ms, len(timings.seconds))


def server_facts(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """What server it was."""
    names = ("shared_buffers", "work_mem", "max_wal_size", "fsync", "synchronous_commit", "full_page_writes")
    row = connection.execute("SELECT current_setting('server_version'), telegram.setting('engine')").fetchone()
    assert row
    settings = [
        connection.execute("SELECT %s || ' ' || current_setting(%s)", [name, name]).fetchone() or ("",)
        for name in names
    ]
    return {
        "PostgreSQL": f"{row[0].split()[0]}, engine {row[1]}",
        "settings": ", ".join(str(setting[0]) for setting in settings),
    }


if __name__ == "__main__":
    sys.exit(main())

"""usage: python -m benchmarks.pipeline [--seconds S] [--sustained S] [--long S] [--repeat N]

Measures the legacy path and ours in one run: single calls, latency over rate, the rate that is kept up with, and what
the database is asked. Makes the demo's host when it is not there. The full form writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.integration.servers import postgres

from benchmarks.database.__main__ import commit, role_settings, say
from benchmarks.database.report import machine
from benchmarks.pipeline import calls, pictures, report
from benchmarks.pipeline.host import SETTLING, Host, Run, deployed
from benchmarks.pipeline.legacy import LegacyCalls, LegacyPath, LegacyRun
from benchmarks.pipeline.report import Measured

ROOT = Path(__file__).resolve().parents[2]
FULL = 60.0
CALM = (20.0, 50.0, 500.0)
BUSY = 1000.0
LADDER = (1500.0, 2000.0, 2500.0)
LONG = 750.0


def main() -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--seconds", type=float, default=FULL, help="of each rate (default: %(default)g)")
    parser.add_argument("--sustained", type=float, default=300.0, help="of 1,500 msg/s (default: %(default)g)")
    parser.add_argument("--long", type=float, default=600.0, help="of 750 msg/s (default: %(default)g)")
    parser.add_argument(
        "--repeat", type=int, default=5, help="runs at 1,000 msg/s without limits (default: %(default)d)"
    )
    options = parser.parse_args()
    before = os.getloadavg()[0]
    legacy_calls, legacy_runs = legacy(options.seconds)
    say("ours: single calls")
    ours = {name: figures["p95"] for name, figures in calls.run().items()}
    with deployed() as host:
        runs = list(rates(host, options))
    measured = Measured(legacy_calls, legacy_runs, ours, runs)
    print(report.text(measured))
    if options.seconds >= FULL:
        write(measured, options, before)
    return 0


def legacy(seconds: float) -> tuple[LegacyCalls, list[LegacyRun]]:
    """The legacy path: single calls, and both rates that people ran it at."""
    with postgres(**role_settings()) as server:
        path = LegacyPath(server)
        say("legacy: single calls")
        single = path.calls()
        runs = []
        for rate in CALM[:2]:
            say(f"legacy: {rate:g} msg/s for {seconds:g} s")
            runs.append(path.run(rate, seconds))
    return single, runs


def rates(host: Host, options: argparse.Namespace) -> list[Run]:
    """Every rate, first inside the default limits, then without; the long one last, for what it leaves to clean up."""

    def run(rate: float, seconds: float = options.seconds) -> Run:
        say(f"ours: {rate:g} msg/s for {seconds:g} s")
        done = host.run(rate, seconds)
        say(f"      effect {done.stages['effect']} ms, {done.left} left at the end")
        return done

    bounded = [run(rate) for rate in (*CALM, BUSY)]
    with host.without_limits():
        say("ours, without limits")
        free = [run(rate) for rate in CALM]
        free += [run(BUSY) for _ in range(options.repeat)]
        free += [run(LADDER[0], options.sustained), *(run(rate) for rate in LADDER[1:])]
    return [*bounded, *free, run(LONG, options.long)]


def write(measured: Measured, options: argparse.Namespace, load_before: float) -> None:
    """The page, its data and its pictures."""
    page = ROOT / "docs" / "benchmarks.md"
    run = {
        "date": datetime.now(UTC).date().isoformat(), "commit": commit(), "seconds": options.seconds,
        "sustained": options.sustained, "long": options.long, "settling": SETTLING,
    }  # fmt: skip
    facts = machine({"load before the run": f"{load_before:.1f}"})
    page.write_text(report.markdown(measured, facts, run))
    page.with_suffix(".json").write_text(json.dumps(report.document(measured, facts, run), indent=2) + "\n")
    pictures.draw(measured.runs, ROOT / "docs" / "images")
    print(f"written to {page.relative_to(ROOT)}, .json and docs/images/benchmark-*")


if __name__ == "__main__":
    sys.exit(main())

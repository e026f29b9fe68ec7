"""The long form of the fault suite. Goes on where the last run ended: its state is in .cache/faults."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.faults import report
from tests.faults.faults import ROWS, Row
from tests.faults.stack import needs, stack
from tests.faults.suite import Suite
from tests.integration.servers import ROOT

STATE = ROOT / ".cache" / "faults" / "state.json"


def main() -> int:
    """Run what is left of the chosen rows; 1 when one of them misses a bar."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="component:fault, as gateway:kill; none: all")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--injections", type=int, help="fewer than the row's own number")
    options = parser.parse_args()
    if options.list:
        print("\n".join(ROWS))
        return 0
    if unknown := sorted(set(options.rows) - set(ROWS)):
        parser.error(f"no such row: {', '.join(unknown)}; --list names them")
    if lack := needs():
        parser.exit(2, f"{lack}\n")
    rows = [ROWS[name] for name in options.rows or ROWS]
    state = report.load(STATE)
    for row in rows:
        _run_row(row, options.injections or row.injections, state)
    chosen = [
        result
        for result in report.results(state)
        if f"{result['component']}:{result['fault']}" in {row.name for row in rows}
    ]
    print(report.table(chosen))
    return 0 if len(chosen) == len(rows) and all(result["passed"] for result in chosen) else 1


def _run_row(row: Row, wanted: int, state: report.State) -> None:
    """One stack a row. An injection that breaks off is written down and costs the stack: its remains would mislead."""
    done = state.injections.setdefault(row.name, [])
    while len(done) < wanted and len(state.failures.get(row.name, [])) < 2:
        with tempfile.TemporaryDirectory(prefix="faults-") as name, ExitStack() as resources:
            Path(name).chmod(0o755)  # the database's user passes through
            suite = Suite(resources.enter_context(stack(Path(name))), resources)
            try:
                _inject(suite, row, range(len(done), wanted), state)
            except Exception as error:
                said = f"injection {len(done)}: {type(error).__name__}: {error}".partition("\n")[0]
                state.failures.setdefault(row.name, []).append(said)
                print(f"{row.name} {said}", file=sys.stderr, flush=True)
            report.save(STATE, state)
            report.write(state, ROOT / "docs")


def _inject(suite: Suite, row: Row, seeds: Sequence[int], state: report.State) -> None:
    commit = report.commit()
    for seed in seeds:
        result = suite.inject(row, seed)
        state.injections[row.name].append(result)
        if commit not in state.commits:
            state.commits.append(commit)
        report.save(STATE, state)
        print(
            f"{row.name} {seed}: sent {result.sent}, lost {result.lost}, duplicate effects {result.duplicate_effects},"
            f" recovery {result.recovery:.2f} s", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

"""The long form of the fault suite. Goes on where the last run ended: its state is in .cache/faults."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import deque
from contextlib import ExitStack
from pathlib import Path

from tests import kept
from tests.faults import report
from tests.faults.faults import ROWS, Row
from tests.faults.stack import needs, stack
from tests.faults.suite import Suite
from tests.integration.servers import ROOT

STATE = ROOT / ".cache" / "faults" / "state.json"
INJECTIONS_A_STACK = 20
FAILURES_A_ROW = 2


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
    state = kept.load(STATE, report.State)
    jobs = deque(
        (row, seed)
        for row in rows
        for seed in range(len(state.injections.get(row.name, [])), options.injections or row.injections)
    )
    while jobs:
        _run_some(jobs, state)
    chosen = {row.name for row in rows}
    found = [result for result in report.results(state) if f"{result['component']}:{result['fault']}" in chosen]
    print(report.table(found))
    return 0 if len(found) == len(rows) and all(result["passed"] for result in found) else 1


def _run_some(jobs: deque[tuple[Row, int]], state: report.State) -> None:
    """Injections into one stack, until it is large or one breaks off: what that leaves behind would mislead."""
    commit = report.commit()
    with tempfile.TemporaryDirectory(prefix="faults-") as name, ExitStack() as resources:
        Path(name).chmod(0o755)  # the database's user passes through
        suite = Suite(resources.enter_context(stack(Path(name))), resources)
        for _ in range(min(len(jobs), INJECTIONS_A_STACK)):
            row, seed = jobs.popleft()
            if len(state.failures.get(row.name, [])) >= FAILURES_A_ROW:
                continue
            whole = _inject(suite, row, seed, state)
            if commit not in state.commits:
                state.commits.append(commit)
            kept.save(STATE, state)
            report.write(state, ROOT / "docs")
            if not whole:
                _keep_logs(Path(name), row, seed)
                return


def _keep_logs(folder: Path, row: Row, seed: int) -> None:
    """Copy what the programs said: their folder goes with the stack."""
    kept = STATE.parent / f"{row.component}-{row.fault}-{seed}"
    kept.mkdir(exist_ok=True)
    for log in [*folder.glob("*.log"), *folder.glob("redis/*.log")]:
        shutil.copy(log, kept)


def _inject(suite: Suite, row: Row, seed: int, state: report.State) -> bool:
    """One injection into the books of `row`; False when it broke off."""
    try:
        result = suite.inject(row, seed)
    except Exception as error:
        said = f"injection {seed}: {type(error).__name__}: {error}".partition("\n")[0]
        state.failures.setdefault(row.name, []).append(said)
        print(f"{row.name} {said}", file=sys.stderr, flush=True)
        return False
    state.injections.setdefault(row.name, []).append(result)
    print(
        f"{row.name} {seed}: sent {result.sent}, lost {result.lost}, duplicate effects {result.duplicate_effects},"
        f" recovery {result.recovery:.2f} s", flush=True,
    )  # fmt: skip
    return True


if __name__ == "__main__":
    sys.exit(main())

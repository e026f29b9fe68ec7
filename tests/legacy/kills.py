"""Runs migrate.yml again and again, killed (-9) once at each point, until it ends by itself.

    python -m tests.legacy.kills --inventory .cache/molecule/inventory [--phases 0-11] [--inside] [--target NAME]
      [--leave]

With --inside also within the phases that change most; twice it is the target NAME that dies, and boots again, not the
run. With --leave it is over with the last kill.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.legacy.run import ROOT, Run

_INSIDE = {
    "Copy messages of the old system": 4,
    "Copy the old system's other tables": 4,
    "Stop the old gateway, API and consumer": 7,
    "Refuse writes to the old tables": 7,
    "Copy and compare the last messages": 8,
    "Compare messages with those of the old system": 6,
    "Run the feed": 9,
    "Bring the given session in for the gateway": 9,
    "Run the gateway": 9,
    "Start the new worker": 9,
    "Wait for the first message that the new gateway takes": 9,
    "Set the API up on its own port": 10,
}
"""Tasks during which it is killed as well, at their first appearance, and the phase that needs them."""
_INSTALLATION = "Bring the schema up to date"
"""Of the database: phase 2's own work begins when everything is installed."""
_OF_TARGET = ("Copy messages of the old system", "Wait for the first message that the new gateway takes")


def points(first: int, last: int, *, inside: bool) -> list[str]:
    """Where it is killed: in the midst of each phase's work, and with `inside` at the tasks above."""
    tasks = [task for task, phase in _INSIDE.items() if inside and first <= phase <= last]
    phases = [f"Do the work of phase {phase}" if phase != 2 else _INSTALLATION for phase in range(first, last + 1)]
    return phases + tasks


def run(inventory: str, left: list[str], target: str | None) -> int | None:
    """One run: killed at the first of the points that are `left`, which it removes (None), or its exit code.

    Where `target` is named, it is that host at some of the points.
    """
    migration = Run(inventory)
    task = migration.until(left)
    if task is None:
        if code := migration.end():
            sys.stdout.writelines(migration.said[-80:])
        return code
    left.remove(task)
    if target and task in _OF_TARGET:
        time.sleep(0.3)  # into the task
        for verb in ("kill", "start"):
            subprocess.run([sys.executable, "-m", "tools.targets", verb, target], cwd=ROOT, check=True)
        if migration.end() == 0:
            raise SystemExit(f"it did not notice that its host was killed at: {task}")
        print(f"its host was killed at: {task}", flush=True)
    else:
        migration.kill()
        print(f"killed at: {task}", flush=True)
    return None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", required=True)
    parser.add_argument("--phases", default="0-11", metavar="FIRST-LAST")
    parser.add_argument("--inside", action="store_true")
    parser.add_argument("--target")
    parser.add_argument("--leave", action="store_true")
    given = parser.parse_args()
    first, last = map(int, given.phases.split("-"))
    left = points(first, last, inside=given.inside)
    code = None
    while code is None and (left or not given.leave):
        code = run(given.inventory, left, given.target)
    if left:
        print(f"never came to: {', '.join(left)}")
    sys.exit(code or bool(left))


if __name__ == "__main__":
    main()

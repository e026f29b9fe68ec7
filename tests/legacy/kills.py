"""Runs migrate.yml again and again, killed (-9) once at each point, until it ends by itself.

    python -m tests.legacy.kills --inventory .cache/molecule/inventory [--phases 0-11] [--inside] [--leave]

With --inside also within the phases that change most; with --leave it is over with the last kill.
"""

from __future__ import annotations

import argparse
import sys

from tests.legacy.run import Run

_INSIDE = {
    "Copy messages of the old system": 4,
    "Copy the old system's other tables": 4,
    "Stop the old gateway, API and consumer": 7,
    "Refuse writes to the old tables": 7,
    "Compare messages with those of the old system": 8,
    "Run the feed": 9,
    "Bring the given session in": 9,
    "Run the gateway": 9,
    "Start the new worker": 9,
    "Wait for the first message that the new gateway takes": 9,
    "Set the API up on its own port": 10,
}
"""Tasks during which it is killed as well, at their first appearance, and the phase that needs them."""


def points(first: int, last: int, *, inside: bool) -> list[str]:
    """Where it is killed: in the midst of each phase's work, and with `inside` at the tasks above."""
    tasks = [task for task, phase in _INSIDE.items() if inside and first <= phase <= last]
    return [*(f"Do the work of phase {phase}" for phase in range(first, last + 1)), *tasks]


def run(inventory: str, left: list[str]) -> int | None:
    """One run: killed at the first of the points that are `left`, which it removes (None), or its exit code."""
    migration = Run(inventory)
    task = migration.until(left)
    if task is None:
        if code := migration.end():
            sys.stdout.writelines(migration.said[-80:])
        return code
    left.remove(task)
    migration.kill()
    print(f"killed at: {task}", flush=True)
    return None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", required=True)
    parser.add_argument("--phases", default="0-11", metavar="FIRST-LAST")
    parser.add_argument("--inside", action="store_true")
    parser.add_argument("--leave", action="store_true")
    given = parser.parse_args()
    first, last = map(int, given.phases.split("-"))
    left = points(first, last, inside=given.inside)
    code = None
    while code is None and (left or not given.leave):
        code = run(given.inventory, left)
    if left:
        print(f"never came to: {', '.join(left)}")
    sys.exit(code or bool(left))


if __name__ == "__main__":
    main()

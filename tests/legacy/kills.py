"""Runs migrate.yml again and again, killed (-9) once at each point, until it ends by itself.

python -m tests.legacy.kills --inventory .cache/molecule/inventory
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PHASES = range(12)
_INSIDE = (
    "Copy messages of the old system",
    "Copy the old system's other tables",
    "Stop the old gateway, API and consumer",
    "Refuse writes to the old tables",
    "Compare messages with those of the old system",
    "Run the feed",
    "Bring the given session in",
    "Run the gateway",
    "Start the new worker",
    "Wait for the first message that the new gateway takes",
    "Set the API up on its own port",
)
"""Tasks during which it is killed as well, at their first appearance."""


def points() -> list[str]:
    """Where it is killed: in the midst of each phase's work, and inside of the phases that change most."""
    return [*(f"Do the work of phase {phase}" for phase in PHASES), *_INSIDE]


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What it prints, without colours."""
    assert process.stdout
    for line in process.stdout:
        yield re.sub(r"\x1b\[[0-9;]*m", "", line)


def run(inventory: str, left: list[str]) -> int | None:
    """One run: killed at the first of the points that are `left`, which it removes (None), or its exit code."""
    command = ["ansible-playbook", "-i", inventory, "migrate.yml", "-e", "migration_confirm=true"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    told: list[str] = []
    for line in lines(process):
        told.append(line)
        task = line.startswith("TASK [") and next((point for point in left if f"{point}]" in line), None)
        if task:
            left.remove(task)
            time.sleep(0.3)  # into the task
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            print(f"killed at: {task}", flush=True)
            return None
    if process.wait():
        sys.stdout.writelines(told[-80:])
    return process.returncode


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", required=True)
    given = parser.parse_args()
    left = points()
    while (code := run(given.inventory, left)) is None:
        pass
    if code == 0 and left:
        print(f"never came to: {', '.join(left)}")
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()

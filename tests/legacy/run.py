"""One run of migrate.yml that can be met at its tasks: killed there, or held while something else happens."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Run:
    """A run of `migrate.yml` on `inventory`, with further `options`. `said` is what it has printed, without colours."""

    def __init__(self, inventory: str, *options: str) -> None:
        self.said: list[str] = []
        self._process = subprocess.Popen(
            ["ansible-playbook", "-i", inventory, "migrate.yml", "-e", "migration_confirm=true", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def until(self, tasks: Iterable[str]) -> str | None:
        """Go on to the first of `tasks` (ends of task names); None when the run has ended before."""
        assert self._process.stdout
        for line in self._process.stdout:
            self.said.append(re.sub(r"\x1b\[[0-9;]*m", "", line))
            task = self.said[-1].startswith("TASK [") and next((task for task in tasks if f"{task}]" in line), None)
            if task:
                return task
        return None

    def end(self) -> int:
        """Go on to the end; the exit code."""
        self.until(())
        return self._process.wait()

    def kill(self) -> None:
        """Let it go into its task and end it at once, with all it has started on this machine (-9)."""
        time.sleep(0.3)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """It stands still meanwhile; what it has begun on a host goes on there."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

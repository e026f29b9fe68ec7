"""Processes as systemd would hold them: what dies is started again after its unit's delay."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_TICK = 0.05


class Program:
    """One process and its descendants. `restart_seconds` is `RestartSec=` of its unit."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | str = "/",
        restart_seconds: float = 1.0,
    ) -> None:
        self.name = name
        self.restart_seconds = restart_seconds
        self.starts = 0
        self._command = command
        self._log = log
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._died: float | None = None
        self._adopted = False

    @classmethod
    def adopt(cls, name: str, process: subprocess.Popen[bytes], log: Path, *, restart_seconds: float) -> Program:
        """A process that somebody else has started: it is started again as it was."""
        proc = Path(f"/proc/{process.pid}")
        pairs = [pair.partition("=") for pair in (proc / "environ").read_text().split("\0") if pair]
        assert isinstance(process.args, list)
        program = cls(
            name, process.args, log,
            environment={key: value for key, _, value in pairs},
            folder=(proc / "cwd").readlink(),
            restart_seconds=restart_seconds,
        )  # fmt: skip
        program._process = process
        program.starts = 1
        program._adopted = True
        return program

    @property
    def pid(self) -> int:
        """The process that was started last; it may be dead."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs, or is stopped."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self._command), env=self._environment, cwd=self._folder, stdout=log, stderr=log
            )
        self._died = None
        self.starts += 1

    def tend(self) -> None:
        """Start it again once it has been dead for `restart_seconds`."""
        if self.alive:
            return
        now = time.monotonic()
        self._died = self._died or now
        if now - self._died >= self.restart_seconds:
            self.start()

    def kill(self) -> None:
        """SIGKILL to the whole tree, as to a unit's control group; returns when nothing of it is left."""
        process = self._process
        assert process is not None
        tree = self.tree()
        self._signal(tree, signal.SIGKILL)
        process.wait(timeout=10)
        deadline = time.monotonic() + 10
        while any(running(pid) for pid in tree):
            assert time.monotonic() < deadline, f"{self.name} survived SIGKILL"
            time.sleep(0.005)

    def pause(self) -> None:
        """SIGSTOP to the whole tree."""
        self._signal(self.tree(), signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to the whole tree."""
        self._signal(self.tree(), signal.SIGCONT)

    @property
    def paused(self) -> bool:
        """Whether every process of the tree is stopped."""
        return all(state_of(pid) in "TZ" for pid in self.tree())

    def stop(self, within: float = 35.0) -> None:
        """SIGTERM, then what it takes."""
        if self._process is None or not self.alive:
            return
        if self._adopted:  # a server whose data goes as well
            self.kill()
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            self.kill()

    def tree(self) -> list[int]:
        """The process and all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found = [self.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    @staticmethod
    def _signal(pids: Sequence[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def state_of(pid: int) -> str:
    """The kernel's letter for the state of a process; X when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    return state_of(pid) not in "XZ"


class Supervisor:
    """Tends programs from a thread of its own until it is closed; then ends them, the last one first."""

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, program: Program) -> Program:
        """Hold `program` from now on; it is started if it was not."""
        if not program.starts:
            program.start()
        with self._lock:
            self.programs[program.name] = program
        return program

    def _run(self) -> None:
        while not self._closing.wait(_TICK):
            with self._lock:
                for program in self.programs.values():
                    program.tend()

    def close(self) -> None:
        """End everything."""
        self._closing.set()
        self._thread.join()
        for program in reversed(self.programs.values()):
            program.resume()
            program.stop()

"""Running programs and recognising processes that outlive a command."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.targets.errors import TargetError


def run(*command: str | Path, input_text: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run `command` to its end and return what it printed; raises TargetError with its own words when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=input_text, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-12:])
        raise TargetError(f"`{shlex.join(words)}` failed with code {done.returncode}; it said: {said}")
    return done.stdout


def succeeds(*command: str | Path) -> bool:
    """Whether `command` ends with code 0; its output is dropped."""
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat behind the command name (state, parent, …); None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


@dataclass(frozen=True)
class Process:
    """A process known by id and start time, so that an id used again is not taken for it."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process that has `pid` now; None when there is none or only its remains."""
        fields = _stat_fields(pid)
        return None if fields is None or fields[0] in "ZX" else cls(pid, fields[19])

    @classmethod
    def read(cls, path: Path) -> "Process | None":
        """The process remembered in `path`, if it still runs."""
        try:
            pid, started = path.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        process = cls.of(int(pid))
        return process if process is not None and process.started == started else None

    def remember(self, path: Path) -> None:
        """Write the process down for later `read`."""
        path.write_text(f"{self.pid} {self.started}\n")

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Process.of(self.pid) == self

    def signal(self, number: int) -> None:
        """Send a signal; silently nothing when the process is gone."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def ended(self, within: float) -> bool:
        """Wait up to `within` seconds for the end; returns whether it came."""
        return wait_until(lambda: not self.alive, within)

    def end(self) -> None:
        """Ask it to end, then make it."""
        self.signal(signal.SIGTERM)
        if not self.ended(5):
            self.signal(signal.SIGKILL)
            self.ended(5)

    def children(self) -> list["Process"]:
        """The processes it started that still run."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _stat_fields(int(entry.name))
                if fields is not None and int(fields[1]) == self.pid and (child := Process.of(int(entry.name))):
                    found.append(child)
        return found


def spawn(command: Sequence[str], log: Path, cwd: Path = Path("/")) -> Process:
    """Start a background process of its own session that writes to `log`."""
    with log.open("ab") as out:
        started = subprocess.Popen(  # its end is watched by id, from later invocations
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, start_new_session=True
        )
    process = Process.of(started.pid)
    if process is None:
        raise TargetError(f"`{shlex.join(command)}` ended at once; read {log}")
    return process


def wait_until(condition: Callable[[], bool], within: float, every: float = 0.05) -> bool:
    """Wait up to `within` seconds until `condition()` holds; returns whether it did."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True

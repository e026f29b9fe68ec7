"""Control groups, so that CPUQuota, MemoryMax and TasksMax inside a target are enforced and not merely written down.

Two layouts exist. Version 1 (one tree per controller, `/sys/fs/cgroup/memory` and so on): systemd-nspawn hands the
controllers to a target read-only, and a systemd that cannot write ignores limits silently. So a target gets groups of
its own before it starts, and its PID 1 is started by a line of shell that makes them writable first. Version 2 (the
unified hierarchy of current distributions): delegation exists, nspawn does it all inside one group that is ours.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.targets.process import Process, wait_until
from tools.targets.report import say

ROOT = Path("/sys/fs/cgroup")
_LIMITING = ("cpu", "cpuacct", "pids", "memory")


def is_unified() -> bool:
    """Whether this machine has version 2 alone."""
    return (ROOT / "cgroup.controllers").exists()


def _own_paths() -> dict[str, str]:
    """Where this process is in each version 1 hierarchy, by controller."""
    lines = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    return {controller: path for _, controllers, path in lines for controller in controllers.split(",")}


def groups(name: str) -> list[Path]:
    """The groups of the target whose group name is `name`.

    Version 1: limiting controllers below our own group, so that no limit set around us is escaped; the two trees that
    only track processes at their top, because systemd-nspawn moves itself within them.
    """
    if is_unified():
        return [] if _systemd_runs() else [ROOT / name]
    own = _own_paths()
    limiting = [ROOT / each / own.get(each, "/").lstrip("/") / name for each in _LIMITING if (ROOT / each).is_dir()]
    return limiting + [ROOT / each / name for each in ("systemd", "unified") if (ROOT / each).is_dir()]


def make(made: Sequence[Path]) -> None:
    """Create the groups, empty."""
    for group in made:
        group.mkdir(parents=True, exist_ok=True)
    if is_unified() and made:
        try:
            (ROOT / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        except OSError as error:
            say(f"warning: limits of units will not be enforced in targets, {ROOT} hands on no controllers ({error})")


def launcher(name: str) -> list[str]:
    """Command prefix that starts systemd-nspawn in a group it may divide.

    For machines with the unified hierarchy: where systemd is PID 1 it owns the tree, so it is asked for a delegated
    scope. Elsewhere (version 1, or no systemd) the groups of `groups` serve and no prefix is needed.
    """
    if is_unified() and _systemd_runs():
        return ["systemd-run", "--quiet", "--scope", "--collect", f"--unit={name}", "--property=Delegate=yes", "--"]
    return []


def init() -> list[str]:
    """PID 1 of a target: makes the version 1 controllers writable where there are any, then becomes systemd."""
    writable = (
        f"for c in {' '.join(_LIMITING)}; do"
        " if [ -d /sys/fs/cgroup/$c ]; then mount -o remount,bind,rw /sys/fs/cgroup/$c; fi; done; exec /sbin/init"
    )
    return ["/bin/sh", "-c", writable]


def join(leader: Process) -> None:
    """Move this process to where a target's PID 1 is, so that what it starts counts as the target's."""
    for line in Path(f"/proc/{leader.pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        tree = controllers.removeprefix("name=") if controllers else ("" if is_unified() else "unified")
        for folder in tree.split(","):
            with contextlib.suppress(OSError):  # a tree this machine does not mount
                (ROOT / folder / path.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))


def remove(made: Sequence[Path]) -> None:
    """Delete the groups; the kernel needs a moment to forget the last processes."""
    wait_until(lambda: not _left(made), 3, every=0.1)


def _left(made: Sequence[Path]) -> bool:
    for group in made:
        for folder in _deepest_first(group):
            with contextlib.suppress(OSError):
                folder.rmdir()
    return any(group.exists() for group in made)


def _deepest_first(group: Path) -> Iterator[Path]:
    for path, _, _ in os.walk(group, topdown=False):
        yield Path(path)


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()

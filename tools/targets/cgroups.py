"""Control groups, so that CPUQuota, MemoryMax and TasksMax inside a target are enforced and not merely written down.

Two layouts exist. Version 1 (one tree per controller, `/sys/fs/cgroup/memory` and so on): systemd-nspawn hands the
controllers to a target read-only, and a systemd that cannot write ignores limits silently. So a target gets groups of
its own before it starts, and its PID 1 is started by a line of shell that makes them writable first. Version 2 (the
unified hierarchy of current distributions): delegation exists, nspawn does it all inside one group that is ours.
"""

import contextlib
import os
from pathlib import Path

from tools.targets.process import Process
from tools.targets.report import say

ROOT = Path("/sys/fs/cgroup")
_LIMITING = ("cpu", "cpuacct", "pids", "memory")
_SCOPE = ("systemd-run", "--quiet", "--scope", "--collect")

# Shell that runs its arguments behind "--", inside the groups named before it, again for as long as they end with the
# code by which systemd-nspawn --keep-unit says that the target wants to boot again. The groups are new for each boot
# and the shell itself stays outside: version 2 allows no process beside divided groups.
SUPERVISOR = """
groups=; while [ "$1" != -- ]; do groups="$groups $1"; shift; done; shift
while :; do
  for group in $groups; do mkdir -p "$group" || exit 1; done
  ( for group in $groups; do echo 0 >"$group/cgroup.procs" || exit 1; done; exec "$@" ); code=$?
  for try in 1 2 3 4 5 6 7 8 9 10; do
    left=; for group in $groups; do
      [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || left=$group; done
    [ -n "$left" ] || break; sleep 0.1
  done
  [ $code = 133 ] || exit $code
done
"""


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
        return [] if systemd_runs() else [ROOT / name]
    own = _own_paths()
    limiting = [ROOT / each / own.get(each, "/").lstrip("/") / name for each in _LIMITING if (ROOT / each).is_dir()]
    return limiting + [ROOT / each / name for each in ("systemd", "unified") if (ROOT / each).is_dir()]


def prepare() -> None:
    """Hand the limiting controllers of version 2 on to our groups, where no systemd does."""
    if is_unified() and not systemd_runs():
        try:
            (ROOT / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        except OSError as error:
            say(f"warning: limits of units will not be enforced in targets, {ROOT} hands on no controllers ({error})")


def delegated(name: str) -> list[str]:
    """Command prefix that starts systemd-nspawn in a group it may divide.

    For machines with the unified hierarchy: where systemd is PID 1 it owns the tree, so it is asked for a delegated
    scope. Elsewhere (version 1, or no systemd) the groups of `groups` serve and no prefix is needed.
    """
    return (
        [*_SCOPE, f"--description={name}", "--property=Delegate=yes", "--"] if is_unified() and systemd_runs() else []
    )


def detached(name: str) -> list[str]:
    """Command prefix that keeps a background process alive when the login or job that started it ends."""
    return [*_SCOPE, f"--description={name}", "--"] if systemd_runs() else []


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


def systemd_runs() -> bool:
    """Whether systemd is this machine's PID 1."""
    return Path("/run/systemd/system").is_dir()

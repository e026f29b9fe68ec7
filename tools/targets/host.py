"""What this machine needs to run targets, and getting it."""

import os
import shutil
import subprocess
from pathlib import Path

from tools.targets import aptsources
from tools.targets.errors import TargetError, UnfitMachineError
from tools.targets.process import run, succeeds
from tools.targets.report import say

_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "zstd": "zstd",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
    "mount": "mount",
    "mkfs.ext4": "e2fsprogs",
}


def missing_packages() -> list[str]:
    """Debian packages whose programs are not there."""
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not Path(aptsources.KEYRING).exists():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def lacks() -> list[str]:
    """One sentence for each thing that keeps this machine from running targets."""
    if os.geteuid() != 0:
        return ["Targets need root, and this is user " + str(os.geteuid()) + "; run it again with: sudo -E"]
    found = []
    packages = missing_packages()
    if packages:
        found.append(
            f"Missing here: {', '.join(packages)}; install with: python3 -m tools.targets install"
            f" (or: apt-get install {' '.join(packages)})"
        )
    if not succeeds("unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "true"):
        found.append(
            "This machine may not create namespaces (an unprivileged container?);"
            " use a machine or a container that may, such as one started with --privileged."
        )
    elif not _kernel_has_overlay():
        found.append("This machine's kernel has no overlay file system; load it with: modprobe overlay")
    if not Path("/sys/fs/cgroup").is_mount():
        found.append("No control groups are mounted at /sys/fs/cgroup; systemd-nspawn needs them: mount them first.")
    if shutil.which("apt-config") is None:
        found.append(
            "This machine has no apt, and targets are built from the archives its apt uses; use a Debian machine."
        )
    elif not aptsources.for_release(aptsources.host_sources(), "trixie"):
        found.append("This machine's apt sources name no Debian archive; add one below /etc/apt/sources.list.d")
    return found


def check() -> None:
    """Raise UnfitMachineError when something is missing."""
    found = lacks()
    if found:
        raise UnfitMachineError(found)


def install() -> None:
    """Install the missing packages from this machine's own archives."""
    if os.geteuid() != 0:
        raise UnfitMachineError(["Installing packages needs root; run it again with: sudo -E"])
    packages = missing_packages()
    if not packages:
        say("nothing to install: everything targets need is there")
        return
    if shutil.which("apt-get") is None:
        raise TargetError(
            f"This machine has no apt-get; install what provides these Debian packages: {' '.join(packages)}"
        )
    say(f"installing {', '.join(packages)} ...")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    installing = ("apt-get", "install", "--yes", "-qq", "--no-install-recommends", *packages)
    if subprocess.run(installing, env=environment, capture_output=True, check=False).returncode != 0:
        run("apt-get", "update", "-qq")  # most often the package lists were missing or old
        run(*installing, env=environment)


def _kernel_has_overlay() -> bool:
    return "\toverlay\n" in Path("/proc/filesystems").read_text() or succeeds("modprobe", "overlay")

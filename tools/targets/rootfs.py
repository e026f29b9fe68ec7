"""Base root file systems: a bare Debian host with Python and SSH, built once and kept in the user's cache."""

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from tools.targets import aptsources
from tools.targets.errors import TargetError
from tools.targets.lab import Lab, cache, locked, write
from tools.targets.process import run
from tools.targets.report import say

SUITES = ("trixie", "bookworm")
USER = "ansible"
_PACKAGES = (
    "systemd,systemd-sysv,dbus,libpam-systemd,python3,python3-apt,sudo,openssh-server,iproute2,iputils-ping,procps,"
    "ca-certificates,locales,less,nano,cron,logrotate,gnupg,e2fsprogs"
)
_LEAN = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
# No waiting for a network that leads nowhere, no work on a timer behind the tests' backs, no clock of its own.
_MASKED = (
    "systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer"
    " console-getty.service systemd-timesyncd.service"
)
_FINISH = (
    f'chroot "$1" useradd --create-home --shell /bin/bash {USER}',
    f'install -d -m 700 "$1/root/.ssh"; chroot "$1" install -d -m 700 -o {USER} -g {USER} /home/{USER}/.ssh',
    f'echo "{USER} ALL=(ALL) NOPASSWD:ALL" >"$1/etc/sudoers.d/{USER}"; chmod 440 "$1/etc/sudoers.d/{USER}"',
    f'chroot "$1" systemctl --quiet enable systemd-networkd.service; chroot "$1" systemctl --quiet mask {_MASKED}',
    'rm -f "$1/usr/sbin/policy-rc.d" "$1/etc/resolv.conf"; : >"$1/etc/resolv.conf"; : >"$1/etc/machine-id"',
    'rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1/etc/apt/apt.conf.d/99mmdebstrap"',
)


# So that Ansible's modules are compiled once, not for every task.
_ZIPPED_MODULES = Path(__file__).with_name("zipped_modules.py").read_text()
_DIST_PACKAGES = "usr/lib/python3/dist-packages"
KEEPER = f"/{_DIST_PACKAGES}/zipped_modules.pth"
"""Without it on a target, they are compiled for every task there as well."""


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def ensure(lab: Lab, suite: str) -> str:
    """Have the base of `suite` unpacked in the lab and return the name of its layer."""
    sources = aptsources.for_release(aptsources.host_sources(), suite)
    options = [option for option in aptsources.host_options() if not aptsources.is_proxy(option)]
    tarball = cache() / f"{suite}-{os.uname().machine}-{_digest(_PACKAGES, _LEAN, _FINISH)}.tar.zst"
    layer = lab.layers / f"{suite}-{_digest(tarball.name, sources, options, _ZIPPED_MODULES)}"
    with lab.lock(f"base-{suite}"):
        if not layer.exists():
            with locked(tarball.with_suffix(".lock")):
                if not tarball.exists():
                    _build(suite, tarball)
            _unpack(lab, tarball, layer, aptsources.as_deb822(aptsources.through_proxy(sources)), options)
    return layer.name


def _build(suite: str, tarball: Path) -> None:
    """Bootstrap the suite from this machine's own Debian archive."""
    sources = aptsources.for_release(aptsources.host_sources(), suite)
    say(f"building a Debian {suite} root file system (about half a minute, once) ...")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="telegram-stack-") as scratch:
        listed = Path(scratch) / "debian.sources"
        listed.write_text(aptsources.as_deb822(sources))
        part = Path(scratch) / f"{suite}.tar.zst"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={_PACKAGES}"]
        wanted = ['APT::Install-Recommends "false";', 'Acquire::Languages "none";', *aptsources.host_options()]
        command += [f"--aptopt={option.rstrip(';')}" for option in wanted]
        command += [f"--dpkgopt={option}" for option in _LEAN]
        command += [f"--customize-hook={hook}" for hook in _FINISH]
        run(*command, suite, part, listed)
        kept = tarball.with_name(f".{tarball.name}.part")
        shutil.move(part, kept)
        kept.replace(tarball)
    say(f"built {tarball} in {time.monotonic() - began:.0f} s")


def _unpack(lab: Lab, tarball: Path, layer: Path, sources: str, options: list[str]) -> None:
    """Unpack the base and make it this lab's: archives, fetch options, SSH key."""
    if shutil.disk_usage(lab.root).free < 2 << 30:
        raise TargetError(
            f"Less than 2 GiB are free below {lab.root}, too little for targets; free some: df -h {lab.root}"
        )
    _ensure_key(lab)
    part = layer.with_name(f".{layer.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    run("tar", "-C", part, "--xattrs", "--numeric-owner", "--zstd", "-xf", tarball)
    # The package lists are empty, which must not look fresh to the cache_valid_time of Ansible's apt module.
    os.utime(part / "var/lib/apt/lists", (0, 0))
    write(part / "etc/apt/sources.list.d/debian.sources", sources)
    write(part / "etc/apt/apt.conf.d/80host-acquire", "".join(f"{option}\n" for option in options))
    write(part / _DIST_PACKAGES / "zipped_modules.py", _ZIPPED_MODULES)
    write(part / KEEPER.lstrip("/"), "import zipped_modules\n")
    (part / "var/cache/zipped-modules").mkdir()
    for home in (part / "root", part / "home" / USER):
        keys = home / ".ssh/authorized_keys"
        write(keys, lab.key.with_suffix(".pub").read_text(), mode=0o600)
        owner = home.stat()
        os.chown(keys, owner.st_uid, owner.st_gid)
    part.replace(layer)


def _ensure_key(lab: Lab) -> None:
    with lab.lock("key"):
        if not lab.key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"targets-{lab.id}", "-f", lab.key)

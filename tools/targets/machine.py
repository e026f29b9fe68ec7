"""One target's life: boot, stop, kill, reset, and commands run inside it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools.targets import cgroups, network
from tools.targets.errors import TargetError
from tools.targets.lab import Lab, Machine, write
from tools.targets.network import Network
from tools.targets.process import Process, run, spawn, succeeds, wait_until
from tools.targets.report import say

BOOT_SECONDS = 90
_STOP_SECONDS = 60
_HOSTS_BEGIN, _HOSTS_END = "# targets of this lab", "# end of targets"


class Target:
    """One target of a lab and what can be done to it."""

    def __init__(self, lab: Lab, machine: Machine) -> None:
        self.lab = lab
        self.machine = machine
        self.folder = lab.folder(machine.name)
        self.root = self.folder / "root"
        self.console = self.folder / "console.log"

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def supervisor(self) -> Process | None:
        """The process that keeps it running; None when it is stopped."""
        return Process.read(self.folder / "supervisor.pid")

    @property
    def leader(self) -> Process | None:
        """Its PID 1 as this machine sees it."""
        supervisor = self.supervisor
        for nspawn in supervisor.children() if supervisor else []:
            for child in nspawn.children():
                if _is_init(child):
                    return child
        return None

    @property
    def state(self) -> str:
        """`running`, `booting` or `stopped`."""
        if self.supervisor is None:
            return "stopped"
        return "running" if (self.folder / "booted").exists() else "booting"

    def address(self, net: Network | None) -> str:
        """Its address; empty while the lab has no network."""
        return net.address(self.machine.host) if net else ""

    @property
    def _short(self) -> str:
        """Name for interfaces, which Linux keeps below 16 letters; unique on this machine."""
        net = network.find(self.lab)
        return f"tgs{net.number if net else 0}-{self.machine.host}"

    @property
    def _interface(self) -> str:
        return f"vb-{self._short}"

    # -- life ---------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Boot it and wait until its services run and SSH answers."""
        began = time.monotonic()
        net = network.ensure(self.lab)
        if self.state == "running":
            say(f"{self.machine.name}: already up at {self.address(net)}")
            return
        if self.state == "stopped":
            self._mount()
            self._seed(net)
            self._start(net)
        self._wait(net)
        say(f"{self.machine.name}: running at {self.address(net)} after {time.monotonic() - began:.1f} s")

    def stop(self) -> None:
        """Shut it down in order; one that will not is killed."""
        self._end(signal.SIGRTMIN + 4)

    def kill(self) -> None:
        """Stop it at once, as if its power went."""
        self._end(signal.SIGKILL)

    def reset(self) -> None:
        """Throw away all it wrote and boot it again from where it started."""
        self.kill()
        self._unmount()
        for name in ("upper", "work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.boot()

    def remove(self) -> None:
        """Kill it and delete it."""
        self.kill()
        self._unmount()
        for name in ("upper", "work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree(self.folder)  # the record goes last, so that an interrupted removal can be repeated

    def freeze(self, layer: str) -> Machine:
        """Stop it and turn all it wrote into the read-only layer `layer`, below a fresh empty one."""
        self.stop()
        self._unmount()
        (self.folder / "upper").rename(self.lab.layers / layer)
        shutil.rmtree(self.folder / "work")
        self.machine = replace(self.machine, layers=(layer, *self.machine.layers))
        return self.machine

    def set_cable(self, plugged: bool) -> None:
        """Pull or plug its network cable."""
        self._running()
        network.set_cable(self._interface, plugged)

    # -- inside -------------------------------------------------------------------------------------------------

    def enter(self, command: Sequence[str]) -> int:
        """Run a command inside as root, on this terminal; returns its exit code."""
        leader = self._running()
        return subprocess.run(_inside(leader, command), check=False, preexec_fn=lambda: cgroups.join(leader)).returncode

    def write_hosts(self, names: str) -> None:
        """Bring the block of targets in its /etc/hosts up to date; other lines stay as they are."""
        path = self.root / "etc/hosts"
        if not os.path.ismount(self.root):
            return
        text = path.read_text() if path.exists() else ""
        if (changed := with_targets(text, names)) != text:
            write(path, changed)

    # -- steps --------------------------------------------------------------------------------------------------

    def _running(self) -> Process:
        leader = self.leader
        if leader is None:
            raise TargetError(
                f"Target '{self.machine.name}' is not running; start it with:"
                f" python3 -m tools.targets start {self.machine.name}"
            )
        return leader

    def _mount(self) -> None:
        if os.path.ismount(self.root):
            return
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(exist_ok=True)
        lower = ":".join(str(self.lab.layers / layer) for layer in self.machine.layers)
        options = f"lowerdir={lower},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", options, self.root)

    def _unmount(self) -> None:
        if os.path.ismount(self.root) and not wait_until(lambda: succeeds("umount", self.root), 5):
            run("umount", self.root)

    def _seed(self, net: Network) -> None:
        """Give it its name, address and way to packages; the rest of the disk is its own business."""
        etc = self.root / "etc"
        write(etc / "hostname", f"{self.machine.name}\n")
        write(
            etc / "systemd/network/10-host0.network",
            # An unplugged cable loses packets, not the address: so it is on servers with a fixed address.
            f"[Match]\nName=host0\n[Network]\nAddress={self.address(net)}/24\n"
            "LinkLocalAddressing=no\nLLDP=no\nIgnoreCarrierLoss=yes\n",
        )
        write(etc / "apt/apt.conf.d/99target-proxy", f'Acquire::http::Proxy "{net.proxy}";\n')
        write_all_hosts(self.lab, net)

    def _start(self, net: Network) -> None:
        cgroups.prepare()
        name = f"telegram-stack-{self.lab.id}-{self.machine.name}"
        nspawn = [
            *cgroups.delegated(name),
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+3"),
            *(f"--machine={self._short}", f"--hostname={self.machine.name}", f"--directory={self.root}"),
            *(f"--network-bridge={net.bridge}", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--"),
            *cgroups.init(),
        ]
        groups = [str(group) for group in cgroups.groups(name)]
        (self.folder / "booted").unlink(missing_ok=True)
        supervised = [
            *cgroups.detached(f"{name} supervisor"),
            "/bin/sh",
            "-c",
            cgroups.SUPERVISOR,
            name,
            *groups,
            "--",
            *nspawn,
        ]
        spawn(supervised, self.console).remember(self.folder / "supervisor.pid")

    def _wait(self, net: Network) -> None:
        """Wait until systemd inside says that booting is over and SSH answers."""
        deadline = time.monotonic() + BOOT_SECONDS
        said = ""
        while said not in ("running", "degraded"):
            if self.supervisor is None or time.monotonic() > deadline:
                self._give_up(said)
            leader = self.leader
            said = _ask(leader, "systemctl", "is-system-running", "--wait") if leader else ""
            time.sleep(0.05)
        (self.folder / "booted").touch()
        if said == "degraded" and (leader := self.leader):
            failed = _ask(leader, "systemctl", "list-units", "--failed", "--plain", "--no-legend").split("\n")
            say(f"{self.machine.name}: these units failed: {', '.join(line.split()[0] for line in failed if line)}")
        if not wait_until(lambda: network.accepts(self.address(net), 22), 15):
            raise TargetError(
                f"Target '{self.machine.name}' runs, but SSH does not answer at {self.address(net)}; look with:"
                f" python3 -m tools.targets exec {self.machine.name} systemctl status ssh"
            )

    def _give_up(self, said: str) -> None:
        lines = self.console.read_text(errors="replace").splitlines()[-8:] if self.console.exists() else []
        self.kill()
        raise TargetError(
            f"Target '{self.machine.name}' did not come up within {BOOT_SECONDS} s"
            f" (last state: {said.strip() or 'none'}). Its console, {self.console}, ends with:\n" + "\n".join(lines)
        )

    def _end(self, number: int) -> None:
        supervisor = self.supervisor
        if supervisor is not None:
            leader = self.leader
            if leader is None:
                supervisor.end()
            else:
                leader.signal(number)
                if not supervisor.ended(_STOP_SECONDS):
                    leader.signal(signal.SIGKILL)
                    supervisor.ended(10)
        for name in ("supervisor.pid", "booted"):
            (self.folder / name).unlink(missing_ok=True)


def write_all_hosts(lab: Lab, net: Network) -> None:
    """Tell every target the names and addresses of all."""
    with lab.lock("hosts"):
        machines = lab.machines()
        names = "".join(f"{net.address(machine.host)} {machine.name}\n" for machine in machines)
        for machine in machines:
            Target(lab, machine).write_hosts(names)


def with_targets(hosts: str, names: str) -> str:
    """The text of an /etc/hosts with `names` as its block of targets, other lines as they are."""
    before, found, rest = hosts.partition(f"{_HOSTS_BEGIN}\n")
    after = rest.partition(f"{_HOSTS_END}\n")[2] if found else ""
    if not before:
        before = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
    return f"{before}{_HOSTS_BEGIN}\n{names}{_HOSTS_END}\n{after}"


def _is_init(process: Process) -> bool:
    """Whether the process is PID 1 of a namespace below ours."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1"


def _inside(leader: Process, command: Sequence[str]) -> list[str]:
    clean = [
        "env",
        "--ignore-environment",
        "--chdir=/",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
    ]
    clean += ["LANG=C.UTF-8", f"TERM={os.environ.get('TERM', 'dumb')}"]
    return ["nsenter", f"--target={leader.pid}", "--all", *clean, *command]


def _ask(leader: Process, *question: str) -> str:
    """What a command inside prints, whatever its exit code; it may hang while the target boots or dies."""
    try:
        answer = subprocess.run(
            _inside(leader, question), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return answer.stdout.strip()

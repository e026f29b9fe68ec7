"""The verbs."""

import argparse
import json
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from tools.targets import host, inventory, network, rootfs, storage
from tools.targets.errors import TargetError
from tools.targets.lab import FIRST_HOST, Lab, Machine, Snapshot
from tools.targets.machine import Target, write_all_hosts


class Verbs:
    """What can be asked for, one method a verb."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def up(self, asked: argparse.Namespace) -> None:
        """Create a target and boot it; one that is up already is left alone."""
        name: str = asked.name
        with self._alone(name):
            known = {machine.name: machine for machine in self.lab.machines()}
            target = Target(self.lab, known[name]) if name in known else self._create(name, asked.suite, asked.start)
            machine = target.machine
            if asked.suite not in (None, machine.suite) or asked.start not in (None, machine.origin):
                raise TargetError(
                    f"Target '{name}' exists, is {machine.suite} and started from {machine.origin};"
                    f" to have another, take it down first: python3 -m tools.targets down {name}"
                )
            target.boot()

    def _create(self, name: str, suite: str | None, start: str | None) -> Target:
        """Reserve a name and an address, on a base or on a saved target."""
        release = suite or rootfs.SUITES[0]
        base = "" if start else rootfs.ensure(self.lab, release)
        with self.lab.lock("lab"):
            below = self.lab.snapshot(start) if start else Snapshot(release, FIRST_HOST, release, (base,))
            if suite not in (None, below.suite):
                raise TargetError(f"Saved target '{start}' is {below.suite}, not {suite}; leave --suite away.")
            machine = Machine(name, self.lab.free_host(below.host), below.suite, below.name, below.layers)
            self.lab.write_machine(machine)
        return Target(self.lab, machine)

    def start(self, asked: argparse.Namespace) -> None:
        """Boot a stopped target."""
        with self._alone(asked.name):
            self._target(asked.name).boot()

    def stop(self, asked: argparse.Namespace) -> None:
        """Shut a target down in order."""
        with self._alone(asked.name):
            self._target(asked.name).stop()

    def kill(self, asked: argparse.Namespace) -> None:
        """Stop a target at once."""
        with self._alone(asked.name):
            self._target(asked.name).kill()

    def reset(self, asked: argparse.Namespace) -> None:
        """Put a target back to what it started from, and boot it."""
        with self._alone(asked.name):
            self._target(asked.name).reset()

    def save(self, asked: argparse.Namespace) -> None:
        """Save a target's disk under a name; the target goes on from there."""
        snapshot_name: str = asked.snapshot
        if snapshot_name in rootfs.SUITES:
            raise TargetError(f"'{snapshot_name}' is the name of a Debian release; save under another name.")
        self.lab.folder(snapshot_name)
        with self._alone(asked.name):
            target = self._target(asked.name)
            was_up = target.supervisor is not None
            with self.lab.lock("lab"):
                frozen = target.freeze(f"saved-{uuid.uuid4().hex[:10]}")
                machine = Machine(frozen.name, frozen.host, frozen.suite, snapshot_name, frozen.layers)
                self.lab.write_machine(machine)
                self.lab.write_snapshot(Snapshot(snapshot_name, machine.host, machine.suite, machine.layers))
                self.lab.drop_unused_layers()
            if was_up:
                Target(self.lab, machine).boot()

    def forget(self, asked: argparse.Namespace) -> None:
        """Delete a saved target; targets that started from it stay."""
        with self.lab.lock("lab"):
            self.lab.delete_snapshot(self.lab.snapshot(asked.name))
            self.lab.drop_unused_layers()

    def cut(self, asked: argparse.Namespace) -> None:
        """Pull a target's network cable."""
        self._target(asked.name).set_cable(plugged=False)

    def heal(self, asked: argparse.Namespace) -> None:
        """Plug it in again."""
        self._target(asked.name).set_cable(plugged=True)

    def down(self, asked: argparse.Namespace) -> None:
        """Remove a target; nothing to do when there is none of that name."""
        with self._alone(asked.name):
            if self.lab.folder(asked.name).exists():
                self._remove(asked.name)

    def down_all(self, asked: argparse.Namespace) -> None:
        """Remove all targets, the proxy and the bridge."""
        for machine in self.lab.machines():
            with self._alone(machine.name):
                if self.lab.folder(machine.name).exists():
                    self._remove(machine.name)
        network.remove(self.lab)
        if asked.purge:
            storage.delete(self.lab)

    def exec(self, asked: argparse.Namespace) -> int:
        """Run a command inside a target as root."""
        return self._target(asked.name).enter(asked.command)

    def list(self, asked: argparse.Namespace) -> None:
        """Show the targets and what was saved."""
        net = network.known(self.lab)
        targets = [
            {
                "name": target.machine.name,
                "address": target.address(net),
                "suite": target.machine.suite,
                "from": target.machine.origin,
                "state": target.state,
            }
            for target in (Target(self.lab, machine) for machine in self.lab.machines())
        ]
        saved = [{"name": snapshot.name, "suite": snapshot.suite} for snapshot in self.lab.snapshots()]
        if asked.json:
            print(json.dumps({"targets": targets, "snapshots": saved}, indent=2))
            return
        for row in targets:
            print(f"{row['name']:<20} {row['address']:<15} {row['suite']:<9} {row['state']:<8} from {row['from']}")
        for entry in saved:
            print(f"{entry['name']:<20} {'':<15} {entry['suite']:<9} saved")

    def inventory(self, asked: argparse.Namespace) -> None:
        """Print Ansible's host variables (JSON, by name) of some or all targets."""
        machines = [self.lab.machine(name) for name in asked.names] or self.lab.machines()
        net = network.known(self.lab)
        hosts = {machine.name: inventory.variables(self.lab, net, machine) for machine in machines} if net else {}
        print(json.dumps(hosts, indent=2))

    def ssh_config(self, asked: argparse.Namespace) -> None:
        """Print an ssh configuration for one target."""
        machine = self.lab.machine(asked.name)
        net = network.known(self.lab)
        if net is None:
            raise TargetError(f"'{asked.name}' was never booted; boot it: python3 -m tools.targets start {asked.name}")
        print(inventory.ssh_config(self.lab, net, machine), end="")

    # -- helpers ------------------------------------------------------------------------------------------------

    def _alone(self, name: str) -> AbstractContextManager[None]:
        """Keep other invocations away from one target meanwhile."""
        self.lab.folder(name)
        return self.lab.lock(f"machine-{name}")

    def _target(self, name: str) -> Target:
        return Target(self.lab, self.lab.machine(name))

    def _remove(self, name: str) -> None:
        target = self._target(name)
        target.remove()
        with self.lab.lock("lab"):
            self.lab.drop_unused_layers()
        net = network.find(self.lab)
        if net is not None:
            write_all_hosts(self.lab, net)


def _parser(verbs: Verbs) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tools.targets", description="Real Debian hosts on this machine, for molecule, demo and tests."
    )
    parsers = parser.add_subparsers(required=True, metavar="VERB")

    def verb(
        name: str, action: Callable[[argparse.Namespace], int | None], *, named: bool = True
    ) -> argparse.ArgumentParser:
        added = parsers.add_parser(name, help=action.__doc__, description=action.__doc__)
        added.set_defaults(action=action, verb=name)
        if named:
            added.add_argument("name", metavar="NAME")
        return added

    up = verb("up", verbs.up)
    up.add_argument("--suite", choices=rootfs.SUITES, help=f"Debian release (default: {rootfs.SUITES[0]})")
    up.add_argument("--from", dest="start", metavar="SNAP", help="start from a saved target")
    verb("start", verbs.start)
    verb("stop", verbs.stop)
    verb("kill", verbs.kill)
    verb("reset", verbs.reset)
    verb("save", verbs.save).add_argument("snapshot", metavar="SNAP")
    verb("forget", verbs.forget)
    verb("cut", verbs.cut)
    verb("heal", verbs.heal)
    verb("down", verbs.down)
    everything = verb("down-all", verbs.down_all, named=False)
    everything.add_argument("--purge", action="store_true", help="delete bases and saved targets too")
    verb("exec", verbs.exec).add_argument("command", metavar="CMD", nargs=argparse.REMAINDER)
    verb("list", verbs.list, named=False).add_argument("--json", action="store_true")
    verb("inventory", verbs.inventory, named=False).add_argument("names", metavar="NAME", nargs="*")
    verb("ssh-config", verbs.ssh_config)
    verb("check", _check, named=False)
    verb("install", _install, named=False)
    return parser


def _check(_asked: argparse.Namespace) -> None:
    """Say what this machine lacks to run targets; exit code 3 when something is missing."""
    host.check()
    print("This machine can run targets.")


def _install(_asked: argparse.Namespace) -> None:
    """Install the Debian packages targets need on this machine."""
    host.install()


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; returns the exit code: 0 done, 1 failed, 2 not understood, 3 this machine cannot."""
    lab = Lab.here()
    asked = _parser(Verbs(lab)).parse_args(arguments)
    try:
        if asked.verb not in ("check", "install"):
            host.check()
            storage.prepare(lab)
        return int(asked.action(asked) or 0)
    except TargetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"`{asked.verb}` could not go on: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130

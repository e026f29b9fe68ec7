"""The lab's own network: a bridge that leads nowhere but to this machine's apt proxy."""

import ipaddress
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.targets import cgroups
from tools.targets.errors import TargetError
from tools.targets.lab import CHECKOUT, Lab, cache, locked, write
from tools.targets.process import Process, run, spawn, succeeds, wait_until

REGISTRY = Path("/run/telegram-stack-targets")
"""One file per network number, holding the lab that has it; gone after a reboot, like the bridges."""
PROXY_PORT = 3142


@dataclass(frozen=True)
class Network:
    """One /24 with its bridge."""

    block: ipaddress.IPv4Network
    number: int

    @property
    def bridge(self) -> str:
        """Name of the bridge."""
        return f"tgstack{self.number}"

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """The lab's addresses."""
        return ipaddress.IPv4Network((int(self.block.network_address) + (self.number << 8), 24))

    def address(self, host: int) -> str:
        """Address of one host; 1 is this machine."""
        return str(self.subnet.network_address + host)

    @property
    def proxy(self) -> str:
        """URL of the apt proxy."""
        return f"http://{self.address(1)}:{PROXY_PORT}"


def block() -> ipaddress.IPv4Network:
    """The /16 all labs take their networks from; TARGETS_NETWORK names another, the same one for every verb."""
    text = os.environ.get("TARGETS_NETWORK", "10.77.0.0/16")
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise TargetError(
            f"TARGETS_NETWORK is '{text}', which is no network ({error}); use one like 10.77.0.0/16"
        ) from None
    if network.prefixlen != 16 or not network.is_private:
        raise TargetError(f"TARGETS_NETWORK is '{text}'; it must be a private /16 such as 10.77.0.0/16")
    return network


def find(lab: Lab) -> Network | None:
    """The network the lab has now, if it has one."""
    for path in REGISTRY.glob("*.lab"):
        if path.read_text() == str(lab.root):
            return Network(block(), int(path.stem))
    return None


def known(lab: Lab) -> Network | None:
    """The network the lab has or had last; its stopped targets will get it again unless another has taken it."""
    remembered = lab.root / "network"
    return find(lab) or (Network(block(), int(remembered.read_text())) if remembered.exists() else None)


def ensure(lab: Lab) -> Network:
    """Give the lab a network, its bridge and its apt proxy, unless they are there."""
    with lab.lock("network"):
        network = find(lab) or _allocate(lab)
        if not succeeds("ip", "link", "show", network.bridge):
            run("ip", "link", "add", network.bridge, "type", "bridge")
        run("ip", "addr", "replace", f"{network.address(1)}/24", "dev", network.bridge)
        Path(f"/proc/sys/net/ipv4/conf/{network.bridge}/forwarding").write_text("0")
        run("ip", "link", "set", network.bridge, "up")
        _ensure_proxy(lab, network)
    return network


def remove(lab: Lab) -> None:
    """Take the proxy and the bridge down and give the network back."""
    with lab.lock("network"):
        end_proxy(lab)
        network = find(lab)
        if network is not None:
            if succeeds("ip", "link", "show", network.bridge):
                run("ip", "link", "del", network.bridge)
            (REGISTRY / f"{network.number}.lab").unlink()


def end_proxy(lab: Lab) -> None:
    """Cut the lab's only way out; the next target that boots has it opened again."""
    proxy = Process.read(lab.root / "aptproxy.pid")
    if proxy is not None:
        proxy.end()
    (lab.root / "aptproxy.pid").unlink(missing_ok=True)


def set_cable(interface: str, plugged: bool) -> None:
    """Pull or plug the network cable of a target, on this machine's side."""
    run("ip", "link", "set", interface, "up" if plugged else "down")


def _allocate(lab: Lab) -> Network:
    """Register the first free number, the lab's last one (or one told by its id) before others."""
    base = block()
    remembered = lab.root / "network"
    preferred = int(remembered.read_text()) if remembered.exists() else 1 + int(lab.id, 16) % 254
    with locked(REGISTRY / "lock"):
        for path in REGISTRY.glob("*.lab"):
            if not Path(path.read_text()).exists():  # its checkout and state are gone
                path.unlink()
        used = _routed()
        for number in (preferred, *range(1, 255)):
            network = Network(base, number)
            owner = REGISTRY / f"{number}.lab"
            if not owner.exists() and not any(network.subnet.overlaps(other) for other in used):
                write(owner, str(lab.root))
                write(remembered, str(number))
                return network
    raise TargetError(
        f"No /24 of {base} is free on this machine (`ip route` lists what is taken);"
        " name another /16: export TARGETS_NETWORK=172.20.0.0/16"
    )


def _routed() -> list[ipaddress.IPv4Network]:
    """What this machine reaches already, but for the default route."""
    routes = json.loads(run("ip", "-4", "-json", "route", "show", "table", "all"))
    return [
        ipaddress.IPv4Network(route["dst"])
        for route in routes
        if route.get("dst", "default") not in ("default", "0.0.0.0/0")
    ]


def _ensure_proxy(lab: Lab, network: Network) -> None:
    """Run the apt proxy in the background until the lab is taken down."""
    remembered = lab.root / "aptproxy.pid"
    if Process.read(remembered) is not None:
        return
    log = lab.root / "aptproxy.log"
    command = [
        sys.executable,
        "-m",
        "tools.targets.aptproxy",
        network.address(1),
        str(PROXY_PORT),
        str(cache() / "apt"),
    ]
    process = spawn([*cgroups.detached(f"telegram-stack-{lab.id} apt proxy"), *command], log, cwd=CHECKOUT)
    process.remember(remembered)
    wait_until(lambda: not process.alive or accepts(network.address(1), PROXY_PORT), 15)
    if not process.alive or not accepts(network.address(1), PROXY_PORT):
        process.end()
        raise TargetError(f"The apt proxy does not listen on {network.proxy}; its own words are in {log}")


def accepts(address: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False

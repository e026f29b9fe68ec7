"""Deploys from a bundle to hosts that reach nothing beyond their bridge: `make bundle-test`.

The hosts' only way out, the apt proxy of their lab, is ended, and in its place something listens that answers nobody
and counts who asks. The playbooks run without PyPI and with an empty cache. On a bare Debian 13 host a bundle with one
flipped byte is refused, a dry run succeeds, and nothing changes; the good one is deployed, deployed again without a
change, and upgraded from a bundle of a newer version. On a bare Debian 12 host the services are installed, and apt
resolves all packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bundle
from tests import upgrade
from tests.integration.servers import wait_until
from tools import playbook
from tools.demo_stack import targets
from tools.simulator import Simulator, gateway_settings, start_with_sessions
from tools.targets import network
from tools.targets.lab import Lab

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".cache" / "offline"
HOSTS = {"offline13": "trixie", "offline12": "bookworm"}
GROUPS = ("database", "cache", "queue", "gateway", "api", "worker", "monitoring")
PORT, MESSAGES, NEWER = 8493, 200, "99.1.0"
_CONTENT = (
    "dpkg-query -W; getent passwd; systemctl list-unit-files --no-legend | grep -v transient;"
    " find /etc /opt /var/lib /var/cache -xdev -type f -not -path '/var/lib/systemd/*' -printf '%p %s %T@\\n' | sort"
)
_SERVICES = [
    {
        "hosts": "offline12",
        "tasks": [
            {
                "name": "Install the services from the bundle",
                "ansible.builtin.include_role": {
                    "name": "tradingsystem.telegram_stack.common",
                    "tasks_from": "services.yml",
                },
            }
        ],
    }
]


@dataclass
class Outside:
    """What stands where the way out was."""

    listener: socket.socket
    asked: int = 0

    def listen(self) -> None:
        """Count connections, and answer none."""
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self.listener.accept()
                self.asked += 1
                connection.close()


@contextlib.contextmanager
def cut() -> Iterator[Outside]:
    """End the lab's way out while the context lasts."""
    lab = Lab.here()
    net = network.find(lab)
    assert net is not None
    network.end_proxy(lab)
    with socket.create_server((net.address(1), network.PROXY_PORT)) as listener:
        outside = Outside(listener)
        thread = threading.Thread(target=outside.listen, daemon=True)
        thread.start()
        try:
            yield outside
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def main() -> None:
    """Do it all; an assertion says what is not as it should be."""
    Simulator(STATE / "simulator", "", PORT).stop()  # of a run that was killed
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True)
    telegram = boot()
    with tempfile.TemporaryDirectory() as scratch:
        newer, archives = prepare(Path(scratch))
        with cut() as outside:
            apt_fails(outside)
            change_nothing(archives["13"], flipped(archives["13"], Path(scratch)))
            deploy(telegram, archives["13"])
            upgrade_from(newer, archives[NEWER])
            install_on_debian_12(archives["12"])
            assert outside.asked == 0, f"{outside.asked} attempts to reach the outside"
    for name in HOSTS:
        targets("down", name)
    telegram.stop()
    print("Nothing asked for the outside.")


def change_nothing(archive: Path, damaged: Path) -> None:
    """A bundle with a flipped byte is refused by the name of the file, and a dry run with the good one succeeds."""
    bare = upgrade.on("offline13", "sh", "-c", _CONTENT)
    said = play("refused", ROOT, "playbooks/deploy.yml", telegram_bundle=damaged)
    assert re.search(r"debian/\S+\.deb is not the file that SHA256SUMS names", said), said[-2000:]
    assert "make bundle" in said, said[-2000:]
    play("dry", ROOT, "playbooks/deploy.yml", "--check", "--diff", telegram_bundle=archive)
    assert upgrade.on("offline13", "sh", "-c", _CONTENT) == bare, "the refusal or the dry run changed the host"


def deploy(telegram: Simulator, archive: Path) -> None:
    """The good one gives a stack through which messages pass, and a second deployment changes nothing."""
    began = time.monotonic()
    said = play("deploy", ROOT, "playbooks/deploy.yml", telegram_bundle=archive)
    assert re.search(r"(?m)^Grafana +ok ", said), "Grafana did not come from the bundle"
    print(f"deployed from {archive.name} in {time.monotonic() - began:.0f} s")
    posted = telegram.ask("POST", "/messages", {"count": MESSAGES})["messages"]
    upgrade.await_consumed("offline13", [(one["channel_id"], one["message_id"]) for one in posted])
    play("again", ROOT, "playbooks/deploy.yml", telegram_bundle=archive)
    (changed,) = re.findall(r"(?m)^offline13 .* changed=(\d+)", (STATE / "again.log").read_text())
    assert changed == "0", f"a second deployment changed something: {STATE / 'again.log'}"


def upgrade_from(newer: Path, archive: Path) -> None:
    """The services come from a newer collection's bundle, and the older one is gone."""
    first = upgrade.release("offline13")
    play("upgrade", newer, "playbooks/upgrade.yml", telegram_bundle=archive)
    second = upgrade.release("offline13")
    assert second.startswith(f"{NEWER}-"), second
    there = upgrade.on("offline13", "find", "/var/cache/telegram-stack", "-name", "bundle-*").split()
    assert len(there) == 1, there
    print(f"upgraded: {first} -> {second}")


def install_on_debian_12(archive: Path) -> None:
    """The services' package is installed there, and apt finds all that the roles ask for in the bundle."""
    (STATE / "services.json").write_text(json.dumps(_SERVICES))  # which is YAML too
    play("services", ROOT, str(STATE / "services.json"), telegram_bundle=archive)
    upgrade.on("offline12", "/opt/telegram-stack/current/bin/python", "-c", "import telegram_stack.gateway.main")
    apt = ("env", "APT_CONFIG=/var/cache/telegram-stack/bundle.conf", "apt-get", "--simulate")
    wanted = ("install", "--no-install-recommends", *bundle.RELEASES["12"].packages)
    resolved = set(re.findall(r"(?m)^Inst (\S+)", upgrade.on("offline12", *apt, *wanted)))
    assert {"postgresql-15", "rabbitmq-server"} <= resolved, resolved


def prepare(folder: Path) -> tuple[Path, dict[str, Path]]:
    """A newer version of the collection, and all bundles, made while the outside is in reach; Grafana is a stand-in."""
    newer = upgrade.version(folder, NEWER)
    galaxy = newer / "galaxy.yml"
    galaxy.write_text(re.sub(r"(?m)^version: .*$", f"version: {NEWER}", galaxy.read_text()))
    grafana = folder / "grafana.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", str(ROOT / "molecule/default/grafana_standin"), str(grafana)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    archives = {}
    for name, collection, debian in (("13", ROOT, "13"), (NEWER, newer, "13"), ("12", ROOT, "12")):
        program = str(collection / "roles/common/files/bundle.py")
        make = [sys.executable, program, "make", "--debian", debian, "--deb", str(grafana), "--out", str(folder)]
        made = subprocess.run(make, check=True, stdout=subprocess.PIPE, text=True).stdout
        archives[name] = Path(made.split()[1])
    return newer, archives


def boot() -> Simulator:
    """Boot bare hosts, start their Telegram, and write the inventory."""
    for name, suite in HOSTS.items():
        targets("down", name)
        targets("up", name, "--suite", suite)
    hosts: dict[str, dict[str, Any]] = json.loads(targets("inventory", *HOSTS))
    address = hosts["offline13"]["ansible_host"].rpartition(".")[0] + ".1"
    telegram = Simulator(STATE / "simulator", address, PORT)
    start_with_sessions(telegram, 20, ["offline13"])
    children: dict[str, Any] = {f"telegram_{name}": {"hosts": {"offline13": {}}} for name in GROUPS}
    settings = {
        **gateway_settings(telegram, "offline13"),
        "telegram_secrets_file": str(STATE / "telegram_secrets.yml"),
    }
    stack = {"children": children}
    (STATE / "hosts.json").write_text(
        json.dumps({"all": {"hosts": hosts, "children": {"telegram_stack": stack}, "vars": settings}})
    )
    return telegram


def apt_fails(outside: Outside) -> None:
    """See that the cut is one: apt asks where the way out was, and gets nothing."""
    upgrade.on("offline13", "sh", "-c", "! apt-get -o APT::Update::Error-Mode=any update")
    wait_until(lambda: outside.asked > 0, 10)
    outside.asked = 0


def flipped(archive: Path, folder: Path) -> Path:
    """A copy with one bit changed in the middle, in one of its packages."""
    copy = Path(shutil.copy(archive, folder / "flipped.tar"))
    with copy.open("r+b") as file:
        file.seek(copy.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    return copy


def play(name: str, collection: Path, book: str, *words: str, **settings: object) -> str:
    """What a playbook of `collection` says, which has to fail where it is called refused; kept as NAME.log."""
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "COLUMNS": "500",
        "XDG_CACHE_HOME": str(STATE / "cache"),  # nothing gathered before
        "PIP_INDEX_URL": "http://127.0.0.1:9/",  # and nothing to gather from
    }
    if collection != ROOT:
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(collection.parents[2])
    options = ["-i", str(STATE / "hosts.json"), "-e", json.dumps(settings, default=str), *words]
    command = [playbook.program("ansible-playbook"), *options, str(collection / book)]
    print(f"{name}: {book}, all of it in {STATE.relative_to(ROOT)}/{name}.log", flush=True)
    log = STATE / f"{name}.log"
    with log.open("w") as output:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False)
    assert (done.returncode != 0) == (name == "refused"), playbook.failure(log)
    return log.read_text()


if __name__ == "__main__":
    main()

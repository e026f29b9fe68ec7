"""The host on which alerts are tried: bare Debian, the whole stack, and a simulated Telegram that posts lightly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.integration.servers import ROOT, free_port, wait_until
from tools import playbook
from tools.demo_stack import digest, targets
from tools.simulator import Simulator, gateway_settings, start_with_sessions
from tools.targets.lab import Lab
from tools.targets.machine import Target

NAME = "alerts"
STATE = ROOT / ".cache" / "alerts"
INVENTORY, DEPLOYED, LOG = STATE / "hosts.json", STATE / "deployed", STATE / "deploy.log"
PORT, CHANNELS, RATE = 8483, 20, 10
PATIENCE = 0.1
GROUPS = ("database", "cache", "queue", "gateway", "api", "worker", "monitoring")
SPOOL = "/var/lib/telegram-gateway"
SPOOL_MEGABYTES = 256
_CLIENTS = """
import time, urllib.request
request = urllib.request.Request("http://127.0.0.1:4010/api/messages")
request.add_header("X-API-Key", open("/root/api-token").read())
while True:
    try:
        urllib.request.urlopen(request, timeout=10).read()
    except OSError:  # errors are the monitoring's business
        pass
    time.sleep(0.5)
"""


@dataclass(frozen=True)
class Host:
    """A running host: commands inside, its Prometheus and Alertmanager, and the Telegram it hears."""

    name: str
    telegram: Simulator
    prometheus: httpx.Client
    alertmanager: httpx.Client

    def run(self, command: str, given: str = "") -> str:
        """What a shell command prints on the host; an AssertionError with its complaint when it fails."""
        inside = [sys.executable, "-m", "tools.targets", "exec", self.name, "bash", "-o", "pipefail", "-c", command]
        done = subprocess.run(inside, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"on the host: {command.splitlines()[0]}: {done.stderr.strip()[-500:]}"
        return done.stdout

    def sql(self, statement: str) -> str:
        """The answer to a statement of the database's superuser."""
        psql = "su postgres -c 'psql -X -p 5434 -d telegram_gateway -Atq -v ON_ERROR_STOP=1'"
        return self.run(psql, statement).strip()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that Prometheus has for `expression` now. Raises httpx.HTTPError."""
        answer = self.prometheus.get("/api/v1/query", params={"query": expression}).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def post(self, count: int) -> None:
        """Have so many messages posted at once."""
        self.telegram.ask("POST", "/messages", {"count": count})


@contextmanager
def running() -> Iterator[Host]:
    """The host with the stack, made where it is not there."""
    telegram = _boot()
    _deploy()
    _give_the_spool_a_disk()
    with reached(NAME, telegram) as host:
        _ask_the_api(host)
        yield host


@contextmanager
def reached(name: str, telegram: Simulator) -> Iterator[Host]:
    """A host that runs; its ports are reached while the context lasts."""
    ports = free_port(), free_port()
    forward = [f"-L127.0.0.1:{port}:127.0.0.1:{there}" for port, there in zip(ports, (9090, 9093), strict=True)]
    with tempfile.NamedTemporaryFile("w") as settings:
        settings.write(targets("ssh-config", name))
        settings.flush()
        command = ["ssh", "-F", settings.name, "-N", *forward, name]
        with (
            subprocess.Popen(command, stdin=subprocess.DEVNULL) as tunnel,
            _client(ports[0]) as prometheus,
            _client(ports[1]) as alertmanager,
        ):
            try:
                wait_until(lambda: _answers(prometheus), 60)
                yield Host(name, telegram, prometheus, alertmanager)
            finally:
                tunnel.terminate()


def _client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def _boot() -> Simulator:
    """Boot the host unless it runs, and have its Telegram post; the inventory says all of it."""
    STATE.mkdir(parents=True, exist_ok=True)
    targets("up", NAME, "--suite", "trixie")
    host = json.loads(targets("inventory", NAME))[NAME]
    telegram = Simulator(STATE / "simulator", host["ansible_host"].rpartition(".")[0] + ".1", PORT)
    start_with_sessions(telegram, CHANNELS, [NAME])
    if not telegram.ask("GET", "/load")["running"]:
        telegram.ask("POST", "/load", {"rate": RATE})
    group: dict[str, Any] = {"hosts": {NAME: {}}}
    children = {f"telegram_{name}": group for name in GROUPS} | {"telegram_stack": group}
    hosts = {NAME: host}
    INVENTORY.write_text(json.dumps({"all": {"hosts": hosts, "children": children, "vars": _settings(telegram)}}))
    return telegram


def _settings(telegram: Simulator) -> dict[str, Any]:
    return {
        **gateway_settings(telegram, NAME),
        "monitoring_alert_patience": PATIENCE,
        "monitoring_grafana_install_source": "none",
        "telegram_secrets_file": str(STATE / "telegram_secrets.yml"),
    }


def _deploy() -> None:
    """Run the deploy playbook, unless what it would deploy is there."""
    wanted = digest(ROOT, INVENTORY)
    if DEPLOYED.exists() and DEPLOYED.read_text() == wanted:
        return
    print(f"Deploying the stack, some minutes on a bare host (all of it: {LOG.relative_to(ROOT)})", flush=True)
    DEPLOYED.unlink(missing_ok=True)
    command = [playbook.program("ansible-playbook"), "-i", str(INVENTORY), "playbooks/deploy.yml"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    with LOG.open("w") as said:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=said, stderr=said, check=False)
    if done.returncode:
        sys.exit(f"The deployment failed:\n{playbook.failure(LOG)}\nTry again: make alerts")
    DEPLOYED.write_text(wanted)


def _give_the_spool_a_disk() -> None:
    """Mount a small disk below the gateway's spool: one that can be filled, and that the node exporter sees."""
    lab = Lab.here()
    leader = Target(lab, next(machine for machine in lab.machines() if machine.name == NAME)).leader
    assert leader is not None
    inside = ["nsenter", "--target", str(leader.pid), "--mount", "sh", "-ec"]
    if subprocess.run([*inside, f"mountpoint -q {SPOOL}"], check=False).returncode == 0:
        return
    image = STATE / "spool.img"
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(SPOOL_MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    loop = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    device = loop.stdout.strip()
    number = Path(device).stat().st_rdev
    targets("exec", NAME, "systemctl", "stop", "telegram-gateway")
    moved = f"""
    rm -f {device}; mknod -m 660 {device} b {os.major(number)} {os.minor(number)}
    mkdir -p /mnt/spool; mount {device} /mnt/spool
    cp -a {SPOOL}/. /mnt/spool/
    chown --reference={SPOOL} /mnt/spool; chmod --reference={SPOOL} /mnt/spool
    umount /mnt/spool; mount {device} {SPOOL}
    """
    subprocess.run([*inside, moved], check=True)
    subprocess.run(["losetup", "--detach", device], check=True)  # takes effect when it is unmounted
    targets("exec", NAME, "systemctl", "start", "telegram-gateway")


def _ask_the_api(host: Host) -> None:
    """Ask the API twice a second from now on, as its clients do."""
    secrets = yaml.safe_load((STATE / "telegram_secrets.yml").read_text())["telegram_secrets"]
    host.run("umask 077; cat >/root/api-token", secrets["api_token_read"])
    host.run("cat >/root/api-clients", _CLIENTS)
    host.run("systemctl is-active -q api-clients || systemd-run -q --unit=api-clients python3 /root/api-clients")


def remove() -> None:
    """Remove the host, its Telegram and all that is known of them; what was measured stays."""
    targets("down", NAME)
    Simulator(STATE / "simulator", "", PORT).stop()
    for path in (INVENTORY, DEPLOYED, STATE / "spool.img", STATE / f"session-{NAME}", STATE / "telegram_secrets.yml"):
        path.unlink(missing_ok=True)

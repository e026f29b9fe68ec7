"""Beyond loopback the monitoring speaks TLS and asks for a log-in: the role's own files, real programs on them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ansible_collections.tradingsystem.telegram_stack.plugins.filter.new_secret import new_secret
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.health_drivers import DRIVERS
from tests.integration.plays import play
from tests.integration.servers import free_port, wait_until

from telegram_stack.api.config import ComponentConfig
from telegram_stack.console.components import beside

PROGRAMS = ("prometheus", "alertmanager", "node_exporter", "postgres_exporter")
BINARIES = [Path("/usr/bin", name) for name in ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the role gives its files to root"),
    pytest.mark.skipif(
        not all(path.exists() for path in [*BINARIES, Path("/usr/bin/prometheus-postgres-exporter")]),
        reason="Prometheus, Alertmanager and the exporters are not installed",
    ),
]
USER = "telegram_monitor"
SECRETS = {name: new_secret(name) for name in ("monitoring_web", "monitoring_ca_key")}


def own_address() -> str:
    """An address of this machine that others can reach; all of them where it has only one that nobody can."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "0.0.0.0"  # noqa: S104  # which is the point
        return str(probe.getsockname()[0])


@dataclass(frozen=True)
class Role:
    """The role's tasks, run on this machine with all that they write below `folder`."""

    folder: Path
    ports: dict[str, int]

    @property
    def credentials(self) -> Path:
        """Where root keeps what the units are given."""
        return self.folder / "credentials"

    def run(self, *tasks: dict[str, Any], **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run `tasks`."""
        self.credentials.mkdir(mode=0o700, exist_ok=True)
        (self.credentials / "monitoring_web").write_text(SECRETS["monitoring_web"])
        paths = {
            "_monitoring_credentials_dir": str(self.credentials),
            "_monitoring_ca": str(self.folder / "ca.crt"),
            "_monitoring_settings_dir": str(self.folder),
            "_monitoring_targets_dir": str(self.folder / "targets"),
            "_monitoring_rules_dir": str(self.folder / "rules"),
            "_monitoring_web_password": str(self.credentials / "monitoring_web"),
            "_monitoring_textfiles": str(self.folder),
            "__monitoring_folders": {"results": [{"stat": {"exists": True}}]},
            "monitoring_components": list(PROGRAMS),
            "monitoring_scrape_interval": "5s",  # the exporter of a database that is away takes its time
            "telegram_secrets": {**SECRETS, "postgres_exporter": "p"},
            **{f"telegram_{name}_port": port for name, port in self.ports.items()},
        }
        return play(self.folder, list(tasks), paths | settings, "-vvv")

    def deploy(self, **settings: Any) -> subprocess.CompletedProcess[str]:
        """What a deployment writes, and the commands of its units as commands.json."""
        commands = "{{ _monitoring_here | map(attribute='value.settings.ExecStart.1') | list | to_json }}"
        return self.run(
            included("targets.yml"),
            included("tls.yml", when="_monitoring_tls_asked"),
            included("settings.yml"),
            {"ansible.builtin.copy": {"content": commands, "dest": f"{self.folder}/commands.json", "mode": "0644"}},
            **settings,
        )

    def commands(self) -> list[list[str]]:
        """The commands of the units, as systemd would start them, in the order of the role."""
        here = {
            "%d": str(self.credentials),
            "/var/lib/prometheus": f"{self.folder}/data",
        }
        found = []
        for command in json.loads((self.folder / "commands.json").read_text()):
            for there, place in here.items():
                command = command.replace(there, place)  # noqa: PLW2901
            found.append(command.split())
        return found

    def start(self) -> list[subprocess.Popen[bytes]]:
        """Start what the units would."""
        environment = {**os.environ, "DATA_SOURCE_NAME": "postgresql://nobody@127.0.0.1:1/none?sslmode=disable"}
        with (self.folder / "log").open("ab") as log:
            return [subprocess.Popen(command, stdout=log, stderr=log, env=environment) for command in self.commands()]


def included(tasks: str, role: str = "monitoring", **more: Any) -> dict[str, Any]:
    """A task that runs a file of the role."""
    include = {"name": f"tradingsystem.telegram_stack.{role}", "tasks_from": tasks, "public": True}
    return {"ansible.builtin.include_role": include, **more}


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.wait()


def new_role(folder: Path) -> Role:
    ports = ("prometheus", "alertmanager", "node_exporter", "postgres_exporter")
    return Role(folder, {name: free_port() for name in ports})


@pytest.fixture(scope="module")
def address() -> str:
    """Where all of it listens."""
    return own_address()


@pytest.fixture(scope="module")
def asked(address: str) -> str:
    """Where all of it is asked."""
    return "127.0.0.1" if address == "0.0.0.0" else address  # noqa: S104


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory, address: str, asked: str) -> Iterator[Role]:
    """One that has deployed everything beyond loopback, where it runs."""
    here = new_role(tmp_path_factory.mktemp("tls"))
    done = here.deploy(telegram_bind_address=address)
    assert done.returncode == 0, done.stdout[-3000:]
    assert SECRETS["monitoring_web"] not in done.stdout + done.stderr
    assert "PRIVATE KEY" not in done.stdout + done.stderr
    processes = here.start()
    try:
        wait_until(lambda: all(listens(asked, port) for port in here.ports.values()), 30)
        yield here
    finally:
        stop(processes)


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def client(role: Role, login: tuple[str, str] | None) -> httpx.Client:
    """One that trusts the stack's authority alone."""
    return httpx.Client(verify=ssl.create_default_context(cafile=str(role.folder / "ca.crt")), auth=login)


Ask = Callable[[str], Any]


@pytest.fixture
def ask(role: Role, asked: str) -> Ask:
    """Asks the API of Prometheus as somebody who has the password."""

    def ask_it(path: str) -> Any:
        with client(role, (USER, SECRETS["monitoring_web"])) as known:
            return (
                known.get(f"https://{asked}:{role.ports['prometheus']}/api/v1/{path}").raise_for_status().json()["data"]
            )

    return ask_it


@pytest.mark.requirement("MO-01")
@pytest.mark.parametrize("program", PROGRAMS)
def test_only_who_has_the_password_is_answered(role: Role, asked: str, program: str) -> None:
    place = f"{asked}:{role.ports[program]}/metrics"
    for login, status in ((None, 401), ((USER, "wrong"), 401), ((USER, SECRETS["monitoring_web"]), 200)):
        with client(role, login) as somebody:
            assert somebody.get(f"https://{place}").status_code == status, login


@pytest.mark.requirement("MO-01")
@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_is_told_in_plain_text_nor_believed_from_strangers(role: Role, asked: str, program: str) -> None:
    place = f"{asked}:{role.ports[program]}/metrics"
    plain = httpx.get(f"http://{place}", auth=(USER, SECRETS["monitoring_web"]))
    assert plain.status_code == 400
    assert "HTTPS server" in plain.text
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://{place}")  # who trusts the usual authorities only


@pytest.mark.requirement("MO-01")
def test_prometheus_reaches_itself_and_the_others(ask: Ask) -> None:
    jobs = ("prometheus", "alertmanager", "node", "postgres")

    def health() -> dict[str, str]:
        return {
            target["labels"]["job"]: target["health"] + target["lastError"]
            for target in ask("targets")["activeTargets"]
            if target["labels"]["job"] in jobs
        }

    wait_until(lambda: health() == dict.fromkeys(jobs, "up"), 60)
    wait_until(lambda: len(ask("alertmanagers")["activeAlertmanagers"]) == 1, 30)
    assert ask("alertmanagers")["activeAlertmanagers"][0]["url"].startswith("https://")


@pytest.mark.requirement("MO-01")
def test_health_and_console_ask_by_tls(role: Role, asked: str, ask: Ask) -> None:
    check = {"host": asked, "timeout": 5.0, "ca_file": str(role.folder / "ca.crt"), "user": USER}
    known = check | {"password": SECRETS["monitoring_web"], "port": role.ports["prometheus"]}
    assert ask("status/buildinfo")["version"] == DRIVERS["prometheus"](known).version
    node = known | {
        "port": role.ports["node_exporter"],
        "path": "/metrics",
        "metric": "node_exporter_build_info",
        "minimum": 1,
    }
    assert DRIVERS["metrics"](node).status == "ok"


@pytest.mark.requirement("MO-01")
async def test_the_console_knows_who_asks_for_a_log_in(role: Role, asked: str) -> None:
    port = role.ports["prometheus"]
    shown = await beside([ComponentConfig(name="P", host=asked, port=port, tls=tls) for tls in (True, False)])
    assert [row.state for row in shown] == ["healthy", "unhealthy"]


def test_keys_are_for_root_alone_and_a_second_run_changes_nothing(role: Role, address: str) -> None:
    assert {path.stat().st_mode & 0o777 for path in role.credentials.glob("web.*")} == {0o600}
    before = (role.credentials / "web.pem").read_bytes()
    done = role.deploy(telegram_bind_address=address)
    assert re.search(r"changed=0\b.*failed=0\b", done.stdout), done.stdout[-2000:]
    assert (role.credentials / "web.pem").read_bytes() == before


def test_another_authority_has_certificates_made_anew(tmp_path: Path, address: str) -> None:
    role = new_role(tmp_path)
    assert role.deploy(telegram_bind_address=address).returncode == 0
    before = (role.credentials / "web.pem").read_bytes()
    other = {"monitoring_web": "w", "monitoring_ca_key": new_secret("monitoring_ca_key"), "postgres_exporter": "p"}
    assert role.deploy(telegram_bind_address=address, telegram_secrets=other).returncode == 0
    assert (role.credentials / "web.pem").read_bytes() != before
    verified = ["openssl", "verify", "-CAfile", str(tmp_path / "ca.crt"), str(role.credentials / "web.pem")]
    assert subprocess.run(verified, check=False, capture_output=True).returncode == 0


@pytest.mark.requirement("MO-01")
def test_one_on_loopback_is_plain_and_asks_the_nodes_beyond_by_tls(
    tmp_path: Path, role: Role, asked: str, ask: Ask
) -> None:
    """The other host made its certificate with a copy of the authority's of its own."""
    other = new_role(tmp_path)
    node, own = f"{asked}:{role.ports['node_exporter']}", f"127.0.0.1:{other.ports['node_exporter']}"
    if asked == "127.0.0.1":
        pytest.skip("this machine has no address beyond loopback")
    done = other.deploy(monitoring_node_targets=[own, node])
    assert done.returncode == 0, done.stdout[-3000:]
    assert not list(other.credentials.glob("web.*"))
    assert not any("web.config" in part for command in other.commands() for part in command)
    processes = other.start()
    address = f"http://127.0.0.1:{other.ports['prometheus']}/api/v1/targets"

    def health() -> dict[str, str]:
        targets = httpx.get(address).json()["data"]["activeTargets"]
        return {target["scrapeUrl"]: target["health"] for target in targets if target["labels"]["job"] == "node"}

    try:
        wait_until(lambda: listens("127.0.0.1", other.ports["prometheus"]), 30)
        wait_until(lambda: health() == {f"https://{node}/metrics": "up", f"http://{own}/metrics": "up"}, 30)
    finally:
        stop(processes)


def test_on_loopback_nothing_is_made(tmp_path: Path) -> None:
    role = new_role(tmp_path)
    assert role.deploy().returncode == 0
    assert [path.name for path in role.credentials.iterdir()] == ["monitoring_web"]
    assert "basic_auth" not in (tmp_path / "prometheus.yml").read_text()
    written = yaml.safe_load((tmp_path / "targets/node.yml").read_text())
    assert written == [{"targets": [f"127.0.0.1:{role.ports['node_exporter']}"]}]


@pytest.mark.parametrize("bound", ["10.0.0.5", "::"])
def test_plain_text_beyond_loopback_is_refused(tmp_path: Path, bound: str) -> None:
    plain = {"telegram_bind_address": bound, "telegram_monitoring_tls": False}
    done = new_role(tmp_path).run({"ansible.builtin.setup": {}}, included("preflight.yml", "common"), **plain)
    assert done.returncode == 2
    assert "telegram_monitoring_tls is false" in " ".join(done.stdout.split())


@pytest.mark.parametrize("bound", ["127.0.0.2", "::1"])
def test_loopback_may_be_plain(tmp_path: Path, bound: str) -> None:
    done = new_role(tmp_path).run(
        {"ansible.builtin.setup": {}}, included("preflight.yml", "common"), telegram_bind_address=bound
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_certificate_of_ones_own_has_to_be_whole_and_for_the_host(tmp_path: Path, role: Role, address: str) -> None:
    own, key, authority = tmp_path / "own.crt", tmp_path / "own.key", tmp_path / "own-ca.crt"
    making = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 90"
    for out, subject in ((authority, "/CN=Somebody"), (own, "/CN=another.example")):
        files = [
            "-keyout",
            str(key),
            "-out",
            str(out),
            "-subj",
            subject,
            "-addext",
            "subjectAltName=DNS:another.example",
        ]
        subprocess.run([*making.split(), *files], check=True, capture_output=True)
    given = {"monitoring_tls_certificate": str(own), "monitoring_tls_key": str(key)}
    here = new_role(tmp_path)
    done = here.run(included("preflight.yml"), **given, telegram_bind_address=address)
    assert done.returncode == 2
    assert "Give all three" in " ".join(done.stdout.split())
    done = here.deploy(**given, monitoring_tls_ca=str(own), telegram_bind_address=address)
    assert done.returncode == 2
    assert "Give one that monitoring_tls_ca has signed for that address" in " ".join(done.stdout.split())
    # What the stack's own authority made is as good as anybody's.
    made = {
        "monitoring_tls_certificate": str(role.credentials / "web.pem"),
        "monitoring_tls_key": str(role.credentials / "web.pem"),
    }
    made["monitoring_tls_ca"] = str(role.folder / "ca.crt")
    done = here.run(included("preflight.yml"), **made, telegram_bind_address=address)
    assert done.returncode == 0, done.stdout[-2000:]
    done = here.deploy(**made, telegram_bind_address=address)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "PRIVATE KEY" not in done.stdout + done.stderr

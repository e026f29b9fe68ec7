"""The links between hosts: two network namespaces of this machine, with the role's own files and real programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.tradingsystem.telegram_stack.plugins.filter.new_secret import new_secret
from tests.integration.plays import play, playbook
from tests.integration.servers import ROOT, wait_until

NEEDED = ("haproxy", "nft", "ip", "openssl")
pytestmark = [
    pytest.mark.requirement("OP-05"),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
    pytest.mark.skipif(
        not all(shutil.which(program) for program in NEEDED), reason=f"one of {', '.join(NEEDED)} is not installed"
    ),
]
ADDRESSES = {"front": "198.18.7.1", "store": "198.18.7.2"}
STRANGER = "198.18.7.3"
GROUPS = ("database", "cache", "queue", "gateway", "api", "worker", "monitoring")
SERVICES = [
    {"name": "database", "group": "telegram_database", "port": 5434, "hosts": ["store"]},
    {"name": "api", "group": "telegram_api", "port": 4010, "hosts": ["front"]},
]
ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1000):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", 5434), Echo).serve_forever()
"""
CALL = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3, source_address=(sys.argv[3], 0)) as caller:
    caller.sendall(b"hello")
    print(caller.recv(100).decode())
"""
HOLD = """
import socket
with socket.create_connection(("127.0.0.1", 5434), timeout=60) as caller:
    caller.sendall(b"hello")
    print(caller.recv(100).decode(), flush=True)
    print(caller.recv(100) == b"", flush=True)
"""


class Hosts:
    """Both hosts, and what runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = {"links_ca_key": new_secret("links_ca_key")}
        self.running: dict[str, subprocess.Popen[str]] = {}

    def space(self, name: str) -> str:
        """The namespace of a host; no other run of the tests has it."""
        return f"tgs-{os.getpid()}-{name}"

    def deploy(self, **settings: object) -> subprocess.CompletedProcess[str]:
        """The files that the role writes for each host."""
        made = {
            "_links_dir": f"{self.folder}/{{{{ inventory_hostname }}}}",
            "_links_credentials_dir": f"{self.folder}/{{{{ inventory_hostname }}}}/credentials",
            "common_config_dir": f"{self.folder}/etc",
            "links_hosts": ADDRESSES,
            "links_services": SERVICES,
            "telegram_secrets": self.secrets,
        }
        role = {"name": "tradingsystem.telegram_stack.links", "public": True}
        rules = f"{ROOT}/roles/links/templates/firewall.nft.j2"
        write = {"src": rules, "dest": "{{ _links_rules }}", "mode": "0644", "validate": "nft -c -f %s"}
        tasks = [
            {"ansible.builtin.include_role": {**role, "tasks_from": "settings.yml"}},
            {"ansible.builtin.template": write},
        ]
        (self.folder / "play.yml").write_text(json.dumps([{"hosts": "all", "tasks": tasks}]))
        (self.folder / "settings.json").write_text(json.dumps(made | settings))
        options = ["-i", ",".join(ADDRESSES), "-c", "local", "-e", f"@{self.folder}/settings.json"]
        return playbook(str(self.folder / "play.yml"), *options, "-e", f"ansible_python_interpreter={sys.executable}")

    def run(self, name: str, *command: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
        """Run a command on a host; it may fail."""
        inside = ["ip", "netns", "exec", self.space(name), *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=seconds)

    def start(
        self, name: str, *command: str, certificate: str = "", stdout: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a program on a host, with the certificate of the same host or of another."""
        inside = ["ip", "netns", "exec", self.space(name), *command]
        environment = {**os.environ, "CREDENTIALS_DIRECTORY": f"{self.folder}/{certificate or name}/credentials"}
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(inside, stdout=stdout or log, stderr=log, text=True, env=environment)

    def link(self, name: str, certificate: str = "") -> None:
        """Start the links of a host, anew where they run."""
        self.end(name)
        config = f"{self.folder}/{name}/haproxy.cfg"
        self.running[name] = self.start(name, "haproxy", "-q", "-f", config, certificate=certificate)

    def end(self, name: str) -> None:
        """End what was started under a name."""
        if name in self.running:
            process = self.running.pop(name)
            process.kill()
            process.wait(timeout=10)

    def reaches(self, name: str, other: str) -> bool:
        """Whether the links of a host say that another is there."""
        metrics = self.run(name, "curl", "-s", "-m", "5", "http://127.0.0.1:6444/metrics").stdout
        return f'haproxy_backend_active_servers{{proxy="to_{other}"}} 1' in metrics

    def call(self, where: str = "127.0.0.1", port: int = 5434, source: str = "127.0.0.1") -> str:
        """What `front` hears when it says hello at an address; an error's last line where it is not let in."""
        done = self.run("front", sys.executable, "-c", CALL, where, str(port), source)
        return (done.stdout or done.stderr.strip().splitlines()[-1]).strip()

    def cable(self, state: str) -> None:
        """Pull or plug the cable of `store`."""
        subprocess.run(["ip", "-n", self.space("store"), "link", "set", "cable", state], check=True)


def _wire(hosts: Hosts) -> None:
    spaces = [hosts.space(name) for name in ADDRESSES]
    for space in spaces:
        subprocess.run(["ip", "netns", "add", space], check=True)
        subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
    ends = ["type", "veth", "peer", "name", "cable", "netns", spaces[1]]
    subprocess.run(["ip", "-n", spaces[0], "link", "add", "cable", *ends], check=True)
    for space, *addresses in ((spaces[0], ADDRESSES["front"], STRANGER), (spaces[1], ADDRESSES["store"])):
        subprocess.run(["ip", "-n", space, "link", "set", "cable", "up"], check=True)
        for address in addresses:
            subprocess.run(["ip", "-n", space, "addr", "add", f"{address}/24", "dev", "cable"], check=True)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("links")
    folder.chmod(0o755)
    made = Hosts(folder)
    try:
        _wire(made)
        done = made.deploy()
        assert done.returncode == 0, done.stdout + done.stderr
        made.running["echo"] = made.start("store", sys.executable, "-c", ECHO)
        yield made
    finally:
        for name in list(made.running):
            made.end(name)
        for name in ADDRESSES:
            subprocess.run(["ip", "netns", "del", made.space(name)], check=False)


@pytest.fixture
def linked(hosts: Hosts) -> Hosts:
    """Both hosts with links that stand."""
    for name in ADDRESSES:
        hosts.link(name)
    wait_until(lambda: hosts.reaches("front", "store") and hosts.reaches("store", "front"), 15)
    return hosts


def test_a_service_of_another_host_is_at_its_port_on_loopback(linked: Hosts) -> None:
    assert linked.call() == "hello"


def test_a_second_deployment_changes_nothing(hosts: Hosts) -> None:
    done = hosts.deploy()
    assert "changed=0" in done.stdout
    assert "changed=1" not in done.stdout


def test_without_a_certificate_nobody_is_let_in(linked: Hosts) -> None:
    store = f"{ADDRESSES['store']}:6443"
    # The refusal comes after the handshake: without -ign_eof the client may have gone by then.
    done = linked.run("front", "openssl", "s_client", "-connect", store, "-alpn", "database", "-ign_eof")
    assert "certificate required" in done.stdout + done.stderr
    assert linked.call(ADDRESSES["store"], 6443) != "hello"  # in plain text


def test_who_has_only_the_certificate_of_another_host_is_no_store(linked: Hosts) -> None:
    linked.link("store", certificate="front")
    wait_until(lambda: not linked.reaches("front", "store"), 15)
    assert linked.call() != "hello"


def test_a_cut_cable_ends_every_connection_and_a_plugged_one_is_noticed(linked: Hosts) -> None:
    held = linked.start("front", sys.executable, "-c", HOLD, stdout=subprocess.PIPE)
    assert held.stdout is not None
    assert held.stdout.readline() == "hello\n"
    linked.cable("down")
    try:
        wait_until(lambda: not linked.reaches("front", "store"), 20)
        assert held.stdout.readline() == "True\n"  # the end of the connection, long before any time-out of TCP
        began = time.monotonic()
        assert linked.call() != "hello"
        assert time.monotonic() - began < 3  # at once, where a cable alone would keep the caller waiting
    finally:
        linked.cable("up")
        held.kill()
        held.communicate(timeout=10)
    wait_until(lambda: linked.reaches("front", "store"), 20)
    assert linked.call() == "hello"


def test_the_firewall_lets_in_the_other_host_and_nobody_else(linked: Hosts) -> None:
    store = ADDRESSES["store"]
    linked.running["open"] = linked.start("store", sys.executable, "-c", ECHO.replace('"127.0.0.1", 5434', '"", 6434'))
    linked.running["other"] = linked.start("store", sys.executable, "-c", ECHO.replace('"127.0.0.1", 5434', '"", 7777'))
    wait_until(lambda: linked.call(store, 6434, STRANGER) == linked.call(store, 7777, STRANGER) == "hello", 15)
    done = linked.deploy(
        telegram_pgbouncer_port=6434, links_services=[*SERVICES, {**SERVICES[0], "name": "pgbouncer", "port": 6434}]
    )
    assert done.returncode == 0, done.stdout
    assert linked.run("store", "nft", "-f", f"{linked.folder}/store/firewall.nft").returncode == 0
    assert "timed out" in linked.call(store, 6434, STRANGER)
    assert "timed out" in linked.call(store, 6443, STRANGER)
    assert linked.call(store, 7777, STRANGER) == "hello"  # no port of the stack
    assert linked.call() == "hello"  # over the link
    done = linked.deploy(
        telegram_client_networks=["198.18.7.3/32"],
        links_services=[*SERVICES, {**SERVICES[0], "name": "pgbouncer", "port": 6434}],
    )
    assert done.returncode == 0, done.stdout
    assert linked.run("store", "nft", "-f", f"{linked.folder}/store/firewall.nft").returncode == 0
    assert linked.call(store, 6434, STRANGER) == "hello"


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        (
            {"links_services": [{**SERVICES[0], "hosts": ["a", "b"]}]},
            "the group telegram_database has a, b. Give it one",
        ),
        ({"links_services": [{**SERVICES[0], "hosts": []}]}, "the group telegram_database has none. Give it one host"),
        ({"telegram_redis_host": "192.0.2.7"}, "telegram_redis_host is 192.0.2.7, but on each host"),
        ({"telegram_bind_address": "192.0.2.7"}, "telegram_bind_address is 192.0.2.7 on localhost, but the links end"),
        ({"links_tls_certificate": "/here.crt"}, "Give all three, or none to have a certificate made"),
        (
            {f"links_tls_{part}": "/nowhere.crt" for part in ("certificate", "key", "ca")},
            'links_tls_certificate ("/nowhere.crt") is no file on the controller',
        ),
        ({"telegram_secrets": {}}, "telegram_secrets lacks links_ca_key"),
    ],
)
def test_what_cannot_be_linked_is_refused(tmp_path: Path, settings: dict[str, object], refusal: str) -> None:
    role = {"name": "tradingsystem.telegram_stack.links", "tasks_from": "preflight.yml"}
    given = {"links_services": SERVICES, "links_hosts": ADDRESSES, "telegram_secrets": {"links_ca_key": "k"}}
    done = play(tmp_path, [{"ansible.builtin.include_role": role}], given | settings)
    assert done.returncode == 2, done.stdout
    assert refusal in " ".join(done.stdout.split()), done.stdout


@pytest.mark.parametrize(
    ("hosts_of", "settings", "linked"),
    [
        ({}, {}, False),
        ({"cache": "b"}, {}, True),
        ({"cache": "b"}, {"telegram_links": "false"}, False),
        ({"queue": ""}, {"telegram_queue_enabled": False}, False),
        (dict.fromkeys(GROUPS, "a b"), {}, False),  # two stacks of one host each
    ],
)
def test_a_stack_is_linked_where_its_groups_differ(
    tmp_path: Path, hosts_of: dict[str, str], settings: dict[str, object], linked: bool
) -> None:
    children = {f"telegram_{name}": {"hosts": dict.fromkeys(hosts_of.get(name, "a").split())} for name in GROUPS}
    (tmp_path / "hosts.json").write_text(json.dumps({"telegram_stack": {"children": children}}))
    say = {
        "ansible.builtin.copy": {
            "content": "{{ _links_on | bool | to_json }}",
            "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}",
        }
    }
    made = {"hosts": "a", "gather_facts": False, "vars_files": [f"{ROOT}/playbooks/vars/links.yml"], "tasks": [say]}
    (tmp_path / "play.yml").write_text(json.dumps([made]))
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    done = playbook(
        str(tmp_path / "play.yml"), "-i", f"{tmp_path}/hosts.json", "-c", "local", "-e", f"@{tmp_path}/settings.json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "a").read_text() == json.dumps(linked)

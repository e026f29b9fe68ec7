"""Bad input on bare hosts: one clear sentence that says what to do, and hosts as bare as before."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import bundle
import pytest
import yaml
from tests.integration.engines import LAB_LOCK
from tools.targets import host as machine
from tools.targets.lab import locked

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("database", "cache", "queue", "gateway", "api", "worker", "monitoring")
APPLICATION = {"gateway_api_id": 1, "gateway_api_hash": "0" * 32}
SESSION = "1" + "A" * 352
SECOND = {"name": "second", "port": 4016}
HOSTS = {"bare-debian13": "trixie", "bare-debian12": "bookworm"}
BAD: list[tuple[dict[str, object], str]] = [
    (
        {"pgbouncer_poolsize": 10},
        "variable pgbouncer_poolsize; did you mean pgbouncer_pool_size?",
    ),
    ({"telegram_database_port": "many"}, "telegram_database_port"),
    ({"gateway_api_id": 0}, "Make one at https://my.telegram.org"),
    (
        {"gateway_session_file": "/nowhere/session.txt"},
        "/nowhere/session.txt (gateway_session_file) is missing",
    ),
    (
        {"telegram_bundle": "/nowhere/bundle.tar"},
        "bundle.tar cannot be read: No such file or directory (telegram_bundle). Copy it here again",
    ),
    ({"gateway_session_string": "1abc"}, "is no string session of Telethon or GramJS: it has 4 characters"),
    (
        {"telegram_gateway_accounts": [{"name": "one", "port": 4006}, {"name": "one", "port": 4017}]},
        "two accounts have the name one; port 4006 is there twice",
    ),
    (
        {"telegram_gateway_accounts": [{"name": "api", "port": 4010}, {"name": "Big One", "port": 4016}]},
        "the name Big One is not made of small letters, digits and hyphens, with a letter",
    ),
    (
        {
            "gateway_session_string": SESSION,
            "telegram_gateway_accounts": [SECOND | {"session_string": SESSION}],
        },
        "are given the same session: Telegram voids one that two processes use",
    ),
    (
        {"telegram_gateway_accounts": [SECOND | {"session_file": "/nowhere/session.txt"}]},
        "/nowhere/session.txt (telegram_gateway_accounts.second.session_file) is missing",
    ),
    (
        {"telegram_gateway_accounts": [SECOND | {"proxy": {"kind": "mtproxy", "host": "proxy.example"}}]},
        "telegram_gateway_accounts.second.proxy.kind is mtproxy, so",
    ),
    ({"telegram_staged": True, "telegram_gateway_accounts": [SECOND]}, "a migration takes over the one account"),
    ({"redis_sentinel_maxmemory": "600mb"}, "raise redis_sentinel_replica_memory_max"),
    ({"timescaledb_memory_budget": "64M"}, "it must be 256M or more"),
    ({"ansible_become": False}, "root is needed"),
]
pytestmark = pytest.mark.skipif(bool(machine.lacks()), reason=" ".join(machine.lacks()))


def targets(*words: str) -> str:
    """Run a verb of the target hosts' tool; its output."""
    command = [sys.executable, "-m", "tools.targets", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600).stdout


@dataclass(frozen=True)
class Bare:
    """Hosts on which nothing is installed, and inventories that give each the whole stack: of one, and of both.

    Nothing that a test of this file does may change them.
    """

    folder: Path

    def deploy(self, hosts: str, /, *options: str, **variables: object) -> subprocess.CompletedProcess[str]:
        """Run the deploy playbook with `variables` on its command line, for `one` of the hosts or `both`."""
        command = ["ansible-playbook", "playbooks/deploy.yml", "-i", str(self.folder / f"{hosts}.json"), *options]
        command += ["-e", json.dumps(APPLICATION | variables)]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900
        )

    def content(self) -> set[str]:
        """Packages, users, units and settings of the hosts, a line each."""
        texts = self.shell(
            "dpkg-query -W; getent passwd; systemctl list-unit-files --no-legend | grep -v transient;"
            " find /etc /opt /var/lib -xdev -type f -not -path '/var/lib/apt/*' -not -path '/var/lib/systemd/*'"
            " -printf '%p %s %T@\\n' | sort"
        )
        return {f"{name}: {line}" for name, text in zip(HOSTS, texts, strict=True) for line in text.splitlines()}

    def shell(self, script: str) -> list[str]:
        """What `script` prints on each host."""
        return [targets("exec", name, "sh", "-c", script) for name in HOSTS]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The last message of a run that ended with one, on one line."""
    assert done.returncode == 2, done.stdout[-3000:]
    return re.sub(r"\s+", " ", re.findall(r"msg: ?(.*?)\n\n", done.stdout, re.S)[-1])


@pytest.fixture(scope="module")
def lab_alone() -> Iterator[None]:
    with locked(LAB_LOCK):
        yield


@pytest.fixture(scope="module")
def bare(lab_alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    try:
        for name, suite in HOSTS.items():
            targets("up", name, "--suite", suite)
        ready = Bare(tmp_path_factory.mktemp("bare"))
        for name, hosts in {"one": [next(iter(HOSTS))], "both": list(HOSTS)}.items():
            children = {f"telegram_{group}": {"hosts": dict.fromkeys(hosts)} for group in GROUPS}
            stack = {"hosts": json.loads(targets("inventory", *hosts)), "children": children}
            (ready.folder / f"{name}.json").write_text(json.dumps({"telegram_stack": stack}))
        # Neither the boot changes a host meanwhile (a unit of it that failed is no matter) nor what is due at midnight,
        # which runs at the boot where it was missed.
        ready.shell("systemctl is-system-running --wait; systemctl stop '*.timer'")
        ready.shell("while systemctl list-units --state=activating --no-legend | grep -q .; do sleep 0.1; done")
        before = ready.content()
        yield ready
        assert ready.content() ^ before == set()
        assert not (ready.folder / "group_vars").exists()
    finally:
        for name in HOSTS:
            targets("down", name)


@dataclass(frozen=True)
class Runs:
    """Runs of the playbook, two at a time: a dry run, and one for each of `BAD`."""

    dry: Future[subprocess.CompletedProcess[str]]
    bad: list[Future[subprocess.CompletedProcess[str]]]


@pytest.fixture(scope="module")
def runs(bare: Bare) -> Iterator[Runs]:
    names = yaml.safe_load((ROOT / "roles/common/vars/main.yml").read_text())["_common_secret_names"]
    secrets = bare.folder / "secrets.yml"
    secrets.write_text(json.dumps({"telegram_secrets": {name: f"canary-{name}" for name in names}}))
    with ThreadPoolExecutor(2) as pool:
        dry = pool.submit(bare.deploy, "both", "--check", "--diff", telegram_secrets_file=str(secrets))
        yield Runs(dry, [pool.submit(bare.deploy, "one", **variables) for variables, _ in BAD])


@pytest.mark.parametrize("number", range(len(BAD)), ids=[next(reversed(variables)) for variables, _ in BAD])
def test_bad_settings_are_refused_before_anything_changes(runs: Runs, number: int) -> None:
    assert BAD[number][1] in refusal(runs.bad[number].result())


@pytest.mark.requirement("OP-02")
def test_a_dry_run_on_a_bare_host_succeeds_changes_nothing_and_shows_no_secret(runs: Runs) -> None:
    done = runs.dry.result()
    assert done.returncode == 0, done.stdout[-3000:]
    assert "canary-" not in done.stdout + done.stderr


@pytest.mark.requirement("OP-06")
def test_a_bundle_with_a_flipped_byte_is_refused_before_anything_changes(bare: Bare, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar"
    bundle.pack({bundle.MANIFEST: "{}", bundle.INDEX: "", "debian/redis-server.deb": "a package"}, archive)
    archive.write_bytes(archive.read_bytes().replace(b"a package", b"a pAckage"))
    said = refusal(bare.deploy("one", telegram_bundle=str(archive)))
    assert "debian/redis-server.deb is not the file that SHA256SUMS names. Copy it here again, or make it anew" in said


def test_a_port_that_another_program_holds_is_named_with_its_holder(bare: Bare) -> None:
    bare.shell("systemd-run --quiet --unit=squatter python3 -m http.server 6434 --bind 127.0.0.1")
    try:
        bare.shell("until ss -Hltn sport = :6434 | grep -q .; do sleep 0.1; done")
        said = refusal(bare.deploy("one"))
    finally:
        bare.shell("systemctl stop squatter")
    assert re.search(r"PgBouncer cannot start on \S+: port 6434 is held by pid \d+ \(python3[.\d]*\)", said)
    assert "Give PgBouncer another port (telegram_pgbouncer_port)" in said


def test_another_operating_system_is_refused(bare: Bare) -> None:
    other = 'ID=ubuntu\\nNAME="Ubuntu"\\nVERSION_ID="24.04"\\n'
    bare.shell(f"rm /etc/os-release && printf '{other}' > /etc/os-release")
    try:
        said = refusal(bare.deploy("one"))
    finally:
        bare.shell("ln -sf ../usr/lib/os-release /etc/os-release")
    assert re.search(r"runs Ubuntu 24.04; this stack needs Debian 12 or 13. Take another host in the inventory", said)

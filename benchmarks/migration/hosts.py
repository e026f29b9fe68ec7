"""A legacy system on one Debian host, a bare Debian host for the stack, and a Telegram that posts to both."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools import demo_legacy, demo_stack
from tools.simulator import Simulator, start_with_sessions
from tools.targets.rootfs import KEEPER

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".cache" / "benchmark-migration"
INVENTORY = STATE / "hosts.json"
OLD, NEW, BARE = "bench-old", "bench-new", "bench-bare"
PORT = 8473
TIMES = "/var/tmp/inserts.csv"  # noqa: S108 - of a host that lives for the benchmark
_HOME = "/opt/telegram-gateway"
_OLD_PYTHON = f"{_HOME}/venv/current/bin/python"
_WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
_LEDGER = "/opt/ledger"
_OURS = "postgresql:///telegram_gateway?host=/run/postgresql&port=5434"
_BACKUP = "var/backups/telegram-stack"
_NEW_PYTHON = "/opt/telegram-stack/current/bin/python"
_DATABASE = "postgresql://timescale:pass_timescale@127.0.0.1:5433/tradingsystem"
# A client of the old database that inserts a row 20 times a second, and what each insert with its commit has taken.
_INSERTS = """
import psycopg, sys, time
with psycopg.connect(sys.argv[1], autocommit=True) as c, open(sys.argv[2], "w", buffering=1) as times:
    c.execute("CREATE TABLE workspace.inserts (at timestamptz DEFAULT now(), text text)")
    while True:
        begun = time.time()
        c.execute("INSERT INTO workspace.inserts (text) VALUES (repeat('x', 200))")
        times.write(f"{begun},{(time.time() - begun) * 1000}\\n")
        time.sleep(0.05)
"""


def make(messages: int) -> Simulator:
    """Both hosts, the legacy system with `messages` on the old one, and the Telegram they talk to."""
    unmake()
    shutil.rmtree(STATE, ignore_errors=True)
    for name, suite in ((OLD, "bookworm"), (NEW, "trixie")):
        _boot(name, suite)
    hosts = {name: json.loads(demo_stack.targets("inventory", name))[name] for name in (OLD, NEW)}
    simulator = Simulator(STATE / "simulator", hosts[NEW]["ansible_host"].rpartition(".")[0] + ".1", PORT)
    start_with_sessions(simulator, 0, [])
    settings = demo_legacy.settings(simulator, hosts[OLD]["ansible_host"])
    settings |= {"legacy_messages": messages, "migration_legacy_host": OLD}
    INVENTORY.write_text(demo_legacy.inventory(hosts, NEW, settings))
    play("tests/legacy/install.yml", "-e", f"legacy_hosts={OLD}")
    demo_stack.targets("exec", NEW, "mkdir", "-p", f"{_LEDGER}/tests/legacy")
    for name in ("ledger.py", "control.py"):
        source = (ROOT / "tests/legacy" / name).read_text()
        demo_stack.targets("exec", NEW, "python3", "-c", _WRITE, f"{_LEDGER}/tests/legacy/{name}", source)
    return simulator


def _boot(name: str, suite: str) -> None:
    """A host that compiles Ansible's modules for every task, as hosts elsewhere do."""
    demo_stack.targets("up", name, "--suite", suite)
    demo_stack.targets("exec", name, "rm", KEEPER)


def unmake() -> None:
    """Remove all of it; the logs stay."""
    Simulator(STATE / "simulator", "", PORT).stop()
    for name in (OLD, NEW, BARE):
        demo_stack.targets("down", name)


def move_backup() -> None:
    """Give the backup to a bare host, which the inventory calls by the new one's name then; that one is removed."""
    _boot(BARE, "trixie")
    tool = f"{sys.executable} -m tools.targets exec"
    command = f"{tool} {NEW} tar -C / -cf - {_BACKUP} | {tool} {BARE} tar -C / -xf -"
    subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, check=True)
    demo_stack.targets("down", NEW)
    inventory = json.loads(INVENTORY.read_text())
    inventory["all"]["hosts"][NEW] = json.loads(demo_stack.targets("inventory", BARE))[BARE]
    INVENTORY.write_text(json.dumps(inventory, indent=1))


def play(playbook: str, *options: str) -> str:
    """Run a playbook on the hosts; what it has said. Ends the benchmark when it fails."""
    command = ["ansible-playbook", "-i", str(INVENTORY), playbook, *options]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    log = STATE / f"{Path(playbook).stem}.log"
    with log.open("w") as said:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=said, stderr=said, check=False)
    if done.returncode:
        sys.exit(f"{playbook} failed; {log.relative_to(ROOT)} ends with:\n{log.read_text()[-3000:]}")
    return log.read_text()


def insert_on_old() -> None:
    """Begin to insert into the old database, and to note how long each insert takes."""
    command = ["systemd-run", "--quiet", "--unit=inserts", _OLD_PYTHON, "-c", _INSERTS, _DATABASE, TIMES]
    demo_stack.targets("exec", OLD, *command)


def inserted() -> list[tuple[float, float]]:
    """When each insert began, in seconds since 1970, and its milliseconds."""
    lines = demo_stack.targets("exec", OLD, "cat", TIMES).splitlines()
    return [(float(begun), float(took)) for begun, took in (line.split(",") for line in lines if line.count(",") == 1)]


def state() -> dict[str, Any]:
    """What the migration has written down."""
    return dict(json.loads(demo_stack.targets("exec", NEW, "cat", "/var/lib/telegram-stack/migration/state.json")))


def restored_since() -> float:
    """When the last of the services on the host that was bare began, in seconds since 1970."""
    units = ("telegram-gateway", "telegram-gateway-api", "telegram-signal-worker")
    asked = ("systemctl", "show", "--value", "--timestamp=unix", "--property=ActiveEnterTimestamp", *units)
    return max(float(moment.lstrip("@")) for moment in demo_stack.targets("exec", BARE, *asked).split())


def compare(store: str, control: str, since: float) -> dict[str, Any]:
    """Telegram against what the `old` or the `new` store has, once they are the same: 5 minutes at most."""
    host, folder, python, given = {
        "old": (OLD, _HOME, _OLD_PYTHON, "--legacy postgresql:///tradingsystem?host=/run/postgresql&port=5433"),
        # The signals of the old consumer and of the new worker are in one view.
        "new": (NEW, _LEDGER, _NEW_PYTHON, f"--ours {_OURS} --signals {_OURS}"),
    }[store]
    words = f"-m tests.legacy.ledger compare --control {control} --since {since} --within 300 --allow doubled"
    command = ["runuser", "-u", "postgres", "--", "env", "-C", folder, python, *words.split(), *given.split()]
    return dict(json.loads(demo_stack.targets("exec", host, *command)))

"""A legacy system on a host of its own, with messages flowing, to rehearse a migration on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tools import demo_stack, playbook
from tools.simulator import Simulator, start_with_sessions

HOST = "legacy"
STATE = demo_stack.ROOT / ".cache" / "demo-legacy"
INVENTORY = STATE / "hosts.json"
INSTALLED = STATE / "installed"
"""Is there once the legacy system is; to install it again could start it beside the stack, on the same session."""
GROUPS = ("database", "cache", "queue", "gateway", "api", "worker", "monitoring")
RATE = 5
PORT = 8463


def settings(simulator: Simulator, source: str) -> dict[str, Any]:
    """What installs a legacy system that talks to `simulator`, and migrates it from its database's address `source`."""
    folder = simulator.folder.parent
    units = {"gateway": "legacy-gateway", "API": "legacy-api", "consumer": "legacy-consumer"}
    return {
        "telegram_channels_policy": "registered",
        "gateway_server_dc_id": 2,
        "gateway_server_address": simulator.address,
        "gateway_server_port": simulator.port,
        "gateway_server_public_key": (folder / "public-key").read_text(),
        "legacy_control": simulator.control,
        "legacy_folder": str(folder / "legacy"),
        "legacy_token": "token-of-the-legacy-clients",
        "migration_legacy_sync_url": "http://127.0.0.1:4006/sync-messages",
        "migration_processes": [{"name": name, "unit": f"{unit}.service"} for name, unit in units.items()],
        "migration_report_dir": str(folder),
        "migration_source_host": source,
        "migration_source_password": "pass_timescale",
        "migration_source_signals_table": "tp_capital.tp_capital_signals",
        "telegram_secrets_file": str(folder / "telegram_secrets.yml"),
    }


def inventory(hosts: dict[str, Any], stack: str, variables: dict[str, Any]) -> str:
    """An inventory of `hosts`, of which `stack` is in every group of the stack."""
    group: dict[str, Any] = {"hosts": {stack: {}}}
    children = {f"telegram_{name}": group for name in GROUPS} | {"telegram_stack": group}
    return json.dumps({"all": {"hosts": hosts, "children": children, "vars": variables}}, indent=1)


def up() -> None:
    """Boot the host, install the legacy system once, let messages flow, and say how to migrate."""
    address, _ = demo_stack.boot(HOST)
    simulator = Simulator(STATE / "simulator", address.rpartition(".")[0] + ".1", PORT)
    start_with_sessions(simulator, 0, [])
    if not INSTALLED.exists():
        install(simulator, address)
    if not simulator.ask("GET", "/load")["running"]:
        simulator.ask("POST", "/load", {"rate": RATE, "edit_every": 10, "delete_every": 15})
    print("\n" + words(address))


def install(simulator: Simulator, address: str) -> None:
    """Write the inventory, and put the legacy system on the host."""
    hosts = json.loads(demo_stack.targets("inventory", HOST))
    # As the demo's: its pages open from this machine, the gateway's own port has no token and stays inside.
    pages = {"telegram_bind_address": "0.0.0.0", "gateway_bind_address": "127.0.0.1"}  # noqa: S104
    INVENTORY.write_text(inventory(hosts, HOST, settings(simulator, address) | pages))
    log = STATE / "install.log"
    print(f"Installing the legacy system, a minute or two (all of the output: {_here(log)})", flush=True)
    if not playbook.run("tests/legacy/install.yml", {}, log, progress=True, inventory=INVENTORY):
        why = playbook.failure(log)
        sys.exit(f"{why}\nThe demo stops: the installation failed. Try again: make demo-legacy")
    INSTALLED.touch()


def words(address: str) -> str:
    """What there is now, and how to go on."""
    run, given = ".venv/bin/ansible-playbook", f"-i {_here(INVENTORY)}"
    secrets = _here(STATE / "telegram_secrets.yml")
    return f"""\
The legacy system is on the host {HOST} ({address}), 6,000 messages in 40 channels, and {RATE} more a second:
gateway, API (port 4010), consumer, and a database (port 5433). What each step does: docs/migration.md

The plan, nothing is touched:     {run} migrate.yml {given} --check
Migrate, some ten minutes:        {run} migrate.yml {given}
              asks before it stops the legacy system; with -e migration_confirm=true it does not
How everything is:                {run} playbooks/health.yml {given}
Console, once migrated:           http://{address}:4010/
              sign in with the token: awk '/api_token_admin:/{{print $2}}' {secrets}
Prometheus, once migrated:        https://{address}:9090/ (alerts: /alerts), with a certificate of the stack's own
              user telegram_monitor, password: awk '/monitoring_web:/{{print $2}}' {secrets}
Back to the legacy system:        {run} rollback.yml {given}
A shell on the host:              python3 -m tools.targets exec {HOST} bash -l
              the old database in it: su postgres -c 'psql -p 5433 tradingsystem'
Remove all of it, reports too:    make demo-stop"""


def _here(path: Path) -> str:
    return str(path.relative_to(demo_stack.ROOT))

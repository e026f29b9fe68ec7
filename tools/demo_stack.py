"""The stack on the demo's host: is it deployed, is it what this checkout says, is it well, and how a message went."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plugins.module_utils.health_report import table

from tools import playbook

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".cache" / "demo"
VARIABLES = STATE / "variables.json"
DEPLOYED = STATE / "deployed"
"""The digest of what was deployed last."""
SECRETS = ROOT / "inventories" / "demo" / "group_vars" / "all" / "telegram_secrets.yml"
HOST = "demo"

SOURCES = ("roles", "playbooks", "plugins", "sql", "services", "inventories/demo")


def targets(*arguments: str) -> str:
    """Run a verb of the target hosts' tool; its complaint ends the demo."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.targets", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"The demo stops: `python -m tools.targets {' '.join(arguments)}` failed; the reason stands above.")
    return done.stdout


def boot(name: str) -> tuple[str, bool]:
    """Boot the Debian 13 host of that name unless it runs; its address, and whether it had to be booted."""
    known = {target["name"]: target["state"] for target in json.loads(targets("list", "--json"))["targets"]}
    if known.get(name) == "running":
        print(f"The host {name} is already there.", flush=True)
    elif name in known:
        print(f"The host {name} is there but does not run; starting it.", flush=True)
        targets("start", name)
    else:
        print("Booting a bare Debian 13 host", flush=True)
        targets("up", name, "--suite", "trixie")
    address = json.loads(targets("inventory", name))[name]["ansible_host"]
    return address, known.get(name) != "running"


def on_host(command: str) -> str:
    """The output of a shell command on the demo's host."""
    return targets("exec", HOST, "sh", "-c", command)


def digest(root: Path = ROOT, variables: Path = VARIABLES) -> str:
    """The SHA-256 of everything that decides what is deployed: sources, settings and the simulator's address and key.

    What is made while deploying (secrets, wheels, compiled Python) does not count.
    """
    state = hashlib.sha256(variables.read_bytes())
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*")):
            made = path.name == SECRETS.name or {"__pycache__", "wheels", "build"} & set(path.parts)
            if path.is_file() and not made and not path.parent.name.endswith(".egg-info"):
                state.update(f"\n{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return state.hexdigest()


def outdated() -> str | None:
    """Why the host may not be what this checkout says, in a few words; None when it is."""
    if not (DEPLOYED.exists() and VARIABLES.exists()):
        return "none has been completed there"
    if not SECRETS.exists():
        return f"{SECRETS.relative_to(ROOT)} is gone"
    if DEPLOYED.read_text() != digest():
        return "roles, playbooks, services or settings have changed since"
    return None


def health(wait: int) -> dict[str, Any]:
    """The report of the health playbook; components get `wait` seconds to come up. Without a report the demo ends."""
    report = STATE / "health.json"
    report.unlink(missing_ok=True)
    log = STATE / "health.log"
    playbook.run("playbooks/health.yml", {"health_output": report, "health_wait": wait}, log, progress=False)
    if not report.exists():
        sys.exit(f"The demo stops: the health playbook made no report:\n{playbook.failure(log)}")
    return dict(json.loads(report.read_text()))


def deploy() -> dict[str, Any]:
    """Run the deploy playbook; the health report it ends with."""
    log, report = STATE / "deploy.log", STATE / "health.json"
    print(f"Deploying the stack, some minutes on a bare host (all of the output: {log.relative_to(ROOT)})", flush=True)
    wanted = digest()
    DEPLOYED.unlink(missing_ok=True)
    report.unlink(missing_ok=True)
    if not playbook.run("playbooks/deploy.yml", {"health_output": report}, log, progress=True):
        if report.exists():
            print(table(json.loads(report.read_text())["components"]), flush=True)
        why = playbook.failure(log)
        sys.exit(f"{why}\nThe demo stops: the deployment failed. Try again: make demo")
    DEPLOYED.write_text(wanted)
    return dict(json.loads(report.read_text()))


_NEWEST = (
    "SELECT p.channel_id, p.message_id, extract(epoch FROM p.created_at)"
    " FROM telegram.processing p WHERE p.created_at > now() - interval '1 minute'"
    " ORDER BY p.created_at DESC LIMIT 1"
)


def newest_message() -> dict[str, Any] | None:
    """The newest message of the last minute that reached the worker; None while there is none.

    Channel and message, and the moment of each stage in seconds since 1970.
    """
    row = on_host(f'su postgres -c "psql -p 5434 -d telegram_gateway -Atc \\"{_NEWEST}\\""').strip()
    if not row:
        return None
    channel, message, consumed = row.split("|")
    url = f"http://127.0.0.1:4006/trace/{channel}/{message}"
    ask = f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())"
    trace: dict[str, Any] = json.loads(on_host(f'python3 -c "{ask}"'))
    return {"channel": channel, "message": message, **trace, "consumed": float(consumed)}


def path_of_one_message(within: float = 60) -> dict[str, Any]:
    """`newest_message`, waiting up to `within` seconds for it; ends the demo when none comes."""
    deadline = time.monotonic() + within
    while (found := newest_message()) is None:
        if time.monotonic() > deadline:
            sys.exit(
                f"The demo stops: no message reached the worker within {within:.0f} s. Which part is not well:"
                " .venv/bin/ansible-playbook playbooks/health.yml"
            )
        time.sleep(0.5)
    return found

"""The demo: one Debian host, the whole stack on it, twenty simulated channels. usage: python -m tools.demo up|down"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.simulator import Simulator

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".cache" / "demo"
VARIABLES = STATE / "variables.json"
HOST = "demo"
CHANNELS = 20
RATE = 5
PORT = 8443


def targets(*arguments: str) -> str:
    """Run a verb of the target hosts' tool; its complaint ends the demo."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.targets", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"The demo stops: `python -m tools.targets {' '.join(arguments)}` failed; the reason stands above.")
    return done.stdout


def on_host(command: str) -> str:
    """The output of a shell command on the demo's host."""
    return targets("exec", HOST, "sh", "-c", command)


def http_json(url: str) -> Any:
    """The JSON that a service on the demo's host answers on its own loopback."""
    return json.loads(
        on_host(f"python3 -c \"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())\"")
    )


def wait_for(what: str, seconds: int, answer: Callable[[], Any]) -> Any:
    """Poll `answer` until it is true; says what it waited for when time runs out."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = answer()
        if found:
            return found
        time.sleep(0.5)
    return sys.exit(f"The demo stops: no {what} within {seconds} s. Look with: ansible-playbook playbooks/health.yml")


def boot() -> str:
    """Boot the host unless it runs; its address."""
    machines = json.loads(targets("inventory"))
    if HOST in machines:
        print(f"The host {HOST} is already there.", flush=True)
        targets("start", HOST)
    else:
        print("Booting a bare Debian 13 host (the first time builds its root file system, about a minute)", flush=True)
        targets("up", HOST, "--suite", "trixie")
        machines = json.loads(targets("inventory"))
    return str(machines[HOST]["ansible_host"])


def start_simulator(address: str) -> Simulator:
    """Start the simulator on this machine's side of the bridge and make the host's ready session once."""
    bridge = address.rsplit(".", 1)[0] + ".1"
    simulator = Simulator(STATE / "simulator", bridge, PORT)
    simulator.start("--channels", str(CHANNELS), "--rate", str(RATE))
    if not VARIABLES.exists():
        variables = {
            "gateway_server_address": bridge,
            "gateway_server_port": PORT,
            "gateway_server_public_key": simulator.ask("GET", "/public-key"),
            "gateway_session_string": simulator.ask("POST", "/sessions", {})["session"],
        }
        VARIABLES.touch(mode=0o600)
        VARIABLES.write_text(json.dumps(variables))
    print(f"The Telegram simulator posts {RATE} messages/s in {CHANNELS} channels (control: {simulator.control})")
    return simulator


def deploy() -> None:
    """Run the deploy playbook, whose own output is the progress."""
    done = subprocess.run(["ansible-playbook", "playbooks/deploy.yml"], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit("The demo stops: the deployment failed; the reason stands above. Try again: make demo")


MESSAGE_AT_WORKER = (
    "SELECT p.channel_id, p.message_id, extract(epoch FROM p.created_at)"
    " FROM telegram.processing p WHERE p.created_at > now() - interval '1 minute'"
    " ORDER BY p.created_at DESC LIMIT 1"
)


def path_of_one_message() -> dict[str, Any]:
    """The times of the newest message that reached the worker, in seconds since 1970 by stage."""

    def newest() -> dict[str, Any] | None:
        row = on_host(f'su postgres -c "psql -p 5434 -d telegram_gateway -Atc \\"{MESSAGE_AT_WORKER}\\""').strip()
        if not row:
            return None
        channel, message, consumed = row.split("|")
        trace: dict[str, Any] = http_json(f"http://127.0.0.1:4006/trace/{channel}/{message}")
        return {"channel": channel, "message": message, **trace, "consumed": float(consumed)}

    found: dict[str, Any] = wait_for("message at the worker", 60, newest)
    return found


def show(address: str, path: dict[str, Any]) -> None:
    """What opens from here, and how one message went."""
    print("\nOpens from this machine:")
    print(f"  API         http://{address}:4010/            (token: see api_token_read in the secrets file)")
    print(f"  Prometheus  http://{address}:9090/")
    print(f"  RabbitMQ    http://{address}:15672/           (user telegram_admin)")
    print(f"\nThe path of message {path['message']} of channel {path['channel']}:")
    start = path["received"]
    for stage in ("received", "spooled", "stored", "published", "cached", "consumed"):
        moment = time.strftime("%H:%M:%S", time.gmtime(path[stage])) + f".{int(path[stage] % 1 * 1000):03d}"
        print(f"  {stage:<10} {moment} UTC   +{(path[stage] - start) * 1000:8.1f} ms")
    print("\nIt goes on until: make demo-stop     Look again: make demo, or ansible-playbook playbooks/health.yml")


def up() -> None:
    """Everything from nothing to flowing messages; quick when it is already there."""
    address = boot()
    start_simulator(address)
    deploy()
    show(address, path_of_one_message())


def down() -> None:
    """Remove the host, the simulator and their state."""
    machines = json.loads(targets("inventory"))
    if HOST in machines:
        bridge = machines[HOST]["ansible_host"].rsplit(".", 1)[0] + ".1"
        Simulator(STATE / "simulator", bridge, PORT).stop()
        targets("down", HOST)
    subprocess.run(["rm", "-rf", STATE], check=True)
    (ROOT / "inventories/demo/group_vars/all/telegram_secrets.yml").unlink(missing_ok=True)
    print("The demo is gone; the caches stay in your cache folder.")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["up"]:
            up()
        case ["down"]:
            down()
        case _:
            sys.exit(__doc__)

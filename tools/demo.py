"""The demo: one Debian host, the whole stack on it, twenty simulated channels; or a legacy system to migrate.

usage: python -m tools.demo up|legacy|down
"""

from __future__ import annotations

import json
import shutil
import sys

from plugins.module_utils.health_report import table

from tools import demo_legacy, demo_page, demo_stack
from tools.demo_stack import HOST, ROOT, SECRETS, STATE, VARIABLES, targets
from tools.simulator import Simulator
from tools.targets.lab import Lab

CHANNELS = 20
RATE = 5
PORT = 8443


def start_simulator(simulator: Simulator) -> None:
    """Have the simulator post, and write down what the gateway must know of it; its session is made once."""
    known = json.loads(VARIABLES.read_text()) if VARIABLES.exists() else {}
    simulator.start("--channels", str(CHANNELS), "--rate", str(RATE))
    if not simulator.ask("GET", "/load")["running"]:
        simulator.ask("POST", "/load", {"rate": RATE})
    variables = {
        "gateway_server_address": simulator.address,
        "gateway_server_port": PORT,
        "gateway_server_public_key": simulator.ask("GET", "/public-key"),
        "gateway_session_string": known.get("gateway_session_string")
        or simulator.ask("POST", "/sessions", {})["session"],
    }
    if variables != known:
        VARIABLES.touch(mode=0o600)
        VARIABLES.write_text(json.dumps(variables))
    print(
        f"The Telegram simulator posts {RATE} messages/s in {CHANNELS} channels (control: {simulator.control})",
        flush=True,
    )


def up() -> None:
    """Everything from nothing to flowing messages; only a look when it is there, up to date and well."""
    address, booted = demo_stack.boot(HOST)
    simulator = Simulator(STATE / "simulator", address.rsplit(".", 1)[0] + ".1", PORT)
    if demo_stack.outdated():
        simulator.stop()  # its code may have changed too; it forgets nothing
    start_simulator(simulator)
    reason = demo_stack.outdated()
    if reason is None:
        print("Asking every component how it is", flush=True)
        report = demo_stack.health(60 if booted else 5)
        reason = None if report["status"] == "ok" else report["summary"]
    if reason is None:
        print("The stack is already there, up to date and well.", flush=True)
    else:
        print(f"The host {HOST} needs a deployment: {reason}.", flush=True)
        report = demo_stack.deploy()
    message = demo_stack.path_of_one_message()
    parts = (
        table(report["components"]),
        demo_page.addresses(address, str(SECRETS.relative_to(ROOT))),
        demo_page.path(message),
        demo_page.last_words(),
    )
    print("\n" + "\n\n".join(parts))


def down() -> None:
    """Remove the host, the simulator, the secrets and their state, and the lab when nothing else is in it."""
    if Lab.here().root.exists():
        print("Shutting the demo's hosts down", flush=True)
        for host in (HOST, demo_legacy.HOST):
            targets("down", host)
        left = json.loads(targets("list", "--json"))
        if left["targets"]:
            names = ", ".join(target["name"] for target in left["targets"])
            print(f"Other hosts of this checkout stay: {names}. Remove them: python3 -m tools.targets down-all --purge")
        elif left["snapshots"]:
            targets("down-all")
        else:
            targets("down-all", "--purge")
    for folder in (STATE, demo_legacy.STATE):
        Simulator(folder / "simulator", "", 0).stop()
        shutil.rmtree(folder, ignore_errors=True)
    SECRETS.unlink(missing_ok=True)
    print("The demo is gone; what was downloaded stays in your cache folder, for the next time.")


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["up"]:
                up()
            case ["legacy"]:
                demo_legacy.up()
            case ["down"]:
                down()
            case _:
                sys.exit(__doc__)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on where it stopped. Remove it: make demo-stop")

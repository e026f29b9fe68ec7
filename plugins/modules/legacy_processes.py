#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the processes of the legacy system."""

from __future__ import annotations

DOCUMENTATION = r"""
module: legacy_processes
short_description: Stops or starts the legacy system's processes, and proves that nothing uses its session
version_added: 0.1.0
description:
  - Stops all processes at once and keeps them from coming back with the next boot, or starts them again as they were.
  - A stopped process is proven to be gone by systemd and its control group, by the container engine, or by the command
    lines of all processes. That nothing else uses the session is proven by the host's connections, those in containers
    included. A port alone proves nothing.
options:
  processes:
    description: The processes of the legacy system; the one with the session first.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What messages call it.
        type: str
        required: true
      unit:
        description: Its systemd unit.
        type: str
      container:
        description: Its container.
        type: str
      engine:
        description: The command that knows the container.
        type: str
        default: docker
      stop:
        description:
          - A command that stops it, as a list; for what is neither a unit nor a container.
        type: list
        elements: str
      start:
        description: A command that starts it, as a list.
        type: list
        elements: str
      pattern:
        description: A regular expression that finds it among all command lines. Has to be set with a command.
        type: str
      boot:
        description: Whether it starts with the host, as RV(processes) said before it was stopped.
        type: str
  state:
    description: V(read) changes nothing.
    type: str
    choices: [read, stopped, started]
    default: read
  telegram_addresses:
    description: Addresses of Telegram, or of the proxy to it, to which nothing may be connected once all is stopped.
    type: list
    elements: str
    default: []
  telegram_ports:
    description: The ports there that count.
    type: list
    elements: int
    default: [80, 443, 5222]
  timeout:
    description: How many seconds processes and connections have to go.
    type: int
    default: 30
attributes:
  check_mode:
    description: Stops and starts nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Stop the old gateway, API and consumer
  tradingsystem.telegram_stack.legacy_processes:
    state: stopped
    processes:
      - {name: gateway, unit: telegram-gateway-legacy.service}
      - {name: API, container: telegram-gateway-api}
      - name: consumer
        stop: [/opt/tp-capital/stop.sh]
        start: [/opt/tp-capital/start.sh]
        pattern: "node .*tp-capital"
    telegram_addresses: ["149.154.167.50"]
"""

RETURN = r"""
processes:
  description: Each process as it was before; give it back as O(processes) to start it as it was.
  returned: success
  type: list
  elements: dict
  sample: [{name: gateway, unit: telegram-gateway-legacy.service, boot: enabled}]
running:
  description: Names of those that ran before the module did anything.
  returned: success
  type: list
  elements: str
  sample: [gateway]
connections:
  description: Connections to O(telegram_addresses) when all was done.
  returned: success
  type: list
  elements: dict
  sample: []
stopped_at:
  description: When the first process was told to stop.
  returned: when something was stopped
  type: str
  sample: "2026-11-24T18:40:21.575Z"
"""

import datetime
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.tcp_connections import PROC, connections_to

CGROUPS = Path("/sys/fs/cgroup")


class ProcessError(Exception):
    """A process is not as it should be; the message is meant for the operator."""


class Unit:
    """A systemd unit."""

    def __init__(self, module: AnsibleModule, told: dict[str, Any]) -> None:
        self._module = module
        self._unit = told["unit"]
        self._boot = told["boot"]

    def read(self) -> dict[str, Any]:
        """Whether it runs, and what happens at boot. Raises ProcessError."""
        command = ["systemctl", "show", "--property=LoadState,ActiveState,UnitFileState,ControlGroup", self._unit]
        shown = dict(line.partition("=")[::2] for line in self._command(command).splitlines())
        if shown.get("LoadState") != "loaded":
            raise ProcessError(f"This host has no unit {self._unit} ({shown.get('LoadState')}).")
        running = shown["ActiveState"] not in ("inactive", "failed") or self._members(shown["ControlGroup"])
        return {"running": bool(running), "boot": shown["UnitFileState"]}

    def stop(self) -> None:
        """Stop it for good. Raises ProcessError."""
        self._command(["systemctl", "stop", self._unit])
        if self.read()["boot"] == "enabled":
            self._command(["systemctl", "disable", "--quiet", self._unit])

    def start(self) -> None:
        """Start it, also at boot where that was so. Raises ProcessError."""
        if self._boot == "enabled":
            self._command(["systemctl", "enable", "--quiet", self._unit])
        self._command(["systemctl", "start", self._unit])

    @staticmethod
    def _members(group: str) -> str:
        try:
            return (CGROUPS / group.lstrip("/") / "cgroup.procs").read_text(encoding="ascii").strip() if group else ""
        except OSError:  # an empty group is removed
            return ""

    def _command(self, command: list[str]) -> str:
        return _run(self._module, command)


_NO_RESTART = ("", "no")


class Container:
    """A container of an engine that has Docker's commands."""

    def __init__(self, module: AnsibleModule, told: dict[str, Any]) -> None:
        self._module = module
        self._engine = told["engine"]
        self._name = told["container"]
        self._boot = told["boot"]

    def read(self) -> dict[str, Any]:
        """As `Unit.read`; `boot` is the container's restart policy."""
        template = "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}"
        said = self._command("inspect", "--format", template, self._name).strip()
        running, policy = (*said.split(" ", 1), "")[:2]
        if running not in ("true", "false"):
            raise ProcessError(f"{self._engine} does not say whether container {self._name} runs, but {running!r}.")
        return {"running": running == "true", "boot": policy}

    def stop(self) -> None:
        """As `Unit.stop`."""
        if (policy := self.read()["boot"]) not in _NO_RESTART:
            self._restart("no", f"is started again by {self._engine} ({policy})")
        self._command("stop", self._name)

    def start(self) -> None:
        """As `Unit.start`."""
        if self._boot not in _NO_RESTART:
            self._restart(self._boot, f"was started again by {self._engine} before ({self._boot})")
        self._command("start", self._name)

    def _restart(self, policy: str, now: str) -> None:
        try:
            self._command("update", f"--restart={policy}", self._name)
        except ProcessError as error:  # Podman before 5 cannot
            raise ProcessError(
                f"Container {self._name} {now}, and that could not be changed: {error} Make it anew with "
                f"--restart={policy}, then run again."
            ) from error

    def _command(self, *arguments: str) -> str:
        return _run(self._module, [self._engine, *arguments])


class Commands:
    """A process that is stopped and started by commands, and known by its command line."""

    def __init__(self, module: AnsibleModule, told: dict[str, Any]) -> None:
        self._module = module
        self._told = told
        if not all(told[needed] for needed in ("stop", "start", "pattern")):
            raise ProcessError(f"Process {told['name']} needs unit, container, or all of stop, start and pattern.")

    def read(self) -> dict[str, Any]:
        """As `Unit.read`; nobody knows about the boot."""
        return {"running": any(re.search(self._told["pattern"], line) for line in command_lines()), "boot": ""}

    def stop(self) -> None:
        """As `Unit.stop`, but for the boot."""
        _run(self._module, self._told["stop"])

    def start(self) -> None:
        """As `Unit.start`."""
        _run(self._module, self._told["start"])


def command_lines(proc: Path = PROC) -> list[str]:
    """Those of all processes."""
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
            except OSError:  # it has ended meanwhile
                continue
    return [line for line in found if line]


def _run(module: AnsibleModule, command: list[str]) -> str:
    code, out, err = module.run_command(command)
    if code:
        said = [line for line in (err or out).splitlines() if line.strip() and not line.startswith("time=")]
        why = said[0].strip().rstrip(".") if said else f"exit code {code}"  # Podman's warnings begin with the time
        raise ProcessError(f"{' '.join(command[:3])} failed on this host: {why}.")
    return str(out)


def driver(module: AnsibleModule, told: dict[str, Any]) -> Unit | Container | Commands:
    """What knows the process. Raises ProcessError."""
    if told["unit"]:
        return Unit(module, told)
    return Container(module, told) if told["container"] else Commands(module, told)


def stop(drivers: dict[str, Unit | Container | Commands], running: list[str], timeout: float) -> None:
    """Stop those that are `running` and wait until they are gone. Raises ProcessError."""
    with ThreadPoolExecutor() as pool:  # nobody takes messages until the last one is gone
        list(pool.map(lambda name: drivers[name].stop(), running))
    _wait(
        lambda: [name for name in running if drivers[name].read()["running"]],
        timeout,
        "Still running on this host after {}: {}. Stop it by hand, then run again.",
    )


def _wait(left: Any, timeout: float, message: str) -> None:
    end = time.monotonic() + timeout
    while found := left():
        if time.monotonic() > end:
            raise ProcessError(message.format(f"{timeout:g} s", ", ".join(str(item) for item in found)))
        time.sleep(0.1)


def act(module: AnsibleModule) -> dict[str, Any]:
    """Bring the processes to the state. Raises ProcessError."""
    given, state = module.params["processes"], module.params["state"]
    timeout = module.params["timeout"]
    connected = partial(connections_to, module.params["telegram_addresses"], module.params["telegram_ports"])
    drivers = {told["name"]: driver(module, told) for told in given}
    found = {name: one.read() for name, one in drivers.items()}
    running = [name for name in found if found[name]["running"]]
    idle = [name for name in found if name not in running]
    result: dict[str, Any] = {
        "changed": bool({"stopped": running, "started": idle}.get(state)),
        "processes": [{**told, "boot": told["boot"] or found[told["name"]]["boot"]} for told in given],
        "running": running,
    }
    if state == "stopped" and not module.check_mode:
        stopped_at = datetime.datetime.now(datetime.UTC)
        stop(drivers, running, timeout)
        _wait(
            lambda: [f"{one.command} ({one.pid})" for one in connected()],
            timeout,
            "Somebody on this host is still connected to Telegram after {}: {}. It may use the same session, which two "
            "must never use at once: stop it, then run again.",
        )
        if running:
            result["stopped_at"] = stopped_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    elif state == "started" and not module.check_mode:
        for name in idle:
            drivers[name].start()
    result["connections"] = [connection._asdict() for connection in connected()]
    return result


def main() -> None:
    """Run the module."""
    text: dict[str, Any] = {"type": "str"}
    words: dict[str, Any] = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "processes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "unit": text,
                    "container": text,
                    "engine": {"type": "str", "default": "docker"},
                    "stop": words,
                    "start": words,
                    "pattern": text,
                    "boot": text,
                },
            },
            "state": {"type": "str", "default": "read", "choices": ["read", "stopped", "started"]},
            "telegram_addresses": {"type": "list", "elements": "str", "default": []},
            "telegram_ports": {"type": "list", "elements": "int", "default": [80, 443, 5222]},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**act(module))
    except ProcessError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

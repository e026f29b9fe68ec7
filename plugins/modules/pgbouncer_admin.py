#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: pause, resume and otherwise steer PgBouncer at its console."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_admin
short_description: Steers PgBouncer at its console
version_added: 0.1.0
description:
  - Pauses, resumes, disables, enables, kills or reconnects one database of PgBouncer, or lets it read its files again.
  - Needs an administrator of the console. The collection's role has one only over the local socket,
    so run the task as PgBouncer's system user.
extends_documentation_fragment:
  - tradingsystem.telegram_stack.pgbouncer
attributes:
  check_mode:
    description: Changes nothing.
    support: partial
    details:
      - For O(action=reload) the console cannot be asked what a file would change, so check mode says that it changes.
      - Where no PgBouncer runs yet, everything counts as a change.
  diff_mode:
    description: Returns the database's state, or the settings that a reload changed, before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  action:
    description:
      - V(pause) lets running transactions end, closes the server connections, and lets clients wait until V(resume).
        When O(timeout) passes first, it is taken back and the module fails.
      - V(resume) ends V(pause) and V(kill).
      - V(disable) turns new clients away until V(enable). Those that are connected stay.
      - V(kill) closes all clients and server connections at once; new clients wait until V(resume).
        It changes something when a connection was open or the database was not paused.
      - V(reconnect) replaces each server connection once its transaction ends. It changes something when there is one.
      - V(reload) reads the configuration and the password file again. It changes something when settings or databases
        are other than before; the console shows no passwords, so one of those alone does not count.
    type: str
    choices: [pause, resume, disable, enable, kill, reconnect, reload]
    required: true
  database:
    description:
      - The database, by the name that PgBouncer's clients use. Without meaning for O(action=reload).
    type: str
    default: telegram_gateway
  timeout:
    description:
      - Seconds that O(action=pause) waits for transactions to end.
    type: int
    default: 30
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Let clients wait while the database is restarted
  become: true
  become_user: pgbouncer
  tradingsystem.telegram_stack.pgbouncer_admin:
    action: pause

- name: Let them go on
  become: true
  become_user: pgbouncer
  tradingsystem.telegram_stack.pgbouncer_admin:
    action: resume
"""

RETURN = r"""
commands:
  description: What was sent to the console to change something; in check mode what would be.
  returned: success
  type: list
  elements: str
  sample: ['PAUSE "telegram_gateway"']
database:
  description: The database's state after the run. Not there after O(action=reload).
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    paused:
      description: Whether clients wait.
      type: bool
    disabled:
      description: Whether new clients are turned away.
      type: bool
    clients:
      description: Clients that are connected.
      type: int
    servers:
      description: Server connections, those about to be closed included.
      type: int
  sample: {name: telegram_gateway, paused: true, disabled: false, clients: 4, servers: 0}
"""

import threading
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.pgbouncer import (
    Console,
    PgbouncerError,
    connection_argument_spec,
    databases,
    differences,
    find,
    needed,
    quoted,
)
from ..module_utils.postgresql import Unreachable


def pause(module: AnsibleModule, console: Console, name: str) -> None:
    """Pause in time, or take it back: the console answers only when the last transaction has ended."""
    seconds, failures = module.params["timeout"], []

    def wait() -> None:
        try:
            console.run(f"PAUSE {quoted(name)}")
        except PgbouncerError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(seconds)
    if waiting.is_alive():
        other = Console(module)
        busy = sum(row["database"] == name and row["state"] == "active" for row in other.show("SERVERS"))
        other.run(f"RESUME {quoted(name)}")
        raise PgbouncerError(
            f"PgBouncer could not pause {name} within {seconds} s: {busy} server connections were still in a "
            "transaction. It was resumed. End those transactions, or raise timeout, then run again."
        )
    if failures:
        raise failures[0]


def state(console: Console, name: str) -> dict[str, Any]:
    """Of one database, what the module changes and returns."""
    found = find(databases(console.show("DATABASES")), name)
    return {
        "name": name,
        "paused": found["paused"],
        "disabled": found["disabled"],
        "clients": sum(row["database"] == name for row in console.show("CLIENTS")),
        "servers": sum(row["database"] == name for row in console.show("SERVERS")),
    }


def steer(module: AnsibleModule, console: Console, action: str, name: str) -> dict[str, Any]:
    """Everything but a reload."""
    before = state(console, name)
    command = f"{action.upper()} {quoted(name)}"
    change = needed(action, before, console.show("CLIENTS"), console.show("SERVERS"))
    if change and not module.check_mode:
        if action == "pause":
            pause(module, console, name)
        else:
            console.run(command)
    after = {**before, **_expected(action)} if change and module.check_mode else state(console, name)
    return {
        "changed": change,
        "commands": [command] if change else [],
        "database": after,
        "diff": {"before": before, "after": after if change else before},
    }


def _expected(action: str) -> dict[str, Any]:
    """What check mode says the state would be."""
    expected: dict[str, dict[str, Any]] = {
        "pause": {"paused": True, "servers": 0},
        "resume": {"paused": False},
        "disable": {"disabled": True},
        "enable": {"disabled": False},
        "kill": {"paused": True, "clients": 0, "servers": 0},
        "reconnect": {"servers": 0},
    }
    return expected[action]


def reload(module: AnsibleModule, console: Console) -> dict[str, Any]:
    """Read the files again and see what that changed."""
    before = _settings(console)
    if module.check_mode:
        return {"changed": True, "commands": ["RELOAD"]}
    console.run("RELOAD")
    old, new = differences(before, _settings(console))
    return {"changed": old != new, "commands": ["RELOAD"], "diff": {"before": old, "after": new}}


def _settings(console: Console) -> dict[str, Any]:
    settings = {row["key"]: row["value"] for row in console.show("CONFIG")}
    passing = ("current_connections", "current_client_connections", "paused", "disabled")
    for row in databases(console.show("DATABASES")):
        settings |= {f"{row['name']}.{key}": value for key, value in row.items() if key not in passing}
    return settings


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "action": {
                "type": "str",
                "required": True,
                "choices": ["pause", "resume", "disable", "enable", "kill", "reconnect", "reload"],
            },
            "database": {"type": "str", "default": "telegram_gateway"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    action, name = module.params["action"], module.params["database"]
    try:
        console = Console(module)
    except Unreachable as reason:
        if not module.check_mode:
            module.fail_json(msg=str(reason))
        module.warn(f"{reason}; this counts as a change.")
        module.exit_json(changed=True, commands=[])
    try:
        result = reload(module, console) if action == "reload" else steer(module, console, action, name)
    except (PgbouncerError, Unreachable) as error:
        module.fail_json(msg=str(error))
    console.close()
    module.exit_json(**result)


if __name__ == "__main__":
    main()

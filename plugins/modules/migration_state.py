#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the file in which a migration's progress stands."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_state
short_description: Keeps the progress of a migration in a file on the host
version_added: 0.1.0
description:
  - The file says which phases are done, with what evidence, and which operator is at work. A migration that was killed
    goes on from it, and C(rollback.yml) needs nothing else.
  - Each write replaces the file as a whole, and is on the disk when the module returns.
  - Beside the folder of the file, as C(FOLDER.json), stands what everybody on the host may read, for the console; which
    phases are begun, done or failed, and when. No settings, no evidence, no errors.
  - One operator at a time. An operator is a run of C(ansible-playbook) on a controller; another run on the same
    controller takes over from one that has ended, on another controller only with O(take_over).
options:
  path:
    description: The file on the host.
    type: path
    required: true
  operation:
    description:
      - V(read) tells the state; V(open) makes the file, or goes on with it, and makes this run its operator.
      - V(begin), V(finish) and V(fail) write what becomes of O(phase); V(record) adds to its evidence.
      - V(close) ends the work of this operator, and sets O(outcome) where it is given.
    type: str
    choices: [read, open, begin, finish, fail, record, close]
    default: read
  phase:
    description: Number of the phase.
    type: int
  inputs:
    description:
      - What the migration is about; no secrets. A file of other inputs is refused, unless that was rolled back.
      - Used by O(operation=open).
    type: dict
    default: {}
  evidence:
    description: What the phase found, merged into what is there.
    type: dict
    default: {}
  error:
    description: Why the phase failed.
    type: str
    default: ""
  begins:
    description:
      - Number of the phase that begins as O(phase) ends, in the same write.
      - Used by O(operation=finish).
    type: int
  undone_from:
    description:
      - The failure undoes this phase and those behind it; they are to be done again.
      - Used by O(operation=fail).
    type: int
  outcome:
    description: How the migration has ended.
    type: str
    choices: [migrated, rolled_back, finalized]
  take_over:
    description: Go on although a run on another controller may be at work.
    type: bool
    default: false
  textfiles:
    description: The folder from which the node exporter takes files.
    type: path
    default: /var/lib/prometheus/node-exporter
  operator:
    description: Set by the action of this module. Do not use it.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Writes nothing; V(open) still refuses what it would refuse.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Go on with the migration
  tradingsystem.telegram_stack.migration_state:
    path: /var/lib/telegram-stack/migration/state.json
    operation: open
    inputs:
      source: 192.0.2.10:5433/tradingsystem
  register: migration

- name: Write down that the schema is there
  tradingsystem.telegram_stack.migration_state:
    path: /var/lib/telegram-stack/migration/state.json
    operation: finish
    phase: 3
    evidence: {migrations: 15}
"""

RETURN = r"""
state:
  description: The content of the file; empty where there is none.
  returned: success
  type: dict
  sample: {version: 1, outcome: null, phases: {"0": {status: done, evidence: {}}}}
done:
  description: Numbers of the phases that are done.
  returned: success
  type: list
  elements: int
  sample: [0, 1, 2]
held_by:
  description: The operator that is at work.
  returned: when another one is
  type: dict
  sample: {controller: ops1, pid: 4711, started: "88112", user: admin}
"""

import contextlib
import datetime
import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

VERSION = 1
_METRICS = """\
# HELP telegram_migration_phase The phase of the migration finished last; -1 before the first and after a rollback
# TYPE telegram_migration_phase gauge
telegram_migration_phase {phase}
# HELP telegram_migration_failed 1 when a phase of the migration has failed and was not done since
# TYPE telegram_migration_failed gauge
telegram_migration_failed {failed}
"""


class StateError(Exception):
    """The operation cannot be done; the message is meant for the operator. `held_by` is who is in the way."""

    def __init__(self, message: str, held_by: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.held_by = held_by


def now() -> str:
    """The time as it stands in the file."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def load(path: str) -> dict[str, Any]:
    """The content of the file, empty where there is none. Raises StateError."""
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StateError(
            f"{path} cannot be read: {error}. It says how far the migration is; restore it from a backup, or move it "
            "away to begin with a new migration, which copies nothing twice."
        ) from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise StateError(f"{path} is no state of a migration of version {VERSION}. Use the release that wrote it.")
    return state


def save(path: str, state: dict[str, Any], textfiles: str) -> None:
    """Replace the file, and what everybody may read of it, and wait for the disk. Raises OSError."""
    folder = Path(path).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(Path(path), as_text(state), 0o600)
    _replace(folder.parent / f"{folder.name}.json", as_text(progress(state)), 0o644)
    if Path(textfiles).is_dir():
        with contextlib.suppress(OSError):  # what nobody goes on from stops no migration
            _replace(Path(textfiles, "telegram_migration.prom"), metrics(state), 0o644)


def as_text(content: dict[str, Any]) -> str:
    """The content of a file that people may read as well."""
    return json.dumps(content, indent=1) + "\n"


def done(state: dict[str, Any]) -> list[int]:
    """Numbers of the phases that are done."""
    return sorted(int(number) for number, phase in state.get("phases", {}).items() if phase["status"] == "done")


def metrics(state: dict[str, Any]) -> str:
    """What Prometheus is told."""
    back = state["outcome"] == "rolled_back"
    failed = any(phase["status"] == "failed" for phase in state["phases"].values())
    return _METRICS.format(phase=-1 if back else max(done(state), default=-1), failed=int(failed and not back))


def progress(state: dict[str, Any]) -> dict[str, Any]:
    """Which phases are begun, done or failed, and when: nothing that only root may know."""
    told = ("status", "begun_at", "finished_at", "failed_at")
    phases = {
        number: {name: phase[name] for name in told if name in phase} for number, phase in state["phases"].items()
    }
    return {name: state[name] for name in ("begun_at", "updated_at", "outcome")} | {"phases": phases}


def _replace(path: Path, content: str, mode: int) -> None:
    temporary = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    temporary.replace(path)
    held = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def opened(state: dict[str, Any], inputs: dict[str, Any], operator: dict[str, Any], take_over: bool) -> dict[str, Any]:
    """The state with `operator` at work, new where there is none or the last migration was rolled back.

    Raises StateError.
    """
    holder = state.get("operator")
    if holder and holder != operator and not take_over:
        raise StateError(
            f"{holder.get('user')} on {holder.get('controller')} (process {holder.get('pid')}, last sign of life "
            f"{state.get('updated_at')}) works on this migration. Wait for that run; if it has ended, "
            "run again with -e migration_take_over=true.",
            holder,
        )
    if not state or state["outcome"] == "rolled_back":
        state = {"version": VERSION, "begun_at": now(), "inputs": inputs, "outcome": None, "phases": {}}
    different = sorted(name for name in {*inputs, *state["inputs"]} if inputs.get(name) != state["inputs"].get(name))
    if different:
        told = "; ".join(f"{name} was {state['inputs'].get(name)!r}, is {inputs.get(name)!r}" for name in different)
        raise StateError(
            f"The migration that has begun is another one: {told}. Go on with its settings, or take it back with "
            "rollback.yml first."
        )
    return {**state, "operator": operator}


def changed(state: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The state after an operation on it, `given` as the module's options are. Raises StateError."""
    if not state:
        raise StateError("No migration has begun on this host.")
    if state.get("operator") != given["operator"]:
        raise StateError("Another operator has taken over this migration. Leave it to that run.", state.get("operator"))
    if given["operation"] == "close":
        return {**state, "operator": None, "outcome": given["outcome"] or state["outcome"]}
    number = str(given["phase"])
    phase = _phase(state, number)
    phase["evidence"] = {**phase["evidence"], **given["evidence"]}
    if given["operation"] == "begin":
        phase = _begun(phase)
    elif given["operation"] == "finish":
        phase.update(status="done", finished_at=now())
        if given["begins"] is not None:
            following = str(given["begins"])
            state = {**state, "phases": {**state["phases"], following: _begun(_phase(state, following))}}
    elif given["operation"] == "fail":
        phase.update(status="failed", error=given["error"], failed_at=now())
        if given["undone_from"] is not None:
            state = {**state, "phases": _undone(state["phases"], given["undone_from"])}
    return {**state, "phases": {**state["phases"], number: phase}}


def _phase(state: dict[str, Any], number: str) -> dict[str, Any]:
    return {**state["phases"].get(number, {"status": "begun", "attempts": 0, "evidence": {}})}


def _begun(phase: dict[str, Any]) -> dict[str, Any]:
    begun = {"begun_at": now(), **phase, "status": "begun", "attempts": phase["attempts"] + 1}
    return {name: value for name, value in begun.items() if name != "error"}


def _undone(phases: dict[str, Any], first: int) -> dict[str, Any]:
    """Those from `first` on as they were when they had begun."""
    return {
        number: {**phase, "status": "begun"} if int(number) >= first and phase["status"] == "done" else phase
        for number, phase in phases.items()
    }


def operate(given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do the operation; what the module returns. Raises StateError and OSError."""
    before = load(given["path"])
    if given["operation"] == "read":
        after = before
    elif given["operation"] == "open":
        after = opened(before, given["inputs"], given["operator"], given["take_over"])
    elif check_mode:
        after = before  # nothing was begun that could be gone on with
    else:
        after = changed(before, given)
    different = after != before
    if different and not check_mode:
        if before.get("outcome") == "rolled_back" and given["operation"] == "open":
            Path(given["path"]).replace(f"{given['path']}.{before['updated_at']}")
        after["updated_at"] = now()
        save(given["path"], after, given["textfiles"])
    return {"changed": different, "state": after, "done": done(after)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "operation": {
                "type": "str",
                "default": "read",
                "choices": ["read", "open", "begin", "finish", "fail", "record", "close"],
            },
            "phase": {"type": "int"},
            "inputs": {"type": "dict", "default": {}},
            "evidence": {"type": "dict", "default": {}},
            "error": {"type": "str", "default": ""},
            "begins": {"type": "int"},
            "undone_from": {"type": "int"},
            "outcome": {"type": "str", "choices": ["migrated", "rolled_back", "finalized"]},
            "take_over": {"type": "bool", "default": False},
            "textfiles": {"type": "path", "default": "/var/lib/prometheus/node-exporter"},
            "operator": {"type": "dict", "default": {}},
        },
        required_if=[("operation", operation, ["phase"]) for operation in ("begin", "finish", "fail", "record")],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**operate(module.params, module.check_mode))
    except StateError as error:
        module.fail_json(msg=str(error), **({"held_by": error.held_by} if error.held_by else {}))
    except OSError as error:
        module.fail_json(msg=f"The state of the migration cannot be kept: {error}. Make room for it and run again.")


if __name__ == "__main__":
    main()

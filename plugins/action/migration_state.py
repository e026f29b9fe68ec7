"""Action of the module `migration_state`: tells it which run of Ansible asks."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Runs the module, once more where the operator in its way was a run of this controller that has ended."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module with the option `operator`."""
        super().run(tmp, task_vars)
        operator = this_run()
        given = {**self._task.args, "operator": operator}
        result: dict[str, Any] = self._execute_module(module_args=given, task_vars=task_vars)
        holder = result.get("held_by")
        if holder and given.get("operation") == "open" and has_ended(holder, operator["controller"]):
            result = self._execute_module(module_args={**given, "take_over": True}, task_vars=task_vars)
        return result


def this_run() -> dict[str, Any]:
    """The run of Ansible that this is: actions run in a child of it."""
    pid = os.getppid()
    return {"controller": socket.gethostname(), "pid": pid, "started": _started(pid), "user": getpass.getuser()}


def has_ended(holder: dict[str, Any], controller: str) -> bool:
    """Whether `holder` was a run on this `controller` that is no more."""
    return bool(holder.get("controller") == controller and holder.get("started") != _started(holder.get("pid", 0)))


def _started(pid: int) -> str:
    """When the process began, in the kernel's ticks; empty where there is none. Numbers of processes are used again."""
    try:
        stat = Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]

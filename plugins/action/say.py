"""Action of the module `say`: prints text as it stands."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Prints on the controller's standard output, whatever callback is in use."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print the option `text`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec={"text": {"type": "str", "required": True}})
        Display().display(options["text"])
        return {**result, "changed": False}

"""Filters of the health playbook: the results of all hosts as one report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..module_utils.health_report import host_results, report, table

DOCUMENTATION = r"""
name: health_report
short_description: Makes one report of what stack_health found on all hosts
version_added: 0.1.0
author: Telegram hybrid stack maintainers
description:
  - A component is as bad as the worst of its checks.
positional: _input
options:
  _input:
    description: The results by host, from the filter P(tradingsystem.telegram_stack.health_results#filter).
    type: dict
    required: true
"""
EXAMPLES = r"""
- name: Say in one sentence how the stack is
  ansible.builtin.debug:
    msg: "{{ ({inventory_hostname: health.results} | tradingsystem.telegram_stack.health_report).summary }}"
"""
RETURN = r"""
_value:
  description:
    - C(status), C(counts), C(summary), C(components) (a row each with host, component, status, version, port, unit,
      problem and action) and C(checks) (the module's results by host).
  type: dict
"""


class FilterModule:
    """Filters of the collection for the health playbook."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "health_results": host_results,
            "health_report": report,
            "health_table": lambda found: table(found["components"]),
        }

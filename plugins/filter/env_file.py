"""Filter `env_file`: the settings in a file of lines NAME=value."""

from __future__ import annotations

import re
from collections.abc import Callable

DOCUMENTATION = r"""
name: env_file
short_description: Reads a file of lines NAME=value
version_added: 0.1.0
author: Telegram hybrid stack maintainers
description:
  - Reads what the legacy system keeps in its C(.env). Lines may begin with C(export), values may stand in quotes,
    a C(#) behind blank space begins a comment. Nothing in a value is expanded; of lines with one name the last counts.
positional: _input
options:
  _input:
    description: The content of the file.
    type: str
    required: true
"""
EXAMPLES = r"""
- name: Read the settings of the old system
  ansible.builtin.set_fact:
    settings: "{{ lookup('ansible.builtin.file', '.env') | tradingsystem.telegram_stack.env_file }}"
"""
RETURN = r"""
_value:
  description: Names and values.
  type: dict
"""

_LINE = re.compile(
    r"""^\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*=\s*
    (?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|(?P<bare>.*?))\s*(?:(?<=\s)\#.*)?$""",
    re.VERBOSE,
)


def read(content: str) -> dict[str, str]:
    """Names and values of the lines of `content`; lines that are none are passed over."""
    found = {}
    for line in content.splitlines():
        if match := _LINE.match(line):
            double = match["double"]
            quoted = match["single"] if double is None else re.sub(r"\\(.)", r"\1", double)
            found[match["name"]] = (match["bare"] or "").strip() if quoted is None else quoted
    return found


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[[str], dict[str, str]]]:
        """The filter by its name."""
        return {"env_file": read}

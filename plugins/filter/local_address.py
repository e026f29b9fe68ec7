"""Filter `local_address`: where a service of this host is reached from the host itself."""

from __future__ import annotations

from collections.abc import Callable

DOCUMENTATION = r"""
name: local_address
short_description: Tells where a service of this host is reached from the host itself
version_added: 0.1.0
author: Telegram hybrid stack maintainers
description:
  - A service that listens at every address is asked on the loopback, any other where it listens.
positional: _input
options:
  _input:
    description: The address at which the service listens.
    type: str
    required: true
"""
EXAMPLES = r"""
- name: Ask the gateway how it is
  ansible.builtin.uri:
    url: "http://{{ gateway_bind_address | tradingsystem.telegram_stack.local_address }}:4010/health"
"""
RETURN = r"""
_value:
  description: The address to ask.
  type: str
"""

_EVERY = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - addresses to recognise


def local_address(listens: str) -> str:
    """Where to ask what listens at the address `listens`."""
    return "127.0.0.1" if listens in _EVERY else listens


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[[str], str]]:
        """The filter by its name."""
        return {"local_address": local_address}

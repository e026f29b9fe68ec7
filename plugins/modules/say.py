#!/usr/bin/python
# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action `say`, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: say
short_description: Print text as it stands
version_added: 0.1.0
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
description:
  - Prints lines on the controller's standard output, without the quoting, escaping and indenting
    that M(ansible.builtin.debug) adds, so that people can read a table and programs can read JSON.
attributes:
  check_mode:
    description: Prints in check mode too.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  text:
    description: What to print.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show where the API is
  tradingsystem.telegram_stack.say:
    text: "The API listens on {{ telegram_api_host }}:{{ telegram_api_port }}."
"""

RETURN = r""" # """

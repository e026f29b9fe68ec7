"""Filter `unknown_variables`: finds settings that no role of the collection reads."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

DOCUMENTATION = r"""
name: unknown_variables
short_description: Names settings that no role knows
version_added: 0.1.0
author: Telegram hybrid stack maintainers
description:
  - Compares variable names with the options in C(meta/argument_specs.yml) of every role.
  - Reports a name that starts like a role's settings but is none of them,
    and a name that is almost, but not quite, a known one.
positional: _input, roles_dir
options:
  _input:
    description: Variable names, for example from the lookup P(ansible.builtin.varnames#lookup).
    type: list
    elements: str
    required: true
  roles_dir:
    description: The folder with the roles.
    type: path
    required: true
"""
EXAMPLES = r"""
- name: Refuse settings that no role knows
  ansible.builtin.assert:
    that: names | tradingsystem.telegram_stack.unknown_variables(roles_dir) | length == 0
  vars:
    names: "{{ query('ansible.builtin.varnames', '.+') }}"
"""
RETURN = r"""
_value:
  description: A sentence for each unknown name, with the nearest known one where there is any.
  type: list
  elements: str
"""

SHARED_PREFIX = "telegram_"
NEARLY_THE_SAME = 0.92


def known_options(roles_dir: Path) -> set[str]:
    """The names of all options of all roles below `roles_dir`."""
    known: set[str] = set()
    for spec in sorted(roles_dir.glob("*/meta/argument_specs.yml")):
        known |= set(yaml.safe_load(spec.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"])
    return known


def find_unknown(names: Iterable[str], known: set[str], prefixes: tuple[str, ...]) -> list[str]:
    """A sentence for each of `names` that looks like a setting of ours and is none."""
    sentences = []
    for name in sorted(set(names) - known):
        if name.startswith(("_", "ansible_")):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6 if name.startswith(prefixes) else NEARLY_THE_SAME)
        if near:
            sentences.append(f"no role knows the variable {name}; did you mean {near[0]}?")
        elif name.startswith(prefixes):
            sentences.append(f"no role knows the variable {name}")
    return sentences


def unknown_variables(names: Iterable[str], roles_dir: str) -> list[str]:
    """What `find_unknown` says of `names`, with the roles below `roles_dir`."""
    folder = Path(roles_dir)
    known = known_options(folder)
    prefixes = tuple(f"{role.name}_" for role in folder.iterdir() if role.is_dir() and role.name != "common")
    return find_unknown(names, known, (*prefixes, SHARED_PREFIX))


class FilterModule:
    """Filters of the collection that look at variables."""

    def filters(self) -> dict[str, Callable[[Iterable[str], str], list[str]]]:
        """The filters by name."""
        return {"unknown_variables": unknown_variables}

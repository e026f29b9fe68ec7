#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: several small files at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: text_files
short_description: Writes several text files in one step
version_added: 0.1.0
description:
  - Does for many small files what M(ansible.builtin.copy) does for one, without three calls to the host for each.
  - A file is replaced whole or not at all. Their folders have to be there, but in check mode.
options:
  files:
    description:
      - What to write, content by path.
    type: dict
    required: true
  validate:
    description:
      - A command that finds a file good before it takes the place of the one that is there; C(%s) stands for its path.
    type: str
extends_documentation_fragment:
  - ansible.builtin.files
attributes:
  check_mode:
    description: Writes nothing and tells what would change.
    support: full
  diff_mode:
    description: Shows each file that changes.
    support: full
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Write what each job of Prometheus asks
  tradingsystem.telegram_stack.text_files:
    files:
      /etc/prometheus/targets/api.yml: '[{"targets": ["127.0.0.1:4010"]}]'
      /etc/prometheus/targets/worker.yml: '[{"targets": ["127.0.0.1:4011"]}]'
    owner: root
    group: root
    mode: "0644"
"""

RETURN = r"""
paths:
  description: The files whose content or attributes have changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/prometheus/targets/api.yml]
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def put(module: AnsibleModule, path: str, content: str) -> tuple[bool, dict[str, str]]:
    """Whether the file changes, and how its content does."""
    try:
        before = Path(path).read_bytes()
    except FileNotFoundError:
        before = None
    after = content.encode()
    if before != after and not module.check_mode:
        if not Path(path).parent.is_dir():
            module.fail_json(msg=f"{path} could not be written: its folder is not there. Make it first.")
        handle, fresh = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(handle, "wb") as file:
            file.write(after)
        if module.params["validate"]:
            check(module, path, fresh)
        module.atomic_move(fresh, path)
    changed = before != after
    if Path(path).exists():
        changed = module.set_fs_attributes_if_different(
            module.load_file_common_arguments(module.params, path=path), changed
        )
    diff = {"before": (before or b"").decode(errors="replace"), "after": content} if before != after else {}
    return changed, {"before_header": path, "after_header": path, **diff}


def check(module: AnsibleModule, path: str, fresh: str) -> None:
    """End the module where the command that validates finds fault."""
    command = module.params["validate"].replace("%s", fresh)
    code, out, error = module.run_command(command)
    if code:
        Path(fresh).unlink()
        said = " ".join([*out.split(), *error.split()]).replace(fresh, path)
        module.fail_json(msg=f"{path} was not written, because {module.params['validate']} refuses it: {said}")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"files": {"type": "dict", "required": True}, "validate": {"type": "str"}},
        add_file_common_args=True,
        supports_check_mode=True,
    )
    paths: list[str] = []
    diffs: list[dict[str, Any]] = []
    for path, content in module.params["files"].items():
        try:
            changed, diff = put(module, path, content)
        except OSError as error:
            module.fail_json(msg=f"{path} could not be written: {error.strerror}.")
        if changed:
            paths.append(path)
            diffs.append(diff)
    module.exit_json(changed=bool(paths), paths=paths, diff=diffs)


if __name__ == "__main__":
    main()

"""Playbooks, and tasks of a role, as Ansible runs them on this machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.servers import ROOT


def play(
    folder: Path, tasks: list[dict[str, Any]], settings: dict[str, Any], *options: str
) -> subprocess.CompletedProcess[str]:
    """Run `tasks` with `settings` as extra variables, which are kept in `folder` and not in the arguments."""
    made = [{"hosts": "localhost", "tasks": tasks}]
    (folder / "play.yml").write_text(json.dumps(made))  # which is YAML too
    (folder / "settings.json").write_text(json.dumps(settings))
    made_of = [str(folder / "play.yml"), "-e", f"@{folder}/settings.json"]
    return playbook(*options, "-i", "localhost,", "-c", "local", *made_of)


def playbook(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook with these words, in the repository's root and with its settings."""
    return subprocess.run(
        ["ansible-playbook", *words],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

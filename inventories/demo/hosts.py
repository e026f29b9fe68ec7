#!/usr/bin/env python3
"""Inventory of the demo: the target host that `make demo` booted on this machine, in every group of the stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ROOT / ".cache" / "demo" / "variables.json"
GROUPS = ("database", "cache", "queue", "gateway", "api", "worker", "monitoring")


def inventory() -> dict[str, object]:
    """Ansible's inventory document, empty while the demo is not up."""
    command = [sys.executable, "-m", "tools.targets", "inventory"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    known = json.loads(VARIABLES.read_text()) if VARIABLES.exists() else {}
    variables = {name: host | known for name, host in json.loads(answer.stdout).items() if name == "demo"}
    groups = {f"telegram_{group}": {"hosts": list(variables)} for group in GROUPS}
    return {"_meta": {"hostvars": variables}, "telegram_stack": {"children": list(groups)}, **groups}


if __name__ == "__main__":
    print(json.dumps(inventory()))

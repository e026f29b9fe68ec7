"""Modules of this collection as Ansible runs them: in a process of their own, arguments in, JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "ansible_collections.tradingsystem.telegram_stack.plugins.modules"


def start(module: str, arguments: dict[str, Any], *, check: bool = False) -> subprocess.Popen[str]:
    """Begin a run of `module`; `answer` waits for it."""
    given = {
        **arguments,
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        "_ansible_remote_tmp": os.environ.get("TMPDIR", "/tmp"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", f"{PACKAGE}.{module}"],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
    process.stdin.close()
    process.stdin = None  # communicate() would flush it
    return process


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a run says."""
    out, err = process.communicate(timeout=120)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return found


def run(module: str, arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Run `module` and return what it says."""
    return answer(start(module, arguments, check=check))


def failure(said: dict[str, Any]) -> str:
    """The message of a run that failed."""
    assert said.get("failed"), said
    return str(said["msg"])


def success(said: dict[str, Any]) -> dict[str, Any]:
    """`said`, of a run that did not fail."""
    assert not said.get("failed"), said
    return said

"""Runs a playbook of this checkout with its progress on a few lines and all of its output in a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_CLEAR = "\r\033[K"
_HEADER = re.compile(r"(PLAY|TASK|RUNNING HANDLER) \[(.*)\] \*+")


def program(name: str) -> str:
    """A program of the environment this Python belongs to; what stands first on PATH may be another one."""
    return str(Path(sys.executable).with_name(name))


def run(
    playbook: str, variables: Mapping[str, object], log: Path, *, progress: bool, inventory: Path | None = None
) -> bool:
    """Run `playbook` with extra `variables` and write its output to `log`; whether it succeeded.

    Without an `inventory` it is the demo's, which `ansible.cfg` names.

    With `progress` each play is named as it begins, with the minutes and seconds since the start; on a terminal the
    step that runs now stands below.
    """
    command = [program("ansible-playbook"), playbook, *(["-i", str(inventory)] if inventory else [])]
    command += [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": path}
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as kept,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        began = time.monotonic()
        for line in process.stdout:
            kept.write(line)
            kept.flush()
            if progress:
                _show(line, time.monotonic() - began)
    if progress and sys.stdout.isatty():
        print(_CLEAR, end="", flush=True)
    return process.returncode == 0


def _show(line: str, seconds: float) -> None:
    header = _HEADER.match(line)
    if header is None:
        return
    kind, name = header.groups()
    moment = f"{int(seconds) // 60:4d}:{int(seconds) % 60:02d}"
    if kind == "PLAY":
        print(f"{_CLEAR if sys.stdout.isatty() else ''}{moment}  {name}", flush=True)
    elif sys.stdout.isatty():
        step = name.rpartition(" : ")[2]
        print(f"{_CLEAR}{moment}    {step[:100]} ...", end="", flush=True)


def failure(log: Path) -> str:
    """The step that ended a playbook, as its log tells it: from the header of the task on; else its last lines."""
    lines = [line.rstrip() for line in log.read_text().splitlines()]
    recap = next((number for number, line in enumerate(lines) if line.startswith("PLAY RECAP")), len(lines))
    failed = next((number for number, line in enumerate(lines) if line.startswith(("fatal:", "failed:"))), None)
    if failed is None:
        return "\n".join(lines[-20:]).strip()
    header = max((number for number in range(failed) if _HEADER.match(lines[number])), default=0)
    return "\n".join(lines[header:recap]).strip()

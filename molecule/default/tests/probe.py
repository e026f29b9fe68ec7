"""What the scenario's tests share: questions to a host and to the simulator."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from testinfra.host import Host
from tools.simulator import Simulator

STATE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PYTHON = "/opt/telegram-stack/current/bin/python"
POSTGRESQL = {"12": 15, "13": 17}


def unit_of(host: Host, component: str) -> str:
    """The systemd unit of `component` on this Debian."""
    if component == "postgresql":
        return f"postgresql@{POSTGRESQL[host.system_info.release.split('.')[0]]}-telegram.service"
    return f"{component}.service"


def telegram() -> Simulator:
    """The simulator that `prepare` started."""
    return Simulator(STATE / "simulator", (STATE / "address").read_text(), 8453)


def secrets_of(file: str) -> dict[str, str]:
    """The secrets in `file` of the scenario's folder."""
    secrets: dict[str, str] = yaml.safe_load((STATE / file).read_text())["telegram_secrets"]
    return secrets


def sql(host: Host, statement: str) -> list[list[str]]:
    """The rows of `statement` in the stack's database, asked as the database's superuser over its local socket."""
    encoded = base64.b64encode(statement.encode()).decode()
    command = f"echo {encoded} | base64 -d | su postgres -c 'psql -X -p 5434 -d telegram_gateway -Atv ON_ERROR_STOP=1'"
    return [line.split("|") for line in host.check_output(command).splitlines()]


def run_python(host: Host, program: str) -> Any:
    """Run `program` with the services' Python on the host; what it prints, as JSON."""
    encoded = base64.b64encode(program.encode()).decode()
    return json.loads(host.check_output(f"echo {encoded} | base64 -d | {PYTHON} -"))


def wait_until(what: str, seconds: float, true: Callable[[], bool]) -> None:
    """Poll until `true` answers so; fails with `what` when time runs out."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.5)

"""The stack while all is well: nothing fires, everything has data, and what the monitoring itself costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

import msgspec
from roles.monitoring.files.dashboard_check import expressions
from tests.alerts.host import Host
from tests.alerts.suite import ALWAYS, alerts, names
from tests.integration.servers import wait_until
from tests.unit.alert_rules import rules
from tests.unit.dashboards import NAMES, board
from tools.dashboards.data import WITHOUT_DATA

SECONDS = 240.0
SETTLING = 900.0
UNITS = (
    "prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "prometheus-postgres-exporter",
    "prometheus-redis-exporter", "telegram-host-metrics",
)  # fmt: skip


class Cost(msgspec.Struct):
    """What a unit took: percent of a core, and the most memory that it has had resident, in bytes."""

    cpu: float
    memory: int


class Healthy(msgspec.Struct):
    """What was seen in so many `seconds`. `empty` expressions have the reason, or that which fills them."""

    seconds: float
    targets: int
    alerts: int
    expressions: int
    fired: list[str]
    down: list[str]
    failing: list[str]
    empty: dict[str, str]
    cost: dict[str, Cost]


def look(host: Host) -> Healthy:
    """Watch the stack for SECONDS, once what its deployment left behind has ended."""
    wait_until(lambda: names(alerts(host)) == {ALWAYS}, SETTLING)
    before, began = _used(host), time.monotonic()
    fired: set[str] = set()
    down: set[str] = set()
    while time.monotonic() < began + SECONDS:
        fired |= names(alerts(host)) - {ALWAYS}
        down |= {f"{one['metric']['job']} {one['metric']['instance']}" for one in host.query("up == 0")}
        time.sleep(2.0)
    after, seconds = _used(host), time.monotonic() - began
    groups = host.prometheus.get("/api/v1/rules").json()["data"]["groups"]
    every = [rule for group in groups for rule in group["rules"]]
    return Healthy(
        seconds=seconds,
        targets=len(host.query("up")),
        alerts=sum(rule["type"] == "alerting" for rule in every),
        expressions=len(asked()),
        fired=sorted(fired),
        down=sorted(down),
        failing=[rule["name"] for rule in every if rule["health"] != "ok"],
        empty={text: _reason(text) for text in asked() if not host.query(text)},
        cost={
            unit: Cost(100 * (after[unit][0] - before[unit][0]) / seconds, after[unit][1]) for unit in UNITS
        },
    )  # fmt: skip


def asked() -> list[str]:
    """Every expression of every panel, and every figure that a rule records."""
    found = [text for name in NAMES for text in expressions(board(name))]
    return list(dict.fromkeys([*found, *(rule["record"] for rule in rules() if "record" in rule)]))


def _reason(expression: str) -> str:
    return next((reason for name, reason in WITHOUT_DATA.items() if name in expression), "")


def filled(host: Host, empty: Iterable[str]) -> list[str]:
    """Those of the expressions that have had data at some moment of the last three hours."""
    return [text for text in empty if host.query(f"last_over_time(({text})[3h:30s])")]


def _used(host: Host) -> dict[str, tuple[float, int]]:
    """By unit: seconds of processor time so far, and the highest resident memory in bytes. Each is one process."""
    program = f"""
import json, os, subprocess
used = dict()
for unit in {UNITS!r}:
    command = ["systemctl", "show", "--property=MainPID", "--value", unit]
    pid = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    words = open("/proc/" + pid + "/stat").read().rpartition(")")[2].split()
    state = dict(line.split(":", 1) for line in open("/proc/" + pid + "/status"))
    seconds = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    used[unit] = seconds, int(state["VmHWM"].split()[0]) * 1024
print(json.dumps(used))
"""
    return {unit: (seconds, memory) for unit, (seconds, memory) in json.loads(host.run("python3 -", program)).items()}

"""The demo's host as the place of measurement: everything deployed on it, load from the simulator beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import demo, demo_stack
from tools.simulator import Simulator

from benchmarks.database.timing import Timings

PROBE = Path(__file__).resolve().parents[2] / "playbooks/files/stack_probe.py"
SETTLING = 10.0
"""Seconds of load before the measurement begins."""
_BOUNDED = "systemctl show --type=service -p Id -p CPUQuotaPerSecUSec '*'"
_AGAIN = "rm -f /run/systemd/system.control/*.service.d/50-CPUQuota*.conf; systemctl daemon-reload"


@dataclass(frozen=True)
class Run:
    """One rate. Latencies are milliseconds from receipt by p50, p95 and p99, CPU is cores by unit.

    `gateway_megabytes` is the most that the gateway ever had, after the run and before it. What the machine gave:
    `loop_ms` is how long a plain loop took before the run, `stolen` the part of its processors' time that other
    machines had during it.
    """

    rate: float
    seconds: float
    limits: bool
    received: int
    stages: dict[str, dict[str, float]]
    cpu: dict[str, float]
    left: int
    behind: int
    settled_seconds: float
    statements_per_message: float
    gateway_megabytes: float
    gateway_megabytes_before: float
    loop_ms: float
    stolen: float

    @property
    def kept_up(self) -> bool:
        """Whether all that was sent was received, at most a second of it waited for a sink at the end, and the worker,
        which is behind the queue, came within a second as a rule.
        """
        received = self.received >= 0.98 * self.rate * self.seconds
        return received and self.left <= self.rate and self.stages["effect"]["p50"] <= 1000


class Host:
    """A deployed host, and the simulator that posts to it."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._limits = True

    def run(self, rate: float, seconds: float) -> Run:
        """Post `rate` messages a second for `seconds` and measure what becomes of them."""
        loop_ms = _loop_ms()
        self._simulator.ask("POST", "/load", {"rate": rate})
        try:
            time.sleep(SETTLING)
            before = _ticks()
            told = self._probe(seconds)
            after = _ticks()
        finally:
            self._rest()
        return Run(
            rate, seconds, self._limits, told["received"],
            told["stages"],
            told["cpu"], max(told["left"].values()), told["behind"], told["settled_seconds"],
            told["statements"] / max(1, told["received"]), told["megabytes"], told["megabytes_before"],
            loop_ms, _stolen(before, after),
        )  # fmt: skip

    def _rest(self) -> None:
        self._simulator.ask("DELETE", "/load")

    def _probe(self, seconds: float) -> dict[str, Any]:
        command = ["exec", demo_stack.HOST, "python3", "-", "--seconds", str(seconds), "--until-settled"]
        with subprocess.Popen(
            [sys.executable, "-m", "tools.targets", *command],
            cwd=demo_stack.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as probe:  # fmt: skip
            assert probe.stdin and probe.stdout
            probe.stdin.write(PROBE.read_text())
            probe.stdin.close()
            probe.stdout.readline()  # measured: under load the sinks would never have had everything
            self._rest()
            told = probe.stdout.read()
        if probe.returncode != 0:
            sys.exit("the measurement failed, see above")
        return dict(json.loads(told))

    @contextmanager
    def without_limits(self) -> Iterator[None]:
        """No unit has a limit of CPU meanwhile; those of memory stay."""
        shown = demo_stack.on_host(f"{_AGAIN}; {_BOUNDED}")  # a run that was killed has left them off
        units = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown.strip().split("\n\n")]
        bounded = [unit["Id"] for unit in units if unit.get("CPUQuotaPerSecUSec", "infinity") != "infinity"]
        assert bounded, "no unit of the host has a limit"
        demo_stack.on_host("; ".join(f"systemctl set-property --runtime {unit} CPUQuota=" for unit in bounded))
        self._limits = False
        try:
            yield
        finally:
            self._limits = True
            demo_stack.on_host(_AGAIN)


def _loop_ms() -> float:
    """The median of a few plain loops of Python: milliseconds for a million additions."""

    def additions() -> None:
        total = 0
        for number in range(1_000_000):
            total += number

    timings = Timings()
    for _ in range(15):
        timings.take(additions)
    return timings.median_ms


def _stolen(before: list[int], after: list[int]) -> float:
    """The part of all processors' time, 0 to 1, that the hypervisor gave to others between two readings of `_ticks`."""
    passed = [last - first for first, last in zip(before, after, strict=True)]
    return passed[-1] / max(1, sum(passed))


def _ticks() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq and steal of all processors (proc_stat(5))."""
    return [int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]


@contextmanager
def deployed() -> Iterator[Host]:
    """The demo's stack, made or brought up to date by its own tool; its load rests meanwhile and goes on afterwards."""
    demo.up()
    address = json.loads(demo_stack.targets("inventory", demo_stack.HOST))[demo_stack.HOST]["ansible_host"]
    simulator = Simulator(demo_stack.STATE / "simulator", address.rsplit(".", 1)[0] + ".1", demo.PORT)
    simulator.ask("DELETE", "/load")
    try:
        yield Host(simulator)
    finally:
        simulator.ask("POST", "/load", {"rate": demo.RATE})

"""The playbook `benchmark` on a host through which messages flow."""

from __future__ import annotations

import json
import re

import pytest
from probe import STATE, telegram
from testinfra.host import Host
from tests.integration.plays import playbook

STAGES = {"spooled", "stored", "published", "cached", "effect"}


def benchmark(host: Host, seconds: int, form: str) -> str:
    """What the playbook prints."""
    options = ["-e", f"benchmark_seconds={seconds}", "-e", f"benchmark_format={form}"]
    here = ["-i", str(STATE / "inventory"), "--limit", f"{host.backend.host},localhost"]
    done = playbook("playbooks/benchmark.yml", *here, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.requirement("OP-01")
def test_it_says_how_fast_each_stage_is(host: Host) -> None:
    simulator = telegram()
    simulator.ask("POST", "/load", {"rate": 20})
    try:
        told = benchmark(host, 8, "json")
        table = benchmark(host, 4, "text")
    finally:
        simulator.ask("DELETE", "/load")
    found = json.loads(told[told.index('{"') : told.rindex("}") + 1])
    assert found["received"] >= 100
    assert set(found["stages"]) == STAGES
    assert all(0 < stage["p50"] <= stage["p95"] <= stage["p99"] for stage in found["stages"].values())
    assert found["cpu"]["telegram-gateway"] > 0
    assert found["statements"] > 0
    assert len(re.findall(r"^[a-z' ]{28}(?: +\d+\.\d){3}$", table, re.MULTILINE)) == len(STAGES), table
    assert re.search(r"Statements to the database a message: \d+\.\d\d", table)
    assert re.search(r"^Cores: .*telegram-gateway 0\.\d+", table, re.MULTILINE)

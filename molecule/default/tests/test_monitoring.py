"""Prometheus asks everything that is there, its rules find what they ask for, and alerts reach Alertmanager."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from probe import wait_until
from testinfra.host import Host
from tools.dashboards.data import WITHOUT_DATA

ASKED = re.compile(r'(?<![\w:."/=~-])([a-z]\w*[_:][\w:]*)(?=[\[{ )]|$)')


def ask(host: Host, url: str) -> Any:
    """The JSON that a server on the host answers with."""
    program = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=20).read().decode())"
    return json.loads(host.check_output(f'python3 -c "{program}"'))


def prometheus(host: Host, path: str) -> Any:
    """The data of an answer of Prometheus."""
    return ask(host, f"http://127.0.0.1:9090/api/v1/{path}")["data"]


@pytest.mark.requirement("MO-01")
def test_every_target_answers(host: Host) -> None:
    def all_up() -> bool:
        return {target["health"] for target in prometheus(host, "targets")["activeTargets"]} == {"up"}

    wait_until("every target up", 60, all_up)


@pytest.mark.requirement("MO-02")
def test_rules_find_what_they_ask_for(host: Host) -> None:
    rules = [rule for group in prometheus(host, "rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    asked = {name for rule in rules for name in ASKED.findall(re.sub(r'"[^"]*"', '""', rule["query"]))}
    assert len(asked) >= 50
    missing = asked
    for _ in range(12):  # what counts messages has figures behind the first of them, and a scrape
        missing = asked - set(WITHOUT_DATA) - set(prometheus(host, "label/__name__/values"))
        if not missing:
            break
        time.sleep(5)
    assert missing == set()


@pytest.mark.requirement("MO-04")
def test_an_alert_reaches_alertmanager_with_its_runbook(host: Host) -> None:
    def arrived() -> bool:
        alerts = ask(host, "http://127.0.0.1:9093/api/v2/alerts")
        found = [alert for alert in alerts if alert["labels"]["alertname"] == "DeadMansSwitch"]
        return bool(found) and "#deadmansswitch" in found[0]["annotations"]["runbook_url"]

    wait_until("DeadMansSwitch in Alertmanager", 60, arrived)

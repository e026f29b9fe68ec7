"""Nothing fires while all is well, and alerts of four kinds fire by real faults. All of them: `make alerts`."""

from __future__ import annotations

import os

import pytest
from probe import telegram, wait_until
from testinfra.host import Host
from tests.alerts.faults import faults
from tests.alerts.host import reached
from tests.alerts.suite import ALWAYS, Fired, Suite, alerts, names

FAULTS = [faults()[name] for name in ("exporter", "targets", "poison", "connections")]
LOOK_BACK = {"ErrorBudgetBurns", "ErrorBudgetBurnsFast", "LowCacheHitRate", "SlowDatabaseQueries"}
"""The fail-over and the deployments before are seen for minutes and hours in what these look back at."""


@pytest.mark.skipif(not os.environ.get("TELEGRAM_STACK_LONG"), reason="of the long form: make test-all, or make alerts")
@pytest.mark.requirement("MO-02", "MO-04")
def test_alerts_fire_by_their_faults_and_by_nothing_else(host: Host) -> None:
    if not host.system_info.release.startswith("13"):
        pytest.skip("one host has less patience (monitoring_alert_patience), and that is the one on Debian 13")
    shown: dict[str, Fired] = {}
    with reached(host.check_output("hostname"), telegram()) as running:
        wait_until("nothing fires", 300, lambda: names(alerts(running)) - LOOK_BACK == {ALWAYS})
        missing, others = Suite(running, shown, lambda: None).round(FAULTS)
    assert missing == {}
    assert set(others) <= LOOK_BACK
    assert {name: fired.wrong for name, fired in shown.items() if fired.wrong} == {}
    assert len(shown) == sum(len(fault.alerts) for fault in FAULTS)

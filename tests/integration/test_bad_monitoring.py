"""A bad rule, bad settings and a bad dashboard are refused by the role's own tasks, and what was there before stays."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.plays import play
from tests.unit.dashboards import NAMES

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the role gives its files to root"),
    pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed"),
]
BAD_URL = {"monitoring_runbook_url": 'https://docs.example/"quoted"'}
"""A setting that is a text, as its specification wants, and spoils whatever it is written into."""

Deploy = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def deploy(tmp_path: Path) -> Deploy:
    """Runs tasks of the role on this machine, with all that they write below `tmp_path`."""
    paths = {
        "_monitoring_settings_dir": str(tmp_path / "settings"),
        "_monitoring_targets_dir": str(tmp_path / "targets"),
        "_monitoring_rules_dir": str(tmp_path / "rules"),
        "_monitoring_dashboards_dir": str(tmp_path / "dashboards"),
        "_monitoring_dashboards_provider": str(tmp_path / "provisioning" / "telegram-stack.yml"),
        "_monitoring_dashboard_check": str(tmp_path / "programs" / "telegram-dashboard-check"),
        "_monitoring_grafana_present": True,
    }

    def run(tasks: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        include = {"name": "tradingsystem.telegram_stack.monitoring", "tasks_from": tasks}
        return play(tmp_path, [{"ansible.builtin.include_role": include}], paths | settings)

    return run


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


@pytest.mark.requirement("MO-02")
def test_a_bad_rule_is_refused_and_the_old_ones_stay(deploy: Deploy, tmp_path: Path) -> None:
    done = deploy("rules.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    before = content(tmp_path / "rules")
    assert len(before) == 6
    done = deploy("rules.yml", **BAD_URL)
    assert done.returncode == 2
    assert "was not written, because promtool check rules %s refuses it" in " ".join(done.stdout.split())
    assert content(tmp_path / "rules") == before


@pytest.mark.requirement("MO-01")
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"monitoring_scrape_interval": "15 seconds"}, "not a valid duration"),
        ({"monitoring_alert_webhook_url": "pager.example"}, "unsupported scheme"),
    ],
)
def test_bad_settings_are_refused_and_the_old_ones_stay(
    deploy: Deploy, tmp_path: Path, bad: dict[str, str], said: str
) -> None:
    (tmp_path / "settings").mkdir()
    done = deploy("settings.yml", monitoring_alert_webhook_url="http://pager.example/old")
    assert done.returncode == 0, done.stdout[-3000:]
    before = content(tmp_path / "settings")
    assert set(before) == {"alertmanager.yml", "prometheus.yml"}
    done = deploy("settings.yml", **{"monitoring_alert_webhook_url": "http://pager.example/new", **bad})
    assert done.returncode == 2
    assert "failed to validate" in done.stdout
    assert said in " ".join(done.stdout.split())
    after = content(tmp_path / "settings")
    refused = "prometheus.yml" if "monitoring_scrape_interval" in bad else "alertmanager.yml"
    assert after[refused] == before[refused]


@pytest.mark.requirement("MO-03")
def test_a_bad_dashboard_is_refused_and_the_old_ones_stay(deploy: Deploy, tmp_path: Path) -> None:
    done = deploy("dashboards.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    before = content(tmp_path / "dashboards")
    assert set(before) == {f"{name}.json" for name in NAMES}
    done = deploy("dashboards.yml", **BAD_URL)
    assert done.returncode == 2
    assert re.search(r"The dashboard is not good: it is no JSON", done.stdout)
    assert content(tmp_path / "dashboards") == before


@pytest.mark.requirement("MO-03")
def test_an_operators_limit_is_in_the_dashboard_and_an_unused_one_goes(deploy: Deploy, tmp_path: Path) -> None:
    assert deploy("dashboards.yml").returncode == 0
    done = deploy("dashboards.yml", telegram_lag_limit_seconds=77, telegram_queue_enabled=False)
    assert done.returncode == 0, done.stdout[-3000:]
    found = content(tmp_path / "dashboards")
    assert '"value": 77' in found["gateway.json"]
    assert set(found) == {f"{name}.json" for name in NAMES if name != "rabbitmq"}
    done = deploy("dashboards.yml", telegram_lag_limit_seconds=77, telegram_queue_enabled=False)
    assert re.search(r"changed=0\b", done.stdout), done.stdout[-2000:]

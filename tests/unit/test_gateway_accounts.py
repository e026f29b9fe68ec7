"""What playbooks make of further accounts: each gateway is started, stopped and asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

ROOT = Path(__file__).resolve().parents[2]
ACCOUNTS = [{"name": "second", "port": 4016}, {"name": "third-one", "port": 4017}]

pytestmark = pytest.mark.requirement("GW-11")


def rendered(file: str, name: str, accounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The list that variable `name` is as a text of YAML."""
    text = yaml.safe_load((ROOT / "playbooks/vars" / file).read_text())[name]
    environment = Environment(autoescape=False, trim_blocks=True)  # noqa: S701  # YAML, not a page
    return yaml.safe_load(environment.from_string(text).render(telegram_gateway_accounts=accounts)) or []


def test_start_and_stop_know_each_unit() -> None:
    units = [unit["unit"] for unit in rendered("units.yml", "_stack_gateways", ACCOUNTS)]
    assert units == [
        "telegram-gateway.service",
        "telegram-gateway@second.service",
        "telegram-gateway@third-one.service",
    ]
    assert [unit["unit"] for unit in rendered("units.yml", "_stack_gateways", [])] == units[:1]


def test_health_asks_each_at_its_port() -> None:
    checks = rendered("health.yml", "_health_accounts", ACCOUNTS)
    assert [(check["component"], check["unit"], check["port"]) for check in checks] == [
        ("MTProto gateway second", "telegram-gateway@second.service", 4016),
        ("MTProto gateway third-one", "telegram-gateway@third-one.service", 4017),
    ]
    assert "account=third-one" in checks[1]["hint"]
    assert rendered("health.yml", "_health_accounts", []) == []

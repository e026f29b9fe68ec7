"""The API's config as the role renders it is one that the API reads, the console's part of it too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingsystem.telegram_stack.plugins.filter.local_address import local_address
from jinja2 import Environment

from telegram_stack.api.config import ApiConfig
from telegram_stack.config import ConfigError, load

ROLES = Path("roles")


def rendered(**given: Any) -> str:
    """api.toml with the defaults of both roles and `given`."""
    environment = Environment(autoescape=False, trim_blocks=True)  # noqa: S701  # TOML, not a page
    environment.filters["bool"] = bool
    environment.filters["to_json"] = json.dumps
    environment.filters["tradingsystem.telegram_stack.local_address"] = local_address
    environment.filters["regex_replace"] = lambda value, pattern, new: re.sub(pattern, new, value, count=1)
    variables: dict[str, Any] = {}
    for file in ("common/defaults", "common/vars", "gateway_api/defaults", "gateway_api/vars"):
        variables |= yaml.safe_load((ROLES / file / "main.yml").read_text())
    variables = {name: value for name, value in variables.items() if "secrets" not in str(value)} | given

    def full(value: Any) -> Any:
        if isinstance(value, str) and "{{" in value:
            return environment.from_string(value).render(variables)
        if isinstance(value, list):
            return [full(item) for item in value]
        return {name: full(item) for name, item in value.items()} if isinstance(value, dict) else value

    for _ in range(3):  # defaults that name others
        variables = {name: full(value) for name, value in variables.items()}
    variables["telegram_sentinel_hosts"] = ["10.0.0.1", "10.0.0.2"]
    return environment.from_string((ROLES / "gateway_api/templates/api.toml.j2").read_text()).render(variables)


@pytest.mark.requirement("API-07")
def test_the_role_renders_what_the_api_and_its_console_read(tmp_path: Path) -> None:
    path = tmp_path / "api.toml"
    path.write_text(rendered(telegram_bind_address="10.0.0.5", telegram_worker_host="10.0.0.6"))
    config = load(path, ApiConfig)
    assert (config.console_session_hours, config.worker.host, config.worker.port) == (12, "10.0.0.6", 4011)
    assert config.migration_file == "/var/lib/telegram-stack/migration.json"
    found = {component.name: component for component in config.components}
    assert found["Signal worker"].host == "10.0.0.6"
    assert (found["Prometheus"].host, found["Prometheus"].path) == ("10.0.0.5", "/-/healthy")
    assert [component.name for component in config.components if not component.required] == ["Grafana"]


@pytest.mark.requirement("GW-11")
def test_it_knows_the_gateways_of_further_accounts(tmp_path: Path) -> None:
    accounts = [{"name": "second", "port": 4016}, {"name": "third-one", "port": 4017}]
    path = tmp_path / "api.toml"
    path.write_text(rendered(telegram_gateway_accounts=accounts))
    config = load(path, ApiConfig)
    assert config.gateway.accounts == {"second": 4016, "third-one": 4017}
    assert [(one.name, one.unit) for one in config.components if one.port == 4017] == [
        ("MTProto gateway third-one", "telegram-gateway@third-one")
    ]


def test_a_console_without_components_is_one_too(tmp_path: Path) -> None:
    path = tmp_path / "api.toml"
    path.write_text(rendered(gateway_api_console_components=[]))
    assert load(path, ApiConfig).components == ()


def test_what_no_component_has_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "api.toml"
    path.write_text(rendered() + "colour = 1\n")
    with pytest.raises(ConfigError, match=r"components.*colour"):
        load(path, ApiConfig)

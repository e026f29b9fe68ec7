"""The role's dashboards as a deployment writes them."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, StrictUndefined
from tests.unit.alert_rules import ROOT, settings

TEMPLATES = ROOT / "roles/monitoring/templates/dashboards"
NAMES = ("overview", "gateway", "database", "redis", "rabbitmq", "hosts", "slo")


def render(name: str, **given: Any) -> str:
    """The file `name`. Ansible's delimiters for these templates are in their first line."""
    environment = Environment(
        variable_start_string="[[",
        variable_end_string="]]",
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701
    )
    head, _, text = (TEMPLATES / f"{name}.json.j2").read_text(encoding="utf-8").partition("\n")
    assert head == "#jinja2: variable_start_string:'[[', variable_end_string:']]'", name
    return environment.from_string(text).render(settings(**given))


def board(name: str, **given: Any) -> dict[str, Any]:
    """The dashboard `name`."""
    found: dict[str, Any] = json.loads(render(name, **given))
    return found


def panels(name: str, **given: Any) -> list[dict[str, Any]]:
    """The panels of the dashboard `name`, without the rows."""
    return [panel for panel in board(name, **given)["panels"] if panel["type"] != "row"]

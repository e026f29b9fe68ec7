"""RabbitMQ's definitions: rendered by the role, declared by the services, and the same in both."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingsystem.telegram_stack.plugins.filter.rabbitmq import (
    missing_definitions,
    rabbitmq_password_hash,
)
from jinja2 import Environment

from telegram_stack import topology

ROLE = Path("roles/rabbitmq")
CONSUMER = "signals"


@pytest.fixture
def rendered() -> dict[str, Any]:
    """The role's definitions with made-up secrets."""
    environment = Environment(autoescape=False)  # noqa: S701  # JSON, not a page
    environment.filters["to_nice_json"] = json.dumps
    environment.filters["tradingsystem.telegram_stack.rabbitmq_password_hash"] = rabbitmq_password_hash
    users = yaml.safe_load((ROLE / "vars/main.yml").read_text())["_rabbitmq_users"]
    text = environment.from_string((ROLE / "templates/definitions.json.j2").read_text()).render(
        telegram_rabbitmq_vhost="telegram",
        telegram_consumer=CONSUMER,
        telegram_secrets={user["secret"]: f"secret of {user['name']}" for user in users},
        _rabbitmq_users=users,
    )
    definitions: dict[str, Any] = json.loads(text)
    return definitions


@pytest.mark.requirement("MQ-01")
def test_role_and_services_declare_the_same_topology(rendered: dict[str, Any]) -> None:
    declared = [*topology.publisher_topology(), *topology.consumer_topology(CONSUMER)]
    exchanges = {d.name: (d.type, d.arguments) for d in declared if isinstance(d, topology.Exchange)}
    queues = {d.name: d.arguments for d in declared if isinstance(d, topology.Queue)}
    bindings = {(d.exchange, d.queue, d.routing_key) for d in declared if isinstance(d, topology.Binding)}
    assert {e["name"]: (e["type"], e["arguments"]) for e in rendered["exchanges"]} == exchanges
    assert {q["name"]: q["arguments"] for q in rendered["queues"]} == queues
    assert {(b["source"], b["destination"], b["routing_key"]) for b in rendered["bindings"]} == bindings


def test_no_password_stands_in_the_definitions(rendered: dict[str, Any]) -> None:
    assert "secret of" not in json.dumps(rendered)


def test_a_hash_is_salt_and_digest_and_always_the_same() -> None:
    hashed = rabbitmq_password_hash("correct horse")
    raw = base64.b64decode(hashed)
    assert raw[4:] == hashlib.sha256(raw[:4] + b"correct horse").digest()
    assert hashed == rabbitmq_password_hash("correct horse") != rabbitmq_password_hash("correct horsf")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("users", "tags", ["administrator"]),
        ("permissions", "write", ".*"),
        ("exchanges", "arguments", {"alternate-exchange": "elsewhere"}),
        ("queues", "arguments", {"x-queue-type": "classic"}),
        ("queues", "durable", False),
    ],
)
def test_what_a_broker_has_otherwise_is_named(rendered: dict[str, Any], kind: str, field: str, value: object) -> None:
    there = json.loads(json.dumps(rendered))
    there[kind][0][field] = value
    altered = there[kind][0].get("name") or there[kind][0].get("user")
    assert missing_definitions(rendered, there) == [f"{kind} {altered}"]


def test_what_a_broker_has_besides_is_nobodys_business(rendered: dict[str, Any]) -> None:
    there = json.loads(json.dumps(rendered))
    there["queues"].append({"vhost": "telegram", "name": "somebody.else", "durable": True, "arguments": {}})
    there["global_parameters"] = [{"name": "internal_cluster_id", "value": "x"}]
    assert missing_definitions(rendered, there) == []


def test_what_a_broker_lacks_is_named(rendered: dict[str, Any]) -> None:
    there = json.loads(json.dumps(rendered))
    assert missing_definitions(rendered, there) == []
    del there["queues"][0]
    there["users"][1]["password_hash"] = "changed by hand"
    assert missing_definitions(rendered, there) == ["users telegram_worker", "queues telegram.unroutable"]
    assert len(missing_definitions(rendered, {})) == sum(len(objects) for objects in rendered.values())

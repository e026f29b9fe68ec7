"""`queue_drain_info` over real sockets: what is not told fails, and says what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.integration import modules
from tests.integration.modules import failure, success
from tests.unit.test_stack_health_drivers import Answers, web

QUEUE = "telegram.consumer.signals"
LISTED = [{"name": QUEUE, "messages": 2, "messages_ready": 2, "messages_unacknowledged": 0}]
HEALTH = {"spoolPending": 0, "recovering": 0, "sinks": {"database": {"lag": 0, "quarantined": 0}}}


def rabbitmq(port: int) -> dict[str, Any]:
    return {"port": port, "user": "monitoring", "password": "canary", "queues": [f"{QUEUE}*"]}


def ask(answers: Answers, **options: Any) -> dict[str, Any]:
    """`options` are made of the server's port."""
    with web(answers) as port:
        given = {name: make(port) for name, make in options.items()}
        return modules.run("queue_drain_info", given)


def test_each_stage_is_told_and_one_that_waits_is_enough() -> None:
    answers = {
        "/health": (503, json.dumps(HEALTH)),  # not connected to Telegram any more, and draining
        "/api/queues/telegram": (200, json.dumps(LISTED)),
        "/feed?all": (200, '{"backlog": 0, "age": 0.5}'),
    }
    said = success(
        ask(
            answers,
            gateway=lambda port: {"port": port},
            rabbitmq=rabbitmq,
            feed_url=lambda port: f"http://127.0.0.1:{port}/feed?all",
        )
    )
    assert (said["changed"], said["drained"], said["waiting"]) == (False, False, 2)
    assert [(stage["stage"], stage["drained"]) for stage in said["stages"]] == [
        ("gateway: spool", True),
        ("gateway: database", True),
        (f"queue: {QUEUE}", False),
        ("feed", True),
    ]
    assert success(ask(answers, gateway=lambda port: {"port": port}))["drained"]


@pytest.mark.parametrize(
    ("answers", "options", "words"),
    [
        ({"/health": (200, "")}, {"gateway": lambda port: {"port": port}}, "no JSON from the gateway's /health"),
        ({"/health": (200, "{}")}, {"gateway": lambda port: {"port": port}}, "does not tell 'spoolPending'"),
        ({"/health": (403, "{}")}, {"gateway": lambda port: {"port": port}}, "HTTP 403 from the gateway's /health"),
        ({}, {"gateway": lambda _port: {"port": 1}}, "no answer from 127.0.0.1:1"),
        ({"/api/queues/telegram": (200, "[]")}, {"rabbitmq": rabbitmq}, "Next: the worker declares its queues"),
        ({"/api/queues/telegram": (401, "")}, {"rabbitmq": rabbitmq}, "user monitoring is refused"),
        ({}, {"feed_url": lambda _port: "file:///etc/passwd"}, "is none: give http://host:port/path"),
        ({}, {"feed_url": lambda port: f"http://127.0.0.1:{port}/feed"}, "HTTP 404 from /feed"),
        ({}, {"consumer": lambda _port: "signals", "login_host": lambda _port: "/nowhere"}, "/nowhere:5434"),
        ({}, {}, "one of the following is required"),
    ],
)
def test_what_is_not_told_is_never_drained(answers: Answers, options: dict[str, Any], words: str) -> None:
    said = failure(ask(answers, **options))
    assert words in said
    assert "canary" not in said

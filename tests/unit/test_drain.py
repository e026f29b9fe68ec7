"""How much waits in each stage, and that nothing told is no zero."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.drain import of_feed, of_gateway, of_queues
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.health import NoAnswer

HEALTH: dict[str, Any] = {
    "spoolPending": 0,
    "recovering": 2,
    "sinks": {"database": {"lag": 3, "quarantined": 1}, "queue": {"lag": 0, "quarantined": 0, "reason": "away"}},
}
QUEUES = [
    {"name": "telegram.consumer.signals", "messages": 5, "messages_ready": 3, "messages_unacknowledged": 2},
    {"name": "telegram.consumer.signals.retry.1s", "messages": 0},
    {"name": "telegram.consumer.other", "messages": 9},
]


def test_the_gateway_tells_of_its_spool_and_each_sink() -> None:
    assert of_gateway(HEALTH, []) == [
        {"stage": "gateway: spool", "waiting": 0, "drained": True, "recovering": 2},
        {"stage": "gateway: database", "waiting": 3, "drained": False, "quarantined": 1, "reason": ""},
        {"stage": "gateway: queue", "waiting": 0, "drained": True, "quarantined": 0, "reason": "away"},
    ]
    assert [stage["stage"] for stage in of_gateway(HEALTH, ["queue"])] == ["gateway: spool", "gateway: queue"]


def test_queues_count_what_is_ready_and_what_is_out() -> None:
    found = of_queues(QUEUES, ["telegram.consumer.signals*"])
    assert [(stage["stage"], stage["waiting"]) for stage in found] == [
        ("queue: telegram.consumer.signals", 5),
        ("queue: telegram.consumer.signals.retry.1s", 0),
    ]


@pytest.mark.parametrize(
    ("read", "given", "words"),
    [
        (of_gateway, {}, "does not tell 'spoolPending'"),
        (of_gateway, [], "does not tell"),
        (of_gateway, {**HEALTH, "sinks": {"database": {"lag": None, "quarantined": 0}}}, r"tells no count \(None\)"),
        (of_queues, {"error": "x"}, "listed no queues"),
        (of_queues, [], "has no queue telegram.consumer"),
        (of_queues, [{"name": "telegram.consumer.a"}], r"tells no count \(None\)"),
    ],
)
def test_no_count_is_no_zero(read: Any, given: Any, words: str) -> None:
    with pytest.raises(NoAnswer, match=words):
        read(given, ["telegram.consumer.*"] if read is of_queues else [])


@pytest.mark.parametrize("document", [None, [], {}, {"backlog": "0"}, {"backlog": True}, {"backlog": -1}])
def test_a_feed_that_tells_no_backlog_is_not_drained(document: Any) -> None:
    with pytest.raises(NoAnswer):
        of_feed(document)
    assert of_feed({"backlog": 0, "age": 0.0})["drained"]

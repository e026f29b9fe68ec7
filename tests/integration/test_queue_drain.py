"""`queue_drain_info` asks a real RabbitMQ: what is ready and what is out both wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration import modules
from tests.integration.brokers import USER, Broker, rabbitmq, rabbitmq_installed
from tests.integration.servers import wait_until

QUEUE = "telegram.consumer.signals"

pytestmark = pytest.mark.skipif(not rabbitmq_installed(), reason="RabbitMQ is not installed")


def ask(broker: Broker, queue: str = f"{QUEUE}*") -> dict[str, Any]:
    there = {"port": broker.management_port, "user": USER, "password": broker.password, "queues": [queue]}
    return modules.run("queue_drain_info", {"rabbitmq": there})


def test_a_queue_is_drained_when_nothing_is_ready_and_nothing_is_out(tmp_path: Path) -> None:
    with rabbitmq(tmp_path, management=True) as broker:
        channel = broker.channel()
        channel.confirm_delivery()
        channel.queue_declare(QUEUE, durable=True)  # a quorum queue tells its counts each 5 s only
        for _ in range(3):
            channel.basic_publish("", QUEUE, b"x")
        method, _, _ = channel.basic_get(QUEUE)
        assert method

        def stage() -> dict[str, Any]:
            said = ask(broker)
            found: dict[str, Any] = said["stages"][0] if "stages" in said else {}
            return found

        wait_until(lambda: stage().get("unacknowledged") == 1)
        assert (stage()["waiting"], stage()["ready"], stage()["drained"]) == (3, 2, False)
        channel.basic_ack(method.delivery_tag)
        channel.queue_purge(QUEUE)
        wait_until(lambda: stage()["drained"])
        assert "RabbitMQ has no queue telegram.consumer.other" in modules.failure(
            ask(broker, "telegram.consumer.other")
        )
        channel.connection.close()
        broker.stop()
        assert "cannot be told: no answer from 127.0.0.1" in modules.failure(ask(broker))

"""The example consumer in another language keeps the contract of docs/queue.md, before a real broker."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration import brokers, npm
from tests.integration.servers import ROOT, wait_until, whole_lines
from tests.integration.workers import NOW, SIGNAL, Broker, event

from telegram_stack import events
from telegram_stack.events import Content
from telegram_stack.topology import DEAD_LETTER_QUEUE, consumer_queue, consumer_topology, retry_queue

EXAMPLE = ROOT / "examples" / "consumer-node"
CHANNEL = -1001234567890

pytestmark = [
    pytest.mark.skipif(not brokers.rabbitmq_installed(), reason="RabbitMQ is not installed"),
    pytest.mark.skipif(bool(npm.missing()), reason=f"{npm.missing()} missing: the example cannot run"),
    pytest.mark.requirement("MQ-03"),
]


@pytest.fixture(scope="module")
def packages() -> Path:
    """The example's packages."""
    try:
        return npm.installed(EXAMPLE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm cannot get the packages of the example: {error}")


class Example:
    """The example as a process."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self._said = folder / "said"
        with self._said.open("wb") as out, (folder / "errors").open("wb") as errors:
            url = f"amqp://{brokers.USER}:{broker.password}@127.0.0.1:{broker.port}/{brokers.VHOST}"
            environment = {"PATH": "/usr/bin:/bin", "AMQP_URL": url, "CONSUMER": broker.name}
            self.process = subprocess.Popen(
                [shutil.which("node") or "node", folder / "consumer.mjs"], env=environment, stdout=out, stderr=errors
            )
        self.errors = folder / "errors"

    def printed(self) -> list[tuple[str, int, int, str | None]]:
        """Kind, message, version and text of each line."""
        lines = [json.loads(line) for line in whole_lines(self._said)]
        assert all(line["channel_id"] == CHANNEL for line in lines)
        return [(line["kind"], line["message_id"], line["version"], line["text"]) for line in lines]


@pytest.fixture
def broker(consumer_broker: brokers.Broker) -> Iterator[Broker]:
    running = Broker(consumer_broker)
    yield running
    running.close()


@pytest.fixture
def example(packages: Path, broker: Broker, tmp_path: Path) -> Iterator[Example]:
    shutil.copy(EXAMPLE / "consumer.mjs", tmp_path)
    shutil.copy(EXAMPLE / "package.json", tmp_path)
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    running = Example(tmp_path, broker)
    wait_until(lambda: running.process.poll() is not None or b"is consumed" in running.errors.read_bytes())
    yield running
    running.process.kill()
    running.process.wait()


def test_it_prints_each_state_once_and_keeps_the_retry_contract(example: Example, broker: Broker) -> None:
    assert example.process.poll() is None, example.errors.read_text()
    first = event(CHANNEL, 1, text="olá")
    poll = event(CHANNEL, 3, content=Content(text="", message_type="poll"))
    edit = event(CHANNEL, 1, text="tchau", version=20, kind="edit")
    newer_schema = events.encode(event(CHANNEL, 4)).replace(b"{", b'{"schema_version":99,', 1)
    broker.publish(first, first, edit, first, poll, b"no event", newer_schema, channel=CHANNEL)
    gone = events.deletion(CHANNEL, 1, NOW)
    broker.publish(event(CHANNEL, 2), gone)
    expected = [
        ("new", 1, 10, "olá"),
        ("edit", 1, 20, "tchau"),
        ("new", 2, 10, SIGNAL),
        ("delete", 1, gone.version, None),
    ]
    wait_until(lambda: len(example.printed()) >= 4)
    assert example.printed() == expected
    wait_until(lambda: broker.ready(DEAD_LETTER_QUEUE) == 2)  # what can never be read
    wait_until(lambda: broker.ready(retry_queue(broker.name, "10s")) == 1)  # came back from 1s and failed again
    example.process.terminate()
    assert example.process.wait(timeout=10) == 0
    assert broker.ready(consumer_queue(broker.name)) == 0
    broker.declare(*consumer_topology(broker.name))  # the very arguments of our own consumers, or it is refused
    assert example.printed() == expected

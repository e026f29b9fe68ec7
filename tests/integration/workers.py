"""What tests of the worker share: messages, the publisher's side of a broker, the worker's rows and its process."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pika
import psycopg
import pytest
from tests.integration import brokers
from tests.integration.servers import Cable, Postgres, cable, free_port, postgres_programs

from telegram_stack import events
from telegram_stack.events import Content, Event
from telegram_stack.topology import (
    DEAD_LETTER_QUEUE,
    EXCHANGE,
    RETRY_DELAYS_MS,
    Binding,
    Declaration,
    Exchange,
    Queue,
    consumer_queue,
    publisher_topology,
    retry_queue,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SIGNAL = "ATIVO: PETR4\nCOMPRA: 28,50 a 29,10\nALVO FINAL: 33,00\nSTOP: 27,40"
NUMBERS = itertools.count(int(time.time()) % 1_000_000 * 1000)

needs_servers = pytest.mark.skipif(
    postgres_programs() is None or not brokers.rabbitmq_installed(),
    reason="PostgreSQL and RabbitMQ have to be installed",
)


def event(channel: int, message_id: int = 1, text: str = SIGNAL, version: int = 10, **fields: Any) -> Event:
    """A new message of `channel`."""
    given: dict[str, Any] = {
        "kind": "new",
        "channel_id": channel,
        "message_id": message_id,
        "version": version,
        "received_at": events.utc_now(),
        "message_date": NOW,
        "content": Content(text=text),
    }
    return Event(**(given | fields))


class Broker:
    """The publisher's side of the broker, as a test needs it. `name` is a consumer that only this test has."""

    def __init__(self, server: brokers.Broker) -> None:
        self.password = server.password
        self.port = server.port
        self._channel = server.channel()
        self._channel.confirm_delivery()
        self.name = f"test-{next(NUMBERS)}"
        self.declare(*publisher_topology())
        self._channel.queue_purge(DEAD_LETTER_QUEUE)

    def declare(self, *items: Declaration) -> None:
        """Declare as the gateway does; fails where something is there with other arguments."""
        for item in items:
            match item:
                case Exchange(name, kind, arguments):
                    self._channel.exchange_declare(name, kind, durable=True, arguments=arguments)
                case Queue(name, arguments):
                    self._channel.queue_declare(name, durable=True, arguments=arguments)
                case Binding(exchange, queue, key):
                    self._channel.queue_bind(queue, exchange, key)

    def publish(self, *items: Event | bytes, channel: int = 0, attempt: int = 1) -> None:
        """Publish as the gateway does, or as a wait queue gives it back; returns when the broker has confirmed."""
        for item in items:
            channel_id = channel if isinstance(item, bytes) else item.channel_id
            body = item if isinstance(item, bytes) else events.encode(item)
            headers = {"x-channel-id": channel_id} | ({"x-attempt": attempt} if attempt > 1 else {})
            properties = pika.BasicProperties(delivery_mode=2, headers=headers)
            self._channel.basic_publish(EXCHANGE, f"telegram.channel.{channel_id}", body, properties)

    def ready(self, queue: str) -> int:
        """Messages of `queue` that wait for a consumer."""
        count: int = self._channel.queue_declare(queue, passive=True).method.message_count
        return count

    def close(self) -> None:
        """Remove the consumer's queues."""
        for queue in (consumer_queue(self.name), *(retry_queue(self.name, delay) for delay in RETRY_DELAYS_MS)):
            self._channel.queue_delete(queue)
        self._channel.connection.close()


class Rows:
    """What the worker has left in the database."""

    def __init__(self, connection: psycopg.Connection[Any], consumer: str, channel: int) -> None:
        self._connection = connection
        self._consumer = consumer
        self._channel = channel

    def states(self) -> dict[int, str]:
        """Status by message."""
        cursor = self._connection.execute(
            "SELECT message_id, status FROM telegram.processing WHERE consumer = %s AND channel_id = %s",
            [self._consumer, self._channel],
        )
        return dict(cursor.fetchall())

    def mark(self, message_id: int = 1) -> tuple[Any, ...]:
        """Version of one message's state, and the transaction that wrote it."""
        cursor = self._connection.execute(
            "SELECT version, xmin::text FROM telegram.processing"
            " WHERE consumer = %s AND channel_id = %s AND message_id = %s",
            [self._consumer, self._channel, message_id],
        )
        found: tuple[Any, ...] = cursor.fetchall()[0]
        return found

    def metadata(self, message_id: int = 1) -> dict[str, Any]:
        """Metadata of one message."""
        cursor = self._connection.execute(
            "SELECT metadata FROM telegram.processing WHERE consumer = %s AND channel_id = %s AND message_id = %s",
            [self._consumer, self._channel, message_id],
        )
        found: dict[str, Any] = cursor.fetchall()[0][0]
        return found

    def signals(self) -> list[tuple[Any, ...]]:
        """Message, asset and version of each signal, and the transaction that wrote it."""
        cursor = self._connection.execute(
            "SELECT message_id, asset, version, xmin::text FROM telegram.signals WHERE channel_id = %s ORDER BY 1",
            [self._channel],
        )
        return cursor.fetchall()

    def failures(self) -> list[tuple[Any, ...]]:
        """Channel, message, reason, payload, attempts."""
        cursor = self._connection.execute(
            "SELECT channel_id, message_id, reason, payload, attempts FROM telegram.failures WHERE consumer = %s"
            " ORDER BY id",
            [self._consumer],
        )
        return cursor.fetchall()


class Process:
    """The worker as systemd runs it: a process with a config file, credentials and a notification socket."""

    def __init__(self, folder: Path, settings: str, **secrets: str) -> None:
        """`settings` are those of worker.toml, `secrets` what its credentials say, by name with _ for -."""
        credentials = folder / "credentials"
        credentials.mkdir()
        for name, secret in secrets.items():
            (credentials / name.replace("_", "-")).write_text(secret)
        package = folder / "packages" / "telegram_stack_handlers-1.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: telegram-stack-handlers\nVersion: 1\n")
        (package / "entry_points.txt").write_text(
            "[telegram_stack.handlers]\nsignals = telegram_stack.worker.signal_handler:SignalHandler\n"
        )
        self.config = folder / "worker.toml"
        self.port = free_port()
        self.config.write_text(f"metrics_port = {self.port}\n{settings}")
        self._started: list[subprocess.Popen[bytes]] = []
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(folder / "notify"))
        self._notifications.settimeout(20)
        self._environment = os.environ | {
            "CREDENTIALS_DIRECTORY": str(credentials),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "PYTHONPATH": os.pathsep.join([str(package.parent), *sys.path]),
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it."""
        code = "from telegram_stack.worker.main import main; raise SystemExit(main())"
        worker = subprocess.Popen(
            [sys.executable, "-c", code, "--config", str(self.config), *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(worker)
        return worker

    def notified(self) -> str:
        """The next word to systemd."""
        return self._notifications.recv(4096).decode()

    def close(self) -> None:
        """End what a test has left running."""
        for worker in self._started:
            worker.kill()
            worker.communicate()
        self._notifications.close()


def status(port: int) -> tuple[int, Any]:
    try:
        response = httpx.get(f"http://127.0.0.1:{port}/health")
    except httpx.HTTPError as error:
        return 0, str(error)
    return response.status_code, response.json()


@pytest.fixture
def database(consumer_database: Postgres) -> Postgres:
    return consumer_database


@pytest.fixture
def broker(consumer_broker: brokers.Broker) -> Iterator[Broker]:
    running = Broker(consumer_broker)
    yield running
    running.close()


@pytest.fixture
def channel() -> int:
    """A channel that only this test has."""
    return -1_000_000_000_000 - next(NUMBERS)


@pytest.fixture
def rows(database: Postgres, broker: Broker, channel: int) -> Iterator[Rows]:
    with database.connect() as connection:
        yield Rows(connection, broker.name, channel)


def broker_cable(broker: Broker) -> contextlib.AbstractAsyncContextManager[Cable]:
    """A cable to the broker."""
    return cable("127.0.0.1", broker.port)

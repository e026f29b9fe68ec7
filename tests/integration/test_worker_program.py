"""The worker as a program: signals, kills, its command line, and both ways to its messages at once."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration import brokers
from tests.integration.servers import Postgres, until
from tests.integration.workers import (
    SIGNAL,
    Broker,
    Process,
    Rows,
    broker,
    broker_cable,
    channel,
    database,
    event,
    needs_servers,
    rows,
    status,
)

from telegram_stack import events
from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.sinks.database import DatabaseSink
from telegram_stack.spool import Entry
from telegram_stack.topology import consumer_queue

__all__ = ["broker", "channel", "database", "rows"]  # fixtures

pytestmark = needs_servers


@pytest.fixture
def process(database: Postgres, broker: Broker, tmp_path: Path) -> Iterator[Process]:
    settings = f"""
        consumer = "{broker.name}"
        [database]
        user = "telegram_worker"
        port = {database.port}
        [queue]
        port = {broker.port}
        vhost = "{brokers.VHOST}"
        user = "{brokers.USER}"
        """
    made = Process(tmp_path, settings, postgres_password=database.password, rabbitmq_password=broker.password)
    yield made
    made.close()


@pytest.mark.requirement("WK-06")
async def test_sigterm_finishes_what_was_handed_over(
    process: Process, broker: Broker, rows: Rows, channel: int
) -> None:
    worker = process.start()
    assert process.notified() == "READY=1"
    await until(lambda: status(process.port)[0] == 200)
    code, body = status(process.port)
    assert (code, body["status"], body["components"]["queue"]["status"]) == (200, "healthy", "healthy")
    broker.publish(*(event(channel, number) for number in range(1, 501)))
    await until(lambda: len(rows.states()) > 0)
    worker.send_signal(signal.SIGTERM)
    assert process.notified() == "STOPPING=1"
    output, errors = worker.communicate(timeout=30)
    assert (worker.returncode, errors) == (0, b"")
    assert broker.ready(consumer_queue(broker.name)) + len(rows.states()) == 500
    assert all(json.loads(line)["service"] == "telegram-signal-worker" for line in output.splitlines())
    assert b"PETR4" not in output


@pytest.mark.requirement("WK-03")
async def test_a_thousand_messages_have_a_thousand_effects_though_the_worker_is_killed(
    process: Process, broker: Broker, rows: Rows, channel: int
) -> None:
    worker = process.start()
    await until(lambda: status(process.port)[0] == 200)
    everything = [event(channel, number) for number in range(1, 1001)]
    publishing = asyncio.create_task(asyncio.to_thread(broker.publish, *everything))
    for least in (100, 300, 600):
        await until(lambda least=least: len(rows.signals()) >= least, within=30)
        worker.kill()
        worker.communicate()
        worker = process.start()
    await publishing
    await until(lambda: len(rows.states()) == 1000, within=30)
    worker.terminate()
    worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert set(rows.states().values()) == {"published"}
    assert [row[0] for row in rows.signals()] == list(range(1, 1001))
    assert rows.failures() == []
    assert broker.ready(consumer_queue(broker.name)) == 0


@pytest.mark.requirement("WK-01", "WK-03")
async def test_hybrid_takes_from_the_queue_what_it_brings_and_from_the_database_what_it_does_not(
    process: Process, database: Postgres, broker: Broker, rows: Rows, channel: int
) -> None:
    everything = [event(channel, number) for number in range(1, 101)]
    password = process.config.with_name("ingest-password")
    password.write_text(database.password)
    config = DatabaseConfig(user="telegram_ingest", password_file=str(password), port=database.port)
    sink = DatabaseSink(await open_pool(config, "test"), dict, register=True)
    async with broker_cable(broker) as link:
        text = process.config.read_text().replace(f"port = {broker.port}", f"port = {link.port}")
        process.config.write_text(f'mode = "hybrid"\npoll_seconds = 0.2\nnet_seconds = 1\n{text}')
        worker = process.start()
        await until(lambda: status(process.port)[0] == 200 and status(process.port)[1]["status"] == "healthy")
        broker.publish(*everything[:60])
        await until(lambda: len(rows.states()) == 60)
        await sink.write([Entry(number, one, events.encode(one), 0.0) for number, one in enumerate(everything, 1)])
        await until(lambda: len(rows.states()) == 100)
        await link.cut()
        await until(lambda: status(process.port)[1]["components"]["queue"]["status"] == "unhealthy")
        assert status(process.port)[0] == 200  # slower, not broken
        edit = event(channel, 1, text=SIGNAL.replace("PETR4", "VALE3"), version=20, kind="edit")
        await sink.write([Entry(1, edit, events.encode(edit), 0.0)])
        await until(lambda: rows.signals()[0][1] == "VALE3")
        await link.mend()
        broker.publish(*everything)
        await until(lambda: broker.ready(consumer_queue(broker.name)) == 0)
        worker.terminate()
        await asyncio.to_thread(worker.communicate, timeout=30)  # the cable is this loop's
    await sink.close()
    assert worker.returncode == 0
    assert rows.signals()[0][1:3] == ("VALE3", 20)
    assert len(rows.signals()) == 100
    assert rows.failures() == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda text: text, 0, "valid"),
        (lambda text: 'mode = "push"\n' + text, 2, "bad value of mode: Invalid enum value 'push'"),
        (lambda text: 'handler = "nobody"\n' + text, 2, "installed: signals"),
    ],
)
def test_check_says_what_is_wrong(process: Process, change: Callable[[str], str], code: int, words: str) -> None:
    process.config.write_text(change(process.config.read_text()))
    worker = process.start("--check")
    output, errors = worker.communicate(timeout=30)
    assert worker.returncode == code
    assert words in (output + errors).decode()

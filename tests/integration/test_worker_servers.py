"""The worker against a real broker and a real database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration import brokers
from tests.integration.consumers import AlwaysFails
from tests.integration.servers import Postgres, cable, until
from tests.integration.workers import (
    SIGNAL,
    Broker,
    Rows,
    broker,
    broker_cable,
    channel,
    database,
    event,
    needs_servers,
    rows,
)

from telegram_stack import events
from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.events import Event
from telegram_stack.topology import DEAD_LETTER_QUEUE, consumer_queue, retry_queue
from telegram_stack.worker.broker import subscribe
from telegram_stack.worker.config import QueueConfig, WorkerConfig
from telegram_stack.worker.filter import Filter
from telegram_stack.worker.handlers import Effect, Handler
from telegram_stack.worker.processing import Processor
from telegram_stack.worker.service import Worker
from telegram_stack.worker.signal_handler import SignalHandler
from telegram_stack.worker.state import DATABASE_UP, Link

__all__ = ["broker", "channel", "database", "rows"]  # fixtures

pytestmark = needs_servers


@contextlib.asynccontextmanager
async def working(
    database: Postgres,
    broker: Broker,
    tmp_path: Path,
    *,
    handler: Handler | None = None,
    database_port: int | None = None,
    broker_port: int | None = None,
    hold_seconds: float = 60.0,
) -> AsyncIterator[Worker]:
    """A worker in this process; stopped in the end, within time."""
    password = tmp_path / "password"
    password.write_text(database.password)
    config = WorkerConfig(
        database=DatabaseConfig(
            user="telegram_worker", password_file=str(password), port=database_port or database.port, timeout=1.0
        ),
        queue=QueueConfig(
            user=brokers.USER,
            port=broker_port or broker.port,
            vhost=brokers.VHOST,
        ),
        consumer=broker.name,
    )
    pool = await open_pool(config.database, "test")
    processor = Processor(pool, handler or SignalHandler(), Filter(config.filter), config.consumer)
    worker = Worker(
        config,
        processor,
        lambda: subscribe(config.queue, broker.password, config.consumer),
        Link(DATABASE_UP, "the database"),
        hold_seconds,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        await until(lambda: worker.queue.reason is None or task.done())
        yield worker
        stop.set()
        await asyncio.wait_for(task, 20)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pool.close()


@pytest.mark.requirement("WK-04")
async def test_signals_and_marks_are_written_together(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    async with working(database, broker, tmp_path):
        broker.publish(event(channel, 1), event(channel, 2, text="Bom dia"), event(channel, 3))
        await until(lambda: len(rows.states()) == 3)
    assert rows.states() == {1: "published", 2: "ignored", 3: "published"}
    assert [row[:3] for row in rows.signals()] == [(1, "PETR4", 10), (3, "PETR4", 10)]
    assert rows.metadata(1).keys() == {"processed_by", "processed_at", "signal_asset"}
    assert rows.metadata(2)["reason"] == "no asset"
    assert broker.ready(consumer_queue(broker.name)) == 0


@pytest.mark.requirement("WK-03")
async def test_a_redelivery_writes_nothing(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    last = event(channel, 99, text="the end")
    async with working(database, broker, tmp_path):
        broker.publish(event(channel))
        await until(lambda: rows.signals() != [])
        before = rows.signals(), rows.mark()
        broker.publish(event(channel), event(channel), last)
        await until(lambda: 99 in rows.states())
    assert (rows.signals(), rows.mark()) == before  # the very same row versions


@pytest.mark.requirement("WK-03")
async def test_an_older_version_never_overwrites_a_newer_one(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    async with working(database, broker, tmp_path):
        broker.publish(event(channel, text=SIGNAL.replace("PETR4", "VALE3"), version=20, kind="edit"))
        await until(lambda: rows.signals() != [])
        broker.publish(event(channel, version=10), event(channel, 99, text="the end"))
        await until(lambda: 99 in rows.states())
    assert [row[:3] for row in rows.signals()] == [(1, "VALE3", 20)]
    assert rows.mark()[0] == 20


async def test_an_edit_and_a_delete_follow_their_message(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    async with working(database, broker, tmp_path):
        broker.publish(event(channel))
        await until(lambda: rows.signals() != [])
        broker.publish(event(channel, text=SIGNAL.replace("PETR4", "VALE3"), version=20, kind="edit"))
        await until(lambda: rows.signals()[0][1] == "VALE3")
        broker.publish(events.deletion(channel, 1, events.utc_now()))
        await until(lambda: rows.states() == {1: "deleted"})
    assert rows.metadata()["signal_asset"] == "VALE3"


@pytest.mark.requirement("WK-04")
async def test_poison_is_recorded_then_dead_lettered_and_harms_no_other(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    too_big = event(channel, 5, version=2**63)
    async with working(database, broker, tmp_path):
        broker.publish(event(channel, 1), b"\xff\x00 no event", too_big, event(channel, 2), channel=channel)
        await until(lambda: broker.ready(DEAD_LETTER_QUEUE) == 2)
    assert rows.states() == {1: "published", 2: "published"}
    (no_event, refused) = sorted(rows.failures(), key=lambda row: str(row[2]))[::-1]
    assert no_event[:2] == (channel, 0)
    assert no_event[2].startswith("no event: ")
    assert no_event[3] == {"base64": "/wAgbm8gZXZlbnQ="}
    assert refused[2].startswith("cannot be stored: ")


class FailsTwice(SignalHandler):
    """Fails on each message's first two attempts."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def handle(self, event: Event) -> Effect:
        """Fail twice, then do as signals do."""
        self.calls.append(event.message_id)
        if self.calls.count(event.message_id) <= 2:
            raise RuntimeError("not yet")
        return super().handle(event)


@pytest.mark.requirement("WK-04")
async def test_a_failing_handler_sees_its_message_again_later_and_others_go_on(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    handler = FailsTwice()
    async with working(database, broker, tmp_path, handler=handler):
        broker.publish(event(channel))
        await until(lambda: rows.states() == {1: "retrying"})
        await until(lambda: handler.calls.count(1) == 2)
        await until(lambda: broker.ready(retry_queue(broker.name, "10s")) == 1)
        await until(lambda: rows.states() == {1: "published"}, within=20)
    assert handler.calls == [1, 1, 1]
    assert [row[:3] for row in rows.signals()] == [(1, "PETR4", 10)]
    assert rows.failures() == []


@pytest.mark.requirement("MQ-03")
async def test_a_failure_is_recorded_before_it_is_given_up(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'telegram.failures'::regclass"
    async with (
        broker_cable(broker) as link,
        working(database, broker, tmp_path, handler=AlwaysFails(), broker_port=link.port) as worker,
    ):
        with database.connect() as holder, holder.transaction():
            holder.execute("LOCK TABLE telegram.failures IN EXCLUSIVE MODE")
            broker.publish(event(channel), attempt=4)
            await until(lambda: holder.execute(waits).fetchall() == [(1,)])
            assert broker.ready(DEAD_LETTER_QUEUE) == 0  # not recorded, not given up
            await link.cut()
        await until(lambda: len(rows.failures()) == 1)
        assert broker.ready(DEAD_LETTER_QUEUE) == 0
        await link.mend()
        await until(lambda: worker.queue.reason is None)
        broker.publish(event(channel, 99, text="the end"))
        await until(lambda: 99 in rows.states())
    assert rows.states()[1] == "failed"
    assert [(row[1], row[2], row[4]) for row in rows.failures()] == [(1, "handler failed: RuntimeError: never", 4)]


@pytest.mark.requirement("MQ-03")
async def test_a_recorded_failure_is_dead_lettered(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    async with working(database, broker, tmp_path, handler=AlwaysFails()):
        broker.publish(event(channel), attempt=4)
        await until(lambda: broker.ready(DEAD_LETTER_QUEUE) == 1)
    assert rows.states() == {1: "failed"}
    assert len(rows.failures()) == 1


async def test_nothing_is_lost_or_given_up_while_the_database_is_away(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    async with (
        cable("127.0.0.1", database.port) as link,
        working(database, broker, tmp_path, database_port=link.port) as worker,
    ):
        broker.publish(event(channel, 1))
        await until(lambda: 1 in rows.states())
        await link.cut()
        broker.publish(*(event(channel, number) for number in range(2, 302)))
        await until(lambda: worker.database.reason is not None)
        assert len(rows.states()) == 1
        await link.mend()
        await until(lambda: len(rows.states()) == 301, within=20)
        assert worker.database.reason is None
    assert len(rows.signals()) == 301
    assert rows.failures() == []


async def test_a_long_outage_gives_the_messages_back_once(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    async with (
        cable("127.0.0.1", database.port) as link,
        working(database, broker, tmp_path, database_port=link.port, hold_seconds=0.5) as worker,
    ):
        await link.cut()
        broker.publish(*(event(channel, number) for number in range(1, 51)))
        await until(lambda: worker.database.reason is not None)
        await until(lambda: broker.ready(consumer_queue(broker.name)) == 50, within=20)
        # The broker has them a moment before the worker knows that it is rid of them.
        await until(lambda: worker.queue.reason == "given back until the database returns")
        await link.mend()
        await until(lambda: len(rows.states()) == 50, within=20)
        await until(lambda: worker.queue.reason is None)
    assert len(rows.signals()) == 50
    assert rows.failures() == []
    assert broker.ready(DEAD_LETTER_QUEUE) == 0


async def test_it_comes_back_by_itself_when_the_broker_does(
    database: Postgres, broker: Broker, rows: Rows, channel: int, tmp_path: Path
) -> None:
    async with (
        broker_cable(broker) as link,
        working(database, broker, tmp_path, broker_port=link.port) as worker,
    ):
        await link.cut()
        await until(lambda: worker.queue.reason is not None)
        broker.publish(event(channel, 1))
        await link.mend()
        await until(lambda: rows.states() == {1: "published"}, within=20)

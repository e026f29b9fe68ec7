"""The whole queue off: polling carries everything, retries included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.integration.consumers import (
    AlwaysFails,
    World,
    channel,
    needs_servers,
    recent,
    rows,
    world,
)
from tests.integration.gateways import running
from tests.integration.servers import until
from tests.integration.workers import SIGNAL, Rows

from telegram_stack.events import Event
from telegram_stack.simulator.model import Draft
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.worker.handlers import Effect
from telegram_stack.worker.signal_handler import SignalHandler

__all__ = ["channel", "rows", "world"]  # fixtures

pytestmark = needs_servers


class FailsOnce(SignalHandler):
    """Fails on its first call."""

    def __init__(self) -> None:
        self.calls = 0

    def handle(self, event: Event) -> Effect:
        """Fail, then do as signals do."""
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError("not yet")
        return super().handle(event)


@pytest.mark.requirement("WK-04", "MQ-04")
async def test_without_a_broker_a_failed_message_is_tried_again_when_it_is_due(
    world: World, rows: Rows, channel: int
) -> None:
    handler = FailsOnce()
    poller = world.poller(handler, poll_seconds=300.0)
    stop = asyncio.Event()
    await world.store(recent(channel, 1), recent(channel, 2))
    polling = asyncio.create_task(poller.run(stop))
    await until(lambda: rows.states() == {1: "retrying", 2: "published"})
    await until(lambda: rows.states() == {1: "published", 2: "published"})  # not in 300 s
    stop.set()
    await asyncio.wait_for(polling, 10)
    assert handler.calls == 3


@pytest.mark.requirement("MQ-03", "MQ-04")
async def test_without_a_broker_the_last_failure_is_recorded_and_not_tried_again(
    world: World, rows: Rows, channel: int
) -> None:
    await world.store(recent(channel, 1))
    await world.poller(AlwaysFails()).poll()
    with world.database.connect() as connection:
        connection.execute(
            "UPDATE telegram.processing SET attempts = 3, updated_at = now() - interval '50 seconds'"
            " WHERE consumer = %s",
            [world.consumer],
        )
        await world.poller(AlwaysFails()).poll()
        assert rows.states() == {1: "retrying"}  # the third waits for a minute
        connection.execute("UPDATE telegram.processing SET updated_at = now() - interval '61 seconds'")
    await world.poller(AlwaysFails()).poll()
    assert rows.states() == {1: "failed"}
    assert [(row[1], row[2], row[4]) for row in rows.failures()] == [(1, "handler failed: RuntimeError: never", 4)]
    await world.poller(AlwaysFails()).poll()
    assert len(rows.failures()) == 1


@pytest.mark.requirement("MQ-04", "WK-01", "WK-03")
async def test_with_the_queue_off_polling_carries_everything_once_though_the_worker_is_killed(
    world: World, telegram: Telegram, session: SessionFile
) -> None:
    process = world.process()
    worker = process.start()
    everything: set[tuple[int, int]] = set()
    sinks: list[Any] = [world.database_sink, world.cache_sink]
    with world.database.connect() as connection:

        def effects() -> set[tuple[int, int]]:
            found = connection.execute(
                "SELECT p.channel_id, p.message_id FROM telegram.processing p JOIN telegram.signals s"
                " USING (channel_id, message_id, version) WHERE p.consumer = %s AND p.status = 'published'",
                [world.consumer],
            ).fetchall()
            return set(found)

        try:
            async with running(session, sinks) as gateway:
                await gateway.complete()
                for _ in range(3):
                    drafts = [Draft(number, SIGNAL) for number in telegram.store.channels for _ in range(100)]
                    everything |= {(marked(one.channel_id), one.id) for one in telegram.post(drafts)}
                    least = len(everything) - 200
                    await until(lambda least=least: len(effects()) >= least, 20)
                    worker.kill()
                    worker.communicate()
                    worker = process.start()
                await until(lambda: effects() == everything, 30)
            worker.terminate()
            worker.communicate(timeout=30)
        finally:
            process.close()
        assert len(everything) == 900
        assert worker.returncode == 0
        states = connection.execute(
            "SELECT status, count(*) FROM telegram.processing WHERE consumer = %s GROUP BY 1", [world.consumer]
        ).fetchall()
        assert states == [("published", 900)]

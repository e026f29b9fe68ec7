"""The worker that polls, against a real cache and a real database."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from tests.integration.consumers import (
    World,
    channel,
    delivery,
    needs_servers,
    recent,
    rows,
    world,
)
from tests.integration.servers import cable, until
from tests.integration.workers import SIGNAL, Process, Rows, status

from telegram_stack import cache_keys, events
from telegram_stack.database import DatabaseConfig, DatabaseUnavailableError, open_pool
from telegram_stack.worker.broker import Delivery
from telegram_stack.worker.processing import Processor
from telegram_stack.worker.state import QUEUE_UP, Link
from telegram_stack.worker.stored import BY_KEY, Stored

__all__ = ["channel", "rows", "world"]  # fixtures

pytestmark = needs_servers


@contextlib.contextmanager
def counted(name: str, **labels: str) -> Iterator[list[float]]:
    """By how much a metric of this process grew in the block; known behind it."""
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    grown: list[float] = []
    yield grown
    grown.append((REGISTRY.get_sample_value(name, labels) or 0.0) - before)


@pytest.mark.requirement("WK-01", "WK-02", "RD-04")
async def test_a_poll_is_answered_by_the_cache_alone(world: World, rows: Rows, channel: int) -> None:
    poller = world.poller()
    await poller.poll()  # the regular look at the database
    await world.keep(*(recent(channel, number) for number in range(1, 151)))
    with counted("telegram_worker_cache_hits_total") as hits:
        assert await poller.poll()  # a full batch: there may be more
        assert len(rows.states()) == 100
        await poller.poll()
    assert hits == [2]
    assert rows.states() == dict.fromkeys(range(1, 151), "published")
    assert len(rows.signals()) == 150
    with world.redis.client() as client:
        assert client.zcard(cache_keys.pending(world.consumer, channel)) == 0
        assert client.zcard(cache_keys.recent(channel)) == 150
        assert 7100 < int(str(client.ttl(cache_keys.dedup(world.consumer, channel, 150, 10)))) <= 7200


@pytest.mark.requirement("WK-02")
@pytest.mark.parametrize("sizes", [(250,), (1, 1, 248), (3,) * 40, (1,) * 130, (34, 33, 33)])
async def test_pages_of_the_cache_miss_nothing_however_the_channels_fill_them(
    world: World, channel: int, sizes: tuple[int, ...]
) -> None:
    everything = [recent(channel - place, number) for place, size in enumerate(sizes) for number in range(1, size + 1)]
    await world.keep(*everything)
    found: list[tuple[int, int]] = []
    for _ in range(40):
        pending = await world.cache.pending(100)
        page = [one.key for one, _ in pending.messages]
        assert len(page) <= 100
        await world.cache.settle(page, [])
        found += page
        if not pending.more:
            break
    assert sorted(found) == sorted(one.key for one in everything)


@pytest.mark.requirement("WK-02")
async def test_a_cache_that_was_emptied_is_a_miss_and_is_warmed(world: World, rows: Rows, channel: int) -> None:
    poller = world.poller()
    await poller.poll()
    await world.store(recent(channel, 1), recent(channel, 2))
    with counted("telegram_worker_cache_misses_total", reason="cold") as misses:
        await poller.poll()
        assert rows.states() == {}  # the sets are empty, but were known to be all
        with world.redis.client() as client:
            client.flushall()
        await poller.poll()
    assert misses == [1]
    assert rows.states() == {1: "published", 2: "published"}
    with world.redis.client() as client:
        assert (
            events.decode(str(client.get(cache_keys.message(channel, 1))).encode()).content == recent(channel).content
        )
        assert client.zcard(cache_keys.recent(channel)) == 2
        assert client.exists(cache_keys.complete(world.consumer))


@pytest.mark.requirement("WK-02")
async def test_what_the_database_brought_waits_in_the_cache_until_it_is_committed(
    world: World, rows: Rows, channel: int
) -> None:
    await world.store(recent(channel, 1))
    with world.database.connect() as connection:
        connection.execute("ALTER TABLE telegram.signals RENAME TO elsewhere")
        try:
            with pytest.raises(DatabaseUnavailableError, match="signals"):
                await world.poller().poll()
        finally:
            connection.execute("ALTER TABLE telegram.elsewhere RENAME TO signals")
    with world.redis.client() as client:
        assert client.zrange(cache_keys.pending(world.consumer, channel), 0, -1) == ["1"]
        assert not client.exists(cache_keys.dedup(world.consumer, channel, 1, 10))
    await world.poller().poll()
    assert rows.states() == {1: "published"}


@pytest.mark.requirement("WK-02")
async def test_an_evicted_message_comes_from_the_database(world: World, rows: Rows, channel: int) -> None:
    poller = world.poller()
    await poller.poll()
    full = recent(channel, 1, sender_id=7, grouped_id=9, reply_to={"message_id": 3})
    await world.store(full, recent(channel, 2))
    await world.keep(full, recent(channel, 2), recent(channel, 3))
    with world.redis.client() as client:
        client.delete(cache_keys.message(channel, 1), cache_keys.message(channel, 3))  # 3 is not in the database
        with counted("telegram_worker_cache_misses_total", reason="evicted") as misses:
            await poller.poll()
        assert client.zcard(cache_keys.pending(world.consumer, channel)) == 0
    assert misses == [1]
    assert rows.states() == {1: "published", 2: "published"}
    assert await Stored(world.pool, world.consumer).by_key([full.key, (channel, 3)]) == [full]


async def test_reading_by_key_leaves_out_storage_of_other_dates(world: World, channel: int) -> None:
    old = recent(channel, 1, message_date=events.utc_now() - timedelta(days=70))
    new = recent(channel, 2)
    await world.store(old, new)
    assert await Stored(world.pool, world.consumer).by_key([old.key, new.key]) == [old, new]
    with world.database.connect() as connection:
        bounds = [[channel], [2], [new.message_date], new.message_date, new.message_date]
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {BY_KEY}", bounds))
    assert set(re.findall(r" on (messages_\w+)", plan)) == {f"messages_{events.utc_now():%Y%m}"}, plan


@pytest.mark.requirement("WK-01", "WK-02")
async def test_the_database_is_asked_regularly_because_a_partly_evicted_set_looks_complete(
    world: World, rows: Rows, channel: int
) -> None:
    poller = world.poller(poll_seconds=0.1, net_seconds=1.0)
    stop = asyncio.Event()
    polling = asyncio.create_task(poller.run(stop))
    await until(lambda: world.redis.client().exists(cache_keys.complete(world.consumer)))
    with (
        counted("telegram_worker_database_polls_total", reason="regular") as looks,
        counted("telegram_worker_cache_hits_total") as hits,
    ):
        await world.store(recent(channel, 1))
        await until(lambda: rows.states() == {1: "published"})
        stop.set()
        await asyncio.wait_for(polling, 10)
    assert looks[0] >= 1
    assert hits[0] >= 1


@pytest.mark.requirement("WK-01", "WK-02")
async def test_what_the_database_has_behind_a_full_page_comes_at_once_though_the_cache_looks_complete(
    world: World, rows: Rows, channel: int
) -> None:
    await world.poller().poll()
    assert world.redis.client().exists(cache_keys.complete(world.consumer))
    await world.store(*(recent(channel, number) for number in range(1, 36)))
    stop = asyncio.Event()
    polling = asyncio.create_task(world.poller(batch_size=10, poll_seconds=60, net_seconds=60).run(stop))
    await until(lambda: len(rows.states()) == 35)
    stop.set()
    await asyncio.wait_for(polling, 10)


@pytest.mark.requirement("WK-02", "WK-03")
async def test_an_edit_is_done_after_its_message_and_an_old_state_never(world: World, rows: Rows, channel: int) -> None:
    poller = world.poller()
    await poller.poll()
    await world.keep(recent(channel, 1))
    await poller.poll()
    await world.keep(recent(channel, 1, text=SIGNAL.replace("PETR4", "VALE3"), version=20, kind="edit"))
    await poller.poll()
    assert [row[:3] for row in rows.signals()] == [(1, "VALE3", 20)]
    before = rows.mark()
    await world.processor(world.pool).process([delivery(recent(channel, 1, version=15))])
    assert rows.mark() == before
    assert [row[:3] for row in rows.signals()] == [(1, "VALE3", 20)]


@pytest.mark.requirement("WK-03")
async def test_a_version_known_to_the_cache_needs_no_database_and_an_unknown_one_does(
    world: World, rows: Rows, channel: int
) -> None:
    async with cable("127.0.0.1", world.database.port) as link:
        config = DatabaseConfig(
            user="telegram_worker", password_file=str(world.folder / "password"), port=link.port, timeout=1.0
        )
        pool = await open_pool(config, "test")
        processor = world.processor(pool)
        await link.cut()
        with pytest.raises(DatabaseUnavailableError):
            await processor.process([delivery(recent(channel, 1))])
        with world.redis.client() as client:  # never before the commit
            assert not client.exists(cache_keys.dedup(world.consumer, channel, 1, 10))
        await link.mend()
        outcomes = await committed(processor, delivery(recent(channel, 1)))
        await processor.settle(outcomes)
        await link.cut()
        (again,) = await processor.process([delivery(recent(channel, 1))])
        assert again.marks == []
        with pytest.raises(DatabaseUnavailableError):
            await processor.process([delivery(recent(channel, 1, version=20, kind="edit"))])
        await pool.close()
    assert len(rows.signals()) == 1


async def committed(processor: Processor, one: Delivery) -> list[Any]:
    """Its outcomes, once the database is there."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(DatabaseUnavailableError):
                return list(await processor.process([one]))


@pytest.mark.requirement("WK-03")
async def test_what_was_asked_for_again_is_done_again_though_the_cache_knows_it(
    world: World, rows: Rows, channel: int
) -> None:
    await world.store(recent(channel, 1))
    poller = world.poller()
    await poller.poll()
    before = rows.mark()
    with world.database.connect() as connection:
        connection.execute(
            "SELECT telegram.upsert_message_status(%s, %s, 1, 'reprocess_pending')", [world.consumer, channel]
        )
    assert rows.states() == {1: "reprocess_pending"}
    await world.poller().poll()
    assert rows.states() == {1: "published"}
    assert rows.mark() != before


@pytest.mark.requirement("WK-01")
async def test_hybrid_leaves_young_messages_to_the_queue_and_takes_missed_ones(
    world: World, rows: Rows, channel: int
) -> None:
    queue = Link(QUEUE_UP, "the queue")
    queue.up()
    long_ago = events.utc_now() - timedelta(seconds=3601)
    await world.store(recent(channel, 1, received_at=long_ago), recent(channel, 2))
    await world.keep(recent(channel, 3, received_at=long_ago), recent(channel, 4))
    poller = world.poller(queue=queue)
    await poller.poll()
    await poller.poll()
    assert rows.states() == {1: "published", 3: "published"}
    queue.down("gone")
    await poller.poll()
    assert rows.states() == {1: "published", 2: "published", 3: "published", 4: "published"}


def metrics(process: Process) -> str:
    return httpx.get(f"http://127.0.0.1:{process.port}/metrics").text


@pytest.mark.requirement("WK-02", "RD-04")
async def test_without_the_cache_the_database_does_it_all_and_it_is_said(
    world: World, rows: Rows, channel: int
) -> None:
    process = world.process()
    process.start()
    try:
        await until(lambda: status(process.port)[1]["status"] == "healthy" if status(process.port)[0] else False, 20)
        world.redis.stop()
        try:
            await until(lambda: "telegram_cache_breaker_state 2.0" in metrics(process))
            await world.store(*(recent(channel, number) for number in range(1, 251)))
            await until(lambda: len(rows.states()) == 250, 20)
            code, body = status(process.port)
            assert (code, body["status"]) == (200, "degraded")
            assert body["components"]["database"] == {"status": "healthy"}
            assert body["components"]["cache"]["status"] == "unhealthy"
            assert body["components"]["cache"]["breaker"] == "open"
            assert 'telegram_worker_cache_misses_total{reason="unavailable"}' in metrics(process)
        finally:
            world.redis.start()
        await until(
            lambda: status(process.port)[1]["components"]["cache"] == {"status": "healthy", "breaker": "closed"}, 30
        )
        assert "telegram_cache_breaker_state 0.0" in metrics(process)
    finally:
        process.close()
    assert set(rows.states().values()) == {"published"}
    assert len(rows.signals()) == 250

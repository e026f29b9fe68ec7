"""The worker that polls, against a real cache and a real database, and no broker at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from tests.integration import brokers
from tests.integration.gateways import running
from tests.integration.servers import Postgres, cable, postgres, postgres_programs, until
from tests.integration.workers import NUMBERS, SIGNAL, Process, Rows, event, status

from telegram_stack import cache, cache_keys, events
from telegram_stack.database import DatabaseConfig, DatabaseUnavailableError, Pool, open_pool
from telegram_stack.events import Event
from telegram_stack.simulator.model import Draft
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.sinks.cache import CacheConfig, CacheSink, open_cache
from telegram_stack.sinks.database import DatabaseSink
from telegram_stack.spool import Entry
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.worker.broker import Delivery
from telegram_stack.worker.cache import ConsumerCache
from telegram_stack.worker.config import CacheConfig as WorkerCacheConfig
from telegram_stack.worker.config import FilterConfig, WorkerConfig
from telegram_stack.worker.filter import Filter
from telegram_stack.worker.handlers import Effect, Handler
from telegram_stack.worker.polling import Poller
from telegram_stack.worker.processing import Processor
from telegram_stack.worker.signal_handler import SignalHandler
from telegram_stack.worker.state import DATABASE_UP, QUEUE_UP, Link
from telegram_stack.worker.stored import Stored

pytestmark = pytest.mark.skipif(
    postgres_programs() is None or not brokers.redis_installed(), reason="PostgreSQL and Redis have to be installed"
)


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Cache]:
    with brokers.redis_with_sentinel(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def channel() -> int:
    """A channel that only this test has."""
    return -1_000_000_000_000 - next(NUMBERS)


def recent(channel: int, message_id: int = 1, **fields: Any) -> Event:
    """A message of this minute."""
    return event(channel, message_id, **({"message_date": events.utc_now().replace(microsecond=0)} | fields))


@dataclass
class World:
    """What the gateway writes to, and one consumer that nobody else is."""

    database: Postgres
    redis: brokers.Cache
    folder: Path
    consumer: str
    pool: Pool
    cache: ConsumerCache
    database_sink: DatabaseSink
    cache_sink: CacheSink

    def poller(self, handler: Handler | None = None, queue: Link | None = None, **settings: Any) -> Poller:
        """A poller that has not polled yet; the database is not asked without a reason for an hour."""
        config = WorkerConfig(
            database=DatabaseConfig(user="x"), consumer=self.consumer, **({"net_seconds": 3600.0} | settings)
        )
        processor = self.processor(self.pool, handler)
        database = Link(DATABASE_UP, "the database")
        stored = Stored(self.pool, self.consumer)
        return Poller(config, processor, stored, cache=self.cache, database=database, queue=queue)

    def processor(self, pool: Pool, handler: Handler | None = None) -> Processor:
        """What commits for the consumer."""
        return Processor(pool, handler or SignalHandler(), Filter(FilterConfig()), self.consumer, self.cache)

    async def store(self, *found: Event) -> None:
        """Write as the gateway does, to the database only."""
        await self.database_sink.write(entries(*found))

    async def keep(self, *found: Event) -> None:
        """Write as the gateway does, to the cache only."""
        await self.cache_sink.write(entries(*found))

    async def register(self, channel: int) -> None:
        """Let the database know the channel."""
        with self.database.connect() as connection:
            connection.execute("INSERT INTO telegram.channels (channel_id) VALUES (%s)", [channel])

    def process(self) -> Process:
        """The whole program, polling five times a second."""
        settings = f"""
            mode = "polling"
            poll_seconds = 0.2
            consumer = "{self.consumer}"
            [database]
            user = "telegram_worker"
            port = {self.database.port}
            [cache]
            user = "{brokers.USER}"
            sentinels = ["127.0.0.1:{self.redis.sentinel_port}"]
            """
        secrets = {"postgres_password": self.database.password, "redis_password": self.redis.password}
        return Process(self.folder, settings, **secrets)


def entries(*found: Event) -> list[Entry]:
    return [Entry(number, one, events.encode(one), 0.0) for number, one in enumerate(found, start=1)]


@pytest.fixture
async def world(database: Postgres, redis: brokers.Cache, tmp_path: Path) -> AsyncIterator[World]:
    consumer = f"test-{next(NUMBERS)}"
    password = tmp_path / "password"
    password.write_text(database.password)
    redis_password = tmp_path / "redis-password"
    redis_password.write_text(redis.password)
    limits: dict[str, Any] = {"password_file": str(password), "port": database.port, "timeout": 1.0}
    pool = await open_pool(DatabaseConfig(user="telegram_worker", **limits), "test")
    ingest = await open_pool(DatabaseConfig(user="telegram_ingest", **limits), "test")
    sentinels = (f"127.0.0.1:{redis.sentinel_port}",)
    reading = cache.open_cache(
        WorkerCacheConfig(user=brokers.USER, password_file=str(redis_password), sentinels=sentinels, timeout=1.0)
    )
    cache_sink = open_cache(
        CacheConfig(user=brokers.USER, sentinels=sentinels, consumers=(consumer,)), redis.password, None
    )
    database_sink = DatabaseSink(ingest, dict, register=True)
    with redis.client() as client:
        client.flushall()
    with database.connect() as connection:  # a new consumer has everything to do
        connection.execute(
            "TRUNCATE telegram.messages, telegram.message_keys, telegram.tombstones, telegram.channels,"
            " telegram.processing, telegram.signals, telegram.failures, telegram.positions"
        )
    yield World(database, redis, tmp_path, consumer, pool, ConsumerCache(reading, consumer), database_sink, cache_sink)
    for closing in (pool.close(), database_sink.close(), cache_sink.close(), reading.close()):
        await closing


@pytest.fixture
def rows(world: World, channel: int) -> Iterator[Rows]:
    with world.database.connect() as connection:
        yield Rows(connection, world.consumer, channel)


@contextlib.contextmanager
def counted(name: str, **labels: str) -> Iterator[list[float]]:
    """By how much a metric of this process grew in the block; known behind it."""
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    grown: list[float] = []
    yield grown
    grown.append((REGISTRY.get_sample_value(name, labels) or 0.0) - before)


@pytest.mark.requirement("WK-01", "WK-02", "RD-04")
async def test_a_poll_is_answered_by_the_cache_alone(world: World, rows: Rows, channel: int) -> None:
    await world.register(channel)
    poller = world.poller()
    await poller.poll()  # learns the channels
    await world.keep(*(recent(channel, number) for number in range(1, 151)))
    with counted("telegram_worker_cache_hits_total") as hits:
        assert await poller.poll()  # a full batch: there may be more
        assert len(rows.states()) == 100
        assert not await poller.poll()
    assert hits == [2]
    assert rows.states() == dict.fromkeys(range(1, 151), "published")
    assert len(rows.signals()) == 150
    with world.redis.client() as client:
        assert client.zcard(cache_keys.pending(world.consumer, channel)) == 0
        assert client.zcard(cache_keys.recent(channel)) == 150
        assert 7100 < int(str(client.ttl(cache_keys.dedup(world.consumer, channel, 150, 10)))) <= 7200


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
    await world.register(channel)
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


@pytest.mark.requirement("WK-02", "WK-03")
async def test_an_edit_is_done_after_its_message_and_an_old_state_never(world: World, rows: Rows, channel: int) -> None:
    await world.register(channel)
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


def delivery(one: Event, attempt: int = 1) -> Delivery:
    return Delivery(1, events.encode(one), attempt)


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


class AlwaysFails(SignalHandler):
    """Never succeeds."""

    def handle(self, event: Event) -> Effect:
        """Fail."""
        raise RuntimeError("never")


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

"""One consumer before real servers: what the gateway writes to, and what the worker makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration import brokers
from tests.integration.servers import Postgres, postgres, postgres_programs
from tests.integration.workers import NUMBERS, Process, Rows, event

from telegram_stack import cache, events
from telegram_stack.database import DatabaseConfig, Pool, open_pool
from telegram_stack.events import Event
from telegram_stack.sinks.cache import CacheConfig, CacheSink, open_cache
from telegram_stack.sinks.database import DatabaseSink
from telegram_stack.spool import Entry
from telegram_stack.worker.broker import Delivery
from telegram_stack.worker.cache import ConsumerCache
from telegram_stack.worker.config import CacheConfig as WorkerCacheConfig
from telegram_stack.worker.config import FilterConfig, WorkerConfig
from telegram_stack.worker.filter import Filter
from telegram_stack.worker.handlers import Effect, Handler
from telegram_stack.worker.polling import Poller
from telegram_stack.worker.processing import Processor
from telegram_stack.worker.signal_handler import SignalHandler
from telegram_stack.worker.state import DATABASE_UP, Link
from telegram_stack.worker.stored import Stored

needs_servers = pytest.mark.skipif(
    postgres_programs() is None or not brokers.redis_installed(), reason="PostgreSQL and Redis have to be installed"
)


@pytest.fixture(scope="session")
def consumer_database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def consumer_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Cache]:
    with brokers.redis_with_sentinel(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def consumer_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Broker]:
    with brokers.rabbitmq(tmp_path_factory.mktemp("rabbitmq"), metrics=True) as server:
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
async def world(consumer_database: Postgres, consumer_cache: brokers.Cache, tmp_path: Path) -> AsyncIterator[World]:
    """A consumer of its own before servers without a message."""
    database, redis = consumer_database, consumer_cache
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


def delivery(one: Event, attempt: int = 1) -> Delivery:
    return Delivery(1, events.encode(one), attempt)


class AlwaysFails(SignalHandler):
    """Never succeeds, for the same reason."""

    def __init__(self, reason: str = "never") -> None:
        self._reason = reason

    def handle(self, event: Event) -> Effect:
        """Fail."""
        raise RuntimeError(self._reason)

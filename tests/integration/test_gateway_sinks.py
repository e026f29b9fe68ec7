"""The three sinks against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.brokers import (
    USER,
    Broker,
    Cache,
    rabbitmq,
    rabbitmq_installed,
    redis_installed,
    redis_with_sentinel,
)
from tests.integration.gateways import Silent
from tests.integration.servers import Postgres, cable, postgres, postgres_programs

from telegram_stack import cache_keys, events
from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.events import Content, Event, Media, deletion, version_of
from telegram_stack.ids import row_id
from telegram_stack.sinks.base import RejectedEventsError, SinkUnavailableError, drain
from telegram_stack.sinks.cache import CacheConfig, CacheSink, open_cache
from telegram_stack.sinks.database import DatabaseSink
from telegram_stack.sinks.queue import QueueConfig, QueueSink
from telegram_stack.spool import Channel, Entry
from telegram_stack.topology import EXCHANGE, UNROUTABLE

needs_postgres = pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")
needs_rabbitmq = pytest.mark.skipif(not rabbitmq_installed(), reason="RabbitMQ is not installed")
needs_redis = pytest.mark.skipif(not redis_installed(), reason="Redis with Sentinel is not installed")

_channels = itertools.count(-1001)
_numbers = itertools.count(1)


@pytest.fixture
def channel() -> int:
    """A channel that no other test writes to."""
    return next(_channels)


def state(channel: int, message_id: int, text: str = "hello", edited: int = 0, **fields: Any) -> Event:
    """A message of today's first second, or its edit so many seconds later."""
    content = fields.pop("content", Content(text=text))
    date = fields.pop("date", datetime.now(UTC).replace(microsecond=0))
    edit_date = date + timedelta(seconds=edited) if edited else None
    return Event(
        kind="edit" if edited else "new",
        channel_id=channel,
        message_id=message_id,
        version=version_of(content, date, edit_date),
        received_at=events.utc_now(),
        message_date=date,
        edit_date=edit_date,
        content=content,
        **fields,
    )


def entries(*found: Event) -> list[Entry]:
    return [Entry(next(_numbers), event, events.encode(event), time.time()) for event in found]


# Database


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@contextlib.asynccontextmanager
async def database_sink(
    server: Postgres, tmp_path: Path, *, port: int = 0, register: bool = True, **known: Any
) -> AsyncIterator[DatabaseSink]:
    (tmp_path / "database-password").write_text(server.password)
    config = DatabaseConfig(
        user="telegram_ingest", password_file=str(tmp_path / "database-password"), port=port or server.port, timeout=1
    )
    pool = await open_pool(config, "test")
    channels = {channel.channel_id: channel for channel in known.get("channels", [])}
    sink = DatabaseSink(pool, lambda: channels, register=register)
    try:
        yield sink
    finally:
        await sink.close()


def rows(server: Postgres, columns: str, channel: int, table: str = "messages") -> list[tuple[Any, ...]]:
    order = "message_id" if table != "channels" else "channel_id"
    with server.connect() as connection:
        return connection.execute(
            f"SELECT {columns} FROM telegram.{table} WHERE channel_id = %s ORDER BY {order}",  # noqa: S608 - the test's
            (channel,),
        ).fetchall()


@needs_postgres
@pytest.mark.requirement("GW-04")
async def test_everything_of_a_message_is_stored(server: Postgres, tmp_path: Path, channel: int) -> None:
    full = state(
        channel,
        7,
        content=Content(
            text="olá",
            message_type="photo",
            entities=({"type": "bold", "offset": 0, "length": 3},),
            media=Media(type="photo", id=5, access_hash=-6, size=1000, width=10, height=20),
            link_preview={"url": "https://example.org/"},
        ),
        sender_id=42,
        reply_to={"message_id": 3},
        forward={"from_id": -1009, "message_id": 8},
        grouped_id=99,
        topic_id=2,
    )
    async with database_sink(server, tmp_path) as sink:
        await sink.write(entries(full))
    (row,) = rows(
        server,
        "id, message_date, version, source, message_type, text, entities, sender_id, reply_to, forward, grouped_id,"
        " topic_id, media, link_preview, edit_date, received_at, deleted_at, metadata",
        channel,
    )
    assert full.content is not None
    assert row == (
        row_id(channel, 7),
        full.message_date,
        full.version,
        "user_client",
        "photo",
        "olá",
        [{"type": "bold", "offset": 0, "length": 3}],
        42,
        {"message_id": 3},
        {"from_id": -1009, "message_id": 8},
        99,
        2,
        json.loads(msgspec.json.encode(full.content.media)),
        {"url": "https://example.org/"},
        None,
        full.received_at,
        None,
        {},
    )


@needs_postgres
async def test_the_newest_state_stays_whatever_the_order(server: Postgres, tmp_path: Path, channel: int) -> None:
    date = datetime.now(UTC).replace(microsecond=0)
    first, second, third = (state(channel, 1, f"state {edit}", edit, date=date) for edit in range(3))
    async with database_sink(server, tmp_path) as sink:
        await sink.write(entries(second))
        await sink.write(entries(third, first))
        await sink.write(entries(first, second, third))  # the same batch again, as after a crash
        await sink.write(entries(first))
    assert rows(server, "text, edit_date", channel) == [("state 2", third.edit_date)]


@needs_postgres
async def test_a_deletion_counts_before_and_after_its_message(server: Postgres, tmp_path: Path, channel: int) -> None:
    now = events.utc_now()
    async with database_sink(server, tmp_path) as sink:
        await sink.write(entries(deletion(channel, 1, now)))
        await sink.write(entries(state(channel, 1), state(channel, 2), state(channel, 3)))
        await sink.write(entries(deletion(channel, 2, now), state(channel, 4), deletion(channel, 4, now)))
    assert rows(server, "message_id, deleted_at", channel) == [(1, now), (2, now), (3, None), (4, now)]
    assert [row[0] for row in rows(server, "message_id", channel, "tombstones")] == [1, 2, 4]


@needs_postgres
async def test_what_the_server_refuses_is_found_among_many(server: Postgres, tmp_path: Path, channel: int) -> None:
    batch = entries(*(state(channel, number, "\x00" if number in (5, 11) else "fine") for number in range(1, 21)))
    refused: list[int] = []
    async with database_sink(server, tmp_path) as sink:
        waiting = list(batch)
        while waiting:
            try:
                await sink.write(waiting)
            except RejectedEventsError as error:
                refused += [entry.event.message_id for entry in error.entries]
                waiting = list(error.remaining)
            else:
                break
    assert refused == [5, 11]
    stored = [row[0] for row in rows(server, "message_id", channel)]
    assert stored == [number for number in range(1, 21) if number not in (5, 11)]


@needs_postgres
async def test_channels_follow_their_messages(server: Postgres, tmp_path: Path, channel: int) -> None:
    known = Channel(channel_id=channel, title="Sinais", username="sinais", pts=12)
    async with database_sink(server, tmp_path, channels=[known]) as sink:
        await sink.write(entries(state(channel, 9), state(channel, 3)))
        await sink.write(entries(state(channel, 5)))
        assert (await sink.registered())[channel] is True
    assert rows(server, "title, username, last_message_id, last_pts, is_active", channel, "channels") == [
        ("Sinais", "sinais", 9, 12, True)
    ]


@needs_postgres
@pytest.mark.requirement("GW-15")
async def test_with_a_registry_only_its_channels_are_updated(server: Postgres, tmp_path: Path, channel: int) -> None:
    other = next(_channels)
    with server.connect() as connection:
        connection.execute("INSERT INTO telegram.channels (channel_id, label) VALUES (%s, 'mine')", (channel,))
    async with database_sink(server, tmp_path, register=False) as sink:
        await sink.write(entries(state(channel, 1), state(other, 1)))
    assert rows(server, "label, last_message_id", channel, "channels") == [("mine", 1)]
    assert rows(server, "channel_id", other, "channels") == []
    assert len(rows(server, "text", other)) == 1


@needs_postgres
@pytest.mark.requirement("GW-05")
async def test_a_cut_database_is_unavailable_and_comes_back(server: Postgres, tmp_path: Path, channel: int) -> None:
    async with (
        cable("127.0.0.1", server.port) as link,
        database_sink(server, tmp_path, port=link.port) as sink,
    ):
        await sink.write(entries(state(channel, 1)))
        await link.cut()
        with pytest.raises(SinkUnavailableError):
            await sink.write(entries(state(channel, 2)))
        await link.mend()
        async with asyncio.timeout(15):
            while True:
                with contextlib.suppress(SinkUnavailableError):
                    await sink.write(entries(state(channel, 2)))
                    break
    assert len(rows(server, "text", channel)) == 2


@needs_postgres
async def test_a_database_without_schema_is_waited_for(server: Postgres, tmp_path: Path, channel: int) -> None:
    async with database_sink(server, tmp_path) as sink:
        with server.connect() as connection:
            connection.execute("ALTER TABLE telegram.tombstones RENAME TO elsewhere")
        try:
            with pytest.raises(SinkUnavailableError, match="tombstones"):
                await sink.write(entries(state(channel, 1)))
        finally:
            with server.connect() as connection:
                connection.execute("ALTER TABLE telegram.elsewhere RENAME TO tombstones")
        await sink.write(entries(state(channel, 1)))
    assert len(rows(server, "text", channel)) == 1


@needs_postgres
async def test_concurrent_batches_do_not_deadlock(server: Postgres, tmp_path: Path, channel: int) -> None:
    date = datetime.now(UTC).replace(microsecond=0)
    batches = [
        entries(*(state(channel, number, f"{edit}", edit, date=date) for number in order))
        for edit, order in ((1, range(1, 301)), (2, range(300, 0, -1)))
    ]
    async with database_sink(server, tmp_path) as one, database_sink(server, tmp_path) as other:
        for _ in range(5):
            await asyncio.gather(one.write(batches[0]), other.write(batches[1]))
    assert {row[0] for row in rows(server, "text", channel)} == {"2"}
    with pytest.raises(psycopg.errors.InsufficientPrivilege), server.connect("telegram_ingest") as connection:
        connection.execute("DELETE FROM telegram.messages")


# Queue


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@contextlib.asynccontextmanager
async def queue_sink(broker: Broker, port: int = 0) -> AsyncIterator[QueueSink]:
    sink = QueueSink(QueueConfig(port=port or broker.port, timeout=5), broker.password)
    try:
        yield sink
    finally:
        await sink.close()
        await asyncio.sleep(0.05)  # pika closes in the background


def messages(broker: Broker, queue: str) -> list[tuple[Any, Event]]:
    """Take everything out of `queue`: properties and events."""
    channel = broker.channel()
    found = []
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            break
        found.append((properties, events.decode(body)))
    channel.connection.close()
    return found


@needs_rabbitmq
@pytest.mark.requirement("MQ-01")
async def test_a_batch_is_published_in_order_persistent_with_headers(broker: Broker, channel: int) -> None:
    batch = entries(*(state(channel, number) for number in range(1, 301)))
    async with queue_sink(broker) as sink:
        await sink.write(batch[:1])  # declares the exchange
        with contextlib.closing(broker.channel().connection) as connection:
            other = connection.channel()
            other.queue_declare(f"test{channel}", durable=True)
            other.queue_bind(f"test{channel}", EXCHANGE, f"telegram.channel.{channel}")
        await sink.write(batch)
    found = messages(broker, f"test{channel}")
    assert [event for _, event in found] == [entry.event for entry in batch]
    properties = found[0][0]
    assert (properties.delivery_mode, properties.headers) == (2, {"x-source": "user_client", "x-channel-id": channel})
    assert properties.message_id == f"{channel}:1:{batch[0].event.version}"


@needs_rabbitmq
@pytest.mark.requirement("MQ-02")
async def test_what_nobody_wants_is_kept_as_unroutable(broker: Broker, channel: int) -> None:
    async with queue_sink(broker) as sink:
        await sink.write(entries(state(channel, 1)))
    assert channel in [event.channel_id for _, event in messages(broker, UNROUTABLE)]


@needs_rabbitmq
@pytest.mark.requirement("MQ-02")
@pytest.mark.requirement("GW-05")
async def test_a_broker_restart_loses_nothing(broker: Broker, channel: int) -> None:
    async with queue_sink(broker) as sink:
        await sink.write(entries(state(channel, 1)))
        await asyncio.to_thread(broker.stop)
        with pytest.raises(SinkUnavailableError, match=str(broker.port)):
            await sink.write(entries(state(channel, 2)))
        await asyncio.to_thread(broker.start)
        await sink.write(entries(state(channel, 2)))
    found = [event.message_id for _, event in messages(broker, UNROUTABLE) if event.channel_id == channel]
    assert found == [1, 2]


@needs_rabbitmq
async def test_a_cut_cable_leaves_only_what_was_not_confirmed(broker: Broker, channel: int) -> None:
    batch = entries(*(state(channel, number) for number in range(1, 2001)))
    async with cable("127.0.0.1", broker.port) as link, queue_sink(broker, link.port) as sink:
        await sink.write(batch[:1])
        writing = asyncio.create_task(sink.write(batch[1:]))
        await asyncio.sleep(0.05)
        await link.cut()
        remaining = batch[1:]
        with contextlib.suppress(SinkUnavailableError):
            try:
                await writing
                remaining = []
            except SinkUnavailableError as error:
                assert error.remaining is not None
                remaining = list(error.remaining)
        await link.mend()
        if remaining:
            await sink.write(remaining)
    found = {event.message_id for _, event in messages(broker, UNROUTABLE) if event.channel_id == channel}
    assert found == set(range(1, 2001))


class Batches:
    """A spool that holds `entries` in batches of 20; says when the drain has moved the cursor."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self.cursor = 0
        self.moved = asyncio.Event()

    async def batches(self, sink: str, limit: int) -> AsyncIterator[list[Entry]]:
        for start in range(0, len(self._entries), 20):
            yield list(self._entries[start : start + 20])

    def advance(self, sink: str, seq: int) -> None:
        assert seq > self.cursor
        self.cursor = seq
        self.moved.set()

    async def quarantine(self, sink: str, entries: object, reason: str) -> None:
        raise AssertionError(reason)


@needs_rabbitmq
@pytest.mark.requirement("GW-05")
@pytest.mark.requirement("MQ-02")
async def test_batches_on_their_way_when_the_cable_is_cut_arrive_in_their_order(broker: Broker, channel: int) -> None:
    batch = entries(*(state(channel, number) for number in range(1, 4001)))
    spool = Batches(batch)
    async with cable("127.0.0.1", broker.port) as link, queue_sink(broker, link.port) as sink:
        await sink.write(batch[:1])
        draining = asyncio.create_task(drain(sink, spool, Silent(), window=4))
        for _ in range(3):
            spool.moved.clear()
            await spool.moved.wait()
            await link.cut()
            await asyncio.sleep(0.3)
            await link.mend()
        assert spool.cursor < batch[-1].seq, "cut while there was something to be written"
        await draining
    found = [event.message_id for _, event in messages(broker, UNROUTABLE) if event.channel_id == channel]
    assert list(dict.fromkeys(found)) == list(range(1, 4001)), "what comes twice comes behind its first time"


@needs_rabbitmq
async def test_a_wrong_password_is_said_so(broker: Broker, channel: int) -> None:
    sink = QueueSink(QueueConfig(port=broker.port, timeout=5), "wrong")
    with pytest.raises(SinkUnavailableError, match="ACCESS_REFUSED"):
        await sink.write(entries(state(channel, 1)))
    await sink.close()


# Cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    with redis_with_sentinel(tmp_path_factory.mktemp("redis")) as running:
        yield running


@contextlib.asynccontextmanager
async def cache_sink(cache: Cache) -> AsyncIterator[CacheSink]:
    config = CacheConfig(
        user=USER, sentinels=(f"127.0.0.1:{cache.sentinel_port}",), consumers=("signals", "other"), timeout=0.5
    )
    sink = open_cache(config, cache.password, None)
    try:
        yield sink
    finally:
        await sink.close()


@needs_redis
@pytest.mark.requirement("RD-04")
async def test_a_message_is_cached_for_an_hour_with_its_sets(cache: Cache, channel: int) -> None:
    event = state(channel, 5)
    async with cache_sink(cache) as sink:
        await sink.write(entries(event))
    assert event.message_date is not None
    score = event.message_date.timestamp()
    with cache.client() as client:
        assert events.decode(str(client.get(cache_keys.message(channel, 5))).encode()) == event
        assert 3590 < int(str(client.ttl(cache_keys.message(channel, 5)))) <= 3600
        for key in (cache_keys.recent(channel), cache_keys.pending("signals", channel)):
            assert client.zrange(key, 0, -1, withscores=True) == [("5", score)]
            assert 3590 < int(str(client.ttl(key))) <= 3600
        assert client.zcard(cache_keys.pending("other", channel)) == 1
        assert client.sismember(cache_keys.pending_channels("other"), str(channel))


@needs_redis
@pytest.mark.requirement("RD-04")
async def test_sets_hold_the_last_hour_only(cache: Cache, channel: int) -> None:
    now = datetime.now(UTC)
    async with cache_sink(cache) as sink:
        with cache.client() as client:
            client.zadd(cache_keys.recent(channel), {"1": now.timestamp() - 3700})
        await sink.write(entries(state(channel, 2, date=now - timedelta(hours=2)), state(channel, 3)))
    with cache.client() as client:
        assert client.zrange(cache_keys.recent(channel), 0, -1) == ["3"]
        assert client.exists(cache_keys.message(channel, 2))


@needs_redis
async def test_an_older_state_never_replaces_a_newer_one(cache: Cache, channel: int) -> None:
    date = datetime.now(UTC).replace(microsecond=0)
    first, second = state(channel, 1, "first", date=date), state(channel, 1, "second", 5, date=date)
    gone = state(channel, 2, date=date)
    async with cache_sink(cache) as sink:
        await sink.write(entries(second, gone))
        await sink.write(entries(first, deletion(channel, 2, events.utc_now())))
        await sink.write(entries(gone))
    with cache.client() as client:
        assert "second" in str(client.get(cache_keys.message(channel, 1)))
        assert not client.exists(cache_keys.message(channel, 2))
        assert client.zrange(cache_keys.recent(channel), 0, -1) == ["1"]
        assert client.zrange(cache_keys.pending("signals", channel), 0, -1) == ["1"]


@needs_redis
@pytest.mark.requirement("GW-05")
async def test_a_stopped_cache_is_unavailable_quickly_and_comes_back(cache: Cache, channel: int) -> None:
    async with cache_sink(cache) as sink:
        await sink.write(entries(state(channel, 1)))
        cache.stop()
        try:
            begun = time.monotonic()
            with pytest.raises(SinkUnavailableError, match=r"^[^<]{5,80}$"):
                await sink.write(entries(state(channel, 2)))
            assert time.monotonic() - begun < 5
        finally:
            cache.start()
        async with asyncio.timeout(30):
            while True:
                try:
                    await sink.write(entries(state(channel, 2)))
                except SinkUnavailableError:
                    await asyncio.sleep(0.1)
                else:
                    break
    with cache.client() as client:
        assert client.exists(cache_keys.message(channel, 2))

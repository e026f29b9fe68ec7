"""The cache sink against a real Redis behind Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.integration.brokers import (
    USER,
    Cache,
    redis_installed,
    redis_with_sentinel,
)
from tests.integration.spooled import channel, entries, state

from telegram_stack import cache_keys, events
from telegram_stack.events import deletion
from telegram_stack.sinks.base import SinkUnavailableError
from telegram_stack.sinks.cache import CacheConfig, CacheSink, open_cache

__all__ = ["channel"]

needs_redis = pytest.mark.skipif(not redis_installed(), reason="Redis with Sentinel is not installed")


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

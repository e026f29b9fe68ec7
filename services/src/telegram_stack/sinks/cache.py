"""The cache sink: Redis behind Sentinel. Never the only copy; short time-outs, so that it never holds anybody."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from telegram_stack import cache_keys
from telegram_stack.sinks.base import SinkUnavailableError, latest
from telegram_stack.spool import Entry
from telegram_stack.topology import consumer_queue

_REMEMBERED_VERSIONS = 100_000

Address = Annotated[str, msgspec.Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):[0-9]{1,5}$")]


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[cache]``: Redis, whose primary the sentinels know.

    `sentinels` are ``host:port``. `sentinel_user` and `sentinel_password_file` are for sentinels that ask for them.
    `consumers` names those that poll: each has its sets of messages it has not processed yet.
    """

    password_file: str = "redis-password"  # noqa: S105 - a file name
    user: str = "telegram_gateway"
    sentinels: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1)] = ("127.0.0.1:26379",)
    sentinel_name: str = "telegram"
    sentinel_user: str | None = None
    sentinel_password_file: str | None = None
    consumers: tuple[str, ...] = ("signals",)
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.5

    def __post_init__(self) -> None:
        for consumer in self.consumers:
            consumer_queue(consumer)


class CacheSink:
    """Writes each message, its channel's recent set and the pending sets of `consumers` in one round trip a batch."""

    name = "cache"

    def __init__(self, redis: Redis, consumers: Sequence[str], sentinels: Sequence[Redis] = ()) -> None:
        """`sentinels` are the clients that `redis` asks for the primary; they are closed with it."""
        self._redis = redis
        self._sentinels = sentinels
        self._consumers = tuple(consumers)
        # The gateway is the cache's only writer of new states, so its memory keeps older ones from overwriting.
        self._versions: OrderedDict[tuple[int, int], int] = OrderedDict()

    async def write(self, batch: Sequence[Entry]) -> None:
        """Write the newest state of each message of `batch`."""
        entries = [entry for entry in latest(batch) if entry.event.version >= self._versions.get(entry.event.key, 0)]
        if not entries:
            return
        horizon = time.time() - cache_keys.RECENT_SECONDS
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for entry in entries:
                    self._queue(pipeline, entry, horizon)
                for channel_id in sorted({entry.event.channel_id for entry in entries}):
                    for key in self._sets(channel_id):
                        pipeline.zremrangebyscore(key, "-inf", horizon)
                        pipeline.expire(key, cache_keys.RECENT_SECONDS)
                await pipeline.execute()
        except MasterNotFoundError as error:
            raise SinkUnavailableError("no sentinel that answers knows a primary") from error
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            # uvloop's word for a write to a connection that was reset while it was made is RuntimeError.
            raise SinkUnavailableError(str(error) or type(error).__name__) from error
        self._remember(entries)

    def _sets(self, channel_id: int) -> list[str]:
        return [
            cache_keys.recent(channel_id),
            *(cache_keys.pending(consumer, channel_id) for consumer in self._consumers),
        ]

    def _queue(self, pipeline: Pipeline, entry: Entry, horizon: float) -> None:
        event = entry.event
        key = cache_keys.message(event.channel_id, event.message_id)
        if event.message_date is None:
            pipeline.delete(key)
            for name in self._sets(event.channel_id):
                pipeline.zrem(name, event.message_id)
            return
        pipeline.set(key, entry.body, ex=cache_keys.MESSAGE_SECONDS)
        score = event.message_date.timestamp()
        if score > horizon:
            for name in self._sets(event.channel_id):
                pipeline.zadd(name, {str(event.message_id): score})

    def _remember(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._versions[entry.event.key] = entry.event.version
            self._versions.move_to_end(entry.event.key)
        while len(self._versions) > _REMEMBERED_VERSIONS:
            self._versions.popitem(last=False)

    async def close(self) -> None:
        """Close the connections."""
        for client in (self._redis, *self._sentinels):
            await client.aclose()


def open_cache(config: CacheConfig, password: str, sentinel_password: str | None) -> CacheSink:
    """A sink that writes to the primary which the sentinels name; they are asked again at each new connection."""
    limits: dict[str, Any] = {
        "socket_timeout": config.timeout,
        "socket_connect_timeout": config.timeout,
        "retry": Retry(NoBackoff(), 0),  # the drain tries again
    }
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        [_address(address) for address in config.sentinels],
        sentinel_kwargs={**limits, "username": config.sentinel_user, "password": sentinel_password},
        **limits,
        username=config.user,
        password=password,
    )
    return CacheSink(sentinel.master_for(config.sentinel_name), config.consumers, sentinel.sentinels)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)

"""The cache sink: Redis behind Sentinel. Never the only copy; short time-outs, so that it never holds anybody."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
from redis.exceptions import RedisError

from telegram_stack import cache, cache_keys
from telegram_stack.sinks.base import SinkUnavailableError, latest
from telegram_stack.spool import Entry
from telegram_stack.topology import consumer_queue

_REMEMBERED_VERSIONS = 100_000
_TIDY_SECONDS = 60.0
"""How often a channel's sets are trimmed and made to live on; they live for an hour."""


class CacheConfig(cache.CacheConfig, frozen=True, kw_only=True):
    """Section ``[cache]`` of the gateway, which waits longer: nobody waits for it.

    `consumers` names those that poll: each has its sets of messages it has not processed yet.
    """

    user: str = "telegram_gateway"
    consumers: tuple[str, ...] = ("signals",)
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.5

    def __post_init__(self) -> None:
        for consumer in self.consumers:
            consumer_queue(consumer)


class CacheSink:
    """Writes each message, its channel's recent set and the pending sets of `consumers` in one round trip a batch."""

    name = "cache"

    def __init__(self, primary: cache.Primary, consumers: Sequence[str]) -> None:
        self._primary = primary
        self._consumers = tuple(consumers)
        # The gateway is the cache's only writer of new states, so its memory keeps older ones from overwriting.
        self._versions: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._tidied: dict[int, float] = {}  # channel to monotonic time

    async def write(self, batch: Sequence[Entry]) -> None:
        """Write the newest state of each message of `batch`."""
        entries = [entry for entry in latest(batch) if entry.event.version >= self._versions.get(entry.event.key, 0)]
        if not entries:
            return
        horizon = time.time() - cache_keys.RECENT_SECONDS
        channel_ids = sorted({entry.event.channel_id for entry in entries})
        now = time.monotonic()
        untidy = [channel for channel in channel_ids if self._tidied.get(channel, -math.inf) < now - _TIDY_SECONDS]
        commands = [command for entry in entries for command in self._commands(entry, horizon)]
        for key in (key for channel_id in untidy for key in self._sets(channel_id)):
            commands.append(("zremrangebyscore", key, "-inf", horizon))
            commands.append(("expire", key, cache_keys.RECENT_SECONDS))
        for key in map(cache_keys.pending_channels, self._consumers):
            commands.append(("sadd", key, *map(str, channel_ids)))
            commands.append(("expire", key, cache_keys.RECENT_SECONDS))
        try:
            await cache.run_all(self._primary.redis, commands)
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:  # RuntimeError: see cache.CacheClient
            self._tidied.clear()  # what comes back may have lost its keys
            raise SinkUnavailableError(cache.words(error)) from error
        self._tidied.update(dict.fromkeys(untidy, now))
        self._remember(entries)

    def _sets(self, channel_id: int) -> list[str]:
        return [
            cache_keys.recent(channel_id),
            *(cache_keys.pending(consumer, channel_id) for consumer in self._consumers),
        ]

    def _commands(self, entry: Entry, horizon: float) -> Iterator[cache.Command]:
        event = entry.event
        key = cache_keys.message(event.channel_id, event.message_id)
        if event.message_date is None:
            yield "del", key
            for name in self._sets(event.channel_id):
                yield "zrem", name, event.message_id
            return
        yield "set", key, entry.body.decode(), "ex", cache_keys.MESSAGE_SECONDS
        score = event.message_date.timestamp()
        if score > horizon:
            for name in self._sets(event.channel_id):
                yield "zadd", name, score, event.message_id

    def _remember(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._versions[entry.event.key] = entry.event.version
            self._versions.move_to_end(entry.event.key)
        while len(self._versions) > _REMEMBERED_VERSIONS:
            self._versions.popitem(last=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._primary.close()


def open_cache(config: CacheConfig, password: str, sentinel_password: str | None) -> CacheSink:
    """A sink that writes to the primary which the sentinels name."""
    return CacheSink(cache.connect(config, password, sentinel_password), config.consumers)

"""What a consumer keeps in the cache: what it has still to do, and what it has done."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from telegram_stack import cache_keys, events

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from telegram_stack.cache import CacheClient
    from telegram_stack.events import Event

Key = tuple[int, int]


@dataclass(frozen=True)
class Pending:
    """Messages that a consumer has still to do; `more`: there may be others.

    `complete` is False when the cache was emptied since the database was last asked, so that it may lack some.
    Of `evicted` the cache knows only that they are to be done.
    """

    messages: list[tuple[Event, bytes]]
    evicted: list[Key]
    complete: bool
    more: bool


class ConsumerCache:
    """The cache as one consumer sees it. All methods raise CacheUnavailableError."""

    def __init__(self, client: CacheClient, consumer: str) -> None:
        self.client = client
        self._consumer = consumer
        self._channels: list[int] = []  # as the last poll found them

    async def pending(self, limit: int) -> Pending:
        """At most `limit` messages, the oldest of each channel.

        Two round trips; three where few channels have to fill it.
        """
        return await self.client.call(lambda redis: self._pending(redis, limit))

    async def _pending(self, redis: Redis, limit: int) -> Pending:
        asked = self._channels
        share = max(1, limit // max(1, len(asked)))
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.exists(cache_keys.complete(self._consumer))
            pipeline.smembers(cache_keys.pending_channels(self._consumer))
            for channel_id in asked:
                pipeline.zrange(cache_keys.pending(self._consumer, channel_id), 0, share - 1)
            complete, members, *sets = await pipeline.execute()
            self._channels = [int(member) for member in members]
            keys = [(channel_id, int(found)) for channel_id, ids in zip(asked, sets, strict=True) for found in ids]
            # Where there may be more: channels not asked yet, and those that gave their share. From which place on.
            rest = {channel_id: 0 for channel_id in self._channels if channel_id not in asked}
            rest |= {channel_id: share for channel_id, ids in zip(asked, sets, strict=True) if len(ids) == share}
            if rest and len(keys) < limit:
                share = math.ceil((limit - len(keys)) / len(rest))
                for channel_id, start in rest.items():
                    pipeline.zrange(cache_keys.pending(self._consumer, channel_id), start, start + share - 1)
                sets = await pipeline.execute()
                keys += [(channel_id, int(found)) for channel_id, ids in zip(rest, sets, strict=True) for found in ids]
                rest = {channel_id: 0 for channel_id, ids in zip(rest, sets, strict=True) if len(ids) == share}
        more = bool(rest) or len(keys) > limit
        bodies = await redis.mget([cache_keys.message(*key) for key in keys[:limit]]) if keys else []
        return _read(keys[:limit], bodies, complete=bool(complete), more=more)

    async def processed(self, versions: Sequence[Event]) -> set[Key]:
        """Keys of those that this consumer has already processed in just this version; one round trip."""
        if not versions:
            return set()
        names = [cache_keys.dedup(self._consumer, *event.key, event.version) for event in versions]
        found = await self.client.call(lambda redis: redis.mget(names))
        return {event.key for event, known in zip(versions, found, strict=True) if known is not None}

    async def settle(self, settled: Iterable[Key], finished: Iterable[Event]) -> None:
        """Take `settled` out of the pending sets and remember `finished`. Call it behind the commit, never before.

        An edit that came meanwhile leaves with its message; the database brings it back.
        """
        members: dict[int, list[int]] = {}
        for channel_id, message_id in settled:
            members.setdefault(channel_id, []).append(message_id)

        async def work(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipeline:
                for channel_id, message_ids in members.items():
                    pipeline.zrem(cache_keys.pending(self._consumer, channel_id), *message_ids)
                for event in finished:
                    name = cache_keys.dedup(self._consumer, *event.key, event.version)
                    pipeline.set(name, b"1", ex=cache_keys.DEDUP_SECONDS)
                await pipeline.execute()

        await self.client.call(work)

    async def warm(self, messages: Sequence[tuple[Event, bytes]], *, complete: bool) -> None:
        """Put in what the database had; `complete`: that was all. What the gateway has written since stays."""
        horizon = time.time() - cache_keys.RECENT_SECONDS
        recent = [
            (event, body, event.message_date.timestamp())
            for event, body in messages
            if event.message_date and event.message_date.timestamp() > horizon
        ]
        pending = {event.channel_id: cache_keys.pending(self._consumer, event.channel_id) for event, _, _ in recent}

        async def work(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipeline:
                for event, body, score in recent:
                    pipeline.set(cache_keys.message(*event.key), body, ex=cache_keys.MESSAGE_SECONDS, nx=True)
                    for name in (cache_keys.recent(event.channel_id), pending[event.channel_id]):
                        pipeline.zadd(name, {str(event.message_id): score})
                for channel_id, name in pending.items():
                    pipeline.expire(name, cache_keys.RECENT_SECONDS)
                    pipeline.expire(cache_keys.recent(channel_id), cache_keys.RECENT_SECONDS)
                if pending:
                    pipeline.sadd(cache_keys.pending_channels(self._consumer), *pending)
                    pipeline.expire(cache_keys.pending_channels(self._consumer), cache_keys.RECENT_SECONDS)
                if complete:
                    pipeline.set(cache_keys.complete(self._consumer), b"1", ex=cache_keys.RECENT_SECONDS)
                await pipeline.execute()

        await self.client.call(work)


def _read(keys: Sequence[Key], bodies: Sequence[bytes | str | None], *, complete: bool, more: bool) -> Pending:
    messages, evicted = [], []
    for key, body in zip(keys, bodies, strict=True):
        event = _event(body)
        if event is None or not isinstance(body, bytes):
            evicted.append(key)
        else:
            messages.append((event, body))
    return Pending(messages, evicted, complete, more)


def _event(body: bytes | str | None) -> Event | None:
    """What cannot be read is as good as gone."""
    try:
        return events.decode(body) if isinstance(body, bytes) else None
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None

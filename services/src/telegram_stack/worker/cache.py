"""What a consumer keeps in the cache: what it has still to do, and what it has done."""

from __future__ import annotations

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
    """The oldest messages that a consumer has still to do.

    `complete` is False when the cache was emptied since the database was last asked, so that it may lack some.
    Of `evicted` the cache knows only that they are to be done.
    """

    messages: list[tuple[Event, bytes]]
    evicted: list[Key]
    complete: bool


class ConsumerCache:
    """The cache as one consumer sees it. All methods raise CacheUnavailableError."""

    def __init__(self, client: CacheClient, consumer: str) -> None:
        self.client = client
        self._consumer = consumer

    async def pending(self, limit: int) -> Pending:
        """At most `limit` messages, the oldest first; three round trips."""

        async def work(redis: Redis) -> Pending:
            async with redis.pipeline(transaction=False) as pipeline:
                pipeline.exists(cache_keys.complete(self._consumer))
                pipeline.smembers(cache_keys.pending_channels(self._consumer))
                complete, members = await pipeline.execute()
                channels = [int(member) for member in members]
                for channel_id in channels:
                    pipeline.zrange(cache_keys.pending(self._consumer, channel_id), 0, limit - 1, withscores=True)
                sets = await pipeline.execute()
            scored = [
                (score, channel_id, int(member))
                for channel_id, found in zip(channels, sets, strict=True)
                for member, score in found
            ]
            keys = [(channel_id, message_id) for _, channel_id, message_id in sorted(scored)[:limit]]
            bodies = await redis.mget([cache_keys.message(*key) for key in keys]) if keys else []
            return _read(keys, bodies, complete=bool(complete))

        return await self.client.call(work)

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


def _read(keys: Sequence[Key], bodies: Sequence[bytes | str | None], *, complete: bool) -> Pending:
    messages, evicted = [], []
    for key, body in zip(keys, bodies, strict=True):
        event = _event(body)
        if event is None or not isinstance(body, bytes):
            evicted.append(key)
        else:
            messages.append((event, body))
    return Pending(messages, evicted, complete)


def _event(body: bytes | str | None) -> Event | None:
    """What cannot be read is as good as gone."""
    try:
        return events.decode(body) if isinstance(body, bytes) else None
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None

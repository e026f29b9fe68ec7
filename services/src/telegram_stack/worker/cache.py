"""What a consumer keeps in the cache: what it has still to do, and what it has done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from telegram_stack import cache_keys, events
from telegram_stack.cache import run_all

if TYPE_CHECKING:
    from telegram_stack.cache import CacheClient, Command
    from telegram_stack.events import Event

Key = tuple[int, int]

# One command, for the reason of `run_all`.
_PENDING = """
local limit, asked, from, found = tonumber(ARGV[1]), redis.call('SMEMBERS', KEYS[2]), 0, {}
while #asked > 0 and #found < limit do
  local share, rest = math.ceil((limit - #found) / #asked), {}
  for _, channel in ipairs(asked) do
    local ids = redis.call('ZRANGE', KEYS[1] .. ':' .. channel, from, from + share - 1)
    for _, id in ipairs(ids) do found[#found + 1] = {channel, id} end
    if #ids == share then rest[#rest + 1] = channel end
  end
  asked, from = rest, from + share
end
local more = #asked > 0 or #found > limit
local keys, names = {}, {}
for place = 1, math.min(limit, #found) do
  keys[place] = found[place]
  names[place] = ARGV[2] .. found[place][1] .. ':' .. found[place][2]
end
local bodies = #names > 0 and redis.call('MGET', unpack(names)) or {}
return {redis.call('EXISTS', KEYS[1]), more and 1 or 0, keys, bodies}
"""


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

    async def pending(self, limit: int) -> Pending:
        """At most `limit` messages, as evenly of all channels as they have them, the oldest of each; one round trip."""
        names = [cache_keys.complete(self._consumer), cache_keys.pending_channels(self._consumer)]
        complete, more, keys, bodies = await self.client.call(
            lambda redis: redis.register_script(_PENDING)(names, [limit, cache_keys.MESSAGES])
        )
        found = [(int(channel_id), int(message_id)) for channel_id, message_id in keys]
        return _read(found, bodies, complete=bool(complete), more=bool(more))

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
        commands: list[Command] = [
            ("zrem", cache_keys.pending(self._consumer, channel_id), *message_ids)
            for channel_id, message_ids in members.items()
        ]
        for event in finished:
            name = cache_keys.dedup(self._consumer, *event.key, event.version)
            commands.append(("set", name, "1", "ex", cache_keys.DEDUP_SECONDS))
        await self.client.call(lambda redis: run_all(redis, commands))

    async def warm(self, messages: Sequence[tuple[Event, bytes]], *, complete: bool) -> None:
        """Put in what the database had; `complete`: that was all. What the gateway has written since stays."""
        horizon = time.time() - cache_keys.RECENT_SECONDS
        recent = [
            (event, body, event.message_date.timestamp())
            for event, body in messages
            if event.message_date and event.message_date.timestamp() > horizon
        ]
        pending = {event.channel_id: cache_keys.pending(self._consumer, event.channel_id) for event, _, _ in recent}
        commands: list[Command] = []
        for event, body, score in recent:
            commands.append(
                ("set", cache_keys.message(*event.key), body.decode(), "ex", cache_keys.MESSAGE_SECONDS, "nx")
            )
            for name in (cache_keys.recent(event.channel_id), pending[event.channel_id]):
                commands.append(("zadd", name, score, event.message_id))
        for channel_id, name in pending.items():
            commands.append(("expire", name, cache_keys.RECENT_SECONDS))
            commands.append(("expire", cache_keys.recent(channel_id), cache_keys.RECENT_SECONDS))
        if pending:
            channels = cache_keys.pending_channels(self._consumer)
            commands.append(("sadd", channels, *map(str, pending)))
            commands.append(("expire", channels, cache_keys.RECENT_SECONDS))
        if complete:
            commands.append(("set", cache_keys.complete(self._consumer), "1", "ex", cache_keys.RECENT_SECONDS))
        await self.client.call(lambda redis: run_all(redis, commands))


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

"""Answers that are kept in the cache, and never believed without asking the database whether they still hold.

An answer is kept with the database's snapshot from before its query. One statement tells whether anything of its
channels was written, edited, deleted or marked that this snapshot did not show, whoever did it; then the answer is made
anew. So no writer has to know of the cache, and a writer that cannot reach it does no harm. See ADR 9.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from prometheus_client import Counter
from redis.asyncio import Redis

from telegram_stack import program
from telegram_stack.cache import CacheClient, CacheUnavailableError
from telegram_stack.database import Connection, Pool, transaction

SECONDS = 30
_LARGEST = 512 * 1024  # bytes; the cache has room for messages above all

ANSWERS = Counter(
    "telegram_api_cache_answers_total",
    "Answers by what the cache had: hit, miss, changed (it had one that no longer holds), unavailable",
    ["result"],
)

# A snapshot says nothing on another server.
_CHECK = """
SELECT CASE WHEN pg_postmaster_start_time()::text = %(server)s
  THEN telegram.unchanged_since(%(snapshot)s::pg_snapshot, %(channels)b::bigint[]) ELSE false END
"""
_LOOK = "SELECT pg_current_snapshot()::text, pg_postmaster_start_time()::text"


class _Kept(msgspec.Struct, array_like=True, frozen=True):
    snapshot: str
    server: str
    body: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Kept)
_json = msgspec.json.Encoder()


class Answers:
    """Bodies of answers, from the cache or from the database."""

    def __init__(self, pool: Pool, cache: CacheClient | None) -> None:
        self._pool = pool
        self._cache = cache
        self._making: dict[str, asyncio.Task[_Kept]] = {}

    async def get(
        self, name: Sequence[Any], channels: Sequence[int], make: Callable[[Connection], Awaitable[object]]
    ) -> bytes:
        """The JSON body that `make` gives; `name` says all that it depends on beside the messages of `channels`.

        No channels: it depends on all. Raises DatabaseUnavailableError.
        """
        key = _key(name)
        kept, result = await self._read(key)

        if kept is not None and await self._holds(kept, channels):
            ANSWERS.labels("hit").inc()
            return kept.body

        if key in self._making:
            # One answer for all who wait, but for who came behind a change that it does not show.
            answer = await asyncio.shield(self._making[key])
            if await self._holds(answer, channels):
                ANSWERS.labels(result).inc()
                return answer.body

        # A task of its own: the client that it was begun for may leave.
        making = self._making[key] = asyncio.create_task(self._make(key, make, keep=result != "unavailable"))
        making.add_done_callback(lambda _: self._making.pop(key) if self._making.get(key) is making else None)
        answer = await asyncio.shield(making)
        ANSWERS.labels(result).inc()
        return answer.body

    async def _make(self, key: str, make: Callable[[Connection], Awaitable[object]], *, keep: bool) -> _Kept:
        async def work(connection: Connection) -> _Kept:
            look = await connection.execute(_LOOK)  # goes out with what follows, and before it
            body = _json.encode(await make(connection))
            [(snapshot, server)] = await look.fetchall()
            return _Kept(snapshot, server, body)

        answer = await transaction(self._pool, work)
        if keep and len(answer.body) <= _LARGEST:
            await self._write(key, answer)
        return answer

    async def _holds(self, kept: _Kept, channels: Sequence[int]) -> bool:
        """Whether the database would answer the same now."""
        values = {"server": kept.server, "snapshot": kept.snapshot, "channels": list(channels) or None}

        async def work(connection: Connection) -> bool:
            [(holds,)] = await (await connection.execute(_CHECK, values)).fetchall()
            return bool(holds)

        return await transaction(self._pool, work, one_statement=True)

    async def _read(self, key: str) -> tuple[_Kept | None, str]:
        if self._cache is None:
            return None, "unavailable"

        async def work(redis: Redis) -> Any:
            return await redis.get(key)

        try:
            found = await self._cache.call(work)
            return (_decoder.decode(found), "changed") if found else (None, "miss")
        except CacheUnavailableError:
            return None, "unavailable"
        except msgspec.DecodeError:  # another version's
            return None, "miss"

    async def _write(self, key: str, answer: _Kept) -> None:
        if self._cache is None:
            return

        async def work(redis: Redis) -> Any:
            return await redis.set(key, _encoder.encode(answer), ex=SECONDS)

        with contextlib.suppress(CacheUnavailableError):
            await self._cache.call(work)


def _key(name: Sequence[Any]) -> str:
    digest = hashlib.blake2b(msgspec.json.encode([program.version(), *name]), digest_size=16)
    return f"api:{digest.hexdigest()}"

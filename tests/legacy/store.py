"""The legacy gateway's statements: a row a message, whether or not there is one already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

_MARK = 10**12

# Ids are given as text without a type: the shapes have them as text or as numbers.
_INSERT = (
    "INSERT INTO telegram_gateway.messages (channel_id, message_id, thread_id, source, message_type, text, caption,"
    " media_type, media_refs, status, received_at, telegram_date, metadata)"
    " VALUES (%s, %s, %s, 'user_client', 'channel_post', %s, %s, %s, %s, 'received', %s, %s, %s)"
)
_EDIT = (
    "UPDATE telegram_gateway.messages SET text = %s, caption = %s, updated_at = now()"
    " WHERE channel_id IN (%s, %s) AND message_id = %s"
)
_DELETE = (
    "UPDATE telegram_gateway.messages SET status = 'deleted', deleted_at = now(), updated_at = now()"
    " WHERE channel_id IN (%s, %s) AND message_id = %s AND deleted_at IS NULL"
)
_KNOWN = (
    "SELECT DISTINCT ON (message_id) message_id::text, coalesce(text, caption, '') FROM telegram_gateway.messages"
    " WHERE channel_id IN (%s, %s) AND message_id::text = ANY(%s) ORDER BY message_id, created_at DESC"
)
_CHANNELS = "SELECT channel_id FROM telegram_gateway.channels WHERE is_active"


@dataclass(frozen=True)
class Found:
    """A message as the gateway keeps it."""

    channel_id: int
    message_id: int
    text: str
    date: datetime
    media_type: str | None
    media_refs: list[dict[str, Any]]
    thread_id: int | None
    metadata: dict[str, Any]

    @property
    def contents(self) -> tuple[str | None, str | None]:
        """Text and caption: what belongs to media is a caption."""
        return (None, self.text) if self.media_type else (self.text, None)


class Store:
    """The table, over one connection that opens itself again."""

    def __init__(self, database: str) -> None:
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
            database,
            min_size=1,
            max_size=1,
            open=False,
            kwargs={"autocommit": True, "application_name": "telegram-gateway"},
        )

    async def open(self) -> None:
        """Connect; raises PoolTimeout when nobody answers."""
        await self._pool.open(wait=True, timeout=30)

    async def close(self) -> None:
        """Disconnect."""
        await self._pool.close()

    async def active_channels(self) -> set[int]:
        """Which channels are taken; none: all of them."""
        return {int(channel) for (channel,) in await self._all(_CHANNELS, [])}

    async def insert(self, found: Found, received_at: datetime, **sync: Any) -> None:
        """One more row."""
        metadata = found.metadata | ({"sync": sync} if sync else {})
        identity = [str(found.channel_id), str(found.message_id), found.thread_id, *found.contents, found.media_type]
        values = [*identity, json.dumps(found.media_refs), received_at, found.date, json.dumps(metadata)]
        await self._run(_INSERT, values)

    async def edit(self, found: Found) -> None:
        """Change text or caption of the message's rows."""
        await self._run(_EDIT, [*found.contents, *_forms(found.channel_id), str(found.message_id)])

    async def delete(self, channel_id: int, message_id: int) -> None:
        """Mark the message's rows."""
        await self._run(_DELETE, [*_forms(channel_id), str(message_id)])

    async def known(self, channel_id: int, message_ids: Sequence[int]) -> dict[int, str]:
        """Text by message of those that have a row."""
        values = [*_forms(channel_id), [str(number) for number in message_ids]]
        return {int(number): text for number, text in await self._all(_KNOWN, values)}

    async def _run(self, query: str, values: Sequence[Any]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(query.encode(), values)

    async def _all(self, query: str, values: Sequence[Any]) -> list[Any]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(query.encode(), values)).fetchall()


def _forms(channel_id: int) -> tuple[str, str]:
    """A channel's id with -100 and without: both are in the table."""
    return str(channel_id), str(-channel_id - _MARK)

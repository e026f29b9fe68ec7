"""Our side of the feed: what has changed, and what it is now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, first_line, transaction

if TYPE_CHECKING:
    from datetime import datetime

T = TypeVar("T")

_TAKE = """
SELECT array_agg(id), channel_id, message_id
FROM (SELECT * FROM telegram.legacy_changes ORDER BY id LIMIT %s) AS first
GROUP BY channel_id, message_id ORDER BY min(id)
"""
_DOCUMENTS = "SELECT * FROM telegram.legacy_documents(%s::bigint[], %s::bigint[])"
_STATE = """
SELECT f.since, f.last_row_id, c.backlog, c.age
FROM telegram.legacy_feed AS f CROSS JOIN (
  SELECT count(*) AS backlog, extract(epoch FROM clock_timestamp() - min(changed_at))::double precision AS age
  FROM telegram.legacy_changes
) AS c
"""


@dataclass(frozen=True)
class Change:
    """A message that changed, as ``telegram.legacy_documents`` has it now; `ids` are its rows of the outbox."""

    ids: list[int]
    document: dict[str, Any]


@dataclass(frozen=True)
class State:
    """Since when the feed is on, what it has to do, and how old (seconds) the oldest of that is."""

    since: datetime
    last_row_id: int
    backlog: int
    age: float


class SwitchedOffError(DatabaseUnavailableError):
    """The database collects no changes."""


class Outbox:
    """``telegram.legacy_changes``. Raises DatabaseUnavailableError where the database cannot answer or refuses to."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def state(self) -> State:
        """How the feed stands. Raises SwitchedOffError."""

        async def ask(connection: Connection) -> Any:
            return await (await connection.execute(_STATE)).fetchone()

        found = await self._do(ask)
        if found is None:
            raise SwitchedOffError("the feed is switched off in the database: SELECT telegram.switch_legacy_feed(true)")
        since, last_row_id, backlog, age = found
        return State(since, last_row_id, backlog, age or 0.0)

    async def first(self, count: int) -> list[Change]:
        """The messages of the first `count` changes, each once. What they are now is read after the changes were."""

        async def take(connection: Connection) -> list[Change]:
            keys = await (await connection.execute(_TAKE, [count])).fetchall()
            documents = {
                (document["channel_id"], document["message_id"]): document
                for document in await _documents(connection, [key for _, *key in keys])
            }
            return [Change(ids, documents.get((*key,), {})) for ids, *key in keys]

        return await self._do(take)

    async def remove(self, changes: Sequence[Change]) -> None:
        """Forget what was fed; what has changed since has rows of its own."""
        ids = [number for change in changes for number in change.ids]

        async def delete(connection: Connection) -> None:
            await connection.execute("DELETE FROM telegram.legacy_changes WHERE id = ANY (%s::bigint[])", [ids])

        await self._do(delete)

    async def is_empty(self) -> bool:
        """Whether nothing waits, and nobody has a change under way."""

        async def count(connection: Connection) -> bool:
            await connection.execute("SET LOCAL lock_timeout = '500ms'")
            await connection.execute("LOCK TABLE telegram.legacy_changes IN SHARE MODE")
            found = await (await connection.execute("SELECT count(*) FROM telegram.legacy_changes")).fetchone()
            return found == (0,)

        return await self._do(count)

    async def changed(self, count: int) -> AsyncIterator[list[Change]]:
        """Everything that changed since the feed is on, whether it waits or not, `count` messages at a time."""
        try:
            async with (
                self._pool.connection() as connection,
                connection.transaction(),
                connection.cursor(name="changed") as cursor,
            ):
                await cursor.execute("SELECT channel_id, message_id FROM telegram.legacy_changed_keys()")
                while keys := await cursor.fetchmany(count):
                    yield [Change([], document) for document in await _documents(connection, keys)]
        except psycopg.Error as error:
            raise DatabaseUnavailableError(first_line(error)) from error

    async def _do(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await transaction(self._pool, work)
        except psycopg.Error as error:
            raise DatabaseUnavailableError(first_line(error)) from error


async def _documents(connection: Connection, keys: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    columns = [list(column) for column in zip(*keys, strict=True)] or [[], []]
    cursor = await connection.execute(_DOCUMENTS, columns)
    return [document async for (document,) in cursor]

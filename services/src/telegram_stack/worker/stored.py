"""Messages read back from the database, as the events that the gateway once wrote."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec
import psycopg

from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, first_line, transaction
from telegram_stack.events import Content, Event, Media, MessageType
from telegram_stack.topology import RETRY_SECONDS

if TYPE_CHECKING:
    from telegram_stack.worker.cache import Key

T = TypeVar("T")

_COLUMNS = """
m.channel_id, m.message_id, m.message_date, m.version, m.received_at, m.source, m.message_type, m.text, m.entities,
m.sender_id, m.reply_to, m.forward, m.grouped_id, m.topic_id, m.media, m.link_preview, m.edit_date
"""

_UNPROCESSED = f"SELECT {_COLUMNS} FROM telegram.get_unprocessed_messages(%s, %s) AS m"  # noqa: S608 - a constant

_DATES = """
SELECT k.channel_id, k.message_id, k.message_date
FROM unnest(%b::bigint[], %b::bigint[]) AS e (channel_id, message_id)
JOIN telegram.message_keys AS k ON k.channel_id = e.channel_id AND k.message_id = e.message_id
"""

# The bounds are known when it is planned: storage of other dates is left out.
BY_KEY = f"""
SELECT {_COLUMNS} FROM unnest(%b::bigint[], %b::bigint[], %b::timestamptz[]) AS e (channel_id, message_id, message_date)
JOIN telegram.messages AS m
  ON m.channel_id = e.channel_id AND m.message_id = e.message_id AND m.message_date = e.message_date
WHERE m.message_date BETWEEN %s AND %s AND m.deleted_at IS NULL
ORDER BY m.message_date, m.channel_id, m.message_id
"""  # noqa: S608 - the constant above

_DUE = """
SELECT p.channel_id, p.message_id, p.version, p.attempts FROM telegram.processing AS p
WHERE p.consumer = %s AND p.status = 'retrying'
  AND p.updated_at < clock_timestamp() - make_interval(secs => %s + (%s::float8[])[least(p.attempts, %s)])
ORDER BY p.updated_at LIMIT %s
"""

_TYPES = frozenset(get_args(MessageType))


@dataclass(frozen=True)
class Page:
    """What a consumer has to do by the database. `retries` come with the attempt that is next, by key."""

    unprocessed: list[Event]
    retries: list[Event]
    attempts: dict[Key, int]


class Stored:
    """The database as a poll asks it. All methods raise DatabaseUnavailableError."""

    def __init__(self, pool: Pool, consumer: str) -> None:
        self._pool = pool
        self._consumer = consumer

    async def page(self, limit: int, grace: float) -> Page:
        """At most `limit` unprocessed messages, and as many retries that are due for `grace` seconds."""

        async def work(connection: Connection) -> Page:
            cursor = await connection.execute(_UNPROCESSED, [self._consumer, limit])
            unprocessed = [_event(row) for row in await cursor.fetchall()]
            cursor = await connection.execute(_DUE, [self._consumer, grace, RETRY_SECONDS, len(RETRY_SECONDS), limit])
            due = {(row[0], row[1]): (row[2], row[3]) for row in await cursor.fetchall()}
            retries = await _by_key(connection, list(due))
            attempts = {event.key: due[event.key][1] + 1 for event in retries if due[event.key][0] == event.version}
            return Page(unprocessed, retries, attempts)

        return await self._ask(work)

    async def by_key(self, keys: Sequence[Key]) -> list[Event]:
        """The newest state of those of `keys` that are stored and not deleted."""
        return await self._ask(lambda connection: _by_key(connection, keys))

    async def _ask(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await transaction(self._pool, work)
        except psycopg.Error as error:  # a missing table or right: for an operator to mend
            raise DatabaseUnavailableError(first_line(error)) from error


async def _by_key(connection: Connection, keys: Sequence[Key]) -> list[Event]:
    if not keys:
        return []
    cursor = await connection.execute(_DATES, [list(column) for column in zip(*keys, strict=True)])
    found = await cursor.fetchall()
    if not found:
        return []
    columns = [list(column) for column in zip(*found, strict=True)]
    cursor = await connection.execute(BY_KEY, [*columns, min(columns[2]), max(columns[2])])
    return [_event(row) for row in await cursor.fetchall()]


def _event(row: tuple[Any, ...]) -> Event:
    """The event behind a row of `_COLUMNS`."""
    (channel_id, message_id, message_date, version, received_at, source, message_type, text, entities) = row[:9]
    (sender_id, reply_to, forward, grouped_id, topic_id, media, link_preview, edit_date) = row[9:]
    return Event(
        kind="edit" if edit_date else "new",
        channel_id=channel_id,
        message_id=message_id,
        version=version,
        received_at=received_at,
        message_date=message_date,
        edit_date=edit_date,
        content=Content(
            text=text,
            message_type=message_type if message_type in _TYPES else "other",  # imported rows know others
            entities=tuple(entities or ()),
            media=_media(media),
            link_preview=link_preview,
        ),
        sender_id=sender_id,
        reply_to=reply_to,
        forward=forward,
        grouped_id=grouped_id,
        topic_id=topic_id,
        source=source,
    )


def _media(stored: Any) -> Media | None:
    """None for what an import left in a shape of its own: it must not keep the message from its consumer."""
    try:
        return msgspec.convert(stored, Media | None)
    except msgspec.ValidationError:
        return None

"""The database sink: the only writer of ``telegram.messages`` and ``telegram.tombstones``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, first_line, transaction
from telegram_stack.events import Event
from telegram_stack.ids import row_id
from telegram_stack.sinks.base import RejectedEventsError, SinkUnavailableError, latest
from telegram_stack.spool import Channel, Entry

Channels = Callable[[], Mapping[int, Channel]]
FIRST = ""
"""How the tables name the account whose gateway has no name."""

# The parameters of telegram.bulk_upsert_messages (sql/0005_writing.sql), an array a column, in the order of `_row`.
# Sent binary (%b): psycopg takes eight times as long to write arrays as text.
_ARRAYS = (
    ("channel_ids", "bigint[]"),
    ("message_ids", "bigint[]"),
    ("message_dates", "timestamptz[]"),
    ("versions", "bigint[]"),
    ("received_ats", "timestamptz[]"),
    ("sources", "text[]"),
    ("message_types", "text[]"),
    ("texts", "text[]"),
    ("entities", "text[]::jsonb[]"),
    ("sender_ids", "bigint[]"),
    ("reply_tos", "text[]::jsonb[]"),
    ("forwards", "text[]::jsonb[]"),
    ("grouped_ids", "bigint[]"),
    ("topic_ids", "bigint[]"),
    ("medias", "text[]::jsonb[]"),
    ("link_previews", "text[]::jsonb[]"),
    ("edit_dates", "timestamptz[]"),
)
_LOCK_CHANNELS = "telegram.lock_channels(%b::bigint[])"
_UPSERT_MESSAGES = f"telegram.bulk_upsert_messages({', '.join(f'{name} => %b::{kind}' for name, kind in _ARRAYS)})"
_MARK_DELETED = "telegram.mark_messages_deleted(%b::bigint[], %b::bigint[], %b::timestamptz[])"

_CHANNEL_ARRAYS = "unnest(%b::bigint[], %b::text[], %b::text[], %b::bigint[], %b::integer[])"

_UPSERT_CHANNELS = f"""
INSERT INTO telegram.channels AS c (channel_id, title, username, last_message_id, last_pts, account)
SELECT e.*, %s::text FROM {_CHANNEL_ARRAYS} AS e
ON CONFLICT (channel_id) DO UPDATE SET
  title = coalesce(excluded.title, c.title), username = coalesce(excluded.username, c.username),
  last_message_id = greatest(excluded.last_message_id, c.last_message_id),
  last_pts = greatest(excluded.last_pts, c.last_pts), updated_at = now()
"""  # noqa: S608 - the constant above

_UPDATE_CHANNELS = f"""
UPDATE telegram.channels c SET
  title = coalesce(e.title, c.title), username = coalesce(e.username, c.username),
  last_message_id = greatest(e.last_message_id, c.last_message_id),
  last_pts = greatest(e.last_pts, c.last_pts), updated_at = now()
FROM {_CHANNEL_ARRAYS} AS e (channel_id, title, username, last_message_id, last_pts)
WHERE c.channel_id = e.channel_id
"""  # noqa: S608 - the constant above


# To a gateway a channel of another account is one that is not active.
_REGISTERED = """
SELECT channel_id,
  is_active AND CASE %(own)s WHEN '' THEN account <> ALL (%(others)s::text[]) ELSE account = %(own)s END
FROM telegram.channels
"""


class DatabaseSink:
    """Set-based upserts behind their channels' locks, so that writers cannot deadlock; one statement a batch."""

    name = "database"

    def __init__(
        self, pool: Pool, channels: Channels, *, register: bool, account: str = FIRST, others: Sequence[str] = ()
    ) -> None:
        """`channels` tells what is known of each channel; `register` adds those that the table does not have.

        They are added as those of `account`. The first one has those of everybody but `others`.
        """
        self._pool = pool
        self._channels = channels
        self._register = register
        self._account = account
        self._others = list(others)

    async def write(self, batch: Sequence[Entry]) -> None:
        """Store the batch; what the server refuses for its content is found by halving."""
        try:
            statement, parameters = self._statement(batch)

            async def work(connection: Connection) -> None:
                await connection.execute(statement, parameters)

            await transaction(self._pool, work, one_statement=True)
        except DatabaseUnavailableError as error:
            raise SinkUnavailableError(str(error)) from error
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded, ValueError) as error:
            if len(batch) == 1:
                raise RejectedEventsError(first_line(error), batch) from error
            await self._halve(batch)
        except psycopg.Error as error:  # no table yet, no right yet: the same again later
            raise SinkUnavailableError(first_line(error)) from error

    def _statement(self, batch: Sequence[Entry]) -> tuple[str, list[Any]]:
        """The statement that stores `batch`, and its parameters.

        PostgreSQL calls its functions in their order, and moves the channels, which nothing reads, after them.
        """
        messages = [entry.event for entry in latest([entry for entry in batch if entry.event.kind != "delete"])]
        deletions = [entry.event for entry in latest([entry for entry in batch if entry.event.kind == "delete"])]
        channels = self._channel_columns(batch)
        calls: list[tuple[str, list[Any]]] = []
        if deletions:  # every channel's lock first, or two writers may deadlock
            calls.append((_LOCK_CHANNELS, [channels[0]]))
        if messages:
            calls.append((_UPSERT_MESSAGES, _columns(messages)))
        if deletions:
            calls.append((_MARK_DELETED, _deletions(deletions)))
        moved, given = (_UPSERT_CHANNELS, [self._account]) if self._register else (_UPDATE_CHANNELS, [])
        parameters = [*given, *channels, *(value for _, values in calls for value in values)]
        return f"WITH moved AS ({moved}) SELECT {', '.join(call for call, _ in calls)}", parameters

    async def _halve(self, batch: Sequence[Entry]) -> None:
        middle = len(batch) // 2
        halves = batch[:middle], batch[middle:]
        try:
            await self.write(halves[0])
        except RejectedEventsError as error:
            raise RejectedEventsError(str(error), error.entries, [*error.remaining, *halves[1]]) from error
        except SinkUnavailableError as error:
            first = halves[0] if error.remaining is None else error.remaining
            raise SinkUnavailableError(str(error), [*first, *halves[1]]) from error
        try:
            await self.write(halves[1])
        except SinkUnavailableError as error:
            raise SinkUnavailableError(str(error), halves[1] if error.remaining is None else error.remaining) from error

    def _channel_columns(self, batch: Sequence[Entry]) -> list[list[Any]]:
        highest: dict[int, int] = {}
        for entry in batch:
            channel_id, message_id = entry.event.key
            highest[channel_id] = max(message_id, highest.get(channel_id, 0))
        known = self._channels()
        rows = []
        for channel_id in sorted(highest):
            channel = known.get(channel_id) or Channel(channel_id=channel_id)
            rows.append((channel_id, channel.title, channel.username, highest[channel_id], channel.pts))
        return [list(column) for column in zip(*rows, strict=True)]

    async def registered(self) -> dict[int, bool]:
        """Every channel of the table, and whether it is active and of this account. Raises SinkUnavailableError."""

        async def work(connection: Connection) -> dict[int, bool]:
            cursor = await connection.execute(_REGISTERED, {"own": self._account, "others": self._others})
            return dict(await cursor.fetchall())

        try:
            return await transaction(self._pool, work)
        except (DatabaseUnavailableError, psycopg.Error) as error:
            raise SinkUnavailableError(first_line(error)) from error

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()


def _columns(events: Sequence[Event]) -> list[list[Any]]:
    rows = [_row(event) for event in events]
    return [list(column) for column in zip(*rows, strict=True)]


def _row(event: Event) -> tuple[Any, ...]:
    """Raises ValueError, also its kind UnicodeEncodeError, for what no database can hold."""
    content = event.content
    if content is None or event.message_date is None:
        raise ValueError(f"event {event.key} of kind {event.kind} has no content or no date")
    row_id(event.channel_id, event.message_id)  # the key has to fit into the message's row id
    return (
        event.channel_id,
        event.message_id,
        event.message_date,
        event.version,
        event.received_at,
        event.source,
        content.message_type,
        content.text,
        _json(content.entities or None),
        event.sender_id,
        _json(event.reply_to),
        _json(event.forward),
        event.grouped_id,
        event.topic_id,
        _json(content.media),
        _json(content.link_preview),
        event.edit_date,
    )


def _json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _deletions(events: Sequence[Event]) -> list[list[Any]]:
    return [
        [event.channel_id for event in events],
        [event.message_id for event in events],
        [event.received_at for event in events],
    ]

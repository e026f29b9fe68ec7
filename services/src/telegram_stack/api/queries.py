"""What the API asks of the database about messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from telegram_stack.api.cursor import Place
from telegram_stack.api.shapes import Message, number_text
from telegram_stack.database import Connection


@dataclass
class MessageFilter:
    """Which messages; empty lists and None let all through. Times are on the moment of receipt."""

    channels: list[int] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    since: datetime | None = None
    until: datetime | None = None
    search: str | None = None
    include_deleted: bool = False


_STATUS = "CASE WHEN m.deleted_at IS NOT NULL THEN 'deleted' ELSE coalesce(p.status, 'received') END"
_STATE = """
LEFT JOIN telegram.processing p
  ON p.consumer = %(consumer)s AND p.channel_id = m.channel_id AND p.message_id = m.message_id
"""
_COLUMNS = f"""
  m.id, m.channel_id, m.message_id, m.topic_id, m.source, m.message_type, m.text, m.media, m.link_preview,
  {_STATUS} AS status, m.received_at, m.message_date, m.metadata, m.stored_at, m.edit_date, m.deleted_at, m.sender_id,
  m.grouped_id, m.entities, m.reply_to, m.forward, p.metadata AS processing, p.updated_at AS processed_at
"""
_SELECT = f"SELECT {_COLUMNS} FROM telegram.messages m {_STATE}"  # noqa: S608 - the constants above, here and below
# Storage by date is asked by date: the table of keys has the date of each message.
_ONE = f"""
{_SELECT} WHERE (m.channel_id, m.message_id, m.message_date) = (
  SELECT k.channel_id, k.message_id, k.message_date FROM telegram.message_keys k
  WHERE k.channel_id = %(channel)s AND k.message_id = %(message)s
)"""  # noqa: S608
_GIVEN = f"""
{_SELECT} WHERE (m.channel_id, m.message_id, m.message_date) IN (
  SELECT * FROM unnest(%(channels)b::bigint[], %(numbers)b::bigint[], %(dates)b::timestamptz[])
) AND m.message_date BETWEEN %(earliest)s AND %(latest)s
"""  # noqa: S608
_NUMBERED = (
    "(m.channel_id, m.message_id, m.message_date) IN (SELECT k.channel_id, k.message_id, k.message_date"
    " FROM telegram.message_keys k WHERE k.message_id = ANY(%(messages)s))"
)
_SEARCH = f"""
SELECT {_COLUMNS}
FROM telegram.search_messages(
  %(words)s, %(limit)s, %(only)s, coalesce(%(date)s::timestamptz, 'infinity'), %(message)s, %(channel)s
) m {_STATE}
ORDER BY m.message_date DESC, m.message_id DESC, m.channel_id DESC
"""  # noqa: S608
_UNPROCESSED = f"""
SELECT {_COLUMNS}
FROM telegram.get_unprocessed_messages(%(consumer)s, %(limit)s, %(channel)s, %(statuses)s) m {_STATE}
ORDER BY m.message_date, m.message_id
"""  # noqa: S608


async def list_messages(
    connection: Connection, consumer: str, wanted: MessageFilter, *, ascending: bool, limit: int, offset: int
) -> tuple[list[Message], int]:
    """One page, by Telegram's date, and how many there are in all."""
    where, values = _where(wanted)
    values |= {"consumer": consumer, "limit": limit, "offset": offset}
    page = sql.SQL(_SELECT + "WHERE {where} ORDER BY {order} LIMIT %(limit)s OFFSET %(offset)s").format(
        where=where, order=_order(ascending=ascending)
    )
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(page, values)
        rows = [_message(row) for row in await cursor.fetchall()]
        if offset == 0 and len(rows) < limit:
            return rows, len(rows)
        await cursor.execute(*counting(consumer, wanted))
        total = await cursor.fetchone()
    return rows, total["total"] if total else 0


def counting(consumer: str, wanted: MessageFilter) -> tuple[sql.Composed, dict[str, Any]]:
    """The statement that counts the messages, as `total`, and its values.

    It reads the keys only, unless there is more to ask: they are an index of numbers, messages are pages of text.
    """
    where, values = _where(wanted)
    by_content = wanted.sources or wanted.since or wanted.until or wanted.search
    table = "messages" if by_content else "message_keys"
    state = _STATE if wanted.statuses else ""
    counted = f"SELECT count(*) AS total FROM telegram.{table} m {state} WHERE {{}}"  # noqa: S608 - the words above
    return sql.SQL(counted).format(where), values | {"consumer": consumer}


async def list_behind(
    connection: Connection, consumer: str, wanted: MessageFilter, place: Place | None, *, ascending: bool, limit: int
) -> list[Message]:
    """At most `limit` messages behind `place`, or from the beginning, by Telegram's date."""
    where, values = _where(wanted)
    if place is not None:
        sign = ">" if ascending else "<"
        # The date by itself lets the planner leave out the storage before it.
        where += sql.SQL(
            f" AND m.message_date {sign}= %(date)s"
            f" AND (m.message_date, m.message_id, m.channel_id) {sign} (%(date)s, %(message)s, %(channel)s)"
        )
        values |= {"date": place.date, "message": place.message_id, "channel": place.channel_id}
    page = sql.SQL(_SELECT + "WHERE {where} ORDER BY {order} LIMIT %(limit)s").format(
        where=where, order=_order(ascending=ascending)
    )
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(page, values | {"consumer": consumer, "limit": limit})
        return [_message(row) for row in await cursor.fetchall()]


def _order(*, ascending: bool) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier("m", column), sql.SQL("ASC" if ascending else "DESC"))
        for column in ("message_date", "message_id", "channel_id")
    )


async def search(
    connection: Connection, consumer: str, words: str, *, channel: int | None, place: Place | None, limit: int
) -> list[Message]:
    """At most `limit` messages with these words behind `place`, or from the newest on."""
    values = {
        "consumer": consumer,
        "words": words,
        "only": channel,
        "limit": limit,
        "date": place.date if place else None,
        "message": place.message_id if place else 0,
        "channel": place.channel_id if place else 0,
    }
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SEARCH, values)
        return [_message(row) for row in await cursor.fetchall()]


def _where(wanted: MessageFilter) -> tuple[sql.Composed, dict[str, Any]]:
    conditions: dict[str, tuple[str, Any]] = {
        # Rows of several channels have to be sorted; those of one stand in their order.
        "only": ("m.channel_id = %(only)s", wanted.channels[0] if len(wanted.channels) == 1 else None),
        "channels": ("m.channel_id = ANY(%(channels)s)", wanted.channels if len(wanted.channels) > 1 else None),
        "messages": (_NUMBERED, wanted.messages),
        "statuses": (f"{_STATUS} = ANY(%(statuses)s)", wanted.statuses),
        "sources": ("m.source = ANY(%(sources)s)", wanted.sources),
        "since": ("m.received_at >= %(since)s", wanted.since),
        "until": ("m.received_at <= %(until)s", wanted.until),
        "search": ("m.text ILIKE %(search)s", _pattern(wanted.search)),
    }
    given = {name: pair for name, pair in conditions.items() if pair[1]}
    parts = [sql.SQL(text) for text, _ in given.values()]
    if not (wanted.include_deleted or "deleted" in wanted.statuses):
        parts.append(sql.SQL("m.deleted_at IS NULL"))
    return sql.SQL(" AND ").join(parts or [sql.SQL("true")]), {name: value for name, (_, value) in given.items()}


def _pattern(search: str | None) -> str | None:
    if not search:
        return None
    for character in "\\%_":
        search = search.replace(character, f"\\{character}")
    return f"%{search}%"


async def get_message(connection: Connection, consumer: str, key: tuple[int, int]) -> Message | None:
    """The message of that channel and number, deleted or not."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ONE, {"consumer": consumer, "channel": key[0], "message": key[1]})
        row = await cursor.fetchone()
    return _message(row) if row else None


async def get_messages(
    connection: Connection, consumer: str, keys: Sequence[tuple[int, int, datetime]]
) -> dict[tuple[int, int], Message]:
    """Those of the messages, given by channel, number and date, that are stored."""
    channels, numbers, dates = (list(column) for column in zip(*keys, strict=True))
    values = {
        "consumer": consumer,
        "channels": channels,
        "numbers": numbers,
        "dates": dates,
        "earliest": min(dates),
        "latest": max(dates),
    }
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_GIVEN, values)
        rows = await cursor.fetchall()
    return {(row["channel_id"], row["message_id"]): _message(row) for row in rows}


async def find_legacy_ids(connection: Connection, ids: list[str]) -> dict[str, tuple[int, int]]:
    """Channel and number of the messages that had those row ids in the legacy tables."""
    cursor = await connection.execute(
        "SELECT legacy_id, channel_id, message_id FROM telegram.legacy_ids WHERE legacy_id = ANY(%s)", [ids]
    )
    return {legacy_id: (channel, message) for legacy_id, channel, message in await cursor.fetchall()}


async def unprocessed(
    connection: Connection, consumer: str, channel: int, statuses: list[str], limit: int
) -> list[Message]:
    """What `consumer` has still to do in `channel`, by its state for that consumer."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        values = {"consumer": consumer, "limit": limit, "channel": channel, "statuses": statuses}
        await cursor.execute(_UNPROCESSED, values)
        return [_message(row) for row in await cursor.fetchall()]


async def find_keys(connection: Connection, ids: list[int], channel: int | None) -> list[tuple[int, int]]:
    """Channel and number of the messages with those Telegram ids, in `channel` or anywhere."""
    cursor = await connection.execute(
        "SELECT channel_id, message_id FROM telegram.message_keys"
        " WHERE message_id = ANY(%(ids)s) AND (%(channel)s::bigint IS NULL OR channel_id = %(channel)s) ORDER BY 1, 2",
        {"ids": ids, "channel": channel},
    )
    return await cursor.fetchall()


async def mark_processed(connection: Connection, consumer: str, keys: list[tuple[int, int]]) -> int:
    """Mark them as published by `consumer`; how many were not so already."""
    columns = [[channel for channel, _ in keys], [message for _, message in keys]]
    cursor = await connection.execute(
        "SELECT telegram.mark_batch_as_processed(%s, %b::bigint[], %b::bigint[])", [consumer, *columns]
    )
    marked = await cursor.fetchone()
    return int(marked[0]) if marked else 0


async def set_status(
    connection: Connection, consumer: str, key: tuple[int, int], status: str, note: dict[str, str]
) -> bool:
    """Set the state of a message for `consumer`, whatever it was; False when there is no such message."""
    cursor = await connection.execute(
        "SELECT telegram.upsert_message_status(%s, %s, %s, %s, %s)", [consumer, *key, status, Jsonb(note)]
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def delete_message(connection: Connection, consumer: str, key: tuple[int, int], note: dict[str, str]) -> bool:
    """Delete a message softly and keep `note` with its state; False when there is no such message."""
    message = await get_message(connection, consumer, key)
    if message is None:
        return False
    channel, number = key
    await connection.execute("SELECT telegram.mark_messages_deleted(%s, %s, ARRAY[now()])", [[channel], [number]])
    if note and message.deleted_at is None:
        await set_status(connection, consumer, key, message.status, note)
    return True


def _message(row: dict[str, Any]) -> Message:
    media, status, processed_at = row["media"], row["status"], row["processed_at"]
    metadata = {**row["metadata"], **(row["processing"] or {})}
    if row["link_preview"]:
        metadata["linkPreview"] = row["link_preview"]
    return Message(
        id=row["id"],
        channel_id=str(row["channel_id"]),
        message_id=str(row["message_id"]),
        thread_id=number_text(row["topic_id"]),
        source=row["source"],
        message_type=row["message_type"],
        text=row["text"],
        caption=row["text"] if media else None,
        media_type=media.get("type") if media else None,
        media_refs=references(media) if media else [],
        status=status,
        received_at=row["received_at"],
        telegram_date=row["message_date"],
        published_at=processed_at if status == "published" else None,
        failed_at=processed_at if status == "failed" else None,
        queued_at=None,
        reprocess_requested_at=processed_at if status == "reprocess_pending" else None,
        reprocessed_at=processed_at if status == "reprocessed" else None,
        metadata=metadata,
        created_at=row["stored_at"],
        updated_at=max(filter(None, (row["stored_at"], processed_at, row["deleted_at"]))),
        deleted_at=row["deleted_at"],
        edit_date=row["edit_date"],
        sender_id=number_text(row["sender_id"]),
        grouped_id=number_text(row["grouped_id"]),
        entities=row["entities"] or [],
        reply_to=row["reply_to"],
        forward=row["forward"],
    )


def references(media: dict[str, Any]) -> list[dict[str, Any]]:
    """A row that came from the legacy tables keeps its own."""
    own = media.get("refs")
    return own if isinstance(own, list) else [_media(media)]


def _media(media: dict[str, Any]) -> dict[str, Any]:
    """In camelCase, without the access hash: it belongs to the account. The id is a string: it has 64 bits."""
    names = {name: name.split("_")[0] + "".join(part.title() for part in name.split("_")[1:]) for name in media}
    shown = {names[name]: value for name, value in media.items() if name != "access_hash"}
    return shown | {"id": number_text(media.get("id"))}

"""What has changed, in the order of its transactions: the source of live streams.

A place in the feed is a snapshot of the database. What a snapshot did not show and a later one does is what came
between them, whole and once, in whatever order transactions ended. A client that brings its place goes on just there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from telegram_stack.api import queries
from telegram_stack.api.params import Reader
from telegram_stack.api.shapes import Message
from telegram_stack.database import Connection

Key = tuple[int, int, int]
"""Transaction, channel and number: the order within one step."""

_NUMBER = "(?:0|[1-9][0-9]{0,18})"
_SNAPSHOT = f"{_NUMBER}:{_NUMBER}:(?:{_NUMBER}(?:,{_NUMBER}){{0,200}})?"
_PLACE = re.compile(f"({_SNAPSHOT})(?:;({_SNAPSHOT});({_NUMBER}),(-?{_NUMBER}),({_NUMBER}))?")

_NOW = "SELECT pg_current_snapshot()::text"

# Of what a client brings nothing is believed: a place that is still to come is from another server.
_KNOWN = """
SELECT pg_snapshot_xmax(%(begin)s::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()), pg_current_snapshot()::text
"""

_KEYS = """
SELECT k.arrival::text::bigint, k.channel_id, k.message_id, k.message_date
FROM telegram.message_keys AS k
WHERE k.arrival >= pg_snapshot_xmin(%(begin)s::pg_snapshot)
  AND NOT pg_visible_in_snapshot(k.arrival, %(begin)s::pg_snapshot)
  AND pg_visible_in_snapshot(k.arrival, %(end)s::pg_snapshot)
  AND (k.arrival, k.channel_id, k.message_id) > (%(arrival)s::text::xid8, %(channel)s::bigint, %(message)s::bigint)
  AND (%(channels)s::bigint[] IS NULL OR k.channel_id = ANY (%(channels)s::bigint[]))
ORDER BY k.arrival, k.channel_id, k.message_id
LIMIT %(limit)s
"""


class Place(msgspec.Struct, frozen=True):
    """`begin` and nothing else: everything that it shows was seen. Else all of the step to `end` up to `last`."""

    begin: str
    end: str = ""
    last: Key | None = None

    def __str__(self) -> str:
        """As clients get it."""
        return self.begin if self.last is None else f"{self.begin};{self.end};{','.join(map(str, self.last))}"


def _read(text: str) -> Place:
    found = _PLACE.fullmatch(text)
    numbers = [int(part) for part in re.findall("[0-9]+", text)]
    if found is None or any(number >= 1 << 63 for number in numbers) or not _ordered(found[1]):
        raise ValueError("must be the id of an event of this stream")
    if found[2] is None:
        return Place(found[1])
    if not _ordered(found[2]):
        raise ValueError("must be the id of an event of this stream")
    return Place(found[1], found[2], (int(found[3]), int(found[4]), int(found[5])))


def _ordered(snapshot: str) -> bool:
    """Whether PostgreSQL takes it for a snapshot."""
    low, high, running = snapshot.split(":")
    numbers = [int(part) for part in running.split(",") if part]
    return (
        0 < int(low) <= int(high)
        and numbers == sorted(set(numbers))
        and all(int(low) <= number < int(high) for number in numbers)
    )


place = Reader(_read, {"type": "string", "maxLength": 8000})


class Step(msgspec.Struct, frozen=True):
    """Messages in the order of the feed, each with the place behind it."""

    messages: Sequence[tuple[Place, Message]]
    place: Place
    """Behind all of them."""
    complete: bool
    """Whether that is `end` itself: nothing more stood before it."""


async def now(connection: Connection) -> str:
    """The snapshot of this moment."""
    row = await (await connection.execute(_NOW)).fetchone()
    return str(row[0]) if row else ""


async def is_known(connection: Connection, begin: Place) -> bool:
    """Whether this server has been where `begin` is."""
    row = await (await connection.execute(_KNOWN, {"begin": begin.end or begin.begin})).fetchone()
    return bool(row and row[0])


async def step(
    connection: Connection, consumer: str, begin: Place, end: str, *, channels: Sequence[int], limit: int
) -> Step:
    """At most `limit` changes of `channels` (none: of all) between `begin` and snapshot `end`.

    A step that was begun is finished to its own end first.
    """
    until = begin.end or end
    arrival, channel, message = begin.last or (0, -(1 << 63), 0)
    values: dict[str, Any] = {
        "begin": begin.begin,
        "end": until,
        "arrival": str(arrival),
        "channel": channel,
        "message": message,
        "channels": list(channels) or None,
        "limit": limit,
    }
    async with connection.cursor() as cursor:
        await cursor.execute(_KEYS, values)
        keys = await cursor.fetchall()
    whole = len(keys) < limit
    found = await queries.get_messages(connection, consumer, [row[1:] for row in keys]) if keys else {}
    messages = []
    for position, (transaction, channel_id, message_id, _) in enumerate(keys, start=1):
        last = Place(begin.begin, until, (transaction, channel_id, message_id))
        behind = Place(until) if whole and position == len(keys) else last
        if (channel_id, message_id) in found:  # retention may have taken it
            messages.append((behind, found[channel_id, message_id]))
    last_row = keys[-1] if keys else None
    place_behind = Place(until) if whole or last_row is None else Place(begin.begin, until, tuple(last_row[:3]))
    return Step(messages, place_behind, whole and until == end)

"""What the database has of a channel, for one of which the spool knows nothing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import psycopg

from telegram_stack.database import Connection, DatabaseUnavailableError, Pool, first_line, transaction
from telegram_stack.telegram.stored import Known, Span, StoreAwayError

T = TypeVar("T")

_REST_SECONDS = 2.0

# By the key of telegram.messages, from either end: numbers rise with the dates.
SPAN = """
SELECT
  (SELECT message_id FROM telegram.messages WHERE channel_id = %(channel)s
   ORDER BY message_date, message_id LIMIT 1),
  (SELECT message_id FROM telegram.messages WHERE channel_id = %(channel)s
     AND (%(below)s::bigint IS NULL OR message_id < %(below)s)
   ORDER BY message_date DESC, message_id DESC LIMIT 1)
"""

# A deletion may be there without its message.
KEYS = """
SELECT k.message_id, k.message_date, EXISTS (
  SELECT FROM telegram.tombstones AS t WHERE t.channel_id = k.channel_id AND t.message_id = k.message_id
)
FROM telegram.message_keys AS k
WHERE k.channel_id = %(channel)s AND k.message_id BETWEEN %(first)s AND %(last)s
UNION ALL
SELECT t.message_id, NULL, true FROM telegram.tombstones AS t
WHERE t.channel_id = %(channel)s AND t.message_id BETWEEN %(first)s AND %(last)s AND NOT EXISTS (
  SELECT FROM telegram.message_keys AS k WHERE k.channel_id = t.channel_id AND k.message_id = t.message_id
)
"""

# A version with the mark of an edit and no date of one is that of a message taken over: see sql/0015_legacy_rows.sql.
# A statement of its own: with the dates most of the storage is not even looked at.
ADOPTED = """
SELECT message_id, text FROM telegram.messages
WHERE channel_id = %(channel)s AND message_date BETWEEN %(earliest)s AND %(latest)s
  AND message_id BETWEEN %(first)s AND %(last)s AND edit_date IS NULL AND version & 524288 <> 0
"""


class StoredInDatabase:
    """Asks for each channel once; while the database is away, it is asked every 2 seconds at most."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._failed = ""
        self._not_before = 0.0

    async def span(self, channel_id: int, below: int | None = None) -> Span | None:
        """What there is of the channel. Raises StoreAwayError."""

        async def work(connection: Connection) -> Span | None:
            cursor = await connection.execute(SPAN, {"channel": channel_id, "below": below})
            oldest, newest = await cursor.fetchone() or (None, None)
            return None if oldest is None or newest is None else Span(oldest, newest)

        return await self._ask(work)

    async def messages(self, channel_id: int, first: int, last: int) -> Mapping[int, Known]:
        """The messages from `first` to `last`. Raises StoreAwayError."""

        async def work(connection: Connection) -> Mapping[int, Known]:
            numbers = {"channel": channel_id, "first": first, "last": last}
            keys = await (await connection.execute(KEYS, numbers)).fetchall()
            dates = sorted(date for _, date, _ in keys if date is not None)
            texts: dict[int, str] = {}
            if dates:
                period = {"earliest": dates[0], "latest": dates[-1]}
                texts = dict(await (await connection.execute(ADOPTED, {**numbers, **period})).fetchall())
            return {number: Known(deleted, texts.get(number)) for number, _, deleted in keys}

        return await self._ask(work)

    async def _ask(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        if self._clock() < self._not_before:  # or channel after channel would wait for the same answer
            raise StoreAwayError(self._failed)
        try:
            return await transaction(self._pool, work)
        except (DatabaseUnavailableError, psycopg.Error) as error:  # no table yet, no right yet: the same again later
            self._failed, self._not_before = first_line(error), self._clock() + _REST_SECONDS
            raise StoreAwayError(self._failed) from error

"""The legacy system's tables and statements, in the shapes that are found: what ours is compared with.

Shape A is the hypertable by `created_at` in chunks of a day (here daily partitions, which an engine without TimescaleDB
has too), shape B the plain table that the legacy gateway makes itself. Both are written and updated row by row, the
message named by its number alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg

from benchmarks.database.data import DAYS, Message
from benchmarks.database.timing import Timings, paced

_COMMON = """
  thread_id bigint, source text NOT NULL DEFAULT 'unknown', message_type text NOT NULL DEFAULT 'channel_post',
  text text, caption text, media_type text, media_refs jsonb NOT NULL DEFAULT '[]',
  status text NOT NULL DEFAULT 'received',
  received_at timestamptz NOT NULL DEFAULT now(), telegram_date timestamptz, published_at timestamptz,
  failed_at timestamptz, queued_at timestamptz, reprocess_requested_at timestamptz, reprocessed_at timestamptz,
  metadata jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz
"""
COLUMNS = {
    "A": f"""
  id uuid NOT NULL DEFAULT gen_random_uuid(), channel_id text NOT NULL, message_id bigint NOT NULL, {_COMMON},
  PRIMARY KEY (id, created_at), UNIQUE (channel_id, message_id, created_at)
""",
    "B": f"id bigserial PRIMARY KEY, channel_id bigint NOT NULL, message_id text NOT NULL, {_COMMON}",
    "C": f"id bigserial PRIMARY KEY, channel_id bigint NOT NULL, message_id bigint NOT NULL, {_COMMON}",
}
"""Of the three shapes, with their keys; A is a table partitioned by `created_at`. Here A and B are measured."""

_TABLES = {
    "A": f"""
CREATE TABLE legacy.messages_a ({COLUMNS["A"]}) PARTITION BY RANGE (created_at);
CREATE FUNCTION legacy.touch() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN NEW.updated_at = now(); RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON legacy.messages_a FOR EACH ROW EXECUTE FUNCTION legacy.touch()
""",
    "B": f"CREATE TABLE legacy.messages_b ({COLUMNS['B']})",
}
_DONE = json.dumps({"processed_by": "tp-capital", "telegram": {"messageType": "channel_post"}})
_NEW = json.dumps({"telegram": {"messageType": "channel_post"}})


class Legacy:
    """One of the two shapes over one connection, each statement its own transaction."""

    def __init__(self, connection: psycopg.Connection[Any], shape: str) -> None:
        self._connection = connection
        self.shape = shape
        self._table = f"legacy.messages_{shape.lower()}"
        # The two shapes type channel and message the other way round.
        self._key: tuple[type, type] = (str, int) if shape == "A" else (int, str)

    def create(self, end: datetime) -> None:
        """Make the empty table."""
        self._connection.execute("CREATE SCHEMA IF NOT EXISTS legacy")
        for statement in _TABLES[self.shape].split(";\n"):
            self._connection.execute(statement.encode())
        if self.shape == "A":
            for day in range(-1, DAYS + 2):
                start = (end - timedelta(days=day)).date()
                partition = (
                    f"CREATE TABLE {self._table}_{start:%Y%m%d} PARTITION OF {self._table}"
                    f" FOR VALUES FROM ('{start} 00:00+00') TO ('{start + timedelta(days=1)} 00:00+00')"
                )
                self._connection.execute(partition.encode())

    def fill(self, messages: Iterable[Message], processed_before: datetime) -> None:
        """Copy everything in, which the legacy system could not: its own way would take an hour."""
        columns = "channel_id, message_id, source, text, status, received_at, telegram_date, created_at, metadata"
        channel, number = self._key
        with self._connection.cursor().copy(f"COPY {self._table} ({columns}) FROM STDIN".encode()) as copy:
            for row in messages:
                done = row.date < processed_before
                status, metadata = ("published", _DONE) if done else ("received", _NEW)
                key = (channel(row.channel_id), number(row.message_id))
                copy.write_row((*key, "user_client", row.text, status, row.date, row.date, row.date, metadata))
        self._connection.execute(f"VACUUM (ANALYZE) {self._table}".encode())
        self._connection.execute("CHECKPOINT")

    def _fetch(self, query: str, values: list[Any]) -> list[Any]:
        return self._connection.execute(query.encode(), values).fetchall()

    def insert(self, messages: Iterable[Message]) -> Timings:
        """Insert row by row, as the legacy gateway does; the time of each."""
        channel, number = self._key
        query = (
            f"INSERT INTO {self._table} (channel_id, message_id, source, text, status, telegram_date, metadata)"  # noqa: S608
            " VALUES (%s, %s, 'user_client', %s, 'received', %s, %s) RETURNING id"
        )
        timings = Timings()
        for row in messages:
            values = [channel(row.channel_id), number(row.message_id), row.text, row.date, _NEW]
            timings.take(partial(self._fetch, query, values))
        return timings

    def poll(self, count: int) -> Timings:
        """Take 100 unprocessed."""
        query = (
            f"SELECT id, channel_id, message_id, text, telegram_date, metadata FROM {self._table}"  # noqa: S608
            " WHERE status = 'received' AND deleted_at IS NULL"
            " AND coalesce(metadata ->> 'processed_by', '') <> 'tp-capital' ORDER BY received_at LIMIT 100"
        )
        return paced(lambda: self._connection.execute(query.encode()).fetchall() for _ in range(count))

    def latest(self, channels: list[int], count: int) -> Timings:
        """The latest 50 messages of a channel, each time another."""
        query = (
            f"SELECT id, channel_id, message_id, text, telegram_date, metadata FROM {self._table}"  # noqa: S608
            " WHERE channel_id = %s AND deleted_at IS NULL ORDER BY received_at DESC LIMIT 50"
        )
        chosen = random.Random(1).choices(channels, k=count)  # noqa: S311 - repeatable, no secret
        key = self._key[0]
        return paced(partial(self._fetch, query, [key(channel)]) for channel in chosen)

    def mark(self, messages: Iterator[Message], count: int) -> Timings:
        """Update the status of one message, `count` times."""
        query = (
            f"UPDATE {self._table} SET status = 'published', published_at = now(), metadata = metadata || %s::jsonb"  # noqa: S608
            " WHERE message_id = %s"
        )
        key = self._key[1]
        rows = [next(messages) for _ in range(count)]
        return paced(partial(self._connection.execute, query.encode(), [_DONE, key(row.message_id)]) for row in rows)

    def hourly(self, count: int) -> Timings:
        """Counts by hour of seven days, all channels."""
        query = (
            f"SELECT date_trunc('hour', received_at), count(*) FROM {self._table}"  # noqa: S608
            " WHERE received_at >= now() - interval '7 days' GROUP BY 1 ORDER BY 1"
        )
        return paced(lambda: self._connection.execute(query.encode()).fetchall() for _ in range(count))

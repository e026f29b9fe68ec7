"""The workloads on the schema of ``sql/``, by its own functions, as the services use them."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, LiteralString, TypeVar

import psycopg

from benchmarks.database.data import Message
from benchmarks.database.timing import PAUSE, Timings, paced

Row = TypeVar("Row")

BATCH = 500
CONSUMER = "signals"

_UPSERT = """
SELECT telegram.bulk_upsert_messages(
  %b::bigint[], %b::bigint[], %b::timestamptz[], %b::bigint[], %b::timestamptz[], %b::text[], %b::text[], %b::text[]
)
"""
_LATEST = """
SELECT id, channel_id, message_id, message_date, text, media, edit_date FROM telegram.messages
WHERE channel_id = %s ORDER BY message_date DESC, message_id DESC LIMIT 50
"""
_HOURLY = """
SELECT bucket, sum(messages) FROM telegram.messages_hourly
WHERE bucket >= date_trunc('hour', now() - interval '7 days') GROUP BY bucket ORDER BY bucket
"""
_MARK = "SELECT telegram.mark_batch_as_processed(%s, %s::bigint[], %s::bigint[])"


class Ours:
    """One connection, each statement its own transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def load(self, messages: Iterable[Message]) -> Timings:
        """Upsert all in batches; the time of each batch. Making up the messages is not counted."""
        timings = Timings()
        for rows in _batches(messages, BATCH):
            arguments = [
                [row.channel_id for row in rows],
                [row.message_id for row in rows],
                [row.date for row in rows],
                [int(row.date.timestamp()) << 20 for row in rows],
                [row.date for row in rows],
                ["user_client"] * len(rows),
                [row.kind for row in rows],
                [row.text for row in rows],
            ]
            timings.take(partial(self._connection.execute, _UPSERT, arguments))
        return timings

    def settle(self, before: datetime) -> None:
        """Let the consumer have done what came before, and the server what it does by itself in the course of time."""
        self._connection.execute(
            "INSERT INTO telegram.processing (consumer, channel_id, message_id, version, status)"
            " SELECT %s, channel_id, message_id, version, 'published' FROM telegram.message_keys"
            " WHERE message_date < %s",
            [CONSUMER, before],
        )
        self._connection.execute("VACUUM (ANALYZE)")
        self._connection.execute("SELECT telegram.maintain_rollups()")
        self._connection.execute("CHECKPOINT")

    def poll(self, count: int) -> tuple[Timings, Timings]:
        """Take 100 unprocessed and mark them, `count` times: times of taking and of marking."""
        polls, marks = Timings(), Timings()
        for _ in range(count):
            time.sleep(PAUSE)
            rows = polls.take(self._unprocessed)
            assert len(rows) == 100
            arguments = [CONSUMER, [row[0] for row in rows], [row[1] for row in rows]]
            marks.take(partial(self._connection.execute, _MARK, arguments))
        return polls, marks

    def _unprocessed(self) -> list[Any]:
        columns = "channel_id, message_id, message_date, text, version"
        query = f"SELECT {columns} FROM telegram.get_unprocessed_messages(%s, 100)"  # noqa: S608 - the line above
        return self._connection.execute(query.encode(), [CONSUMER]).fetchall()

    def _fetch(self, query: LiteralString, values: list[Any]) -> list[Any]:
        return self._connection.execute(query, values).fetchall()

    def latest(self, channels: list[int], count: int) -> Timings:
        """The latest 50 messages of a channel, each time another."""
        chosen = random.Random(1).choices(channels, k=count)  # noqa: S311 - repeatable, no secret
        return paced(partial(self._fetch, _LATEST, [channel]) for channel in chosen)

    def mark(self, count: int) -> Timings:
        """Mark 500 as processed in one call, `count` times, by a consumer that has done nothing yet."""
        keys = self._connection.execute(
            "SELECT channel_id, message_id FROM telegram.message_keys ORDER BY message_date DESC LIMIT %s",
            [BATCH * count],
        ).fetchall()
        calls = [[f"{CONSUMER}-2", [c for c, _ in batch], [m for _, m in batch]] for batch in _batches(keys, BATCH)]
        return paced(partial(self._connection.execute, _MARK, call) for call in calls)

    def hourly(self, count: int) -> Timings:
        """Counts by hour of seven days, all channels."""
        return paced(lambda: self._connection.execute(_HOURLY).fetchall() for _ in range(count))


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, size)):
        yield batch

"""The reading side of the spool: queries in a thread of their own, beside the writer."""

from __future__ import annotations

import asyncio
import bisect
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from telegram_stack.events import Event, decode
from telegram_stack.spool.file import connect
from telegram_stack.spool.records import Entry

T = TypeVar("T")

_RETRY_SECONDS = 0.5
_TAIL = 2048
"""Entries that are kept as they were committed or read, for the next sink that asks for them."""


class Reader:
    """Methods are called in the event loop and wait for their turn in the reader's thread."""

    def __init__(self, path: Path) -> None:
        """Raises sqlite3.Error."""
        self._connection = connect(path)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")
        self._tail: list[Entry] = []  # every entry behind `_before`, up to its last
        self._before = 0

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def close(self) -> None:
        """Wait for what runs, and close the file."""
        self._executor.shutdown()
        self._connection.close()

    async def entries(self, position: int, limit: int) -> list[Entry]:
        """At most `limit` entries behind `position`, in order."""
        if self._tail and self._before <= position < self._tail[-1].seq:
            first = bisect.bisect_right(self._tail, position, key=lambda entry: entry.seq)
            return self._tail[first : first + limit]
        entries = await self._run(self._entries, position, limit)
        self._keep(position, entries)
        return entries

    def keep(self, entries: Sequence[Entry]) -> None:
        """`entries` were committed one behind the other: who asks for them need not wait for the file."""
        if entries:
            self._keep(entries[0].seq - 1, entries)

    def _keep(self, position: int, entries: Sequence[Entry]) -> None:
        """`entries` follow `position`; the newest are what the sinks want next."""
        end = self._tail[-1].seq if self._tail else self._before
        if position < end or not entries:
            return
        if position > end:
            self._tail, self._before = [], position
        self._tail.extend(entries)
        if surplus := max(0, len(self._tail) - _TAIL):
            self._before = self._tail[surplus - 1].seq
            del self._tail[:surplus]

    def _entries(self, position: int, limit: int) -> list[Entry]:
        rows = self._connection.execute(
            "SELECT seq, body, spooled_at FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (position, limit)
        )
        return [Entry(seq, decode(body), body, spooled_at) for seq, body, spooled_at in rows]

    async def remembered(self, channel_id: int, first: int, last: int) -> set[int]:
        """The messages from `first` to `last` that were not deleted, as far as the spool still has them."""
        return await self._run(self._remembered, channel_id, first, last)

    def _remembered(self, channel_id: int, first: int, last: int) -> set[int]:
        query = "SELECT message_id, body FROM events WHERE channel_id = ? AND message_id BETWEEN ? AND ?"
        newest: dict[int, Event] = {}
        for message_id, body in self._connection.execute(query, (channel_id, first, last)):
            event = decode(body)
            if message_id not in newest or event.version > newest[message_id].version:
                newest[message_id] = event
        return {message_id for message_id, event in newest.items() if event.kind != "delete"}

    async def first_new(self, channel_id: int) -> int | None:
        """The lowest message of the channel that came as a new one, as far as the spool still has it."""
        return await self._run(self._first_new, channel_id)

    def _first_new(self, channel_id: int) -> int | None:
        query = "SELECT message_id, body FROM events WHERE channel_id = ? ORDER BY message_id"
        rows = self._connection.execute(query, (channel_id,))
        return next((int(message_id) for message_id, body in rows if decode(body).kind == "new"), None)

    async def spooled_after(self, position: int) -> float | None:
        """When the first entry behind `position` was spooled, in seconds since the epoch; None without any."""
        query = "SELECT spooled_at FROM events WHERE seq > ? ORDER BY seq LIMIT 1"
        row = await self._run(lambda: self._connection.execute(query, (position,)).fetchone())
        return None if row is None else float(row[0])

    # What others write, seldom

    async def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Wait until it is on disk."""
        while True:
            try:
                await self._run(self._execute, statement, rows)
            except sqlite3.OperationalError:  # a full disk: the writer tells it, and makes room
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def _execute(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        # Closed in this thread: the loop's would reset a statement that the next call has begun to use.
        self._connection.executemany(statement, rows).close()

    async def note(self, name: str, body: bytes) -> None:
        """Keep `body` under `name`, and wait until it is on disk."""
        await self._write("INSERT OR REPLACE INTO notes VALUES (?, ?)", [(name, body)])

    async def noted(self, name: str) -> bytes | None:
        """What is kept under `name`."""
        query = "SELECT body FROM notes WHERE name = ?"
        row = await self._run(lambda: self._connection.execute(query, (name,)).fetchone())
        return None if row is None else bytes(row[0])

    async def quarantine(self, sink: str, entries: Iterable[Entry], reason: str) -> None:
        """Keep `entries` aside for `sink`, and wait until they are on disk."""
        rows = [(sink, entry.seq, reason, time.time(), entry.body) for entry in entries]
        await self._write("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)", rows)

    async def quarantine_entries(self, sink: str, position: int, limit: int) -> list[Entry]:
        """At most `limit` of what `sink` has refused behind entry `position`, in order."""
        return await self._run(self._quarantine_entries, sink, position, limit)

    def _quarantine_entries(self, sink: str, position: int, limit: int) -> list[Entry]:
        query = "SELECT seq, body, at FROM quarantine WHERE sink = ? AND seq > ? ORDER BY seq LIMIT ?"
        rows = self._connection.execute(query, (sink, position, limit))
        return [Entry(seq, decode(body), body, at) for seq, body, at in rows]

    async def release(self, sink: str, seqs: Iterable[int]) -> None:
        """Forget that `sink` has refused `seqs`."""
        rows = [(sink, seq) for seq in seqs]
        await self._write("DELETE FROM quarantine WHERE sink = ? AND seq = ?", rows)

    async def quarantined(self) -> dict[str, int]:
        """How many events each sink has refused for good."""
        query = "SELECT sink, count(*) FROM quarantine GROUP BY sink"
        return await self._run(lambda: dict(self._connection.execute(query).fetchall()))

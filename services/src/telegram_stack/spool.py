"""The spool: every event is on disk here before anything else happens to it.

SQLite in WAL mode with ``synchronous=FULL``. One thread owns the writing connection and commits in groups; sinks read
behind cursors of their own. An event and the progress of its channel commit together, so that after a crash the
channel's history is read again from exactly what is missing here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from telegram_stack.events import SCHEMA_VERSION, Event, decode, encode
from telegram_stack.lingering import Linger

log = logging.getLogger(__name__)

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id INTEGER NOT NULL,
  message_id INTEGER NOT NULL,
  version INTEGER NOT NULL,
  spooled_at REAL NOT NULL,
  body BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS events_once ON events (channel_id, message_id, version);
CREATE TABLE IF NOT EXISTS cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS channels (
  channel_id INTEGER PRIMARY KEY,
  access_hash INTEGER,
  title TEXT,
  username TEXT,
  last_message_id INTEGER,
  pts INTEGER,
  registered INTEGER
);
CREATE TABLE IF NOT EXISTS quarantine (
  sink TEXT NOT NULL,
  seq INTEGER NOT NULL,
  reason TEXT NOT NULL,
  at REAL NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (sink, seq)
) WITHOUT ROWID;
"""

_CURSOR_SECONDS = 0.2
_TRIM_SECONDS = 1.0  # with _TRIM_STEP: 5,000 events a second at most, 10 ms a step
_TRIM_STEP = 5_000
_CHECKPOINT_SECONDS = 2.0
_RETRY_SECONDS = 0.5


class SpoolError(Exception):
    """The spool cannot be opened; the message says what to do."""


class SpoolFullError(Exception):
    """Too many events wait for a spool that cannot be written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as the spool holds it. `spooled_at` is the time of its commit group, in seconds since the epoch."""

    seq: int
    event: Event
    body: bytes
    spooled_at: float


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows of a channel.

    Everything up to `last_message_id` is in the spool; `pts` is Telegram's counter of the channel at that point.
    `registered` mirrors ``telegram.channels``: active, inactive, or None where the table does not have it.
    """

    channel_id: int
    access_hash: int | None = None
    title: str | None = None
    username: str | None = None
    last_message_id: int | None = None
    pts: int | None = None
    registered: bool | None = None


class _Work(msgspec.Struct):
    rows: list[tuple[int, int, int, bytes]]
    channels: Sequence[Channel]
    done: Callable[[Exception | None], None] | None = None


class Spool:
    """Append events, read them behind cursors. All methods belong to the event loop that called `open`."""

    def __init__(
        self,
        path: Path,
        sinks: Sequence[str],
        *,
        linger_ms: float = 3.0,
        group_limit: int = 256,
        retain: int = 10_000,
        pending_limit: int = 50_000,
        on_commit: Callable[[int, float], None] = lambda _events, _seconds: None,
    ) -> None:
        self._path = path
        self._linger = Linger(linger_ms / 1000)
        self._group_limit = group_limit
        self._retain = retain
        self._pending_limit = pending_limit
        self.on_commit = on_commit
        """Called in the writer's thread with the events of a group and how long its commit took."""

        self._work: deque[_Work] = deque()
        self._pending = 0  # appended, not committed: the loop's count
        self._queued = 0  # in `_work`: guarded by `_wake`
        self._wake = threading.Condition()
        self._stop = threading.Event()
        self._moved = False
        self._cursors: dict[str, int] = dict.fromkeys(sinks, 0)
        self._channels: dict[int, Channel] = {}
        self._lowest = 0

        self._loop: asyncio.AbstractEventLoop
        self._reader: sqlite3.Connection
        self._changed = asyncio.Event()
        self._last_seq = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")
        self._threads: list[threading.Thread] = []
        self.failure: str | None = None
        """Why the last commit failed; None when it did not."""

    # Opening and closing

    async def open(self) -> None:
        """Create or reopen the file. Raises SpoolError."""
        self._loop = asyncio.get_running_loop()
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            writer = self._connect()
            self._prepare(writer)
            self._reader = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"the spool {self._path} cannot be opened: {error}") from error
        self._threads = [
            threading.Thread(target=self._write_loop, args=(writer,), name="spool-writer", daemon=True),
            threading.Thread(target=self._checkpoint_loop, name="spool-checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # a thread of its own does it, off the commits
        return connection

    def _prepare(self, writer: sqlite3.Connection) -> None:
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise SpoolError(
                f"the spool {self._path} was written by a newer gateway (event schema {version}, this one knows "
                f"{SCHEMA_VERSION}): install that version again and let it empty the spool"
            )
        writer.executescript(_SCHEMA)
        writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        known = dict(writer.execute("SELECT sink, seq FROM cursors").fetchall())
        # A sink that is gone must not hold the trimming; a new one gets what the others have not got either.
        begin = min((known[sink] for sink in self._cursors if sink in known), default=0)
        self._cursors = {sink: known.get(sink, begin) for sink in self._cursors}
        writer.execute("DELETE FROM cursors")
        writer.executemany("INSERT INTO cursors VALUES (?, ?)", self._cursors.items())
        (last,) = writer.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'").fetchone()
        (self._lowest,) = writer.execute("SELECT coalesce(min(seq), 0) FROM events").fetchone()
        self._last_seq = last
        columns = ", ".join(Channel.__struct_fields__)
        for row in writer.execute(f"SELECT {columns} FROM channels"):  # noqa: S608 - the names of our own fields
            channel = msgspec.convert(dict(zip(Channel.__struct_fields__, row, strict=True)), Channel, strict=False)
            self._channels[channel.channel_id] = channel

    async def close(self, wait: float = 10.0) -> int:
        """Commit what waits, within `wait` seconds; returns how many events could not be written."""
        with suppress(TimeoutError, SpoolFullError):
            await asyncio.wait_for(self.commit(), wait)
        self._stop.set()
        with self._wake:
            self._wake.notify()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, wait)
        self._executor.shutdown()
        self._reader.close()
        return self._pending

    # Writing

    def append(self, events: Sequence[Event] = (), channels: Sequence[Channel] = ()) -> None:
        """Take `events` and the progress of `channels`; they commit together, in the order of the calls.

        Raises SpoolFullError, having taken nothing, when `pending_limit` events wait already.
        """
        self._put(events, channels)

    async def commit(self, events: Sequence[Event] = (), channels: Sequence[Channel] = ()) -> None:
        """As `append`, then wait until it is on disk, with everything that was appended before."""
        future: asyncio.Future[None] = self._loop.create_future()

        def resolve(error: Exception | None) -> None:
            if future.done():
                return
            if error:
                future.set_exception(error)
            else:
                future.set_result(None)

        self._put(events, channels, resolve)
        await future

    def _put(
        self,
        events: Sequence[Event],
        channels: Sequence[Channel],
        done: Callable[[Exception | None], None] | None = None,
    ) -> None:
        if events and self.full:
            raise SpoolFullError(
                f"{self._pending} events wait for the spool {self._path}: {self.failure or 'too slow'}"
            )
        rows = [(event.channel_id, event.message_id, event.version, encode(event)) for event in events]
        self._pending += len(rows)
        with self._wake:
            self._queued += len(rows)
            self._work.append(_Work(rows, channels, done))
            self._wake.notify()

    def _write_loop(self, writer: sqlite3.Connection) -> None:
        trimmed = finished = time.monotonic()
        while True:
            group = self._next_group()
            if group or self._moved:
                self._write_until_done(writer, group)
                now = time.monotonic()
                self._linger.observe(sum(len(work.rows) for work in group), now - finished)
                finished = now
            elif self._stop.is_set():
                break
            if time.monotonic() - trimmed > _TRIM_SECONDS:
                trimmed = time.monotonic()
                self._trim(writer)
        writer.close()

    def _next_group(self) -> list[_Work]:
        with self._wake:
            if not self._work and not self._stop.is_set():
                self._wake.wait(_CURSOR_SECONDS)
            if not self._work:
                return []
            if not self._stop.is_set():
                self._wake.wait_for(
                    lambda: self._queued >= self._group_limit or self._stop.is_set(), self._linger.seconds
                )
            group: list[_Work] = []
            size = 0
            while self._work and (not group or size + len(self._work[0].rows) <= self._group_limit):
                group.append(self._work.popleft())
                size += len(group[-1].rows)
            self._queued -= size
            return group

    def _write_until_done(self, writer: sqlite3.Connection, group: list[_Work]) -> None:
        """The group goes first or nothing does: a channel's progress must never pass its events."""
        events = sum(len(work.rows) for work in group)
        while True:
            begun = time.perf_counter()
            self._moved = False
            try:
                last_seq = self._write(writer, group)
            except sqlite3.Error as error:
                self._moved = True
                self._note_failure(f"{error}")
                with suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
                if self._stop.wait(_RETRY_SECONDS):
                    self._moved = False
                    self._tell(self._finish, group, 0, SpoolFullError(str(error)))
                    return
            else:
                break
        self.failure = None
        if events:
            self.on_commit(events, time.perf_counter() - begun)
        self._tell(self._finish, group, last_seq, None)

    def _note_failure(self, reason: str) -> None:
        if self.failure != reason:
            log.error(
                "the spool cannot be written: %s; events wait in memory", reason, extra={"spool": str(self._path)}
            )
        self.failure = reason

    def _write(self, writer: sqlite3.Connection, group: list[_Work]) -> int:
        now = time.time()
        writer.execute("BEGIN IMMEDIATE")
        writer.executemany(
            "INSERT OR IGNORE INTO events (channel_id, message_id, version, spooled_at, body) VALUES (?, ?, ?, ?, ?)",
            [(channel, message, version, now, body) for work in group for channel, message, version, body in work.rows],
        )
        writer.executemany(
            """INSERT INTO channels (channel_id, access_hash, title, username, last_message_id, pts, registered)
               VALUES (?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (channel_id) DO UPDATE SET access_hash = excluded.access_hash, title = excluded.title,
                 username = excluded.username, last_message_id = excluded.last_message_id, pts = excluded.pts,
                 registered = excluded.registered""",
            [
                msgspec.structs.astuple(channel)
                # the last word on each channel
                for channel in {channel.channel_id: channel for work in group for channel in work.channels}.values()
            ],
        )
        writer.executemany("UPDATE cursors SET seq = ? WHERE sink = ?", [(s, n) for n, s in self._cursors.items()])
        (last_seq,) = writer.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        writer.execute("COMMIT")
        return int(last_seq)

    def _finish(self, group: list[_Work], last_seq: int, error: Exception | None) -> None:
        if error is None:
            self._pending -= sum(len(work.rows) for work in group)
        for work in group:
            if work.done:
                work.done(error)
        self._last_seq = max(self._last_seq, last_seq)
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _trim(self, writer: sqlite3.Connection) -> None:
        bound = min(self._cursors.values(), default=self._last_seq) - self._retain
        if self._lowest <= bound:
            upper = min(bound, self._lowest + _TRIM_STEP)
            with suppress(sqlite3.Error):  # a full disk: the next commit reports it
                writer.execute("DELETE FROM events WHERE seq <= ?", (upper,))
                self._lowest = upper + 1

    def _checkpoint_loop(self) -> None:
        connection = self._connect()
        while not self._stop.wait(_CHECKPOINT_SECONDS):
            with suppress(sqlite3.Error):  # the writer reports what is wrong with the disk
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        connection.close()

    # Reading

    async def batches(self, sink: str, limit: int = 256) -> AsyncIterator[list[Entry]]:
        """What `sink` has not got yet, in order, for ever; each batch has 1 to `limit` entries."""
        position = self._cursors[sink]
        while True:
            while self._last_seq <= position:
                await self._changed.wait()
            batch = await self._read(self._entries, position, limit)
            if batch:
                yield batch
                position = batch[-1].seq

    def _entries(self, position: int, limit: int) -> list[Entry]:
        rows = self._reader.execute(
            "SELECT seq, body, spooled_at FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (position, limit)
        )
        return [Entry(seq, decode(body), body, spooled_at) for seq, body, spooled_at in rows]

    async def _read(self, function: Callable[..., T], *arguments: object) -> T:
        return await self._loop.run_in_executor(self._executor, function, *arguments)

    def advance(self, sink: str, seq: int) -> None:
        """Everything up to `seq` is done for `sink`. On disk within 0.2 s; a crash before repeats the batch."""
        self._cursors[sink] = seq
        self._moved = True
        self._tell_waiters()

    async def quarantine(self, sink: str, entries: Iterable[Entry], reason: str) -> None:
        """Keep aside what `sink` will never accept, and wait until it is on disk."""
        rows = [(sink, entry.seq, reason, time.time(), entry.body) for entry in entries]
        await self._read(self._quarantine, rows)

    def _quarantine(self, rows: list[tuple[str, int, str, float, bytes]]) -> None:
        self._reader.executemany("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)", rows)

    async def remembered(self, channel_id: int, first: int, last: int) -> set[int]:
        """The messages from `first` to `last` that were not deleted, as far as the spool still has them."""
        return await self._read(self._remembered, channel_id, first, last)

    def _remembered(self, channel_id: int, first: int, last: int) -> set[int]:
        query = "SELECT message_id, body FROM events WHERE channel_id = ? AND message_id BETWEEN ? AND ?"
        newest: dict[int, Event] = {}
        for message_id, body in self._reader.execute(query, (channel_id, first, last)):
            event = decode(body)
            if message_id not in newest or event.version > newest[message_id].version:
                newest[message_id] = event
        return {message_id for message_id, event in newest.items() if event.kind != "delete"}

    async def quarantined(self) -> dict[str, int]:
        """How many events each sink has refused for good."""
        query = "SELECT sink, count(*) FROM quarantine GROUP BY sink"
        return await self._read(lambda: dict(self._reader.execute(query).fetchall()))

    # State

    @property
    def last_seq(self) -> int:
        """The newest committed entry."""
        return self._last_seq

    @property
    def running(self) -> bool:
        """Whether the writer is there."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def full(self) -> bool:
        """Whether `append` would refuse events."""
        return self._pending >= self._pending_limit

    async def room(self) -> None:
        """Wait until events are taken again."""
        while self.full:
            await self._changed.wait()

    async def relieved(self) -> None:
        """Wait until at most half of the events wait that may."""
        while self._pending > self._pending_limit // 2:
            await self._changed.wait()

    async def drained(self) -> None:
        """Wait until every sink has done everything that is committed."""
        while any(seq < self._last_seq for seq in self._cursors.values()):
            await self._changed.wait()

    @property
    def pending(self) -> int:
        """Events that wait for their commit."""
        return self._pending

    def cursor(self, sink: str) -> int:
        """The last entry that `sink` has done."""
        return self._cursors[sink]

    def lag(self, sink: str) -> int:
        """How many entries `sink` is behind, at most: ids may be missing in the sequence."""
        return self._last_seq - self._cursors[sink]

    async def oldest_waiting(self, sink: str) -> float | None:
        """When the first entry that `sink` has not done was spooled, in seconds since the epoch; None without any."""
        query = "SELECT spooled_at FROM events WHERE seq > ? ORDER BY seq LIMIT 1"
        row = await self._read(lambda: self._reader.execute(query, (self._cursors[sink],)).fetchone())
        return None if row is None else float(row[0])

    def size(self) -> int:
        """Bytes on disk, the write-ahead log included."""
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def stored_channels(self) -> dict[int, Channel]:
        """The channels as they were when the spool was opened."""
        return dict(self._channels)

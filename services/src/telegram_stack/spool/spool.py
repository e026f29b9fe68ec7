"""Append events, read them behind cursors.

An event and the progress of its channel commit together, so that after a crash the channel's history is read again from
exactly what is missing here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from telegram_stack.events import Event, encode
from telegram_stack.lingering import Linger
from telegram_stack.spool import file
from telegram_stack.spool.reader import Reader
from telegram_stack.spool.records import Channel, Entry, SpoolError, SpoolFullError
from telegram_stack.spool.reserve import Reserve
from telegram_stack.spool.writer import Committed, Done, Work, Writer


class Spool:
    """One thread commits in groups; sinks read behind cursors of their own.

    All methods belong to the event loop that called `open`.
    """

    def __init__(
        self,
        path: Path,
        sinks: Sequence[str],
        *,
        linger_ms: float = 3.0,
        group_limit: int = 256,
        retain: int = 10_000,
        pending_limit: int = 50_000,
        reserve_bytes: int = 0,
        on_commit: Callable[[int, float], None] = lambda _events, _seconds: None,
    ) -> None:
        self._path = path
        self._pending_limit = pending_limit
        self.on_commit = on_commit
        """Called in the writer's thread with the events of a group and how long its commit took."""

        self.failure: str | None = None
        """Why the last commit failed; None when it did not."""
        self._pending = 0  # appended, not committed
        self._cursors: dict[str, int] = dict.fromkeys(sinks, 0)
        self._channels: dict[int, Channel] = {}
        self._last_seq = 0
        self._changed = asyncio.Event()
        self._reserve = Reserve(path.with_name(f"{path.name}-reserve"), reserve_bytes)
        self._writer = Writer(
            path,
            self._cursors,
            reserve=self._reserve,
            linger=Linger(linger_ms / 1000),
            group_limit=group_limit,
            retain=retain,
            finish=self._tell,
            committed=self._committed,
            failed=self._failed,
        )
        self._loop: asyncio.AbstractEventLoop
        self._reader: Reader

    # Opening and closing

    async def open(self) -> None:
        """Create or reopen the file. Raises SpoolError."""
        self._loop = asyncio.get_running_loop()
        try:
            self._open()
        except sqlite3.Error:
            self._reserve.release()  # the disk may be full: opening needs some room
            try:
                self._open()
            except (OSError, sqlite3.Error) as error:
                raise SpoolError(f"the spool {self._path} cannot be opened: {error}") from error
        except OSError as error:
            raise SpoolError(f"the spool {self._path} cannot be opened: {error}") from error

    def _open(self) -> None:
        file.create(self._path)
        connection = file.connect(self._path)
        contents = file.prepare(self._path, connection, self._cursors)
        self._reader = Reader(self._path)
        self._cursors.update(contents.cursors)
        self._channels = contents.channels
        self._last_seq = contents.last
        self._reserve.make()  # where that is impossible the first commit says so
        self._writer.start(connection, contents.lowest, contents.last)

    async def close(self, wait: float = 10.0) -> int:
        """Commit what waits, within `wait` seconds; returns how many events could not be written."""
        with suppress(TimeoutError, SpoolFullError):
            await asyncio.wait_for(self.commit(), wait)
        self._writer.stop()
        await asyncio.to_thread(self._writer.join, wait)
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

    def _put(self, events: Sequence[Event], channels: Sequence[Channel], done: Done | None = None) -> None:
        if events and self.full:
            raise SpoolFullError(
                f"{self._pending} events wait for the spool {self._path}: {self.failure or 'too slow'}"
            )
        bodies = [(event, encode(event)) for event in events]
        self._pending += len(bodies)
        self._writer.put(Work(bodies, channels, done))

    def _tell(self, group: Sequence[Work], result: Committed | Exception) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish, group, result)

    def _finish(self, group: Sequence[Work], result: Committed | Exception) -> None:
        error = result if isinstance(result, Exception) else None
        if isinstance(result, Committed):
            self._pending -= sum(len(work.events) for work in group)
            self._reader.keep(result.entries)
            self._last_seq = max(self._last_seq, result.last)
        for work in group:
            if work.done:
                work.done(error)
        self._tell_waiters()

    def _committed(self, events: int, seconds: float) -> None:
        self.on_commit(events, seconds)

    def _failed(self, reason: str | None) -> None:
        self.failure = reason

    def _tell_waiters(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # Reading

    async def batches(self, sink: str, limit: int = 256) -> AsyncIterator[list[Entry]]:
        """What `sink` has not got yet, in order, for ever; each batch has 1 to `limit` entries."""
        position = self._cursors[sink]
        while True:
            while self._last_seq <= position:
                await self._changed.wait()
            batch = await self._reader.entries(position, limit)
            if batch:
                yield batch
                position = batch[-1].seq

    def advance(self, sink: str, seq: int) -> None:
        """Everything up to `seq` is done for `sink`. On disk within 0.2 s; a crash before repeats the batch."""
        self._cursors[sink] = seq
        self._writer.move()
        self._tell_waiters()

    async def quarantine(self, sink: str, entries: Iterable[Entry], reason: str) -> None:
        """Keep aside what `sink` will never accept, and wait until it is on disk."""
        await self._reader.quarantine(sink, entries, reason)

    async def quarantine_entries(self, sink: str, position: int, limit: int) -> list[Entry]:
        """At most `limit` of what `sink` has refused behind entry `position`, in order."""
        return await self._reader.quarantine_entries(sink, position, limit)

    async def release(self, sink: str, seqs: Iterable[int]) -> None:
        """`sink` has accepted after all what it had refused."""
        await self._reader.release(sink, seqs)

    async def quarantined(self) -> dict[str, int]:
        """How many events each sink has refused for good."""
        return await self._reader.quarantined()

    async def remembered(self, channel_id: int, first: int, last: int) -> set[int]:
        """The messages from `first` to `last` that were not deleted, as far as the spool still has them."""
        return await self._reader.remembered(channel_id, first, last)

    async def first_new(self, channel_id: int) -> int | None:
        """The lowest message of the channel that came as a new one, as far as the spool still has it."""
        return await self._reader.first_new(channel_id)

    async def note(self, name: str, body: bytes) -> None:
        """Keep `body` under `name`, and wait until it is on disk."""
        await self._reader.note(name, body)

    async def noted(self, name: str) -> bytes | None:
        """What is kept under `name`; None without anything."""
        return await self._reader.noted(name)

    # State

    @property
    def reserve_bytes(self) -> int:
        """The room that is kept to be given back to a full disk; 0 while it is given back."""
        return self._reserve.size

    @property
    def last_seq(self) -> int:
        """The newest committed entry."""
        return self._last_seq

    @property
    def running(self) -> bool:
        """Whether the writer is there."""
        return self._writer.running

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

    async def drained(self, sinks: Collection[str] | None = None) -> None:
        """Wait until `sinks`, or else all, have done everything that is committed."""
        while any(self._cursors[sink] < self._last_seq for sink in sinks or self._cursors):
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
        return await self._reader.spooled_after(self._cursors[sink])

    def size(self) -> int:
        """Bytes on disk, the write-ahead log included."""
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(path.stat().st_size for path in files if path.exists())

    def stored_channels(self) -> dict[int, Channel]:
        """The channels as they were when the spool was opened."""
        return dict(self._channels)

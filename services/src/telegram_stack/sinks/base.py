"""What a sink promises, and the loop that feeds it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from telegram_stack.lingering import Linger
from telegram_stack.observability.backoff import Backoff
from telegram_stack.spool import Entry

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]

_RETRY_LIMIT = 2.0
"""Seconds between two attempts at most: a longer pause would outlast a fail-over or a restart downstream."""


class SinkUnavailableError(Exception):
    """Trying the same again later makes sense. `remaining` is what was not accepted, None for all of it."""

    def __init__(self, message: str, remaining: Sequence[Entry] | None = None) -> None:
        super().__init__(message)
        self.remaining = remaining


class RejectedEventsError(Exception):
    """`entries` will never be accepted; `remaining` was not tried yet, or not accepted yet."""

    def __init__(self, message: str, entries: Sequence[Entry], remaining: Sequence[Entry] = ()) -> None:
        super().__init__(message)
        self.entries = entries
        self.remaining = remaining


class Sink(Protocol):
    """Where events go after the spool. One instance, one cursor, one task."""

    name: str

    async def write(self, batch: Sequence[Entry]) -> None:
        """Make every event of `batch` durable downstream.

        Idempotent: the same batch may come again after a crash.
        Raises SinkUnavailableError or RejectedEventsError; any other error ends the program.
        """

    async def close(self) -> None:
        """Give up the connection."""


class Source(Protocol):
    """The part of the spool that a drain needs."""

    def batches(self, sink: str, limit: int) -> AsyncIterator[list[Entry]]:
        """What `sink` has not got yet, in order, for ever."""

    def advance(self, sink: str, seq: int) -> None:
        """Everything up to `seq` is done for `sink`."""

    async def quarantine(self, sink: str, entries: Iterable[Entry], reason: str) -> None:
        """Keep aside what `sink` will never accept."""


class Observer(Protocol):
    """Who wants to know how a sink does: metrics, health, the trace of single messages."""

    def written(self, sink: str, entries: Sequence[Entry]) -> None:
        """`entries` are durable downstream."""

    def unavailable(self, sink: str, reason: str) -> None:
        """The sink was tried in vain."""

    def rejected(self, sink: str, entries: Sequence[Entry], reason: str) -> None:
        """`entries` went into quarantine."""


async def drain(
    sink: Sink,
    spool: Source,
    observer: Observer,
    *,
    batch_size: int = 256,
    window: int = 1,
    linger: float = 0.0,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Feed `sink` from its cursor until cancelled; the cursor moves only behind a finished write, in order.

    Between two batches that are not full it rests for up to `linger` seconds, the busier the longer. `window` batches
    are on their way at once, each begun after the one before it.
    """
    pace = Linger(linger)
    taken = time.monotonic()
    resting = False
    batches = spool.batches(sink.name, batch_size)
    free = asyncio.Semaphore(window)
    way = _Way(sink, spool, observer, sleep)
    before: asyncio.Task[None] | None = None
    try:
        async with asyncio.TaskGroup() as writes:
            while True:
                await free.acquire()
                if resting and pace.seconds:
                    await sleep(pace.seconds)
                batch = await anext(batches, None)
                if batch is None:
                    return
                now = time.monotonic()
                pace.observe(len(batch), now - taken)
                taken = now
                resting = len(batch) < batch_size
                before = writes.create_task(way.deliver(batch, before))
                before.add_done_callback(lambda _task: free.release())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


class _Way:
    """Batches on their way to a sink. One that fails comes again before those behind it, so that the order stays."""

    def __init__(self, sink: Sink, spool: Source, observer: Observer, sleep: Sleep) -> None:
        self._sink = sink
        self._spool = spool
        self._observer = observer
        self._sleep = sleep
        self._stalled: set[asyncio.Task[None] | None] = set()

    async def deliver(self, batch: Sequence[Entry], before: asyncio.Task[None] | None) -> None:
        """Write `batch`, however long the sink is away, and move the cursor once `before` has moved it."""
        task = asyncio.current_task()
        if before in self._stalled:
            self._stalled.add(task)
            await self._after(before)
            self._stalled.discard(task)
        await self._write(batch, before)
        await self._after(before)
        self._stalled.discard(task)
        self._spool.advance(self._sink.name, batch[-1].seq)

    async def _after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before

    async def _write(self, batch: Sequence[Entry], before: asyncio.Task[None] | None) -> None:
        sink, observer = self._sink, self._observer
        backoff = Backoff(first=0.1, limit=_RETRY_LIMIT)
        waiting = batch
        while waiting:
            try:
                await sink.write(waiting)
            except SinkUnavailableError as error:
                self._stalled.add(asyncio.current_task())
                if error.remaining is not None:
                    observer.written(sink.name, _without(waiting, error.remaining))
                    waiting = error.remaining
                observer.unavailable(sink.name, str(error))
                await self._sleep(backoff.next())
                await self._after(before)
            except RejectedEventsError as error:
                await self._spool.quarantine(sink.name, error.entries, str(error))
                observer.rejected(sink.name, error.entries, str(error))
                observer.written(sink.name, _without(waiting, [*error.entries, *error.remaining]))
                waiting = error.remaining
            else:
                observer.written(sink.name, waiting)
                return


def _without(entries: Sequence[Entry], others: Sequence[Entry]) -> list[Entry]:
    gone = {entry.seq for entry in others}
    return [entry for entry in entries if entry.seq not in gone]


def latest(batch: Sequence[Entry]) -> list[Entry]:
    """One entry a message, the one with the highest version, sorted by key."""
    newest: dict[tuple[int, int], Entry] = {}
    for entry in batch:
        known = newest.get(entry.event.key)
        if known is None or entry.event.version >= known.event.version:
            newest[entry.event.key] = entry
    return [newest[key] for key in sorted(newest)]

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
    linger: float = 0.0,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Feed `sink` from its cursor until cancelled; the cursor moves only behind a finished write.

    Between two batches that are not full it rests for up to `linger` seconds, the busier the longer.
    """
    pace = Linger(linger)
    finished = time.monotonic()
    backoff = Backoff(first=0.1, limit=_RETRY_LIMIT)
    async for batch in spool.batches(sink.name, batch_size):
        waiting: Sequence[Entry] = batch
        while waiting:
            try:
                await sink.write(waiting)
            except SinkUnavailableError as error:
                if error.remaining is not None:
                    observer.written(sink.name, _without(waiting, error.remaining))
                    waiting = error.remaining
                observer.unavailable(sink.name, str(error))
                await sleep(backoff.next())
            except RejectedEventsError as error:
                await spool.quarantine(sink.name, error.entries, str(error))
                observer.rejected(sink.name, error.entries, str(error))
                observer.written(sink.name, _without(waiting, [*error.entries, *error.remaining]))
                waiting = error.remaining
            else:
                observer.written(sink.name, waiting)
                break
        spool.advance(sink.name, batch[-1].seq)
        backoff.reset()
        now = time.monotonic()
        pace.observe(len(batch), now - finished)
        finished = now
        if len(batch) < batch_size and pace.seconds:
            await sleep(pace.seconds)


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

"""A backfill on request: the newest messages of channels from history, beside everything else.

How far it is stands in the spool, behind the events of each page: a restart goes on there, and reads one page again at
most. Channels' cursors are not touched. Recovery goes first: while a channel is open, no page is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from telethon import errors

from telegram_stack.events import Event
from telegram_stack.spool import Spool
from telegram_stack.telegram.asking import Telegram
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.client import TEMPORARY
from telegram_stack.telegram.history import PAGE, history
from telegram_stack.telegram.reading import Reader
from telegram_stack.telegram.source import TelegramSource

log = logging.getLogger(__name__)

_NOTE = "sync"
_IDLE_SECONDS = 0.1
_RETRY_SECONDS = 1.0


class SyncConflictError(Exception):
    """It cannot be begun now; the message says why."""


class _Channel(msgspec.Struct):
    """How far one channel is: `read` messages, down to message `offset`. `reason` is why it cannot be read."""

    read: int = 0
    offset: int = 0
    done: bool = False
    reason: str = ""


class _Job(msgspec.Struct):
    limit: int
    concurrency: int
    started_at: float
    finished_at: float | None = None
    channels: dict[int, _Channel] = {}


class SyncProgress(msgspec.Struct, rename="camel", kw_only=True):
    """The backfill that runs, or the last one. Times are seconds since the epoch."""

    status: Literal["idle", "running", "done"] = "idle"
    limit: int = 0
    concurrency: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    channels_done: int = 0
    channels_open: int = 0
    messages: int = 0
    unreadable: dict[int, str] = {}


class Sync:
    """One backfill at a time."""

    def __init__(
        self,
        spool: Spool,
        channels: Channels,
        source: TelegramSource,
        *,
        not_converted: Callable[[int | None], None],
        synced: Callable[[Sequence[Event]], None],
    ) -> None:
        """`synced` is told of the messages of each page once they are on disk."""
        self._spool = spool
        self._channels = channels
        self._source = source
        self._reader = Reader(not_converted)  # of its own: what is old must not push recent states out of the memory
        self._synced = synced
        self._job: _Job | None = None
        self._begun = asyncio.Event()

    async def load(self) -> None:
        """Take up what was not finished."""
        body = await self._spool.noted(_NOTE)
        if body is not None:
            self._job = msgspec.json.decode(body, type=_Job)
            if self._job.finished_at is None:
                self._begun.set()

    async def begin(self, limit: int, channel_ids: Sequence[int], concurrency: int) -> None:
        """Bring along the newest `limit` messages of `channel_ids`, or of every channel. Raises SyncConflictError."""
        if self.progress.status == "running":
            raise SyncConflictError("a backfill runs already: GET /sync-messages tells how far it is")
        if self._source.bot:
            raise SyncConflictError("the account is a bot, and a bot cannot read history: log in as a user")
        wanted = channel_ids or [number for number in self._channels.known if self._channels.accepts(number)]
        job = _Job(limit, concurrency, time.time(), channels={number: _Channel() for number in wanted})
        for channel_id, channel in job.channels.items():
            if not self._channels.accepts(channel_id):
                channel.done, channel.reason = True, "the channel is not taken: it is not registered, or inactive"
            elif self._channels[channel_id].access_hash is None:
                channel.done, channel.reason = True, "the account is not in it"
        self._job = job
        await self._note(job)
        self._begun.set()
        log.info("a backfill of %d channels begins", len(job.channels), extra={"limit": limit})

    @property
    def progress(self) -> SyncProgress:
        """How far it is."""
        job = self._job
        if job is None:
            return SyncProgress()
        channels = job.channels
        return SyncProgress(
            status="running" if job.finished_at is None else "done",
            limit=job.limit,
            concurrency=job.concurrency,
            started_at=job.started_at,
            finished_at=job.finished_at,
            channels_done=sum(1 for channel in channels.values() if channel.done and not channel.reason),
            channels_open=sum(1 for channel in channels.values() if not channel.done),
            messages=sum(channel.read for channel in channels.values()),
            unreadable={number: channel.reason for number, channel in channels.items() if channel.reason},
        )

    async def run(self) -> None:
        """Do what is begun, over as many connections as it takes, until cancelled."""
        while True:
            await self._begun.wait()
            telegram, job = self._source.telegram, self._job
            if telegram is None or job is None or self._source.bot:
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            try:
                await self._do(telegram, job)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                await asyncio.sleep(_RETRY_SECONDS)  # Telethon cancels what waits when a connection ends
            except TEMPORARY as error:
                log.info("the backfill waits for the next connection: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _do(self, telegram: Telegram, job: _Job) -> None:
        waiting = deque(number for number, channel in job.channels.items() if not channel.done)

        async def work() -> None:
            while waiting:
                await self._read(telegram, job, waiting.popleft())

        tasks = [asyncio.create_task(work()) for _ in range(min(job.concurrency, len(waiting)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        job.finished_at = time.time()
        self._begun.clear()
        await self._note(job)
        log.info("the backfill is done: %d messages", self.progress.messages)

    async def _read(self, telegram: Telegram, job: _Job, channel_id: int) -> None:
        channel = job.channels[channel_id]
        while not channel.done:
            await self._recovered()
            try:
                wanted = min(PAGE, job.limit - channel.read)
                access_hash = self._channels[channel_id].access_hash or 0
                answer = await history(telegram, channel_id, access_hash, offset_id=channel.offset, limit=wanted)
            except (errors.BadRequestError, errors.ForbiddenError) as error:
                channel.done, channel.reason = True, str(error)
                log.warning("channel %d cannot be backfilled: %s", channel_id, error)
            else:
                await self._take(channel, answer.messages)
                channel.done = channel.read >= job.limit or len(answer.messages) < wanted
            await self._note(job)

    async def _take(self, channel: _Channel, messages: Sequence[object]) -> None:
        found = sorted(messages, key=lambda message: message.id)  # type: ignore[attr-defined] # whatever its type
        events = self._reader.messages(found)
        await self._spool.room()
        await self._spool.commit(events)
        self._synced(events)
        channel.read += len(found)
        channel.offset = min((message.id for message in found), default=channel.offset)  # type: ignore[attr-defined]

    async def _recovered(self) -> None:
        """Wait until nothing is open that can be read."""
        unreadable = self._source.progress.unreadable
        while any(number not in unreadable for number in self._channels.open):  # noqa: ASYNC110 - many may end it
            await asyncio.sleep(_IDLE_SECONDS)

    async def _note(self, job: _Job) -> None:
        await self._spool.note(_NOTE, msgspec.json.encode(job))

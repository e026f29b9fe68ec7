"""Gap recovery: which channels are brought up to date, when, and how far that is.

Every channel is open after a new connection. The list of chats tells each channel's count: a channel whose count is
ours is complete without another request; the others are caught up, a few at a time. The list is asked for again
periodically, so that a hole in a channel that has fallen silent is found as well.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from telethon import errors
from telethon.tl import types

from telegram_stack.events import Event
from telegram_stack.observability.backoff import Backoff
from telegram_stack.spool import Channel, Spool
from telegram_stack.telegram.asking import Telegram
from telegram_stack.telegram.catchup import CatchUp, ChannelGoneError
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.stored import StoreAwayError
from telegram_stack.telegram.tasks import first_failure

log = logging.getLogger(__name__)

_IDLE_SECONDS = 0.1
_LIST_PATIENCE = 15.0  # then the channels are caught up by what the spool remembers of them
_GONE_SECONDS = 300.0
_STORE_SECONDS = 2.0
_REPORT_SECONDS = 10.0


class Progress(msgspec.Struct, rename="camel"):
    """The recovery that runs, or the last one. `seconds` is how long it has taken so far.

    It begins when a channel is open and ends when none is, but for the unreadable ones.
    """

    running: bool = False
    seconds: float = 0.0
    channels_done: int = 0
    channels_open: int = 0
    messages: int = 0
    edits: int = 0
    deletions: int = 0
    unreadable: dict[int, str] = {}
    """Channels that the account cannot read, and why."""

    def begin(self) -> None:
        """A channel is open."""
        self.running = True
        self.channels_done = self.messages = self.edits = self.deletions = 0

    def count(self, events: Sequence[Event]) -> None:
        """These came from Telegram's records."""
        kinds = [event.kind for event in events]
        self.messages += kinds.count("new")
        self.edits += kinds.count("edit")
        self.deletions += kinds.count("delete")

    def __str__(self) -> str:
        return (
            f"{self.channels_done} channels in {self.seconds:.1f} s: {self.messages} messages, {self.edits} edits, "
            f"{self.deletions} deletions"
        )


class Recovery:
    """Keeps every channel of one connection complete. Live messages flow on beside it."""

    def __init__(
        self,
        telegram: Telegram,
        channels: Channels,
        spool: Spool,
        catch_up: CatchUp,
        progress: Progress,
        *,
        check_seconds: float,
        concurrency: int,
        bot: bool = False,
    ) -> None:
        self._telegram = telegram
        self._channels = channels
        self._spool = spool
        self._catch_up = catch_up
        self._progress = progress
        self._check_seconds = check_seconds
        self._concurrency = concurrency
        self._bot = bot
        self._stale = asyncio.Event()
        self._listed = asyncio.Event()
        self._begun = asyncio.get_running_loop().time()
        self._busy: set[int] = set()
        self._backoffs: dict[int, Backoff] = {}
        self._not_before: dict[int, float] = {}
        self._store_away = False

    def refresh(self) -> None:
        """The account joined or left a channel: ask for the list again."""
        self._stale.set()

    async def run(self) -> None:
        """Recover whatever is open, for ever. Raises what ends the connection."""
        await first_failure(self._check(), self._report(), *(self._work() for _ in range(self._concurrency)))

    # Which channels

    async def _check(self) -> None:
        """Compare the channels with Telegram's list: at once, when it changes, and periodically."""
        while True:
            self._stale.clear()
            if self._bot:  # has no list of chats: each channel is asked
                self._channels.open_all()
            else:
                await self._telegram.patiently("getDialogs", self._list_channels)
            self._listed.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._check_seconds * (0.8 + 0.4 * random.random())):  # noqa: S311
                    await self._stale.wait()

    async def _list_channels(self) -> None:
        """The account's channels with their counts, and access hashes, which a string session does not keep."""
        found: list[Channel] = []
        async for dialog in self._telegram.client.iter_dialogs():
            entity = dialog.entity
            if isinstance(entity, types.Channel):
                channel_id = marked(entity.id)
                found.append(self._channels.describe(channel_id, entity.access_hash, entity.title, entity.username))
                self._channels.compare(channel_id, dialog.dialog.pts)
                self._progress.unreadable.pop(channel_id, None)
        await self._spool.commit(channels=found)
        log.info("the account is in %d channels", len(found), extra={"channels": len(found)})

    # One channel after another

    async def _work(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LIST_PATIENCE):
                await self._listed.wait()
        while True:
            channel_id = self._next()
            if channel_id is None:
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            self._busy.add(channel_id)
            try:
                await self._recover(channel_id)
            finally:
                self._busy.discard(channel_id)

    def _next(self) -> int | None:
        now = asyncio.get_running_loop().time()
        return next(
            (
                channel_id
                for channel_id in self._channels.open
                if channel_id not in self._busy and self._not_before.get(channel_id, 0) <= now
            ),
            None,
        )

    async def _recover(self, channel_id: int) -> None:
        self._observe()
        try:
            await self._catch_up.channel(channel_id)
        except (ChannelGoneError, errors.BadRequestError, errors.ForbiddenError) as error:
            self._not_before[channel_id] = asyncio.get_running_loop().time() + _GONE_SECONDS
            self._unreadable(channel_id, error)
            return
        except StoreAwayError as error:
            self._not_before[channel_id] = asyncio.get_running_loop().time() + _STORE_SECONDS
            self._wait_for_store(error)
            return
        self._store_away = False
        self._progress.unreadable.pop(channel_id, None)
        backoff = self._backoffs.setdefault(channel_id, Backoff(first=0.5, limit=60.0))
        if channel_id in self._channels.open:  # a later hole is known already
            self._not_before[channel_id] = asyncio.get_running_loop().time() + backoff.next()
        else:
            backoff.reset()
            self._progress.channels_done += 1

    def _wait_for_store(self, error: StoreAwayError) -> None:
        if not self._store_away:
            log.warning(
                "channels that begin wait for the database, to go on behind what it has of them (%s); "
                "what comes live is still taken",
                error,
            )
        self._store_away = True

    def _unreadable(self, channel_id: int, error: Exception) -> None:
        reason = str(error)
        if self._progress.unreadable.get(channel_id) != reason:
            log.warning(
                "channel %d cannot be read: %s; what comes live is still taken",
                channel_id,
                reason,
                extra={"channel_id": channel_id},
            )
        self._progress.unreadable[channel_id] = reason

    # How far it is

    async def _report(self) -> None:
        """Keep the progress up to date, and the log told."""
        told = 0.0
        while True:
            was_running = self._progress.running
            self._observe()
            if not self._progress.running:
                told = 0.0
                if was_running:
                    log.info("recovered %s", self._progress, extra=_numbers(self._progress))
            elif self._progress.seconds - told > _REPORT_SECONDS:
                told = self._progress.seconds
                log.info(
                    "recovering: %d channels to go, %s",
                    self._progress.channels_open,
                    self._progress,
                    extra=_numbers(self._progress),
                )
            await asyncio.sleep(_IDLE_SECONDS)

    def _observe(self) -> None:
        progress = self._progress
        now = asyncio.get_running_loop().time()
        progress.channels_open = sum(1 for number in self._channels.open if number not in progress.unreadable)
        if progress.channels_open and not progress.running:
            self._begun = now
            progress.begin()
        if progress.running:
            progress.seconds = round(now - self._begun, 3)
            progress.running = progress.channels_open > 0


def _numbers(progress: Progress) -> dict[str, Any]:
    return {
        "channels": progress.channels_done,
        "messages": progress.messages,
        "edits": progress.edits,
        "deletions": progress.deletions,
        "seconds": progress.seconds,
    }

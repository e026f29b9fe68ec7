"""Gap recovery: reads the history of every open channel until nothing is missing.

Telegram's history alone decides what a channel has; a hole in the ids is no loss.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from telethon import TelegramClient, errors, functions
from telethon.tl import types

from telegram_stack.events import Event
from telegram_stack.observability.backoff import Backoff
from telegram_stack.spool import Spool
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.convert import marked, unmarked

log = logging.getLogger(__name__)

_PAGE = 100
_IDLE_SECONDS = 0.2

Convert = Callable[[Any], Event | None]


class ChannelGoneError(Exception):
    """The account cannot read the channel any more."""


class Recovery:
    """Reads history for one connection. A flood wait holds the recovery and nothing else."""

    def __init__(
        self,
        client: TelegramClient,
        channels: Channels,
        spool: Spool,
        convert: Convert,
        *,
        history_depth: int,
        on_flood_wait: Callable[[int], None] = lambda _seconds: None,
        on_recovered: Callable[[int], None] = lambda _messages: None,
    ) -> None:
        self._client = client
        self._channels = channels
        self._spool = spool
        self._convert = convert
        self._history_depth = history_depth
        self._on_flood_wait = on_flood_wait
        self._on_recovered = on_recovered
        self._stale = True  # the list of channels
        self._backoffs: dict[int, Backoff] = {}
        self._not_before: dict[int, float] = {}

    def refresh(self) -> None:
        """The account joined or left a channel: ask for the list again."""
        self._stale = True

    async def run(self) -> None:
        """Recover whatever is open, for ever. Raises what ends the connection."""
        while True:
            if self._stale:
                self._stale = False
                await self._patiently(self._list_channels)
            channel_id = self._next()
            if channel_id is None:
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            try:
                await self._patiently(partial(self._recover, channel_id))
            except (ChannelGoneError, errors.BadRequestError, errors.ForbiddenError) as error:
                self._postpone(channel_id, 300.0)
                log.warning(
                    "history of channel %d cannot be read: %s; its live messages are still taken",
                    channel_id,
                    error,
                    extra={"channel_id": channel_id},
                )

    def _next(self) -> int | None:
        now = asyncio.get_running_loop().time()
        return next((number for number in self._channels.open if self._not_before.get(number, 0) <= now), None)

    def _postpone(self, channel_id: int, seconds: float) -> None:
        self._not_before[channel_id] = asyncio.get_running_loop().time() + seconds

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(first=1.0, limit=60.0)
        while True:
            try:
                await work()
            except errors.FloodWaitError as error:
                log.warning("Telegram asks the recovery to wait %d s", error.seconds, extra={"seconds": error.seconds})
                self._on_flood_wait(error.seconds)
                await asyncio.sleep(error.seconds)
            except (errors.ServerError, errors.TimedOutError, ValueError) as error:
                # Telethon raises ValueError when its own retries of a request are used up.
                log.warning("Telegram has trouble: %s; the recovery tries again", error)
                await asyncio.sleep(backoff.next())
            else:
                return

    async def _list_channels(self) -> None:
        """The account's channels with their access hashes, which a string session does not keep."""
        found = []
        async for dialog in self._client.iter_dialogs():
            entity = dialog.entity
            if isinstance(entity, types.Channel):
                found.append(
                    self._channels.describe(marked(entity.id), entity.access_hash, entity.title, entity.username)
                )
        await self._spool.commit(channels=found)
        log.info("the account is in %d channels", len(found), extra={"channels": len(found)})

    async def _recover(self, channel_id: int) -> None:
        channel = self._channels[channel_id]
        since = channel.last_message_id
        messages = await (self._first_history(channel_id) if since is None else self._history(channel_id, since))
        backoff = self._backoffs.setdefault(channel_id, Backoff(first=1.0, limit=60.0))
        if channel_id in self._channels.open:  # a later hole is known already
            self._postpone(channel_id, backoff.next())
        else:
            backoff.reset()
        if messages:
            self._on_recovered(messages)
            log.info(
                "recovered %d messages of channel %d",
                messages,
                channel_id,
                extra={"channel_id": channel_id, "messages": messages},
            )

    async def _history(self, channel_id: int, since: int) -> int:
        """Everything above `since`, oldest first; each page commits with its progress."""
        count = 0
        while True:
            found, pts = await self._page(channel_id, offset_id=since + 1, add_offset=-_PAGE)
            newer = sorted((message for message in found if message.id > since), key=lambda message: message.id)
            if not newer:
                await self._spool.commit(channels=[self._channels.read_to_end(channel_id, pts)])
                return count
            events = self._events(newer)
            await self._spool.room()
            since = newer[-1].id
            await self._spool.commit(events, [self._channels.read(channel_id, since)])
            count += len(events)

    async def _first_history(self, channel_id: int) -> int:
        """The newest messages of a channel that was never read, at most the configured depth."""
        found, pts = await self._page(channel_id, offset_id=0, add_offset=0)
        newest = max((message.id for message in found), default=0)
        count = 0
        while found and count < self._history_depth:
            wanted = sorted(found, key=lambda message: -message.id)[: self._history_depth - count]
            await self._spool.room()
            await self._spool.commit(self._events(reversed(wanted)))
            count += len(wanted)
            found, _ = await self._page(channel_id, offset_id=wanted[-1].id, add_offset=0)
        self._channels.read(channel_id, newest)
        await self._spool.commit(channels=[self._channels.read_to_end(channel_id, pts)])
        return count

    async def _page(self, channel_id: int, *, offset_id: int, add_offset: int) -> tuple[Sequence[Any], int | None]:
        access_hash = self._channels[channel_id].access_hash
        if access_hash is None:
            raise ChannelGoneError("the account is not in it")
        result = await self._client(
            functions.messages.GetHistoryRequest(
                peer=types.InputPeerChannel(unmarked(channel_id), access_hash),
                offset_id=offset_id,
                offset_date=None,
                add_offset=add_offset,
                limit=_PAGE,
                max_id=0,
                min_id=0,
                hash=0,
            )
        )
        return result.messages, getattr(result, "pts", None)

    def _events(self, messages: Any) -> list[Event]:
        return [event for event in map(self._convert, messages) if event is not None]

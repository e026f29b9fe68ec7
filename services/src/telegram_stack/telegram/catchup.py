"""Bringing one channel up to date: its difference from our own count, or its history where that is too long.

Telethon drops edits and deletions that stand in a difference, and all of a difference that is too long; so the
difference is asked for here. See https://core.telegram.org/api/updates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from telethon import errors, functions
from telethon.tl import types

from telegram_stack.events import Event, utc_now
from telegram_stack.spool import Channel, Spool
from telegram_stack.telegram.asking import Telegram
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.convert import marked, unmarked
from telegram_stack.telegram.history import PAGE, history
from telegram_stack.telegram.reading import Reader
from telegram_stack.telegram.stored import Known, Span, Stored

log = logging.getLogger(__name__)

_BOT_PAGE = 1000

Recovered = Callable[[Sequence[Event]], None]


class ChannelGoneError(Exception):
    """The account cannot read the channel any more."""


class GetChannelDifferenceRequest(functions.updates.GetChannelDifferenceRequest):
    """A difference that we ask for, to tell it from those that Telethon asks for by itself."""


class CatchUp:
    """Reads what a channel has that the spool has not. Each page commits together with the channel's progress."""

    def __init__(
        self,
        telegram: Telegram,
        channels: Channels,
        spool: Spool,
        reader: Reader,
        stored: Stored,
        *,
        history_depth: int,
        edit_window: int,
        on_recovered: Recovered,
        bot: bool = False,
    ) -> None:
        self._telegram = telegram
        self._channels = channels
        self._spool = spool
        self._reader = reader
        self._stored = stored
        self._history_depth = history_depth
        self._edit_window = edit_window
        self._on_recovered = on_recovered
        self._bot = bot

    async def channel(self, channel_id: int) -> None:
        """Go on until nothing is missing, or a later hole is known.

        Raises ChannelGoneError and Telegram's refusals, StoreAwayError where what is stored decides and is not told.
        """
        while True:
            known = self._channels[channel_id]
            if known.pts is None or (known.last_message_id is None and not self._bot):
                await self._begin(channel_id)
                if self._bot or self._channels[channel_id].pts is None:
                    return
                continue
            try:
                answer = await self._difference(channel_id, known.pts)
            except (errors.PersistentTimestampInvalidError, errors.PersistentTimestampEmptyError):
                self._channels.forget_count(channel_id)
                continue
            if await self._take(channel_id, answer):
                return

    async def _take(self, channel_id: int, answer: Any) -> bool:
        """One answer to a difference; True when it was the last one."""
        match answer:
            case types.updates.ChannelDifferenceEmpty():
                await self._spool.commit(channels=[self._channels.read_to_end(channel_id, answer.pts)])
                return True
            case types.updates.ChannelDifferenceTooLong():
                await self._too_long(channel_id, answer.dialog.pts)
                return False
        events = self._difference_events(channel_id, answer)
        await self._spool.room()
        last = max((message.id for message in answer.new_messages), default=0)
        await self._commit(events, self._channels.read(channel_id, last, answer.pts))
        if not answer.final:
            return False
        self._spool.append(channels=[self._channels.read_to_end(channel_id, answer.pts)])
        return True

    def _difference_events(self, channel_id: int, answer: Any) -> list[Event]:
        events = self._reader.messages(answer.new_messages)
        for update in answer.other_updates:
            match update:
                case types.UpdateNewChannelMessage():
                    events += self._reader.messages([update.message])
                case types.UpdateEditChannelMessage():
                    events += self._reader.messages([update.message], "edit")
                case types.UpdateChannelWebPage():
                    events += self._reader.preview(update, utc_now())
                case types.UpdateDeleteChannelMessages():
                    events += self._reader.deleted(channel_id, update.messages, utc_now())
        return events

    async def _difference(self, channel_id: int, pts: int) -> Any:
        channel = types.InputChannel(unmarked(channel_id), await self._access_hash(channel_id))
        return await self._telegram.ask(
            GetChannelDifferenceRequest(
                channel=channel,
                filter=types.ChannelMessagesFilterEmpty(),
                pts=pts,
                limit=_BOT_PAGE if self._bot else PAGE,
                force=False,
            )
        )

    async def _too_long(self, channel_id: int, pts: int) -> None:
        """Telegram does not list the changes any more: history shows what became of the messages.

        The count is that of the answer, made before history is read: what changes meanwhile is in the next difference.
        """
        if self._bot:
            log.error(
                "channel %d has changed too much for a bot to hear of it: what it missed up to count %d is lost",
                channel_id,
                pts,
                extra={"channel_id": channel_id},
            )
        else:
            await self._reread(channel_id)
            await self._newer(channel_id)
        await self._spool.commit(channels=[self._channels.read(channel_id, 0, pts)])

    async def _begin(self, channel_id: int) -> None:
        """A channel without a count of ours: seen for the first time, or its cursor came from elsewhere."""
        if self._bot:  # cannot read history: it has what came live
            await self._access_hash(channel_id)
            await self._spool.commit(channels=[self._channels.read_to_end(channel_id, None)])
            return
        newest, pts = await self._page(channel_id, limit=1)
        if self._channels[channel_id].last_message_id is None:
            await self._begin_unknown(channel_id, max((message.id for message in newest), default=0), pts)
        else:
            await self._reread(channel_id)
            await self._newer(channel_id)
            await self._spool.commit(channels=[self._channels.read(channel_id, 0, pts)])
        if pts is None:
            await self._spool.commit(channels=[self._channels.read_to_end(channel_id, None)])

    async def _begin_unknown(self, channel_id: int, last: int, pts: int | None) -> None:
        """The spool has nothing of the channel, whose newest message was `last` at count `pts`: maybe the store has.

        Nothing is noted before the stored window was compared, so that a crash leads back to here.
        """
        span = await self._stored_before(channel_id)
        if span is None:
            await self._newest(channel_id)
        else:
            await self._compare(channel_id, span)
            # A number above Telegram's own would hide whatever comes until then.
            await self._spool.commit(channels=[self._channels.read(channel_id, min(span.newest, last))])
            await self._newer(channel_id)
        await self._spool.commit(channels=[self._channels.read(channel_id, last, pts)])

    async def _stored_before(self, channel_id: int) -> Span | None:
        """What was stored before this gateway added to it: what came live may be there already."""
        span = await self._stored.span(channel_id)
        live = await self._spool.first_new(channel_id)
        if span is None or live is None or live > span.newest:
            return span
        return await self._stored.span(channel_id, below=live)

    async def _newer(self, channel_id: int) -> None:
        """Everything above the cursor, oldest first."""
        while True:
            since = self._channels[channel_id].last_message_id or 0
            found, _ = await self._page(channel_id, offset_id=since + 1, add_offset=-PAGE)
            newer = sorted((message for message in found if message.id > since), key=lambda message: message.id)
            if not newer:
                return
            events = self._reader.messages(newer)
            await self._spool.room()
            await self._commit(events, self._channels.read(channel_id, newer[-1].id))

    async def _newest(self, channel_id: int) -> None:
        """The newest messages of a channel that was never read, at most the configured depth."""
        count, offset = 0, 0
        while count < self._history_depth:
            found, _ = await self._page(channel_id, offset_id=offset, limit=min(PAGE, self._history_depth - count))
            if not found:
                return
            events = self._reader.messages(sorted(found, key=lambda message: message.id))
            await self._spool.room()
            await self._commit(events)
            count += len(found)
            offset = min(message.id for message in found)

    async def _reread(self, channel_id: int) -> None:
        """The window below the cursor: which of its messages were edited, and which are gone.

        History is without holes between the first and the last message of a page, so what the spool remembers there
        and history does not show was deleted.
        """
        offset = (self._channels[channel_id].last_message_id or 0) + 1
        seen = 0
        while seen < self._edit_window and offset > 1:
            found, _ = await self._page(channel_id, offset_id=offset, limit=min(PAGE, self._edit_window - seen))
            shown = {message.id for message in found if not isinstance(message, types.MessageEmpty)}
            if not shown:
                return
            remembered = await self._spool.remembered(channel_id, min(shown), offset - 1)
            events = self._reader.deleted(channel_id, sorted(remembered - shown), utc_now())
            edited = [message for message in found if getattr(message, "edit_date", None)]
            events += self._reader.messages(sorted(edited, key=lambda message: message.id), "edit")
            await self._spool.room()
            await self._commit(events)
            seen += len(found)
            offset = min(shown)

    async def _compare(self, channel_id: int, span: Span) -> None:
        """The window below the newest stored message: what was edited, is gone, or was never stored.

        Goes on below the window while something is found that was never stored: another host may have died in the
        middle of a recovery.
        """
        offset, seen, lacked = span.newest + 1, 0, False
        while (seen < self._edit_window or lacked) and offset > span.oldest:
            found, _ = await self._page(channel_id, offset_id=offset)
            shown = {message.id for message in found if not isinstance(message, types.MessageEmpty)}
            if not shown:
                return
            known = await self._stored.messages(channel_id, min(shown), offset - 1)
            lacking = self._reader.messages(
                sorted(
                    (message for message in found if message.id not in known and message.id > span.oldest),
                    key=lambda message: message.id,
                )
            )
            await self._spool.room()
            await self._commit(self._changed(channel_id, found, shown, known) + lacking)
            seen, lacked = seen + len(found), bool(lacking)
            offset = min(shown)

    def _changed(
        self, channel_id: int, found: Sequence[Any], shown: set[int], known: Mapping[int, Known]
    ) -> list[Event]:
        """Of stored messages: those that are gone, and edits. An edit that was taken over with its text is none."""
        gone = [number for number, stored in known.items() if not stored.deleted and number not in shown]
        edited = [
            message
            for message in found
            if getattr(message, "edit_date", None)
            and message.id in known
            and not known[message.id].deleted
            and known[message.id].adopted_text != message.message
        ]
        events = self._reader.deleted(channel_id, sorted(gone), utc_now())
        return events + self._reader.messages(sorted(edited, key=lambda message: message.id), "edit")

    async def _commit(self, events: Sequence[Event], progress: Channel | None = None) -> None:
        await self._spool.commit(events, [] if progress is None else [progress])
        if events:
            self._on_recovered(events)

    async def _page(
        self, channel_id: int, *, offset_id: int = 0, add_offset: int = 0, limit: int = PAGE
    ) -> tuple[Sequence[Any], int | None]:
        result = await history(
            self._telegram,
            channel_id,
            await self._access_hash(channel_id),
            offset_id=offset_id,
            add_offset=add_offset,
            limit=limit,
        )
        return result.messages, getattr(result, "pts", None)

    async def _access_hash(self, channel_id: int) -> int:
        known = self._channels[channel_id]
        if known.access_hash is None and self._bot:  # a bot has no list of chats: Telethon has seen the channel live
            try:
                peer = await self._telegram.client.get_input_entity(types.PeerChannel(unmarked(channel_id)))
            except ValueError:
                raise ChannelGoneError("the bot has not met it yet") from None
            described = self._channels.describe(marked(peer.channel_id), peer.access_hash, known.title, known.username)
            await self._spool.commit(channels=[described])
            return int(peer.access_hash)
        if known.access_hash is None:
            raise ChannelGoneError("the account is not in it")
        return known.access_hash

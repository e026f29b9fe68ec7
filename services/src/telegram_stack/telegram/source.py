"""Telegram as the source of events: one connection after another, each followed by gap recovery."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from telethon import TelegramClient, errors, events, functions
from telethon.crypto import rsa
from telethon.sessions import StringSession
from telethon.tl import types

from telegram_stack.events import Event, Kind, utc_now
from telegram_stack.observability.backoff import Backoff
from telegram_stack.spool import Channel, Spool, SpoolFullError
from telegram_stack.telegram.asking import FloodReport, FloodWaits, Telegram
from telegram_stack.telegram.catchup import CatchUp
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.client import TEMPORARY, VOID, Client, Server, lost, void_cause
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.lease import Lease, LeaseError, NoLease, lease_name
from telegram_stack.telegram.proxy import Proxy
from telegram_stack.telegram.reading import Reader
from telegram_stack.telegram.recovery import Progress, Recovery
from telegram_stack.telegram.session import SessionError, SessionFile
from telegram_stack.telegram.stored import NothingStored, Stored
from telegram_stack.telegram.tasks import first_failure

log = logging.getLogger(__name__)

State = Literal["starting", "unauthenticated", "connecting", "connected", "stopped"]

STATES: tuple[State, ...] = get_args(State)

_VOID_SECONDS = 300.0
_SESSION_POLL_SECONDS = 1.0
_QUEUE_DRAIN_SECONDS = 2.0
_BOUND_SECONDS = 0.1
_LEASE_SECONDS = 2.0


class Reception(FloodReport, Protocol):
    """Who wants to know what comes in."""

    def received(self, event: Event) -> None:
        """An update became an event."""

    def not_converted(self, channel_id: int | None) -> None:
        """An update or message could not be understood."""

    def recovered(self, events: Sequence[Event]) -> None:
        """These came from Telegram's records."""

    def backed_off(self) -> None:
        """The connection was given up because more came in than could be kept."""

    def connected(self, up: bool) -> None:
        """The connection came or went."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far recovery goes.

    `history_depth`: the newest messages of a channel of which nothing is stored. `edit_window`: the messages below the
    cursor that are read again for edits and deletions where Telegram does not list the changes any more.
    `check_seconds`: how often the channels' counts are compared with Telegram's, give or take a fifth.
    `concurrency`: channels caught up at once.
    """

    history_depth: int = 100
    edit_window: int = 1000
    check_seconds: float = 300.0
    concurrency: int = 4


class BackPressureError(Exception):
    """More comes in than can be kept; Telegram's records keep it meanwhile."""


class TelegramSource:
    """Keeps one connection to Telegram and puts everything it brings into the spool."""

    def __init__(
        self,
        session: SessionFile,
        channels: Channels,
        spool: Spool,
        reception: Reception,
        *,
        api_id: int,
        api_hash: str,
        version: str,
        server: Server | None = None,
        proxy: Proxy | None = None,
        limits: Limits | None = None,
        lease: Lease | None = None,
        stored: Stored | None = None,
        connect_timeout: float = 10.0,
        watchdog_seconds: float = 15.0,
        update_queue_limit: int = 10_000,
    ) -> None:
        self._session = session
        self._channels = channels
        self._spool = spool
        self._reception = reception
        self._api_id = api_id
        self._api_hash = api_hash
        self._version = version
        self._server = server
        self._proxy_options = {} if proxy is None else proxy.client_options()
        self._through = "" if proxy is None else f" (through the {proxy.kind} proxy {proxy.host}:{proxy.port})"
        self._limits = limits or Limits()
        self._lease = lease or NoLease()
        self._stored = stored or NothingStored()
        self._connect_timeout = connect_timeout
        self._watchdog_seconds = watchdog_seconds
        self._update_queue_limit = update_queue_limit
        self.telegram: Telegram | None = None
        """The connection, while there is one."""
        self._reader = Reader(reception.not_converted)
        self._recovery: Recovery | None = None
        self.floods = FloodWaits(reception)
        self.progress = Progress()
        """How far the recovery is."""
        self.state: State = "starting"
        self.cause = ""
        """Why the state is not ``connected``; empty when it is."""
        if server is not None:
            rsa.add_key(server.public_key, old=False)

    async def run(self) -> None:
        """Stay connected until cancelled; a cancel takes in what Telethon holds, then disconnects."""
        backoff = Backoff(first=0.5, limit=30.0)
        try:
            while True:
                stamp = self._session.stamp()
                try:
                    session = self._session.read()
                except SessionError as error:
                    self._note("unauthenticated", str(error))
                    await self._session_change(stamp, None)
                    continue
                try:
                    await self._lease.take(lease_name(session))
                    await first_failure(self._connection(session, backoff), self._lease.keep())
                except LeaseError as error:
                    self._note("connecting", str(error))
                    await asyncio.sleep(_LEASE_SECONDS)
                except BackPressureError as error:
                    self._note("connecting", str(error))
                    self._reception.backed_off()
                    await self._spool.relieved()
                except VOID as error:
                    self._note("unauthenticated", void_cause(error))
                    await self._session_change(stamp, _VOID_SECONDS)
                except Exception as error:
                    if not isinstance(error, TEMPORARY):
                        log.exception("the connection ended by an error that nobody foresaw")
                    self._note("connecting", f"{str(error) or type(error).__name__}{self._through}")
                    await asyncio.sleep(backoff.next())
        finally:
            self.state = "stopped"
            await self._lease.give_back()

    @property
    def bot(self) -> bool:
        """Whether the account is a bot, as far as it was ever connected."""
        return self._reader.source == "bot"

    @property
    def queued_updates(self) -> int:
        """Updates that Telethon holds, not yet looked at."""
        return 0 if self.telegram is None else self.telegram.client._updates_queue.qsize()

    @property
    def clock_offset(self) -> float:
        """Seconds by which Telegram's clock is ahead of this host's, as Telethon found when it connected."""
        return 0.0 if self.telegram is None else float(self.telegram.client._sender._state.time_offset)

    @property
    def gaps(self) -> int:
        """How often a channel was found to lack something, since the program began."""
        return self._channels.gaps

    @property
    def last_message_ids(self) -> dict[int, int]:
        """Per accepted channel the message up to which it is complete."""
        known = self._channels.known.items()
        return {key: channel.last_message_id or 0 for key, channel in known if self._channels.accepts(key)}

    def _note(self, state: State, cause: str) -> None:
        if (state, cause) != (self.state, self.cause):
            log.log(logging.INFO if state == "connected" else logging.WARNING, "Telegram: %s %s", state, cause)
        self.state, self.cause = state, cause

    async def _session_change(self, stamp: tuple[int, ...] | None, limit: float | None) -> None:
        deadline = None if limit is None else asyncio.get_running_loop().time() + limit
        while self._session.stamp() == stamp and (  # noqa: ASYNC110 - a file sends no event
            deadline is None or asyncio.get_running_loop().time() < deadline
        ):
            await asyncio.sleep(_SESSION_POLL_SECONDS)

    # One connection

    def login_client(self) -> TelegramClient:
        """A client without a session, for a log-in."""
        return self._client("", receive_updates=False)

    def _client(self, session: str, **options: Any) -> Client:
        opened = StringSession(session)
        if self._server is not None:
            opened.set_dc(self._server.dc_id, self._server.address, self._server.port)
        client = Client(
            opened,
            self._api_id,
            self._api_hash,
            device_model="telegram-gateway",
            app_version=self._version,
            timeout=self._connect_timeout,
            # Reconnecting is `run`'s: every new connection is followed by a recovery.
            auto_reconnect=False,
            connection_retries=1,
            flood_sleep_threshold=0,  # a sleep inside the update loop would silence every channel
            catch_up=True,
            sequential_updates=True,
            **self._proxy_options,
            **options,
        )
        client.on_gap = self._channels.reopen
        client.add_event_handler(self._on_update, events.Raw())
        return client

    async def _connection(self, session: str, backoff: Backoff) -> None:
        client = self._client(session)
        self._channels.open_all()
        try:
            async with asyncio.timeout(2 * self._connect_timeout):
                await client.connect()
                # Also tells the server to send updates to this connection.
                await client(functions.updates.GetStateRequest())
                bot = await client.is_bot()
            self._note("connected", "")
            self._reception.connected(True)
            backoff.reset()
            self._reader.source = "bot" if bot else "user_client"
            self.telegram = Telegram(client, self.floods)
            self._recovery = self._recovery_of(self.telegram, bot)
            await first_failure(lost(client), self._watch(client), self._recovery.run(), self._bound_memory())
        finally:
            self.telegram = None
            self._reception.connected(False)
            await self._disconnect(client)

    def _recovery_of(self, telegram: Telegram, bot: bool) -> Recovery:
        catch_up = CatchUp(
            telegram,
            self._channels,
            self._spool,
            self._reader,
            self._stored,
            history_depth=self._limits.history_depth,
            edit_window=self._limits.edit_window,
            on_recovered=self._recovered,
            bot=bot,
        )
        return Recovery(
            telegram,
            self._channels,
            self._spool,
            catch_up,
            self.progress,
            check_seconds=self._limits.check_seconds,
            concurrency=self._limits.concurrency,
            bot=bot,
        )

    def _recovered(self, events: Sequence[Event]) -> None:
        self.progress.count(events)
        self._reception.recovered(events)

    async def _bound_memory(self) -> None:
        """Telethon's queue has no bound. Raises BackPressureError: history brings what is not taken now."""
        while True:
            if self._spool.full:
                reason = self._spool.failure or "it is too slow"
                raise BackPressureError(f"the spool takes no more events ({reason}): disconnected until there is room")
            if self.queued_updates > self._update_queue_limit:
                raise BackPressureError(f"{self.queued_updates} updates wait: disconnected to read them from history")
            await asyncio.sleep(_BOUND_SECONDS)

    async def _watch(self, client: TelegramClient) -> None:
        """A half-open connection is otherwise noticed after 60 to 120 s only."""
        while True:
            await asyncio.sleep(self._watchdog_seconds)
            try:
                async with asyncio.timeout(self._watchdog_seconds):
                    await client(functions.updates.GetStateRequest())
            except TimeoutError:
                raise ConnectionError(f"no answer within {self._watchdog_seconds:g} s") from None
            except errors.FloodWaitError as error:
                self.floods.note(error)

    async def _disconnect(self, client: TelegramClient) -> None:
        """Hand over what has arrived, then leave: Telethon drops its queue on disconnect."""
        deadline = asyncio.get_running_loop().time() + _QUEUE_DRAIN_SECONDS
        while client.is_connected() and not client._updates_queue.empty():
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)
        client.remove_event_handler(self._on_update)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                await client.disconnect()

    # Updates

    async def _on_update(self, update: Any) -> None:
        received_at = utc_now()
        try:
            self._take(update, received_at)
        except SpoolFullError:
            self._reopen(update)
        except Exception:  # one update that nobody foresaw must not end the others
            log.exception("an update cannot be understood", extra={"update": type(update).__name__})
            self._reception.not_converted(_channel_of(update))
            self._reopen(update)

    def _take(self, update: Any, received_at: datetime) -> None:
        match update:
            case types.UpdateNewChannelMessage(message=message):
                self._take_message(update, message, "new", received_at)
            case types.UpdateEditChannelMessage(message=message):
                self._take_message(update, message, "edit", received_at)
            case types.UpdateDeleteChannelMessages():
                channel_id = marked(update.channel_id)
                if self._channels.accepts(channel_id):
                    self._append(update, channel_id, self._reader.deleted(channel_id, update.messages, received_at))
            case types.UpdateChannelWebPage():
                channel_id = marked(update.channel_id)
                if self._channels.accepts(channel_id):
                    self._append(update, channel_id, self._reader.preview(update, received_at))
            case types.UpdateChannel():
                if self._recovery is not None:
                    self._recovery.refresh()
            case _:
                channel_id_or_none = _channel_of(update)
                if channel_id_or_none is not None and self._channels.accepts(channel_id_or_none):
                    self._append(update, channel_id_or_none, [])

    def _take_message(self, update: Any, message: Any, kind: Kind, received_at: datetime) -> None:
        channel_id = _channel_of(update)
        if channel_id is None or not self._channels.accepts(channel_id):
            return
        event = self._reader.message(message, kind, received_at)
        taken = [] if event is None else [event]
        self._append(update, channel_id, taken, message.id if kind == "new" else 0)

    def _append(self, update: Any, channel_id: int, taken: Sequence[Event], message_id: int = 0) -> None:
        if taken and self._spool.full:
            raise SpoolFullError
        before = self._channels[channel_id]
        pts, pts_count = getattr(update, "pts", 0) or 0, getattr(update, "pts_count", 0) or 0
        progress = self._channels.live(channel_id, [message_id], pts, pts_count)
        progressed: list[Channel] = [] if progress is None or progress is before else [progress]
        if taken or progressed:
            try:
                self._spool.append(taken, progressed)
            except Exception:
                self._channels.restore(before)  # what was not taken is not complete
                raise
        for event in taken:
            self._reception.received(event)

    def _reopen(self, update: Any) -> None:
        channel_id = _channel_of(update)
        if channel_id is not None:
            self._channels.reopen(channel_id)


def _channel_of(update: Any) -> int | None:
    """The marked id of the channel that a counted update is about."""
    message = getattr(update, "message", None)
    peer = getattr(message, "peer_id", None)
    if isinstance(peer, types.PeerChannel):
        return marked(peer.channel_id)
    number = getattr(update, "channel_id", None)
    return marked(number) if isinstance(number, int) and hasattr(update, "pts_count") else None

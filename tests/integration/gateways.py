"""A gateway with sinks that are lists, before a simulated Telegram in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet
from telethon.crypto import AuthKey
from telethon.sessions import StringSession
from tests.integration.servers import until

from telegram_stack.events import Event
from telegram_stack.simulator import objects
from telegram_stack.simulator.model import BOT, Draft
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.simulator.server import Settings
from telegram_stack.simulator.store import Store
from telegram_stack.sinks.base import Sink, drain
from telegram_stack.spool import Channel, Entry, Spool
from telegram_stack.telegram.channels import Channels, Policy
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.telegram.source import TelegramSource

KEY = Fernet.generate_key().decode()


class ListSink:
    """Keeps what it is given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[Entry] = []

    async def write(self, batch: Sequence[Entry]) -> None:
        self.entries += batch

    async def close(self) -> None:
        pass

    def keys(self, *kinds: str) -> Counter[tuple[int, int]]:
        return Counter(entry.event.key for entry in self.entries if entry.event.kind in (kinds or ("new",)))


@dataclass
class Reception:
    """Counts what the source reports."""

    back: list[Event] = field(default_factory=list)
    floods: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    back_offs: int = 0
    misunderstood: int = 0
    live: list[Event] = field(default_factory=list)

    def received(self, event: Event) -> None:
        self.live.append(event)

    def not_converted(self, channel_id: int | None) -> None:
        self.misunderstood += 1

    def recovered(self, events: Sequence[Event]) -> None:
        self.back += events

    def flood_wait(self, method: str, seconds: int) -> None:
        self.floods[method] += seconds

    def backed_off(self) -> None:
        self.back_offs += 1

    def connected(self, up: bool) -> None:
        self.connections += up


class Silent:
    """An observer of sinks that has nothing to say."""

    def written(self, sink: str, entries: Sequence[Entry]) -> None: ...

    def unavailable(self, sink: str, reason: str) -> None: ...

    def rejected(self, sink: str, entries: Sequence[Entry], reason: str) -> None: ...


@dataclass
class Gateway:
    """A gateway that runs, with sinks that are lists."""

    source: TelegramSource
    spool: Spool
    channels: Channels
    reception: Reception

    async def complete(self) -> None:
        """Wait until it is connected and no channel is open."""
        await until(lambda: self.source.state == "connected" and not self.channels.open and self.channels.known, 20)


@pytest.fixture
async def telegram(tmp_path: Path) -> AsyncIterator[Telegram]:
    store = Store(tmp_path / "telegram.sqlite")
    store.add_channels("Sinais", 3)
    server = Telegram(store, Settings(history_rate=0))
    await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.stop()
        store.close()


@pytest.fixture
def sinks() -> list[ListSink]:
    return [ListSink("database"), ListSink("queue"), ListSink("cache")]


@pytest.fixture
def session(telegram: Telegram, tmp_path: Path) -> SessionFile:
    folder = tmp_path / "gateway"
    folder.mkdir(mode=0o700)
    file = SessionFile(folder / "session", KEY)
    file.write(ready_session(telegram))
    return file


def bot_session(telegram: Telegram) -> str:
    return ready_session(telegram, f"{BOT}123456")


def ready_session(telegram: Telegram, phone: str = "5511999990000") -> str:
    account = telegram.store.account(phone)
    key = b"\x01" + os.urandom(255)
    telegram.store.add_key(key, account.id)
    session = StringSession()
    assert telegram._listener is not None
    session.set_dc(objects.DC_ID, *telegram._listener.sockets[0].getsockname()[:2])
    session.auth_key = AuthKey(key)
    saved: str = session.save()
    return saved


@asynccontextmanager
async def running(
    session: SessionFile,
    sinks: Sequence[Sink],
    policy: Policy = "all",
    *,
    cursors: Mapping[int, int] | None = None,
    counts: Mapping[int, int] | None = None,
    folder: str = ".",
    pending_limit: int = 50_000,
    retain: int = 10_000,
    reserve_bytes: int = 0,
    unfinished: Collection[str] = (),
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A gateway until the end of the block, then handed over; `cursors` and `counts` are known before.

    `unfinished` names sinks that may be behind at the end.
    """
    (session.path.parent / folder).mkdir(exist_ok=True)
    path = session.path.parent / folder / "spool.db"
    spool = Spool(
        path,
        [sink.name for sink in sinks],
        pending_limit=pending_limit,
        retain=retain,
        reserve_bytes=reserve_bytes,
    )
    await spool.open()
    known = spool.stored_channels()
    for channel_id, last in (cursors or {}).items():
        known[channel_id] = msgspec.structs.replace(
            known.get(channel_id, Channel(channel_id=channel_id)), last_message_id=last
        )
    for channel_id, pts in (counts or {}).items():
        known[channel_id] = msgspec.structs.replace(known[channel_id], pts=pts)
    channels = Channels(known, policy)
    reception = Reception()
    source = TelegramSource(session, channels, spool, reception, api_id=1, api_hash="x", version="test", **settings)
    receiving = asyncio.create_task(source.run())
    drains = [asyncio.create_task(drain(sink, spool, Silent())) for sink in sinks]
    try:
        yield Gateway(source, spool, channels, reception)
    finally:
        receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await receiving
        async with asyncio.timeout(20):
            await spool.commit()
            await spool.drained([sink.name for sink in sinks if sink.name not in unfinished])
        for task in drains:
            task.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        assert await spool.close() == 0


def post(telegram: Telegram, count: int, channel: int | None = None) -> set[tuple[int, int]]:
    """Post messages, dealt out to all channels or to one; returns their keys."""
    channels = list(telegram.store.channels) if channel is None else [channel]
    drafts = [Draft(channels[number % len(channels)], f"Nº {number}") for number in range(count)]
    return {(marked(message.channel_id), message.id) for message in telegram.post(drafts)}

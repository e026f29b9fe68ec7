"""The gateway's source against the simulated Telegram: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from telethon.crypto import AuthKey
from telethon.sessions import StringSession
from tests.integration.servers import until

from telegram_stack.events import Event
from telegram_stack.simulator import objects
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.simulator.server import Settings
from telegram_stack.simulator.store import Draft, Store
from telegram_stack.sinks.base import drain
from telegram_stack.spool import Entry, Spool
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

    recovered_messages: int = 0
    flood_seconds: int = 0
    connections: int = 0
    misunderstood: int = 0
    live: list[Event] = field(default_factory=list)

    def received(self, event: Event) -> None:
        self.live.append(event)

    def not_converted(self, channel_id: int | None) -> None:
        self.misunderstood += 1

    def recovered(self, messages: int) -> None:
        self.recovered_messages += messages

    def flood_wait(self, seconds: int) -> None:
        self.flood_seconds += seconds

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


def ready_session(telegram: Telegram) -> str:
    account = telegram.store.account("5511999990000")
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
    session: SessionFile, sinks: Sequence[ListSink], policy: Policy = "all", **settings: Any
) -> AsyncIterator[Gateway]:
    spool = Spool(session.path.parent / "spool.db", [sink.name for sink in sinks])
    await spool.open()
    channels = Channels(spool.stored_channels(), policy)
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
        await spool.commit()
        await asyncio.wait_for(spool.drained(), 10)
        for task in drains:
            task.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        assert await spool.close() == 0


def post(telegram: Telegram, count: int, channel: int | None = None) -> set[tuple[int, int]]:
    """Post messages, dealt out to all channels or to one; returns their keys."""
    channels = list(telegram.store.channels) if channel is None else [channel]
    drafts = [Draft(channels[number % len(channels)], f"Nº {number}") for number in range(count)]
    return {(marked(message.channel_id), message.id) for message in telegram.post(drafts)}


@pytest.mark.requirement("GW-04")
async def test_a_thousand_messages_reach_every_sink_once(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
        sent: set[tuple[int, int]] = set()
        for _ in range(10):
            sent |= post(telegram, 100)
            await asyncio.sleep(0.02)
        for sink in sinks:
            await until(lambda sink=sink: len(sink.entries) >= 1000, 30)
    for sink in sinks:
        assert sink.keys() == Counter(sent)
    assert gateway.reception.misunderstood == 0


@pytest.mark.requirement("GW-10")
@pytest.mark.requirement("GW-06")
async def test_a_restart_during_the_push_loses_nothing(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    sent: set[tuple[int, int]] = set()

    async def push() -> None:
        for _ in range(100):
            sent.update(post(telegram, 10))
            await asyncio.sleep(0.02)

    async with running(session, sinks) as gateway:
        await gateway.complete()
    pushing = asyncio.create_task(push())
    for _ in range(3):
        async with running(session, sinks):
            await asyncio.sleep(0.4)
    await pushing
    async with running(session, sinks) as gateway:
        await gateway.complete()
        assert not gateway.spool.pending
    for sink in sinks:
        assert sink.keys() == Counter(sent)


@pytest.mark.requirement("GW-06")
async def test_a_cut_connection_is_followed_by_recovery(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
        sent = post(telegram, 30)
        telegram.disconnect(0.5)
        sent |= post(telegram, 270)
        await until(lambda: gateway.reception.connections >= 2)
        await gateway.complete()
        sent |= post(telegram, 30)
        await until(lambda: len(sinks[0].keys()) >= 330)
    assert sinks[0].keys() == Counter(sent)
    assert gateway.reception.recovered_messages >= 270


@pytest.mark.requirement("GW-06")
async def test_messages_pushed_while_history_is_read_are_complete(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
    sent = post(telegram, 900)
    async with running(session, sinks) as gateway:
        while gateway.source.state != "connected" or gateway.channels.open or not gateway.channels.known:
            sent |= post(telegram, 3)
            await asyncio.sleep(0.01)
        sent |= post(telegram, 3)
        await until(lambda: len(sinks[0].keys()) >= len(sent))
        assert sinks[0].keys() == Counter(sent)
        for channel_id, channel in gateway.channels.known.items():
            record = telegram.store.channels[-channel_id - 10**12]
            await until(lambda c=channel_id, r=record: gateway.channels[c].last_message_id == r.last_message_id)
            assert gateway.channels[channel_id].pts == record.pts, channel


@pytest.mark.requirement("GW-04")
async def test_edits_and_deletes_follow_their_message(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
        channel = next(iter(telegram.store.channels))
        ((_, first), (_, second)) = sorted(post(telegram, 2, channel))
        telegram.edit(channel, first, "another text")
        telegram.delete(channel, [second])
        await until(lambda: len(sinks[0].entries) == 4)
    found = [(entry.event.kind, entry.event.message_id) for entry in sinks[0].entries]
    assert found == [("new", first), ("new", second), ("edit", first), ("delete", second)]
    assert sinks[0].entries[2].event.content is not None
    assert sinks[0].entries[2].event.content.text == "another text"
    assert sinks[0].entries[2].event.version > sinks[0].entries[0].event.version


@pytest.mark.requirement("GW-15")
async def test_a_new_channel_brings_its_newest_messages(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    sent = post(telegram, 250, channel)
    async with running(session, sinks, history_depth=120) as gateway:
        await gateway.complete()
    assert sinks[0].keys() == Counter(sorted(sent)[-120:])


@pytest.mark.requirement("GW-15")
async def test_only_registered_channels_are_taken_and_a_new_one_is_read(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    first, second, _ = (marked(channel) for channel in telegram.store.channels)
    async with running(session, sinks, "registered") as gateway:
        await gateway.complete()
        gateway.channels.register({first: True, second: False})
        sent = post(telegram, 30)
        await until(lambda: len(sinks[0].keys()) >= 10)
        assert set(sinks[0].keys()) == {key for key in sent if key[0] == first}
        gateway.channels.register({first: True, second: True})
        await until(lambda: len(sinks[0].keys()) >= 20)
        assert set(sinks[0].keys()) == {key for key in sent if key[0] in (first, second)}


@pytest.mark.requirement("GW-02")
async def test_without_a_session_it_stays_up_and_takes_one_when_it_comes(
    telegram: Telegram, tmp_path: Path, sinks: list[ListSink]
) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir(mode=0o700)
    file = SessionFile(folder / "session", KEY)
    async with running(file, sinks) as gateway:
        await until(lambda: gateway.source.state == "unauthenticated")
        assert "import-session" in gateway.source.cause
        file.write(ready_session(telegram))
        await gateway.complete()


@pytest.mark.requirement("GW-16")
async def test_a_voided_session_is_a_state_with_a_way_out(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
        for key in list(telegram._connections):
            assert key.key is not None
            telegram.store.kill_key(key.key)
        telegram.disconnect(0)
        await until(lambda: gateway.source.state == "unauthenticated", 20)
        assert "import-session --replace" in gateway.source.cause
        session.write(ready_session(telegram), replace=True)
        sent = post(telegram, 3)
        await gateway.complete()
    assert sinks[0].keys() == Counter(sent)


@pytest.mark.requirement("GW-06")
async def test_a_flood_wait_holds_the_recovery_alone(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
    missed = post(telegram, 300)
    telegram.settings = Settings(history_rate=1, history_burst=1)
    telegram.history_limit = type(telegram.history_limit)(1, 1)
    async with running(session, sinks) as gateway:
        await until(lambda: gateway.reception.flood_seconds > 0, 20)
        live = post(telegram, 3)
        await until(lambda: live <= set(sinks[0].keys()), 2)
        telegram.history_limit = type(telegram.history_limit)(0, 1)
        await gateway.complete()
    assert sinks[0].keys() == Counter(missed | live)

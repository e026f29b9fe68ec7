"""A backfill on request: beside live messages, within flood limits, without touching what the channels know."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.gateways import Gateway, ListSink, bot_session, post, running
from tests.integration.servers import until

from telegram_stack.events import Event
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.simulator.server import Settings
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.telegram.source import Limits
from telegram_stack.telegram.sync import Sync, SyncConflictError

NO_HISTORY = Limits(history_depth=0)


@asynccontextmanager
async def syncing(gateway: Gateway, synced: list[Event]) -> AsyncIterator[Sync]:
    sync = Sync(
        gateway.spool,
        gateway.channels,
        gateway.source,
        not_converted=gateway.reception.not_converted,
        synced=synced.extend,
    )
    await sync.load()
    task = asyncio.create_task(sync.run())
    try:
        yield sync
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def done(sync: Sync, within: float = 20) -> None:
    await until(lambda: sync.progress.status == "done", within)


@pytest.mark.requirement("GW-07")
async def test_a_backfill_moves_no_cursor_and_has_no_second_effect(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    first, second, _ = telegram.store.channels
    old = post(telegram, 250, first) | post(telegram, 30, second)
    synced: list[Event] = []
    async with running(session, sinks, limits=NO_HISTORY) as gateway, syncing(gateway, synced) as sync:
        await gateway.complete()
        live = post(telegram, 5, first)
        await until(lambda: sinks[0].keys() == Counter(live))
        known = dict(gateway.channels.known)
        await sync.begin(200, [], 3)
        await done(sync)
        assert dict(gateway.channels.known) == known
        assert (sync.progress.messages, sync.progress.channels_done) == (230, 3)
        wanted = {key for key in old if key[0] == marked(second) or key[1] > 55} | live
        await until(lambda: sinks[0].keys() == Counter(wanted))
        assert {event.source for event in synced} == {"user_client"}

        await sync.begin(200, [marked(first)], 1)  # once more: the spool knows each of them
        await done(sync)
        last = post(telegram, 1)
        await until(lambda: last <= set(sinks[0].keys()))
    assert sinks[0].keys() == Counter(wanted | last)
    assert sinks[0].keys("edit", "delete") == Counter()


@pytest.mark.requirement("GW-07")
async def test_a_backfill_waits_out_floods_and_lost_connections_while_messages_flow(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    telegram.settings = Settings(history_rate=0)
    channel = next(iter(telegram.store.channels))
    old = post(telegram, 450, channel)
    synced: list[Event] = []
    async with running(session, sinks, limits=NO_HISTORY) as gateway, syncing(gateway, synced) as sync:
        await gateway.complete()
        telegram.faults.flood("getHistory", 2)
        await sync.begin(10_000, [marked(channel)], 3)
        await until(lambda: gateway.reception.floods["getHistory"])
        live = post(telegram, 50, channel)
        await until(lambda: live <= set(sinks[0].keys()))
        assert not synced
        await until(lambda: synced)
        telegram.disconnect(0)
        await done(sync, 30)
        await until(lambda: set(sinks[0].keys()) == old | live)
    assert sinks[0].keys() == Counter(old | live)


@pytest.mark.requirement("GW-07")
async def test_channels_that_cannot_be_read_are_named_and_a_bot_is_refused(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    first, second, _ = telegram.store.channels
    post(telegram, 10, second)
    async with running(session, sinks, limits=NO_HISTORY) as gateway, syncing(gateway, []) as sync:
        await gateway.complete()
        telegram.faults.private = {first}
        await sync.begin(10, [marked(first), marked(second), -1009999], 3)
        await done(sync)
        assert sync.progress.messages == 10
        assert set(sync.progress.unreadable) == {marked(first), -1009999}
    session.write(bot_session(telegram), replace=True)
    settings: dict[str, Any] = {"folder": "bot"}
    async with running(session, sinks, **settings) as gateway, syncing(gateway, []) as sync:
        await until(lambda: gateway.source.state == "connected", 20)
        await until(lambda: gateway.source.bot)
        with pytest.raises(SyncConflictError, match="a bot cannot read history"):
            await sync.begin(10, [], 3)

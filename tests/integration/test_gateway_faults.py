"""A Telegram that misbehaves: nothing is lost, nothing comes twice, and the gateway comes back by itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter

import pytest
from tests.integration.gateways import ListSink, bot_session, post, running
from tests.integration.servers import until
from tests.integration.test_gateway_recovery import assert_same, edit_and_delete

from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.simulator.server import Settings
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.telegram.source import Limits


@pytest.mark.requirement("GW-06")
async def test_skipped_doubled_and_shuffled_updates(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks) as gateway:
        await gateway.complete()
        sent = post(telegram, 10, channel)
        for fault in ("skip", "duplicate", "shuffle"):
            setattr(telegram.faults, fault, 5)
            sent |= post(telegram, 20, channel)
        edit_and_delete(telegram, channel, [3], [4, 5])
        await until(lambda: len(sinks[0].keys("new", "delete")) >= 70)
        await until(lambda: len(sinks[0].entries) >= 73)
        await until(lambda: gateway.channels[marked(channel)].pts == telegram.store.channels[channel].pts)
    for sink in sinks:
        assert sink.keys() == Counter(sent)
        assert_same(telegram, sink, {(marked(channel), 4), (marked(channel), 5)})


@pytest.mark.requirement("GW-06")
async def test_a_half_open_connection_is_left(telegram: Telegram, session: SessionFile, sinks: list[ListSink]) -> None:
    async with running(session, sinks, watchdog_seconds=0.3, connect_timeout=0.5) as gateway:
        await gateway.complete()
        telegram.faults.silent = True
        sent = post(telegram, 30)
        await until(lambda: gateway.source.state == "connecting", 10)
        assert gateway.source.cause
        telegram.faults.silent = False
        await until(lambda: gateway.reception.connections >= 2, 20)
        await until(lambda: sent <= set(sinks[0].keys()))
    assert sinks[0].keys() == Counter(sent)


@pytest.mark.requirement("GW-06")
async def test_slow_answers_hold_no_live_message(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
    missed = post(telegram, 300)
    async with running(session, sinks, connect_timeout=20) as gateway:
        await until(lambda: gateway.source.state == "connected", 20)
        telegram.faults.delay = 0.2
        telegram.disconnect(0)
        await until(lambda: gateway.reception.connections >= 2, 20)
        live = post(telegram, 30)
        await until(lambda: live <= set(sinks[0].keys()))
        await gateway.complete()
        telegram.faults.delay = 0
    assert sinks[0].keys() == Counter(missed | live)


@pytest.mark.requirement("GW-06")
async def test_a_clock_that_drifts_loses_nothing(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
        sent = post(telegram, 30)
        telegram.store.clock.drift = -5000
        telegram.disconnect(0)
        await until(lambda: gateway.reception.connections >= 2, 20)
        sent |= post(telegram, 30)
        await until(lambda: sent <= set(sinks[0].keys()))
        await gateway.complete()
    assert sinks[0].keys() == Counter(sent)


@pytest.mark.requirement("GW-06")
async def test_a_flood_wait_of_one_method_holds_no_other(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    first, second, _ = telegram.store.channels
    async with running(session, sinks) as gateway:
        await gateway.complete()
    telegram.settings = Settings(history_rate=0, difference_limit=20)
    telegram.faults.flood("getHistory", 600)
    long, short = post(telegram, 30, first), post(telegram, 10, second)
    async with running(session, sinks) as gateway:
        await until(lambda: gateway.reception.floods["getHistory"], 10)
        await until(lambda: short <= set(sinks[0].keys()))
        assert gateway.source.floods.remaining("getHistory") > 500
        assert not long & set(sinks[0].keys())
        assert gateway.channels.open == [marked(first)]


@pytest.mark.requirement("GW-16")
async def test_a_key_used_from_two_addresses_is_a_state(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    async with running(session, sinks) as gateway:
        await gateway.complete()
        [connection] = telegram._connections
        connection.peer_address = "10.9.8.7"  # as if the first one came from elsewhere
        async with running(session, [ListSink("other")], folder="other") as second:
            await until(lambda: second.source.state == "unauthenticated", 20)
            assert "two addresses at once" in second.source.cause
        telegram.disconnect(0)
        await until(lambda: gateway.source.state == "unauthenticated", 20)
        assert "import-session --replace" in gateway.source.cause


@pytest.mark.requirement("GW-12")
async def test_a_bot_recovers_what_telegram_lists_for_it(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    session.write(bot_session(telegram), replace=True)
    async with running(session, sinks, limits=Limits(check_seconds=1)) as gateway:
        await until(lambda: gateway.source.state == "connected", 10)
        sent = post(telegram, 5, channel)
        await until(lambda: sent <= set(sinks[0].keys()))
        await until(lambda: gateway.channels[marked(channel)].pts == telegram.store.channels[channel].pts)
        telegram.disconnect(0.5)
        sent |= post(telegram, 5, channel)
        edit_and_delete(telegram, channel, [1], [2])
        await until(lambda: gateway.reception.connections >= 2, 10)
        await until(lambda: sent <= set(sinks[0].keys()))
        await gateway.complete()
    assert_same(telegram, sinks[0], {(marked(channel), 2)})
    edit_and_delete(telegram, channel, [3], [4])
    sent |= post(telegram, 5, channel)
    async with running(session, sinks) as gateway:
        await gateway.complete()
    assert_same(telegram, sinks[0], {(marked(channel), 2), (marked(channel), 4)})
    assert telegram.counted["GetHistoryRequest"] == 0


@pytest.mark.requirement("GW-06")
async def test_a_blocked_spool_bounds_the_memory_and_loses_nothing(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks, pending_limit=100) as gateway:
        await gateway.complete()
        sent = post(telegram, 20, channel)
        await until(lambda: len(sinks[0].entries) == 20)
        blocker = sqlite3.connect(session.path.parent / "spool.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        try:
            sent |= post(telegram, 500, channel)
            await until(lambda: gateway.reception.back_offs, 20)
            await until(lambda: not telegram.connections, 20)
            assert "the spool takes no more events" in gateway.source.cause
            assert gateway.spool.pending <= 100
            assert gateway.source.queued_updates == 0
            edit_and_delete(telegram, channel, [1, 500], [2, 499])
            sent |= post(telegram, 500, channel)
        finally:
            blocker.execute("ROLLBACK")
            blocker.close()
        await until(lambda: gateway.reception.connections >= 2, 20)
        await gateway.complete()
        await until(lambda: gateway.channels[marked(channel)].pts == telegram.store.channels[channel].pts, 20)
        await gateway.spool.commit()
    assert_same(telegram, sinks[0], {(marked(channel), 2)})
    assert max(sinks[0].keys().values()) == 1


@pytest.mark.requirement("GW-06")
async def test_updates_that_nobody_looks_at_are_read_from_history(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks, update_queue_limit=5) as gateway:
        await gateway.complete()
        sent: set[tuple[int, int]] = set()
        while not gateway.reception.back_offs:
            sent |= post(telegram, 500, channel)
            await asyncio.sleep(0.01)
        await until(lambda: sent <= set(sinks[0].keys()), 30)
    assert sinks[0].keys() == Counter(sent)

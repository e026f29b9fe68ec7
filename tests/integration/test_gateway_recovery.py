"""What happened while the gateway was away, edits and deletions included, comes from Telegram's records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.integration.gateways import ListSink, post, running
from tests.integration.servers import until

from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.simulator.server import Settings
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.telegram.source import Limits

Key = tuple[int, int]


def state(sink: ListSink) -> dict[Key, str | None]:
    """What a store that follows the versions shows: the text, None for what is deleted."""
    newest: dict[Key, Any] = {}
    deleted: set[Key] = set()
    for entry in sink.entries:
        event = entry.event
        if event.kind == "delete":
            deleted.add(event.key)
        elif event.key not in newest or event.version > newest[event.key].version:
            newest[event.key] = event
    shown = {key: event.content.text for key, event in newest.items() if event.content is not None}
    return {key: None if key in deleted else text for key, text in shown.items()} | dict.fromkeys(deleted - set(shown))


def shown(telegram: Telegram) -> dict[Key, str]:
    """What Telegram shows."""
    return {(marked(m.channel_id), m.id): m.text for m in telegram.store.all_messages(None, deleted=False)}


def edit_and_delete(telegram: Telegram, channel: int, edits: Sequence[int], deletes: Sequence[int]) -> None:
    for number in edits:
        assert telegram.edit(channel, number, f"edited {number}")
    assert telegram.delete(channel, deletes) == tuple(deletes)


def assert_same(telegram: Telegram, sink: ListSink, deleted: set[Key]) -> None:
    """Every sink shows what Telegram shows, and knows what is deleted."""
    found = state(sink)
    assert {key: text for key, text in found.items() if text is not None} == shown(telegram)
    assert {key for key, text in found.items() if text is None} >= deleted


@pytest.mark.requirement("GW-06")
async def test_edits_and_deletes_of_an_outage_are_recovered(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks) as gateway:
        await gateway.complete()
        post(telegram, 300, channel)
        await until(lambda: len(sinks[0].entries) == 300)
    edit_and_delete(telegram, channel, [3, 150, 299], [7, 8, 300])
    post(telegram, 250, channel)
    edit_and_delete(telegram, channel, [301], [4, 302])
    async with running(session, sinks) as gateway:
        await gateway.complete()
        await until(lambda: gateway.source.progress.channels_done)
        progress = gateway.source.progress
        assert (progress.messages, progress.deletions) == (249, 5)  # one of the 250 was gone before anybody saw it
        assert progress.edits >= 3
    for sink in sinks:
        assert_same(telegram, sink, {(marked(channel), number) for number in (7, 8, 300, 4)})
    in_order = [e.event.message_id for e in sinks[0].entries if e.event.kind == "new"]
    assert in_order == sorted(in_order)
    assert gateway.channels[marked(channel)].pts == telegram.store.channels[channel].pts


@pytest.mark.requirement("GW-06")
async def test_a_difference_that_is_too_long_is_read_from_history(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    telegram.settings = Settings(history_rate=0, difference_limit=100)
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks) as gateway:
        await gateway.complete()
        post(telegram, 300, channel)
        await until(lambda: len(sinks[0].entries) == 300)
    edit_and_delete(telegram, channel, [150, 299], [120, 300])
    post(telegram, 250, channel)
    edit_and_delete(telegram, channel, [301], [302])
    async with running(session, sinks, limits=Limits(edit_window=200)) as gateway:
        await gateway.complete()
        assert gateway.channels[marked(channel)].pts == telegram.store.channels[channel].pts
    assert_same(telegram, sinks[0], {(marked(channel), 120), (marked(channel), 300)})


@pytest.mark.requirement("GW-06")
async def test_the_edit_window_bounds_what_is_read_again(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    telegram.settings = Settings(history_rate=0, difference_limit=1)
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks) as gateway:
        await gateway.complete()
        post(telegram, 300, channel)
        await until(lambda: len(sinks[0].entries) == 300)
    edit_and_delete(telegram, channel, [100, 290], [])
    async with running(session, sinks, limits=Limits(edit_window=50)) as gateway:
        await gateway.complete()
    found = state(sinks[0])
    assert found[marked(channel), 290] == "edited 290"
    assert found[marked(channel), 100] != "edited 100"


@pytest.mark.requirement("GW-06")
async def test_a_cursor_that_came_from_elsewhere_is_read_on_from_there(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    """After a migration the last message is known, and Telegram's count is not."""
    channel = next(iter(telegram.store.channels))
    post(telegram, 300, channel)
    async with running(session, sinks, cursors={marked(channel): 120}) as gateway:
        await gateway.complete()
        assert gateway.channels[marked(channel)].pts == telegram.store.channels[channel].pts
    assert sorted(sinks[0].keys()) == [(marked(channel), number) for number in range(121, 301)]


@pytest.mark.requirement("GW-06")
async def test_a_count_that_telegram_does_not_know_is_no_dead_end(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks) as gateway:
        await gateway.complete()
        post(telegram, 20, channel)
        await until(lambda: len(sinks[0].entries) == 20)
    async with running(session, sinks, counts={marked(channel): 10_000}) as gateway:
        sent = post(telegram, 5, channel)
        await gateway.complete()
        await until(lambda: sent <= set(sinks[0].keys()))
        await until(lambda: gateway.channels[marked(channel)].pts == telegram.store.channels[channel].pts)
    assert_same(telegram, sinks[0], set())


@pytest.mark.requirement("GW-06")
async def test_complete_channels_cost_no_request_on_reconnect(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    _, second, _ = telegram.store.channels
    async with running(session, sinks) as gateway:
        await gateway.complete()
        post(telegram, 30)
        await until(lambda: len(sinks[0].entries) == 30)
    post(telegram, 1, second)
    asked = telegram.counted
    before = asked["GetChannelDifferenceRequest"], asked["GetHistoryRequest"]
    async with running(session, sinks) as gateway:
        await gateway.complete()
        await until(lambda: len(sinks[0].entries) == 31)
    # one of ours, at most one of Telethon's own
    assert asked["GetChannelDifferenceRequest"] - before[0] <= 2
    assert asked["GetHistoryRequest"] == before[1]


@pytest.mark.requirement("GW-06")
async def test_a_hole_in_a_silent_channel_is_found_by_the_periodic_check(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks, limits=Limits(check_seconds=1)) as gateway:
        await gateway.complete()
        post(telegram, 5, channel)
        await until(lambda: len(sinks[0].entries) == 5)
        telegram.faults.skip = 3
        edit_and_delete(telegram, channel, [1], [2])
        post(telegram, 1, channel)
        assert telegram.faults.skip == 0
        await until(lambda: len(sinks[0].entries) == 8)
        assert gateway.reception.connections == 1
    assert_same(telegram, sinks[0], {(marked(channel), 2)})


@pytest.mark.requirement("GW-06")
async def test_edits_in_a_gap_that_telethon_fills_are_not_lost(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks) as gateway:
        await gateway.complete()
        post(telegram, 5, channel)
        await until(lambda: len(sinks[0].entries) == 5)
        telegram.faults.skip = 1
        edit_and_delete(telegram, channel, [1], [])
        edit_and_delete(telegram, channel, [2], [3])
        await until(lambda: state(sinks[0]).get((marked(channel), 1)) == "edited 1", 10)
    assert_same(telegram, sinks[0], {(marked(channel), 3)})


@pytest.mark.requirement("GW-16")
async def test_a_channel_that_was_left_is_named_and_harms_no_other(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    first, second, _ = telegram.store.channels
    async with running(session, sinks) as gateway:
        await gateway.complete()
    telegram.faults.private.add(first)
    sent = post(telegram, 3, second)
    async with running(session, sinks) as gateway:
        await until(lambda: gateway.source.progress.unreadable, 10)
        await until(lambda: sent <= set(sinks[0].keys()))
        assert list(gateway.source.progress.unreadable) == [marked(first)]
        telegram.faults.private.clear()
        telegram.disconnect(0)
        missed = post(telegram, 3, first)
        await until(lambda: missed <= set(sinks[0].keys()))
        await until(lambda: not gateway.source.progress.unreadable)

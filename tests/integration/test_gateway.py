"""The gateway's source against the simulated Telegram: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from tests.integration.gateways import KEY, ListSink, post, ready_session, running
from tests.integration.servers import until

from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.simulator.server import Settings
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.telegram.source import Limits


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
    assert len(gateway.reception.back) >= 270


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
    async with running(session, sinks, limits=Limits(history_depth=120)) as gateway:
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
    telegram.settings = Settings(history_rate=1, history_burst=1, difference_limit=10)
    telegram.history_limit = type(telegram.history_limit)(1, 1)
    async with running(session, sinks) as gateway:
        await until(lambda: gateway.reception.floods, 20)
        live = post(telegram, 3)
        await until(lambda: live <= set(sinks[0].keys()), 2)
        telegram.history_limit = type(telegram.history_limit)(0, 1)
        await gateway.complete()
    assert sinks[0].keys() == Counter(missed | live)

"""The Telegram simulator, as an unmodified Telethon finds it on loopback."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from telethon import errors, events
from telethon.sessions import StringSession
from telethon.tl import functions, types
from tests.unit.simulators import Telegram, running, until

from telegram_stack.simulator import photos, texts
from telegram_stack.simulator.control import marked
from telegram_stack.simulator.limits import RequestLimit
from telegram_stack.simulator.rpc import RpcError
from telegram_stack.simulator.server import Settings

# live


async def test_messages_edits_and_deletes_arrive_live(telegram: Telegram) -> None:
    channels = telegram.store.add_channels("Canal", 3)
    seen: list[tuple[str, Any]] = []
    async with telegram.client() as client:
        client.add_event_handler(lambda e: _note(seen, "new", (e.chat_id, e.id, e.raw_text)), events.NewMessage)
        client.add_event_handler(lambda e: _note(seen, "edit", (e.chat_id, e.id, e.raw_text)), events.MessageEdited)
        client.add_event_handler(lambda e: _note(seen, "delete", (e.chat_id, e.deleted_ids)), events.MessageDeleted)
        expected: list[tuple[str, Any]] = []
        for number in range(1, 31):
            channel = channels[number % 3]
            [message_id] = telegram.post(channel, 1)
            expected.append(("new", (marked(channel.id), message_id, texts.text(number))))
        telegram.server.edit(channels[1].id, 2, "corrigido")
        telegram.server.delete(channels[1].id, [3, 4, 999])
        telegram.post(channels[1], 1)
        expected.append(("edit", (marked(channels[1].id), 2, "corrigido")))
        expected.append(("delete", (marked(channels[1].id), [3, 4])))
        expected.append(("new", (marked(channels[1].id), 11, texts.text(31))))
        await until(lambda: len(seen) >= len(expected))
    assert seen == expected


async def _note(seen: list[tuple[str, Any]], kind: str, what: Any) -> None:
    seen.append((kind, what))


async def test_every_session_of_the_account_is_told(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    seen: list[tuple[str, Any]] = []
    async with telegram.client() as first, telegram.client() as second:
        first.add_event_handler(lambda e: _note(seen, "first", e.id), events.NewMessage)
        second.add_event_handler(lambda e: _note(seen, "second", e.id), events.NewMessage)
        telegram.post(channel, 2)
        await until(lambda: len(seen) == 4)
    assert sorted(seen) == [("first", 1), ("first", 2), ("second", 1), ("second", 2)]


async def test_an_unknown_request_is_refused_and_harms_no_other(telegram: Telegram) -> None:
    async with telegram.client() as client:
        requests = [functions.updates.GetStateRequest(), functions.messages.GetAllDraftsRequest()]
        with pytest.raises(errors.MultiError) as refused:
            await client(requests)
    state, nothing = refused.value.results
    assert isinstance(state, types.updates.State)
    assert nothing is None
    assert "INPUT_METHOD_INVALID" in str(refused.value.exceptions[1])


# history, dialogs, files


async def test_history_reads_backwards_forwards_and_between(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    telegram.post(channel, 250)
    telegram.server.delete(channel.id, [7, 180])
    shown = [i for i in range(1, 251) if i not in (7, 180)]

    async def ids(**options: Any) -> list[int]:
        found = [m async for m in client.iter_messages(marked(channel.id), wait_time=0, **options)]
        return [message.id for message in found]

    async with telegram.client() as client:
        await client.get_dialogs()
        assert await ids() == shown[::-1]
        assert await ids(reverse=True) == shown
        assert await ids(reverse=True, min_id=100) == [i for i in shown if i > 100]
        assert await ids(reverse=True, min_id=250) == []
        assert await ids(min_id=100, max_id=104) == [103, 102, 101]
        assert await ids(limit=3, offset_id=10) == [9, 8, 6]
        assert await ids(limit=2, add_offset=1) == [249, 248]
        assert await ids(limit=5, offset_id=100, add_offset=-3) == [102, 101, 100, 99, 98]
        assert await ids(limit=5, offset_id=241, add_offset=-12) == [250, 249, 248]
        assert await ids(offset_date=datetime(2020, 1, 1, tzinfo=UTC)) == []
        assert (await client.get_messages(marked(channel.id), limit=0)).total == 248
        found = await client.get_messages(marked(channel.id), ids=[1, 7, 250, 9999])
        assert [message and message.id for message in found] == [1, None, 250, None]


async def test_dialogs_come_in_pages_and_carry_their_state(telegram: Telegram) -> None:
    channels = telegram.store.add_channels("Canal", 130)
    for channel in channels[:120]:
        telegram.post(channel, 2)
    async with telegram.client() as client:
        dialogs = await client.get_dialogs()
        assert {d.id for d in dialogs} == {marked(c.id) for c in channels}
        assert {d.dialog.pts for d in dialogs} == {1, 3}
        named = await client.get_entity(channels[4].username)
        assert named.id == channels[4].id
        full = await client(functions.channels.GetFullChannelRequest(channels[4].id))
        assert full.full_chat.pts == 3


async def test_a_channel_can_have_a_past_that_nobody_was_told_of(telegram: Telegram) -> None:
    old, new = telegram.store.add_channels("Canal", 2)
    telegram.post(new, 1)
    body = {"channel_id": marked(old.id), "count": 50, "seconds": 86_400, "after_id": 7_000}
    async with telegram.client() as client:
        given = (await telegram.control.post("/history", json=body)).json()["messages"]
        telegram.post(old, 1)
        await client.get_dialogs()
        found = await client.get_messages(marked(old.id), limit=100)
        assert [message.id for message in found] == list(range(7_051, 7_000, -1))
        assert [(m.id, int(m.date.timestamp())) for m in found[:0:-1]] == [(m["message_id"], m["date"]) for m in given]
        assert 86_300 < (found[0].date - found[-1].date).total_seconds() <= 86_401
    assert len({message.text for message in telegram.store.all_messages(None, deleted=False)}) == 52
    refused = await telegram.control.post("/history", json=body)
    assert (refused.status_code, "has messages" in refused.json()["error"]) == (422, True)


async def test_a_photo_is_downloaded_whole(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    telegram.post(channel, 2, photo=True)
    async with telegram.client() as client:
        await client.get_dialogs()  # a new session knows no channel yet
        found = await client.get_messages(marked(channel.id), limit=2)
        files = [await client.download_media(message, bytes) for message in found]
    assert files == [photos.jpeg(photos.photo_id(channel.id, i)) for i in (2, 1)]
    assert files[0] != files[1]
    assert all(file.startswith(b"\xff\xd8\xff\xe0") and file.endswith(b"\xff\xd9") for file in files)


async def test_history_is_limited_and_opens_again(empty_state: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(empty_state, tmp_path / "telegram.sqlite"))
    async with running(path, Settings(history_rate=4, history_burst=4)) as telegram:
        [channel] = telegram.store.add_channels("Canal", 1)
        telegram.post(channel, 1)
        async with telegram.client() as client:
            peer = await client.get_input_entity(channel.username)
            request = functions.messages.GetHistoryRequest(peer, 0, None, 0, 10, 0, 0, 0)
            with pytest.raises(errors.FloodWaitError) as refused:
                for _ in range(5):
                    await client(request)
            assert refused.value.seconds == 1
            await asyncio.sleep(refused.value.seconds)
            assert len((await client(request)).messages) == 1


def test_who_asks_too_early_waits_until_half_the_bucket_is_full() -> None:
    now = [0.0]
    limit = RequestLimit(rate=2, burst=4, clock=lambda: now[0])
    for _ in range(4):
        limit.take(1)
    with pytest.raises(RpcError, match="420 FLOOD_WAIT_1"):
        limit.take(1)
    limit.take(2)
    now[0] = 0.9
    with pytest.raises(RpcError, match="FLOOD_WAIT_1"):
        limit.take(1)
    now[0] = 1.0
    limit.take(1)
    limit.take(1)
    with pytest.raises(RpcError):
        limit.take(1)


# what was missed


async def test_what_was_posted_while_away_comes_by_catching_up_and_by_history(telegram: Telegram) -> None:
    channels = telegram.store.add_channels("Canal", 2)
    for channel in channels:
        telegram.post(channel, 1)
    seen: list[tuple[int, int]] = []

    async def note(event: Any) -> None:
        seen.append((event.chat_id, event.id))

    async with telegram.client() as client:
        client.add_event_handler(note, events.NewMessage)
        await client.get_dialogs()
        assert (await telegram.control.post("/disconnect", json={"seconds": 0.3})).json() == {"disconnected": 1}
        for channel in channels:
            telegram.post(channel, 130)
        await until(lambda: telegram.server.connections == 1)
        await client.catch_up()
        missed = [(marked(channel.id), i) for channel in channels for i in range(2, 132)]
        await until(lambda: len(seen) >= len(missed))
        assert sorted(seen) == sorted(missed)
        history = [m.id async for m in client.iter_messages(marked(channels[0].id), reverse=True, min_id=1)]
        assert history == list(range(2, 132))


async def test_a_channel_difference_tells_the_final_state(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    telegram.post(channel, 5)
    before = channel.pts
    telegram.post(channel, 3)
    telegram.server.edit(channel.id, 2, "duas vezes")
    telegram.server.edit(channel.id, 2, "corrigido")
    telegram.server.edit(channel.id, 6, "novo e corrigido")
    telegram.server.delete(channel.id, [1, 7])
    async with telegram.client() as client:
        peer = await client.get_input_entity(channel.username)
        request = functions.updates.GetChannelDifferenceRequest(
            types.InputChannel(peer.channel_id, peer.access_hash), types.ChannelMessagesFilterEmpty(), before, 100
        )
        whole = await client(request)
        assert (whole.final, whole.pts) == (True, channel.pts)
        assert [(m.id, m.message) for m in whole.new_messages] == [(6, "novo e corrigido"), (8, texts.text(8))]
        *edits, deletion = whole.other_updates
        assert [(u.message.id, u.message.message) for u in edits] == [(2, "corrigido"), (6, "novo e corrigido")]
        assert (deletion.messages, deletion.pts, deletion.pts_count) == ([1, 7], channel.pts, 2)

        request.limit = 2
        part = await client(request)
        assert (part.final, part.pts) == (False, before + 2)
        request.pts = channel.pts
        assert isinstance(await client(request), types.updates.ChannelDifferenceEmpty)
        request.pts = channel.pts + 1
        with pytest.raises(errors.PersistentTimestampInvalidError):
            await client(request)
        request.channel = types.InputChannel(peer.channel_id, peer.access_hash + 1)
        with pytest.raises(errors.ChannelInvalidError):
            await client(request)


async def test_far_behind_the_difference_is_too_long(empty_state: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(empty_state, tmp_path / "telegram.sqlite"))
    async with running(path, Settings(difference_limit=50)) as telegram, telegram.client() as client:
        [channel] = telegram.store.add_channels("Canal", 1)
        telegram.post(channel, 60)
        peer = await client.get_input_entity(channel.username)
        difference = await client(
            functions.updates.GetChannelDifferenceRequest(
                types.InputChannel(peer.channel_id, peer.access_hash), types.ChannelMessagesFilterEmpty(), 1, 100
            )
        )
    assert isinstance(difference, types.updates.ChannelDifferenceTooLong)
    assert difference.dialog.pts == 61
    assert [m.id for m in difference.messages] == list(range(60, 50, -1))


async def test_another_account_has_other_access_hashes(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    other = (await telegram.control.post("/sessions", json={"phone": "5511999990002"})).json()["session"]
    async with telegram.client() as client, telegram.client(StringSession(other)) as stranger:
        peer = await client.get_input_entity(channel.username)
        with pytest.raises(errors.ChannelInvalidError):
            await stranger.get_messages(peer, limit=1)


async def test_everything_survives_a_restart(empty_state: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(empty_state, tmp_path / "telegram.sqlite"))
    async with running(path) as telegram:
        [channel] = telegram.store.add_channels("Canal", 1)
        telegram.post(channel, 4)
        telegram.server.edit(channel.id, 2, "corrigido")
        telegram.server.delete(channel.id, [3])
        session = await telegram.ready_session()
        pem = telegram.store.server_key.public_pem
        before = replace(channel)
    async with running(path) as telegram:
        assert telegram.store.server_key.public_pem == pem
        assert telegram.store.channels == {channel.id: before}
        session.set_dc(2, *telegram.address)
        async with telegram.client(session) as client:
            await client.get_dialogs()
            found = await client.get_messages(marked(channel.id), limit=10)
            assert [(m.id, m.message) for m in found] == [(4, texts.text(4)), (2, "corrigido"), (1, texts.text(1))]
        assert telegram.post(telegram.store.channel(channel.id), 1) == [5]

"""What the simulator does wrong on purpose, and what its messages hold, as an unmodified Telethon sees it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from telethon import errors, events, functions
from telethon.tl import types
from tests.unit.simulators import Telegram, until

from telegram_stack.simulator.control import marked
from telegram_stack.simulator.faults import Faults
from telegram_stack.simulator.store import Store


async def call(telegram: Telegram, path: str, body: Any = None) -> Any:
    answer = await telegram.control.post(path, json=body or {})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def raw_updates(client: Any) -> list[Any]:
    """Every counted update that Telethon lets through from now on."""
    seen: list[Any] = []

    async def note(update: Any) -> None:
        if hasattr(update, "pts_count"):
            seen.append(update)

    client.add_event_handler(note, events.Raw())
    return seen


# pushes


def test_skipped_doubled_and_shuffled_changes() -> None:
    faults = Faults()
    assert faults.arrange([1, 2]) == [1, 2]
    faults.skip = 2
    assert faults.arrange([1, 2, 3]) == [3]
    faults.duplicate = 1
    assert faults.arrange([4, 5]) == [4, 4, 5]
    faults.shuffle = 3
    assert faults.arrange([6, 7]) == []
    assert faults.arrange([8, 9]) == [8, 7, 6, 9]


async def test_skipped_updates_stand_in_the_difference(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    async with telegram.client() as client:
        await client.get_dialogs()
        seen = await raw_updates(client)
        telegram.post(channel, 1)
        await call(telegram, "/faults", {"skip": 2})
        telegram.post(channel, 3)
        await until(lambda: len(seen) >= 4)
    assert (await telegram.control.get("/faults")).json()["skip"] == 0
    assert sorted(update.message.id for update in seen) == [1, 2, 3, 4]
    assert telegram.server.counted["GetChannelDifferenceRequest"] >= 1


async def test_doubled_and_shuffled_updates_arrive_once_and_in_order(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    async with telegram.client() as client:
        await client.get_dialogs()
        seen = await raw_updates(client)
        telegram.post(channel, 1)
        await call(telegram, "/faults", {"duplicate": 3, "shuffle": 4})
        telegram.post(channel, 4)
        await until(lambda: len(seen) >= 5)
    assert [update.message.id for update in seen] == [1, 2, 3, 4, 5]


# answers and connections


async def test_a_silent_server_accepts_and_says_nothing(telegram: Telegram) -> None:
    async with telegram.client() as client:
        assert await client.get_me()
        await call(telegram, "/faults", {"silent": True})
        asked = asyncio.create_task(client(functions.updates.GetStateRequest()))
        _, writer = await asyncio.open_connection(*telegram.address)
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        assert client.is_connected()
        await call(telegram, "/faults", {"silent": False})
        assert await client(functions.updates.GetStateRequest())
        asked.cancel()
        writer.close()


async def test_answers_come_late_and_pushes_do_not(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    async with telegram.client() as client:
        await client.get_dialogs()
        seen = await raw_updates(client)
        await call(telegram, "/faults", {"delay": 30})
        asked = asyncio.create_task(client(functions.updates.GetStateRequest()))
        telegram.post(channel, 1)
        await until(lambda: len(seen) == 1)
        assert not asked.done()
        asked.cancel()


async def test_a_method_can_be_flooded_alone(telegram: Telegram) -> None:
    async with telegram.client() as client:
        await call(telegram, "/faults", {"floods": {"getState": 40}})
        with pytest.raises(errors.FloodWaitError) as refused:
            await client(functions.updates.GetStateRequest())
        assert 35 <= refused.value.seconds <= 40
        assert await client.get_me()


@pytest.mark.parametrize("drift", [-4000.0, 4000.0])
async def test_a_client_follows_a_clock_that_is_wrong(telegram: Telegram, drift: float) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    await call(telegram, "/faults", {"drift": drift})
    async with telegram.client() as client:
        await client.get_dialogs()
        seen = await raw_updates(client)
        telegram.post(channel, 2)
        await until(lambda: len(seen) == 2)
        [message] = await client.get_messages(marked(channel.id), limit=1)
        assert abs(message.date.timestamp() - telegram.store.clock()) < 60
        assert abs(client._sender._state.time_offset - drift) < 60


async def test_a_private_channel_is_not_listed_and_not_read(telegram: Telegram) -> None:
    first, second = telegram.store.add_channels("Canal", 2)
    async with telegram.client() as client:
        peer = await client.get_input_entity(first.username)
        await call(telegram, "/faults", {"private": [marked(first.id)]})
        assert [dialog.id for dialog in await client.get_dialogs()] == [marked(second.id)]
        with pytest.raises(errors.ChannelPrivateError):
            await client.get_messages(peer, limit=1)


async def test_a_bot_logs_in_by_token_and_cannot_read_history(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    async with telegram.client(telegram.empty_session()) as client:
        with pytest.raises(errors.AccessTokenInvalidError):
            await client.sign_in(bot_token="no token")
        await client.sign_in(bot_token="123456:abcdefghijklmno")
        assert await client.is_bot()
        peer = await client.get_input_entity(channel.username)
        with pytest.raises(errors.BotMethodInvalidError):
            await client(functions.messages.GetHistoryRequest(peer, 0, None, 0, 10, 0, 0, 0))


# what messages hold


async def test_every_kind_of_content_reaches_the_client(telegram: Telegram) -> None:
    forum = (await call(telegram, "/channels", {"title": "Fórum", "kind": "forum"}))["channels"][0]["id"]
    topic = (await call(telegram, "/topics", {"channel_id": forum, "title": "Opções"}))["topic"]

    async def post(**body: Any) -> list[int]:
        answer = await call(telegram, "/messages", {"channel_id": forum, **body})
        return [message["message_id"] for message in answer["messages"]]

    made = {kind: (await post(media=kind))[0] for kind in ("video", "document", "voice", "audio", "sticker", "poll")}
    album = await post(photo=True, album=True, count=3)
    [answer] = await post(topic=topic, reply_to=album[0], text="no tópico")
    [plain] = await post(topic=topic, text="só no tópico")
    [forwarded] = await post(forward="Analista")
    [linked] = await post(text="📈 veja", link="https://example.org/a")
    async with telegram.client() as client:
        await client.get_dialogs()
        found = {message.id: message for message in await client.get_messages(forum, limit=100)}
    assert isinstance(found[topic].action, types.MessageActionTopicCreate)
    assert found[made["video"]].video
    assert found[made["document"]].file.name == "relatório.pdf"
    assert found[made["voice"]].voice
    assert found[made["audio"]].audio
    assert found[made["sticker"]].sticker
    assert [a.text.text for a in found[made["poll"]].poll.poll.answers] == ["Sim", "Não"]
    assert len({found[number].grouped_id for number in album}) == 1
    assert found[album[0]].grouped_id
    assert (found[answer].reply_to.reply_to_msg_id, found[answer].reply_to.reply_to_top_id) == (album[0], topic)
    assert (found[plain].reply_to.reply_to_msg_id, found[plain].reply_to.forum_topic) == (topic, True)
    assert found[forwarded].fwd_from.from_name == "Analista"
    [(_, shown)] = found[linked].get_entities_text()
    assert shown == "https://example.org/a"
    assert found[linked].web_preview.url == "https://example.org/a"


async def test_load_with_edits_and_deletions(telegram: Telegram) -> None:
    telegram.store.add_channels("Canal", 2)
    await call(telegram, "/load", {"rate": 1000, "count": 100, "edit_every": 10, "delete_every": 25})
    state: dict[str, Any] = {"running": True}
    async with asyncio.timeout(10):
        while state["running"]:
            state = (await telegram.control.get("/load")).json()
            await asyncio.sleep(0.02)
    assert (state["sent"], state["edited"], state["deleted"]) == (100, 10, 4)
    assert len(list(telegram.store.all_messages(None, deleted=True))) == 4
    assert sum(1 for m in telegram.store.all_messages(None, deleted=False) if m.edit_date) in range(8, 11)


async def test_a_topic_needs_a_forum(telegram: Telegram) -> None:
    [channel] = telegram.store.add_channels("Canal", 1)
    answer = await telegram.control.post("/topics", json={"channel_id": marked(channel.id), "title": "x"})
    assert (answer.status_code, "is no forum" in answer.json()["error"]) == (409, True)


def test_a_file_of_the_first_version_is_read(empty_state: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    store = Store(path)
    [channel] = store.add_channels("Canal", 1)
    store.close()
    old = sqlite3.connect(path)
    old.execute("ALTER TABLE channels DROP COLUMN kind")
    old.execute("ALTER TABLE messages DROP COLUMN details")
    old.close()
    store = Store(path)
    assert store.channels == {channel.id: channel}
    store.close()

"""The Telegram simulator, as an unmodified Telethon finds it on loopback."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from telethon import TelegramClient, errors, events
from telethon.crypto import AuthKey, rsa
from telethon.network.connection import ConnectionTcpAbridged, ConnectionTcpFull, ConnectionTcpIntermediate
from telethon.sessions import MemorySession, StringSession
from telethon.tl import functions, types

from telegram_stack.simulator import photos, rpc_auth, texts
from telegram_stack.simulator.control import Control, marked
from telegram_stack.simulator.limits import RequestLimit
from telegram_stack.simulator.model import Channel, Draft
from telegram_stack.simulator.rpc import RpcError
from telegram_stack.simulator.server import Server, Settings
from telegram_stack.simulator.store import Store

PHONE = "5511999990001"


class Telegram:
    """A simulator in this process, and clients of it."""

    def __init__(self, server: Server, address: tuple[str, int]) -> None:
        self.server = server
        self.store = server.store
        self.address = address
        self.control = httpx.AsyncClient(
            transport=httpx.ASGITransport(Control(server, address).application()), base_url="http://control"
        )

    def empty_session(self) -> MemorySession:
        """A session that knows where Telegram is, and nothing else."""
        session = MemorySession()
        session.set_dc(2, *self.address)
        return session

    async def ready_session(self) -> StringSession:
        """A session that is logged in."""
        answer = (await self.control.post("/sessions", json={"phone": PHONE})).json()
        return StringSession(answer["session"])

    @asynccontextmanager
    async def client(self, session: Any = None, **options: Any) -> AsyncIterator[Any]:
        """A connected client, of a ready session unless told otherwise."""
        session = session or await self.ready_session()
        client = TelegramClient(session, 1, "hash", **{"flood_sleep_threshold": 0, "retry_delay": 0.1, **options})
        await client.connect()
        try:
            yield client
        finally:
            await client.disconnect()

    def post(self, channel: Channel, count: int, *, photo: bool = False) -> list[int]:
        """Post messages with texts of their own; returns their ids."""
        first = self.store.sequence + 1
        drafts = [Draft(channel.id, texts.text(number), photo) for number in range(first, first + count)]
        return [message.id for message in self.server.post(drafts)]


@pytest.fixture(scope="session")
def empty_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State with nothing but keys, because making the RSA key takes a while."""
    path = tmp_path_factory.mktemp("simulator") / "telegram.sqlite"
    store = Store(path)
    rsa.add_key(store.server_key.public_pem, old=False)
    store.close()
    return path


@asynccontextmanager
async def running(path: Path, settings: Settings | None = None) -> AsyncIterator[Telegram]:
    store = Store(path)
    server = Server(store, settings)
    telegram = Telegram(server, await server.start("127.0.0.1", 0))
    try:
        yield telegram
    finally:
        await telegram.control.aclose()
        await server.stop()
        store.close()


@pytest.fixture
async def telegram(empty_state: Path, tmp_path: Path) -> AsyncIterator[Telegram]:
    async with running(Path(shutil.copy(empty_state, tmp_path / "telegram.sqlite"))) as started:
        yield started


async def until(condition: Callable[[], bool], within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


async def code_of(telegram: Telegram, phone: str = PHONE) -> str:
    return str((await telegram.control.get(f"/codes/{phone}")).json()["code"])


# log-in


@pytest.mark.parametrize("transport", [ConnectionTcpFull, ConnectionTcpIntermediate, ConnectionTcpAbridged])
async def test_logs_in_by_code_over_every_transport(telegram: Telegram, transport: Any) -> None:
    async with telegram.client(telegram.empty_session(), connection=transport) as client:
        assert await client.get_me() is None
        await client.send_code_request("+" + PHONE)
        await client.sign_in("+" + PHONE, await code_of(telegram))
        me = await client.get_me()
        assert me.phone == PHONE
        [channel] = telegram.store.add_channels("Canal", 1)
        telegram.post(channel, 3)
        assert [m.id for m in await client.get_messages(channel.username, limit=9)] == [3, 2, 1]


async def test_refuses_a_wrong_code_and_takes_the_right_one_after_it(telegram: Telegram) -> None:
    async with telegram.client(telegram.empty_session()) as client:
        await client.send_code_request(PHONE)
        with pytest.raises(errors.PhoneCodeInvalidError):
            await client.sign_in(PHONE, "1")
        assert not await client.is_user_authorized()
        await client.sign_in(PHONE, await code_of(telegram))
        assert await client.is_user_authorized()


async def test_a_newer_code_makes_the_older_one_void(telegram: Telegram) -> None:
    async with telegram.client(telegram.empty_session()) as client:
        sent = await client.send_code_request(PHONE)
        code = await code_of(telegram)
        telegram.store.new_code(PHONE)
        with pytest.raises(errors.PhoneCodeExpiredError):
            await client.sign_in(PHONE, code, phone_code_hash=sent.phone_code_hash)


async def test_a_code_expires(telegram: Telegram, monkeypatch: pytest.MonkeyPatch) -> None:
    async with telegram.client(telegram.empty_session()) as client:
        await client.send_code_request(PHONE)
        monkeypatch.setattr(rpc_auth, "CODE_LIFETIME", 0.0)
        with pytest.raises(errors.PhoneCodeExpiredError):
            await client.sign_in(PHONE, await code_of(telegram))


async def test_asks_for_the_second_factor_and_checks_it(telegram: Telegram) -> None:
    await telegram.control.post("/accounts", json={"phone": PHONE, "password": "très secret"})
    async with telegram.client(telegram.empty_session()) as client:
        await client.send_code_request(PHONE)
        with pytest.raises(errors.SessionPasswordNeededError):
            await client.sign_in(PHONE, await code_of(telegram))
        assert not await client.is_user_authorized()
        with pytest.raises(errors.PasswordHashInvalidError):
            await client.sign_in(password="wrong")
        assert not await client.is_user_authorized()
        await client.sign_in(password="très secret")
        assert await client.is_user_authorized()


async def test_refuses_what_is_no_phone_number(telegram: Telegram) -> None:
    async with telegram.client(telegram.empty_session()) as client:
        with pytest.raises(errors.PhoneNumberInvalidError):
            await client(functions.auth.SendCodeRequest("12", 1, "hash", types.CodeSettings()))


async def test_logging_out_ends_the_session(telegram: Telegram) -> None:
    session = await telegram.ready_session()
    copy = StringSession(session.save())
    async with telegram.client(session) as client:
        assert await client.log_out()
    async with telegram.client(copy) as client:
        assert not await client.is_user_authorized()


async def test_an_unknown_key_is_refused(telegram: Telegram) -> None:
    session = telegram.empty_session()
    session.auth_key = AuthKey(b"\x01" * 256)
    client = TelegramClient(session, 1, "hash")
    with pytest.raises(errors.AuthKeyNotFound):
        await client.connect()
    await client.disconnect()


async def test_a_key_used_from_two_addresses_is_dead_for_good(telegram: Telegram) -> None:
    session = (await telegram.ready_session()).save()
    async with telegram.client(StringSession(session)) as first:
        assert await first.is_user_authorized()
        async with telegram.client(StringSession(session)) as neighbour:
            assert await neighbour.is_user_authorized()
        stranger = TelegramClient(StringSession(session), 1, "hash", local_addr="127.0.0.2")
        with pytest.raises(errors.AuthKeyDuplicatedError):
            await stranger.connect()
        await stranger.disconnect()
        with pytest.raises(errors.AuthKeyDuplicatedError):
            await first.get_me()
    later = TelegramClient(StringSession(session), 1, "hash")
    with pytest.raises(errors.AuthKeyDuplicatedError):
        await later.connect()
    await later.disconnect()


async def test_an_address_may_follow_another(telegram: Telegram) -> None:
    session = (await telegram.ready_session()).save()
    async with telegram.client(StringSession(session)) as client:
        assert await client.is_user_authorized()
    await until(lambda: telegram.server.connections == 0)
    async with telegram.client(StringSession(session), local_addr="127.0.0.2") as client:
        assert await client.is_user_authorized()


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


# the control port


async def test_the_control_port_tells_what_telegram_shows(telegram: Telegram) -> None:
    async def call(method: str, path: str, body: Any = None) -> Any:
        answer = await telegram.control.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    made = (await call("POST", "/channels", {"title": "Sinais", "count": 3}))["channels"]
    assert [c["title"] for c in made] == ["Sinais 1", "Sinais 2", "Sinais 3"]
    posted = (await call("POST", "/messages", {"count": 30}))["messages"]
    assert {m["channel_id"] for m in posted} == {c["id"] for c in made}
    chosen = made[1]["id"]
    [single] = (await call("POST", "/messages", {"channel_id": chosen, "text": "olá", "photo": True}))["messages"]
    assert (single["channel_id"], single["text"], single["photo"]) == (chosen, "olá", True)
    await call("POST", "/edits", {"channel_id": chosen, "message_id": 2, "text": "outro"})
    assert (await call("POST", "/deletes", {"channel_id": chosen, "message_ids": [1, 77]}))["message_ids"] == [1]
    shown = (await call("GET", f"/messages?channel={chosen}&text=true"))["messages"]
    assert [m["message_id"] for m in shown] == list(range(2, 12))
    assert shown[0]["text"] == "outro"
    assert shown[0]["edit_date"] >= shown[0]["date"]
    assert len((await call("GET", "/messages"))["messages"]) == 30
    deleted = (await call("GET", "/messages?deleted=true"))["messages"]
    assert [(m["channel_id"], m["message_id"]) for m in deleted] == [(chosen, 1)]
    assert (await call("GET", "/health"))["messages_posted"] == 31


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        ("POST", "/messages", {"cont": 1}, (422, "unknown field `cont`")),
        ("POST", "/messages", {"channel_id": 5}, (422, "5 is no marked channel id")),
        ("POST", "/messages", {"channel_id": -1009999999999}, (404, "there is no channel 9999999999")),
        ("POST", "/messages", {}, (409, "there is no channel: make some")),
        ("POST", "/load", {"rate": 5}, (409, "there is no channel: make some")),
        ("POST", "/load", {"rate": 0}, (422, "rate must be above 0")),
        ("POST", "/load", {"rate": 5, "seconds": 1, "count": 1}, (422, "not both")),
        ("POST", "/sessions", {"address": "localhost"}, (422, "must be an IP address")),
        ("POST", "/sessions", {"address": "::"}, (422, "say in address")),
        ("GET", "/codes/5511999990001", None, (404, "no code is waiting")),
    ],
)
async def test_the_control_port_says_what_is_wrong(
    telegram: Telegram, method: str, path: str, body: Any, refusal: tuple[int, str]
) -> None:
    answer = await telegram.control.request(method, path, json=body)
    assert answer.status_code == refusal[0]
    assert refusal[1] in answer.json()["error"]


async def test_load_sends_at_its_rate_what_it_says(telegram: Telegram) -> None:
    telegram.store.add_channels("Canal", 4)
    seen: list[tuple[int, int]] = []

    async def note(event: Any) -> None:
        seen.append((event.chat_id, event.id))

    async def progress() -> Any:
        return (await telegram.control.get("/load")).json()

    async with telegram.client() as client:
        client.add_event_handler(note, events.NewMessage)
        started = await telegram.control.post("/load", json={"rate": 300, "seconds": 1, "channels": 3})
        assert started.json()["count"] == 300
        assert (await telegram.control.post("/load", json={"rate": 1})).status_code == 409
        async with asyncio.timeout(10):
            while (state := await progress())["running"]:
                await asyncio.sleep(0.05)
        await until(lambda: len(seen) >= 300)
    shown = [(m["channel_id"], m["message_id"]) for m in (await telegram.control.get("/messages")).json()["messages"]]
    assert state["sent"] == 300
    assert 0.9 <= state["seconds"] <= 3
    assert sorted(seen) == sorted(shown)
    assert len({channel for channel, _ in shown}) == 3


async def test_load_without_end_is_ended(telegram: Telegram) -> None:
    telegram.store.add_channels("Canal", 1)
    await telegram.control.post("/load", json={"rate": 200})
    await until(lambda: telegram.store.sequence >= 10)
    ended = (await telegram.control.delete("/load")).json()
    assert not ended["running"]
    assert ended["sent"] == telegram.store.sequence
    await asyncio.sleep(0.05)
    assert ended["sent"] == telegram.store.sequence


def test_texts_differ_and_half_of_them_are_signals() -> None:
    made = [texts.text(number) for number in range(1, 1001)]
    assert len(set(made)) == 1000
    assert made[0] == texts.text(1)
    signals = [text for text in made if text.startswith("ATIVO: ")]
    assert 400 < len(signals) < 600
    assert all("STOP: " in text and "COMPRA: " in text for text in signals)

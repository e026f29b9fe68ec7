"""Logging in at the Telegram simulator, as an unmodified Telethon does, and what becomes of a session."""

from __future__ import annotations

from typing import Any

import pytest
from telethon import TelegramClient, errors
from telethon.crypto import AuthKey
from telethon.network.connection import ConnectionTcpAbridged, ConnectionTcpFull, ConnectionTcpIntermediate
from telethon.sessions import StringSession
from telethon.tl import functions, types
from tests.unit.simulators import PHONE, Telegram, code_of, until

from telegram_stack.simulator import rpc_auth


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

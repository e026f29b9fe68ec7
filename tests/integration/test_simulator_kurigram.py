"""A client library that is neither ours nor Telethon finds in the simulator what it expects of Telegram."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pyrogram import Client
from pyrogram.connection import Connection
from pyrogram.crypto import rsa
from pyrogram.errors import PasswordHashInvalid, PhoneCodeInvalid, SessionPasswordNeeded
from pyrogram.handlers import RawUpdateHandler
from pyrogram.raw.functions.updates.get_state import GetState
from tests.integration.test_simulator_program import program

PHONE, PASSWORD = "+5511999990001", "segrêdo"  # made up


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pyrogram")
async def test_kurigram_logs_in_reads_and_sees_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with program(tmp_path, "--port", "0", "--channels", "3") as (_, port, control):
        await control.post("/accounts", json={"phone": PHONE, "password": PASSWORD})
        posted = (await control.post("/messages", json={"count": 60, "photo": True})).json()["messages"]
        await trust(control, monkeypatch)
        client = make(port)
        try:
            await log_in(client, control)
            assert {chat async for chat in chats(client)} == {message["channel_id"] for message in posted}
            channel = posted[0]["channel_id"]
            history = [message async for message in client.get_chat_history(channel)]
            wanted = sorted((m["message_id"] for m in posted if m["channel_id"] == channel), reverse=True)
            assert [message.id for message in history] == wanted
            photo: Any = await client.download_media(history[0], in_memory=True)
            assert photo.getvalue().startswith(b"\xff\xd8")
            await sees_new_edited_and_deleted(client, control, channel)
        finally:
            await client.terminate()
            await client.disconnect()


async def trust(control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the simulator's key the only one that kurigram knows."""
    key = load_pem_public_key((await control.get("/public-key")).text.encode())
    assert isinstance(key, RSAPublicKey)
    numbers = key.public_numbers()

    class Only(dict[int, Any]):
        """It has one key, whatever its fingerprint: kurigram compares those that the server offers with its own."""

        def __contains__(self, _fingerprint: object) -> bool:
            return True

        def __missing__(self, _fingerprint: int) -> Any:
            return rsa.PublicKey(numbers.n, numbers.e)

    monkeypatch.setattr(rsa, "server_public_keys", Only())


def make(port: int) -> Client:
    class ToTheSimulator(Connection):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**{**settings, "server_address": "127.0.0.1", "port": port})

    return Client("made-up", 1, "any", in_memory=True, connection_factory=ToTheSimulator, fetch_replies=False)


async def log_in(client: Client, control: httpx.AsyncClient) -> None:
    """By code and password; a wrong one of each is refused first."""
    await client.connect()
    sent = await client.send_code(PHONE)
    code = (await control.get(f"/codes/{PHONE}")).json()["code"]
    with pytest.raises(PhoneCodeInvalid):
        await client.sign_in(PHONE, sent.phone_code_hash, str((int(code) + 1) % 100_000).zfill(5))
    with pytest.raises(SessionPasswordNeeded):
        await client.sign_in(PHONE, sent.phone_code_hash, code)
    with pytest.raises(PasswordHashInvalid):
        await client.check_password(f"{PASSWORD} not")
    await client.check_password(PASSWORD)
    await client.initialize()
    await client.invoke(GetState())


async def chats(client: Client) -> Any:
    async for dialog in client.get_dialogs():
        yield dialog.chat.id


async def sees_new_edited_and_deleted(client: Client, control: httpx.AsyncClient, channel: int) -> None:
    seen: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def note(_client: Client, update: Any, _users: Any, _chats: Any) -> None:
        match type(update).__name__:
            case "UpdateNewChannelMessage":
                seen.put_nowait(("new", update.message.message))
            case "UpdateEditChannelMessage":
                seen.put_nowait(("edit", update.message.message))
            case "UpdateDeleteChannelMessages":
                seen.put_nowait(("delete", list(update.messages)))

    client.add_handler(RawUpdateHandler(note))
    made = (await control.post("/messages", json={"channel_id": channel, "text": "olá"})).json()["messages"][0]
    which = {"channel_id": channel, "message_id": made["message_id"]}
    await control.post("/edits", json={**which, "text": "até logo"})
    await control.post("/deletes", json={"channel_id": channel, "message_ids": [made["message_id"]]})
    found: dict[str, Any] = {}
    async with asyncio.timeout(20):
        while len(found) < 3:
            kind, what = await seen.get()
            found[kind] = what
    assert found["new"].startswith("olá") and found["edit"].startswith("até logo")
    assert found["delete"] == [made["message_id"]]

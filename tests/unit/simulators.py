"""A simulator in the test's own process, clients of it, and the fixtures that bring them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from telethon import TelegramClient
from telethon.crypto import rsa
from telethon.sessions import MemorySession, StringSession

from telegram_stack.simulator import texts
from telegram_stack.simulator.control import Control
from telegram_stack.simulator.model import Channel, Draft
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

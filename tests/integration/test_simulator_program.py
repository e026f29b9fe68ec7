"""The program telegram-simulator: its command line, its end, and what a kill leaves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from telethon import TelegramClient, events
from telethon.sessions import StringSession

import telegram_stack

PROGRAM = (sys.executable, "-c", "from telegram_stack.simulator.main import main; main()")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(telegram_stack.__file__).parents[1])}
ANNOUNCED = re.compile(r"Telegram clients: ([\d.]+):(\d+); control port: ([\d.]+):(\d+)")


@asynccontextmanager
async def program(state: Path, *options: str) -> AsyncIterator[tuple[Any, int, httpx.AsyncClient]]:
    """A started simulator: its process, its port, and a client of its control port."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *("--state", str(state), "--control-port", "0"),
        *options,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            while (found := ANNOUNCED.search(line := (await process.stderr.readline()).decode())) is None:
                assert line, "the simulator ended"
        drain = asyncio.create_task(process.stderr.read())
        async with httpx.AsyncClient(base_url=f"http://{found[3]}:{found[4]}") as control:
            yield process, int(found[2]), control
        if process.returncode is None:
            process.kill()
        await drain
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_kill_takes_nothing_back_and_the_client_catches_up(tmp_path: Path) -> None:
    seen: set[tuple[int, int]] = set()

    async def note(event: Any) -> None:
        seen.add((event.chat_id, event.id))

    async def shown(control: httpx.AsyncClient) -> set[tuple[int, int]]:
        found = (await control.get("/messages")).json()["messages"]
        return {(m["channel_id"], m["message_id"]) for m in found}

    async with program(tmp_path, "--port", "0", "--channels", "3") as (process, port, control):
        session = (await control.post("/sessions")).json()["session"]
        client = TelegramClient(
            StringSession(session), 1, "hash", connection_retries=None, retry_delay=0.1, catch_up=True
        )
        client.add_event_handler(note, events.NewMessage)
        await client.connect()
        await client.get_dialogs()
        await control.post("/load", json={"rate": 300})
        async with asyncio.timeout(10):
            while len(seen) < 100:
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    received = set(seen)
    async with program(tmp_path, "--port", str(port), "--channels", "3") as (process, _port, control):
        assert received <= await shown(control)
        await control.post("/messages", json={"count": 30})
        async with asyncio.timeout(20):
            while not (await control.get("/health")).json()["connections"]:
                await asyncio.sleep(0.05)
            await client.catch_up()
            while seen != await shown(control):
                await asyncio.sleep(0.05)
        await client.disconnect()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0


async def test_posts_from_the_start_when_told_a_rate(tmp_path: Path) -> None:
    async with program(tmp_path, "--port", "0", "--channels", "2", "--rate", "200") as (_process, _port, control):
        async with asyncio.timeout(10):
            while (await control.get("/load")).json()["sent"] < 20:
                await asyncio.sleep(0.02)
        assert (await control.get("/public-key")).text.startswith("-----BEGIN RSA PUBLIC KEY-----")
        assert len((await control.get("/channels")).json()["channels"]) == 2


async def test_says_which_address_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *("--state", str(tmp_path), "--port", str(port)),
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith(f"telegram-simulator: cannot listen on 127.0.0.1:{port}: ")
    assert "Traceback" not in said.decode()

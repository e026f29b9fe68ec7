"""Logging, systemd's notifications, back-off and the HTTP helper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from telegram_stack.observability import http, systemd
from telegram_stack.observability.backoff import Backoff
from telegram_stack.observability.logging import JsonFormatter


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


@pytest.mark.requirement("GW-01")
def test_a_record_is_one_json_line_with_its_ids() -> None:
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "stored\n%s", "args": (3,), "channel": -1})
    line = JsonFormatter("gateway").format(record)
    assert "\n" not in line
    assert json.loads(line).items() >= {"message": "stored\n3", "channel": -1, "service": "gateway"}.items()


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        record = logging.makeLogRecord({"exc_info": (ValueError, error, error.__traceback__)})
    line = JsonFormatter("gateway").format(record)
    assert "\n" not in line
    assert "ValueError: bad" in json.loads(line)["traceback"]


@pytest.mark.requirement("GW-09")
def test_notify_reaches_systemd(supervisor: socket.socket) -> None:
    assert systemd.notify("READY=1")
    assert supervisor.recv(100) == b"READY=1"


def test_notify_is_silent_without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not systemd.notify("READY=1")


@pytest.mark.requirement("GW-09")
async def test_the_watchdog_is_fed_only_while_alive(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    alive = True
    task = asyncio.create_task(systemd.watchdog(lambda: alive))
    assert await asyncio.to_thread(supervisor.recv, 100) == b"WATCHDOG=1"
    alive = False
    await asyncio.sleep(0.05)
    supervisor.settimeout(0.1)
    with pytest.raises(TimeoutError):
        while True:  # what was sent before `alive` changed
            await asyncio.to_thread(supervisor.recv, 100)
    task.cancel()


def test_back_off_grows_to_its_limit_and_begins_again() -> None:
    backoff = Backoff(first=1, limit=5)
    for step in (1, 2, 4, 5, 5):
        assert step / 2 <= backoff.next() <= step
    backoff.reset()
    assert backoff.next() <= 1


async def test_serve_answers_until_cancelled() -> None:
    async def hello(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(http.serve(Starlette(routes=[Route("/", hello)]), "127.0.0.1", 0, bound.set_result))
    port = await bound
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hello"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


async def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            await http.serve(Starlette(), "127.0.0.1", port)

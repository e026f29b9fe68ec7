"""Logging in through the gateway's port, with a real client against the simulated Telegram."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from telethon.crypto import rsa
from tests.integration.gateways import KEY, ListSink, post, running
from tests.integration.servers import until

from telegram_stack.simulator import objects, rpc_auth
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.telegram.client import Server
from telegram_stack.telegram.login import Login, LoginConflictError
from telegram_stack.telegram.session import SessionFile

PHONE, PASSWORD = "5511999991234", "tr\u00e8s secret"


@pytest.fixture
def empty(tmp_path: Path) -> SessionFile:
    (tmp_path / "gateway").mkdir(mode=0o700)
    return SessionFile(tmp_path / "gateway" / "session", KEY)


@pytest.fixture
async def gateway(telegram: Telegram, empty: SessionFile, sinks: list[ListSink]) -> AsyncIterator[Any]:
    assert telegram._listener is not None
    host, port = telegram._listener.sockets[0].getsockname()[:2]
    server = Server(host, port, objects.DC_ID, telegram.store.server_key.public_pem)
    rsa.add_key(telegram.store.server_key.public_pem, old=False)
    async with running(empty, sinks, server=server) as started:
        yield started


@pytest.fixture
async def login(gateway: Any, empty: SessionFile) -> AsyncIterator[Login]:
    made = Login(empty, gateway.source.login_client, lambda: gateway.source.state == "connected")
    yield made
    await made.close()


def code(telegram: Telegram) -> str:
    sent = telegram.store.code(PHONE)
    assert sent is not None
    return sent.code


def now(login: Login) -> str:
    return login.state.status


async def reached(login: Login, status: str) -> None:
    await until(lambda: login.state.status == status, 20)


@pytest.mark.requirement("GW-03")
async def test_code_and_password_wrong_and_right(
    telegram: Telegram, gateway: Any, login: Login, sinks: list[ListSink], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "telegram_stack")
    telegram.store.set_password(PHONE, *rpc_auth.password_verifier(PASSWORD))
    assert not login.state.running
    login.start("+" + PHONE)
    assert (login.state.status, login.state.running) == ("starting", True)
    with pytest.raises(LoginConflictError, match="runs already"):
        login.start("+" + PHONE)
    await reached(login, "waiting_code")
    login.give("1")
    assert now(login) == "processing_code"
    with pytest.raises(LoginConflictError, match="nothing is waited for"):
        login.give("1")
    await reached(login, "waiting_code")
    assert "code is wrong" in login.state.message
    right = code(telegram)
    login.give(right)
    await reached(login, "waiting_password")
    login.give("wrong")
    assert now(login) == "processing_password"
    await reached(login, "waiting_password")
    assert "password is wrong" in login.state.message
    login.give(PASSWORD)
    await reached(login, "completed")
    await until(lambda: not login.state.running)
    assert login.state.finished_at is not None
    await gateway.complete()
    sent = post(telegram, 3)
    await until(lambda: sent <= set(sinks[0].keys()))
    with pytest.raises(LoginConflictError, match="logged in and connected"):
        login.start(PHONE)
    told = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("telegram_stack"))
    assert "log-in: waiting_password" in told
    for secret in (PHONE, right, PASSWORD, "wrong"):
        assert secret not in told + login.state.message


@pytest.mark.requirement("GW-03")
async def test_an_expired_code_ends_the_log_in(
    telegram: Telegram, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.start(PHONE)
    await reached(login, "waiting_code")
    monkeypatch.setattr(rpc_auth, "CODE_LIFETIME", 0.0)
    login.give(code(telegram))
    await reached(login, "error")
    assert "expired: start again" in login.state.message
    monkeypatch.undo()
    await until(lambda: not login.state.running)
    login.start(PHONE)
    await reached(login, "waiting_code")
    login.give(code(telegram))
    await reached(login, "completed")


@pytest.mark.requirement("GW-03")
async def test_a_flood_wait_says_how_long(telegram: Telegram, login: Login) -> None:
    telegram.faults.flood("sendCode", 40)
    login.start(PHONE)
    await reached(login, "error")
    assert login.state.retry_after is not None
    assert 30 <= login.state.retry_after <= 40
    assert "wait" in login.state.message


@pytest.mark.requirement("GW-03")
async def test_what_is_no_phone_number(login: Login) -> None:
    login.start("12")
    await reached(login, "error")
    assert "no phone number" in login.state.message


@pytest.mark.requirement("GW-03")
async def test_a_cancelled_log_in_leaves_nothing(telegram: Telegram, login: Login, empty: SessionFile) -> None:
    with pytest.raises(LoginConflictError, match="no log-in runs"):
        await login.cancel()
    login.start(PHONE)
    await reached(login, "waiting_code")
    cancelling = asyncio.create_task(login.cancel())
    await until(lambda: login.state.status in ("cancelling", "cancelled"))
    await cancelling
    assert login.state.status == "cancelled"
    assert telegram.store.code(PHONE) is None
    assert not empty.path.exists()


@pytest.mark.requirement("GW-03")
async def test_nobody_answers(gateway: Any, empty: SessionFile) -> None:
    login = Login(empty, gateway.source.login_client, lambda: False, patience=1.0)
    login.start(PHONE)
    await reached(login, "error")
    assert "took too long" in login.state.message


@pytest.mark.requirement("GW-12")
async def test_a_bot_logs_in_by_its_token(
    telegram: Telegram, gateway: Any, login: Login, sinks: list[ListSink], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "telegram_stack")
    login.start("", "no token at all")
    await reached(login, "error")
    assert "no bot's token" in login.state.message
    token = "123456:made-up-for-this-test"
    login.start("", token)
    await reached(login, "completed")
    await until(lambda: gateway.source.state == "connected", 20)
    assert gateway.source.bot
    posted = post(telegram, 3)
    await until(lambda: set(posted) <= set(sinks[0].keys()), 20)
    assert token not in caplog.text and "no token at all" not in caplog.text

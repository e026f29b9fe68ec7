"""What the API logs: what failed and where, no token, no word of a message, no phone number or code."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.integration.apis import ADMIN, READER, Data, application, needs_postgres
from tests.integration.consoles import serving
from tests.integration.servers import Cable, Postgres, free_port
from tests.integration.test_api_failures import fail

from telegram_stack.api import queries
from telegram_stack.api.config import GatewayConfig
from telegram_stack.api.gateway_client import GatewayClient

pytestmark = [needs_postgres, pytest.mark.requirement("API-04")]

WORDS, PHONE, CODE, WRONG = "COMPRA PETR4 31,20", "5511999991234", "73519", "wrong-token-0123456789"
ASKED = (
    ("GET", f"/api/messages?search={WORDS}", None),
    ("GET", f"/api/messages/search?q={WORDS}", None),
    ("GET", "/api/failures", None),
    ("POST", "/api/telegram-gateway/auth/start", {"phone": PHONE}),
    ("POST", "/api/telegram-gateway/auth/input", {"value": CODE}),
)


@pytest.fixture
async def client(api_database: Postgres, link: Cable, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Over HTTP, of an API whose gateway is away."""
    away = GatewayClient(GatewayConfig(port=free_port()))
    async with (
        application(api_database, link.port, tmp_path, gateway=away) as api,
        serving(api.application()) as url,
        httpx.AsyncClient(base_url=url) as made,
    ):
        yield made


async def answers(client: httpx.AsyncClient, token: str) -> list[int]:
    """What is answered to each of `ASKED`."""
    headers = {"X-API-Key": token}
    return [
        (await client.request(method, path, json=body, headers=headers)).status_code for method, path, body in ASKED
    ]


async def broken(*_given: object, **_more: object) -> None:
    """A defect in the API."""
    raise RuntimeError("a defect")


async def test_neither_secrets_nor_messages_are_logged(
    client: httpx.AsyncClient,
    link: Cable,
    data: Data,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    data.message(1, WORDS)
    fail(data, "signals", 1, f"ValueError: {WORDS}")
    assert await answers(client, WRONG) == [401] * 5
    assert await answers(client, READER) == [200, 200, 200, 403, 403]
    assert await answers(client, ADMIN) == [200, 200, 200, 503, 503]
    monkeypatch.setattr(queries, "list_messages", broken)
    assert (await answers(client, READER))[0] == 500
    await link.cut()
    assert (await answers(client, READER))[0] == 503
    # httpx is the client.
    said = "\n".join(logging.Formatter().format(record) for record in caplog.records if record.name != "httpx")
    assert "a defect" in said
    assert not [word for word in (WORDS, PHONE, CODE, READER, ADMIN, WRONG) if word in said]

"""The gateway through the API: the gateway's own port before a simulated Telegram, the API before both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from prometheus_client import CollectorRegistry
from telethon.crypto import rsa
from tests.integration.apis import ADMIN, READER, Data, api, needs_postgres
from tests.integration.gateways import Gateway, ListSink, post, running
from tests.integration.servers import Postgres, free_port, until
from tests.integration.test_gateway_photos import expected, post_photos
from tests.integration.test_gateway_sync import NO_HISTORY, syncing

from telegram_stack.api.config import GatewayConfig
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.events import Event
from telegram_stack.gateway.access import Access
from telegram_stack.gateway.app import application
from telegram_stack.gateway.health import HealthCheck
from telegram_stack.gateway.metrics import Metrics
from telegram_stack.gateway.photos import photo_routes
from telegram_stack.gateway.sync import sync_routes
from telegram_stack.gateway.trace import Trace
from telegram_stack.simulator import objects
from telegram_stack.simulator.model import Draft
from telegram_stack.simulator.photos import jpeg, photo_id
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.telegram.client import Server
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.login import Login
from telegram_stack.telegram.photos import PhotoCache, Photos
from telegram_stack.telegram.session import SessionFile

pytestmark = needs_postgres

BASE = "/api/telegram-gateway"


@pytest.fixture
async def gateway(telegram: Telegram, session: SessionFile, sinks: list[ListSink]) -> AsyncIterator[Gateway]:
    """A gateway that is logged in."""
    assert telegram._listener is not None
    host, port = telegram._listener.sockets[0].getsockname()[:2]
    server = Server(host, port, objects.DC_ID, telegram.store.server_key.public_pem)
    rsa.add_key(telegram.store.server_key.public_pem, old=False)
    async with running(session, sinks, limits=NO_HISTORY, server=server) as started:
        await started.complete()
        yield started


@contextlib.asynccontextmanager
async def port_of(
    gateway: Gateway, folder: Path, *, connected: bool = True, own: SessionFile | None = None
) -> AsyncIterator[GatewayClient]:
    """The API's client of the gateway's port.

    `connected`: whether the log-in finds an account already. It writes a session of no gateway, or the gateway's `own`.
    """
    registry = CollectorRegistry()
    synced: list[Event] = []
    async with syncing(gateway, synced) as sync:
        names = ["database", "queue", "cache"]
        health = HealthCheck(gateway.source, gateway.spool, gateway.channels, names, "1", sync=lambda: sync.progress)
        photos = Photos(gateway.source, gateway.channels, PhotoCache(folder / "photos", 1 << 20))
        other = own or SessionFile(folder / "login" / "session", Fernet.generate_key().decode())
        (folder / "login").mkdir(mode=0o700)
        login = Login(other, gateway.source.login_client, lambda: connected)
        app = application(
            health,
            Metrics(registry, gateway.spool, names),
            registry=registry,
            trace=Trace(capacity=3),
            source=gateway.source,
            login=login,
            access=Access("127.0.0.1", None),
            more=[*sync_routes(sync), *photo_routes(photos, lambda _where: None)],
        )
        client = GatewayClient(GatewayConfig(), httpx.ASGITransport(app))
        yield client
        await client.close()
        await login.close()


@pytest.mark.requirement("GW-07")
@pytest.mark.requirement("GW-08")
async def test_backfill_photos_and_state_over_the_api(
    api_database: Postgres, gateway: Gateway, telegram: Telegram, tmp_path: Path
) -> None:
    async with (
        port_of(gateway, tmp_path) as client,
        api(api_database, api_database.port, tmp_path, gateway=client) as http,
    ):
        session = (await http.get(f"{BASE}/session")).json()["data"]
        assert (session["status"], session["connected"], session["causes"]) == ("healthy", True, [])
        await until(lambda: not gateway.source.progress.running)
        recovery = (await http.get(f"{BASE}/recovery")).json()["data"]
        assert (recovery["recovering"], recovery["progress"]["running"]) == (0, False)
        post(telegram, 3)
        begun = await http.post(f"{BASE}/sync-messages", json={"limit": 10, "concurrency": 1})
        assert (begun.status_code, begun.json()["data"]["status"]) == (202, "running")

        async def progress() -> dict[str, Any]:
            found: dict[str, Any] = (await http.get(f"{BASE}/sync-messages")).json()["data"]
            return found

        async def finished() -> None:
            async with asyncio.timeout(20):
                while (await progress())["status"] != "done":
                    await asyncio.sleep(0.02)

        await finished()
        assert (await progress())["messages"] >= 3
        [(channel, number)] = post_photos(telegram, 1)
        photo = await http.get(f"{BASE}/photos/{channel}/{number}")
        assert (photo.status_code, photo.headers["Content-Type"]) == (200, "image/jpeg")
        assert photo.content == expected(telegram, (channel, number))
        kept = tmp_path / "photos" / f"{channel}_{number}.jpg"
        assert kept.exists()
        admin = {"X-API-Key": ADMIN}
        order = {"channelId": str(channel), "messageId": number, "reason": "r"}
        erased = await http.post("/api/erasures", json=order, headers=admin)
        places = {place["place"]: place["state"] for place in erased.json()["data"]["places"]}
        assert (places["photos"], kept.exists()) == ("erased", False)
        gone = await http.get(f"{BASE}/photos/{channel}/{number}")
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
        missing = await http.get(f"{BASE}/photos/{channel}/999999")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        [(channel, number)] = post_photos(telegram, 1)
        assert (await http.get(f"{BASE}/photos/{channel}/{number}")).status_code == 200
        order = {"channelId": str(channel), "wholeChannel": True, "reason": "r"}
        await http.post("/api/erasures", json=order, headers=admin)
        assert list((tmp_path / "photos").glob("*.jpg")) == []
        assert (await http.get(f"{BASE}/photos/{channel}/{number}")).status_code == 404
        figures = (await http.get(f"{BASE}/metrics")).json()["data"]
        assert any(figure["name"] == "telegram_connection_status" for figure in figures)
        overview = (await http.get(f"{BASE}/overview")).json()["data"]
        assert (overview["gateway"]["telegram"], overview["gatewayReason"]) == ("connected", None)
        reloaded = (await http.post(f"{BASE}/actions/reload")).json()["data"]
        assert reloaded == {"reloaded": True, "channels": 3}
        conflict = await http.post(f"{BASE}/auth/start", json={"phone": "+5511999991234"}, headers={"X-API-Key": ADMIN})
        assert (conflict.status_code, conflict.json()["code"]) == (409, "conflict")


@pytest.mark.requirement("GW-03")
async def test_a_log_in_over_the_api_says_what_it_waits_for(
    api_database: Postgres, gateway: Gateway, telegram: Telegram, tmp_path: Path
) -> None:
    phone = "5511999991234"
    async with (
        port_of(gateway, tmp_path, connected=False) as client,
        api(api_database, api_database.port, tmp_path, token=ADMIN, gateway=client) as http,
    ):

        async def status() -> str:
            found: str = (await http.get(f"{BASE}/auth/status")).json()["data"]["status"]
            return found

        async def reached(expected: str) -> None:
            async with asyncio.timeout(20):
                while await status() != expected:
                    await asyncio.sleep(0.02)

        idle = (await http.get(f"{BASE}/auth/status")).json()["data"]
        assert {name: idle[name] for name in ("status", "running", "startedAt", "finishedAt", "exitCode")} == {
            "status": "idle",
            "running": False,
            "startedAt": None,
            "finishedAt": None,
            "exitCode": None,
        }
        for body in ({}, {"phone": "1", "botToken": "2"}):
            assert (await http.post(f"{BASE}/auth/start", json=body)).status_code == 422
        assert (await http.post(f"{BASE}/auth/cancel")).status_code == 409
        assert (await http.post(f"{BASE}/auth/start", json={"phone": f"+{phone}"})).status_code == 202
        await reached("waiting_code")
        assert (await http.post(f"{BASE}/auth/start", json={"phone": phone})).status_code == 409
        assert (await http.post(f"{BASE}/auth/input", json={"value": "1"})).status_code == 202
        await reached("waiting_code")
        wrong = (await http.get(f"{BASE}/auth/status")).json()["data"]
        assert wrong["logs"] == [wrong["message"]]
        assert "code is wrong" in wrong["message"]
        assert (await http.post(f"{BASE}/auth/cancel")).json()["data"]["status"] in {"cancelling", "cancelled"}
        await reached("cancelled")
        assert (await http.get(f"{BASE}/auth/status")).json()["data"]["exitCode"] == 1
        await http.post(f"{BASE}/auth/start", json={"phone": phone})
        await reached("waiting_code")
        sent = telegram.store.code(phone)
        assert sent is not None
        await http.post(f"{BASE}/auth/input", json={"value": sent.code})
        await until((tmp_path / "login" / "session").exists)
        await reached("completed")
        assert (await http.get(f"{BASE}/auth/status")).json()["data"]["exitCode"] == 0


@pytest.mark.requirement("GW-11")
async def test_each_account_is_asked_at_its_own_gateway(
    api_database: Postgres, gateway: Gateway, telegram: Telegram, tmp_path: Path
) -> None:
    """The first account's does not answer, so that nothing can have come from it."""
    client = GatewayClient(GatewayConfig(port=free_port(), accounts={"second": free_port()}))
    async with (
        port_of(gateway, tmp_path) as second,
        api(api_database, api_database.port, tmp_path, token=ADMIN, gateway=client) as http,
    ):
        client.accounts["second"] = second
        of_second = {"account": "second"}
        for path in ("session", "recovery", "auth/status", "sync-messages"):
            assert (await http.get(f"{BASE}/{path}")).status_code == 503, path
            assert (await http.get(f"{BASE}/{path}", params=of_second)).status_code == 200, path
        unknown = await http.get(f"{BASE}/session", params={"account": "third"})
        assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "account")
        assert (await http.post(f"{BASE}/auth/cancel", params=of_second)).status_code == 409
        assert (await http.post(f"{BASE}/actions/reload", params=of_second)).json()["data"]["channels"] == 3
        begun = await http.post(f"{BASE}/sync-messages", params=of_second, json={"limit": 10})
        assert begun.status_code == 202

        raw = list(telegram.store.channels)[-1]  # of the first one another test erases all
        [message] = telegram.post([Draft(raw, "a photo", has_photo=True)])
        channel, number = marked(raw), message.id
        await http.post("/api/channels", json={"channelId": str(channel)})
        assert (await http.get(f"{BASE}/photos/{channel}/{number}")).status_code == 503
        await http.put(f"/api/channels/{channel}", json={"account": "second"})
        assert (await http.get(f"{BASE}/photos/{channel}/{number}")).content == jpeg(photo_id(raw, number))
    await client.close()


async def test_only_an_admin_logs_in(api_database: Postgres, tmp_path: Path) -> None:
    async with api(api_database, api_database.port, tmp_path) as http:
        for path in ("start", "input", "cancel"):
            assert (await http.post(f"{BASE}/auth/{path}")).status_code == 403
        assert (await http.post(f"{BASE}/sync-messages", headers={"X-API-Key": READER})).status_code == 403
        assert (await http.get(f"{BASE}/config")).status_code == 403


async def test_dashboards_answer_without_a_gateway_and_the_rest_says_why(
    api_database: Postgres, data: Data, api_channel: int, tmp_path: Path
) -> None:
    client = GatewayClient(GatewayConfig(port=free_port()))
    async with api(api_database, api_database.port, tmp_path, token=ADMIN, gateway=client) as http:
        await http.post("/api/channels", json={"channelId": api_channel, "label": "Swing"})
        data.message(1)
        overview = (await http.get(f"{BASE}/overview")).json()["data"]
        assert (overview["gateway"], overview["gatewayReason"]) == (None, "The gateway: it cannot be reached")
        assert overview["store"]["messages"] >= 1
        for path in ("session", "recovery", "metrics", "auth/status", "sync-messages"):
            answer = await http.get(f"{BASE}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (503, "gateway_unavailable"), path
            assert answer.headers["Retry-After"]
        rows = {row["channelId"]: row for row in (await http.get("/api/channels/health")).json()["data"]}
        assert (rows[str(api_channel)]["name"], rows[str(api_channel)]["messagesLastDay"]) == ("Swing", 0)
        assert (await http.get(f"{BASE}/queue/preview-limit")).json()["data"] == {"limit": 20, "maximum": 1000}
        data.connection.execute(
            "INSERT INTO telegram.failures (consumer, channel_id, message_id, version, reason, payload, attempts)"
            " VALUES ('c', %s, 1, 1, 'r', '{}', 1)",
            [api_channel],
        )
        queue = (await http.get(f"{BASE}/queue", params={"limit": 1})).json()["data"]
        assert (queue["items"][0]["channelId"], queue["total"] >= 1) == (str(api_channel), True)
        summary = (await http.get(f"{BASE}/messages/summary")).json()["data"]
        assert summary["store"]["failuresWaiting"] == queue["total"]
        settings = (await http.get(f"{BASE}/config")).text
        assert '"retention":"on"' in settings
        assert api_database.password not in settings and ADMIN not in settings
    await client.close()

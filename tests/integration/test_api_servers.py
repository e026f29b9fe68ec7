"""The API over a real database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from psycopg.types.json import Jsonb
from tests.integration.apis import CHANNELS, START, WRITER, Data, listed, needs_postgres
from tests.integration.servers import Cable, Postgres, free_port

from telegram_stack.ids import row_id

pytestmark = needs_postgres

TOKEN = WRITER


@pytest.mark.requirement("API-01")
async def test_a_message_has_the_legacy_names(http: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    identity = data.message(
        1,
        "Veja",
        message_type="photo",
        media=Jsonb({"type": "photo", "id": 2**60, "access_hash": 2**61 + 7, "mime_type": "image/jpeg"}),
        topic_id=7,
        sender_id=8,
        metadata=Jsonb({"a": 1}),
    )
    data.state(1, "published", processed_by="signals", signal_asset="PETR4")
    answer = await http.get(f"/api/messages/{identity}")
    message = answer.json()["data"]
    expected = {
        "id": identity,
        "channelId": str(api_channel),
        "messageId": "1",
        "threadId": "7",
        "senderId": "8",
        "source": "user_client",
        "messageType": "photo",
        "text": "Veja",
        "caption": "Veja",
        "mediaType": "photo",
        "mediaRefs": [{"type": "photo", "id": str(2**60), "mimeType": "image/jpeg"}],
        "status": "published",
        "telegramDate": "2026-05-04T12:01:00Z",
        "receivedAt": "2026-05-04T12:01:00Z",
        "metadata": {"a": 1, "processed_by": "signals", "signal_asset": "PETR4"},
        "deletedAt": None,
    }
    assert {name: message[name] for name in expected} == expected
    assert message["publishedAt"] is not None
    assert str(2**61 + 7) not in answer.text


async def test_a_message_that_does_not_exist(http: httpx.AsyncClient, api_channel: int) -> None:
    answer = await http.get(f"/api/messages/{row_id(api_channel, 1)}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.requirement("API-01")
async def test_messages_are_found_by_each_filter(http: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    data.message(1, "ATIVO: PETR4")
    data.message(2, "100% sure", source="bot")
    data.message(3, "100 percent", received_at=START + timedelta(days=1))
    data.message(4, "gone", deleted_at=START)
    data.state(1, "published")
    data.state(2, "ignored")
    data.state(4, "published")
    data.state(3, "published", consumer="another")
    for query, found in (
        ({}, [3, 2, 1]),
        ({"sort": "asc"}, [1, 2, 3]),
        ({"includeDeleted": "true"}, [4, 3, 2, 1]),
        ({"messageId": "1,3"}, [3, 1]),
        ({"status": "published"}, [1]),
        ({"status": "received"}, [3]),
        ({"status": "published,ignored"}, [2, 1]),
        ({"status": "deleted"}, [4]),
        ({"source": "bot"}, [2]),
        ({"search": "petr"}, [1]),
        ({"search": "100%"}, [2]),
        ({"from": "2026-05-05T00:00:00Z"}, [3]),
        ({"to": "2026-05-05T00:00:00Z"}, [2, 1]),
        ({"limit": 1, "offset": 1}, [2]),
        ({"offset": 10}, []),
    ):
        assert await listed(http, api_channel, **query) == found, query


@pytest.mark.requirement("API-01")
@pytest.mark.parametrize(
    "page",
    [
        {"total": 5, "limit": 2, "offset": 0, "hasMore": True},
        {"total": 5, "limit": 2, "offset": 4, "hasMore": False},
        {"total": 5, "limit": 5, "offset": 0, "hasMore": False},
        {"total": 5, "limit": 50, "offset": 0, "hasMore": False},
        {"total": 5, "limit": 2, "offset": 9, "hasMore": False},
    ],
)
async def test_pages_say_what_is_left(
    http: httpx.AsyncClient, data: Data, api_channel: int, page: dict[str, int | bool]
) -> None:
    for number in range(1, 6):
        data.message(number)
    query = {"channelId": api_channel, "limit": page["limit"], "offset": page["offset"]}
    answer = await http.get("/api/messages", params=query)
    assert answer.json()["pagination"] == page


@pytest.mark.requirement("API-01")
async def test_a_page_counts_what_its_filter_lets_through(
    http: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    other = next(CHANNELS)
    for number in range(1, 5):
        data.message(number, source="bot" if number == 2 else "user_client")
    for number in (5, 6):
        data.message(number, deleted_at=START)
    for number in (1, 2, 3):
        data.message(number, channel_id=other)
    data.state(1, "published")
    both = f"{api_channel},{other}"
    for query, total in (
        ({}, 4),
        ({"includeDeleted": "true"}, 6),
        ({"channelId": both}, 7),
        ({"channelId": both, "includeDeleted": "true"}, 9),
        ({"messageId": "1,2,5"}, 2),
        ({"channelId": both, "messageId": "1,2,5", "includeDeleted": "true"}, 5),
        ({"status": "deleted"}, 2),
        ({"status": "received"}, 3),
        ({"status": "received,deleted"}, 5),
        ({"source": "user_client"}, 3),
        ({"to": "2026-05-04T12:03:00Z"}, 3),
    ):
        answer = await http.get("/api/messages", params={"channelId": api_channel, "limit": 1, **query})
        assert answer.json()["pagination"]["total"] == total, query


async def test_a_page_counts_by_state_too(http: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    for number in range(1, 6):
        data.message(number)
        data.state(number, "ignored" if number < 4 else "published")
    answer = await http.get("/api/messages", params={"channelId": api_channel, "limit": 2, "status": "ignored"})
    assert answer.json()["pagination"]["total"] == 3


@pytest.mark.requirement("API-01")
async def test_row_ids_of_the_legacy_tables_go_on(http: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    old = {str(uuid4()): 1, str(4_000_000_000 - api_channel % 1_000_000): 2}
    for name, number in old.items():
        data.message(number)
        data.legacy_id(name, number)
    for name, number in old.items():
        answer = await http.get(f"/api/messages/{name.upper()}")
        assert answer.status_code == 200 and answer.json()["data"]["messageId"] == str(number)
    body = {"messageIds": [next(iter(old)), str(uuid4())], "processedBy": "legacy"}
    answer = await http.post("/api/messages/mark-processed", json=body)
    assert answer.json()["data"] == {"requested": 2, "updated": 1, "notFound": [body["messageIds"][1]]}


@pytest.mark.requirement("API-01")
async def test_unprocessed_messages_leave_once_they_are_marked(
    http: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    identities = [data.message(number) for number in (1, 2, 3)]
    data.message(4, deleted_at=START)
    data.state(2, "published", consumer="tp-capital")

    async def waiting() -> list[str]:
        query: dict[str, str | int] = {"channel": str(api_channel), "excludeProcessedBy": "tp-capital", "limit": 100}
        body = (await http.get("/api/messages/unprocessed", params=query)).json()
        assert body["count"] == len(body["data"])
        assert body["filters"]["excludeProcessedBy"] == "tp-capital"
        return [row["messageId"] for row in body["data"]]

    assert await waiting() == ["1", "3"]
    body = {"messageIds": [1, identities[2], "99"], "processedBy": "tp-capital", "channelId": api_channel}
    answer = await http.post("/api/messages/mark-processed", json=body)
    assert answer.json()["data"] == {"requested": 3, "updated": 2, "notFound": ["99"]}
    assert await waiting() == []
    answer = await http.post("/api/messages/mark-processed", json=body)
    assert answer.json()["data"]["updated"] == 0
    assert await listed(http, api_channel, status="received") == [3, 2, 1]  # for the consumer that the API shows


async def test_an_id_of_several_channels_needs_its_channel(
    http: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    other = next(CHANNELS)
    data.message(70)
    identity = data.message(70, channel_id=other)
    body: dict[str, Any] = {"messageIds": [70], "processedBy": "ambiguous"}
    answer = await http.post("/api/messages/mark-processed", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "ambiguous")
    assert answer.json()["errors"][0]["field"] == "messageIds[0]"
    answer = await http.post("/api/messages/mark-processed", json=body | {"messageIds": [identity]})
    assert answer.json()["data"]["updated"] == 1
    answer = await http.post("/api/messages/mark-processed", json=body | {"channelId": str(api_channel)})
    assert answer.json()["data"]["updated"] == 1


@pytest.mark.requirement("API-01")
async def test_channels_are_registered_changed_and_taken_out(http: httpx.AsyncClient, api_channel: int) -> None:
    answer = await http.post("/api/channels", json={"channelId": api_channel, "label": "Swing"})
    assert answer.status_code == 201
    assert answer.json()["data"]["isActive"] is True
    assert answer.json()["data"]["channelId"] == answer.json()["data"]["id"] == str(api_channel)
    assert (await http.post("/api/channels", json={"channelId": api_channel})).status_code == 409
    changed = (await http.put(f"/api/channels/{api_channel}", json={"description": "d"})).json()["data"]
    assert (changed["label"], changed["description"]) == ("Swing", "d")
    assert (await http.put(f"/api/channels/{api_channel}", json={"label": None})).json()["data"]["label"] is None
    assert (changed["account"], answer.json()["data"]["account"]) == ("", "")
    moved = await http.put(f"/api/channels/{api_channel}", json={"account": "second"})
    assert moved.json()["data"]["account"] == "second"
    assert (await http.put(f"/api/channels/{api_channel}", json={"account": "Big One"})).status_code == 422
    assert (await http.delete(f"/api/channels/{api_channel}")).json()["data"]["isActive"] is False
    rows = {row["id"]: row for row in (await http.get("/api/channels")).json()["data"]}
    assert rows[str(api_channel)]["isActive"] is False
    assert (await http.put(f"/api/channels/{next(CHANNELS)}", json={"label": "x"})).status_code == 404


@pytest.mark.requirement("API-03")
async def test_without_its_database_it_says_so_and_comes_back(
    http: httpx.AsyncClient, link: Cable, data: Data, api_channel: int
) -> None:
    data.message(1)
    assert await listed(http, api_channel) == [1]
    await link.cut()
    answer = await http.get("/api/messages", params={"channelId": api_channel})
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert answer.headers["Retry-After"]
    health = await http.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    await link.mend()
    async with asyncio.timeout(20):
        while (await http.get("/health")).status_code != 200:
            await asyncio.sleep(0.1)
    assert await listed(http, api_channel) == [1]


async def test_a_restarted_database_costs_no_request(
    http: httpx.AsyncClient, link: Cable, data: Data, api_channel: int
) -> None:
    data.message(1)
    await asyncio.gather(*(listed(http, api_channel) for _ in range(20)))  # every connection of the pool is open
    await link.cut()
    await link.mend()
    assert await asyncio.gather(*(listed(http, api_channel) for _ in range(20))) == [[1]] * 20


class Process:
    """The API as systemd runs it."""

    def __init__(self, database: Postgres, folder: Path, tokens: str, settings: str = "") -> None:
        secrets = {"postgres-password": database.password, "redis-password": "none", "tokens": tokens}
        for name, secret in secrets.items():
            (folder / name).write_text(secret)
        self.port = free_port()
        config = folder / "api.toml"
        config.write_text(f'{settings}port = {self.port}\n[database]\nuser = "telegram_api"\nport = {database.port}\n')
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(folder / "notify"))
        self._notifications.settimeout(30)
        self.running = subprocess.Popen(
            [sys.executable, "-m", "telegram_stack.api.main", "--config", str(config)],
            env=os.environ
            | {
                "CREDENTIALS_DIRECTORY": str(folder),
                "NOTIFY_SOCKET": str(folder / "notify"),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def notified(self) -> str:
        """The next word to systemd."""
        return self._notifications.recv(4096).decode()

    def close(self) -> None:
        """End it."""
        self.running.kill()
        self.running.communicate()
        self._notifications.close()


def test_the_program_is_ready_serves_and_stops(api_database: Postgres, tmp_path: Path) -> None:
    with contextlib.closing(Process(api_database, tmp_path, f"test:write:{TOKEN}")) as process:
        assert process.notified() == "READY=1"
        url = f"http://127.0.0.1:{process.port}"
        health = httpx.get(f"{url}/health", timeout=20).json()
        assert (health["status"], health["components"]["database"]["status"]) == ("degraded", "healthy")
        assert httpx.get(f"{url}/api/channels").status_code == 401
        assert httpx.get(f"{url}/api/channels?search=confidential", headers={"X-API-Key": TOKEN}).status_code == 200
        process.running.terminate()
        assert process.notified() == "STOPPING=1"
        output, errors = process.running.communicate(timeout=20)
        assert (process.running.returncode, errors) == (0, b"")
        assert TOKEN.encode() not in output
        assert b"confidential" not in output


def test_bad_tokens_stop_the_program_with_a_sentence(api_database: Postgres, tmp_path: Path) -> None:
    with contextlib.closing(Process(api_database, tmp_path, "just-a-token")) as process:
        _, errors = process.running.communicate(timeout=20)
        assert process.running.returncode == 2
        assert b"line 1 is not name:scope:token" in errors
        assert b"just-a-token" not in errors

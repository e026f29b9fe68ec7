"""Erasing a message or a channel: gone everywhere, never back, and on the record."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
import yaml
from psycopg.types.json import Jsonb
from tests.integration import brokers
from tests.integration.apis import ADMIN, CHANNELS, READER, START, Data, api, listed, needs_postgres
from tests.integration.servers import ROOT, Postgres

from telegram_stack import cache_keys
from telegram_stack.api.config import CacheConfig
from telegram_stack.cache import open_cache
from telegram_stack.ids import row_id

pytestmark = [
    needs_postgres,
    pytest.mark.skipif(not brokers.redis_installed(), reason="Redis is not installed"),
    pytest.mark.requirement("API-08"),
]

_TABLES = ("messages", "message_keys", "message_search", "message_history", "processing", "signals", "failures")


@pytest.fixture
async def admin(
    api_database: Postgres, consumer_cache: brokers.Cache, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with scope admin, of an API with a cache."""
    secret = tmp_path / "redis-password"
    secret.write_text(consumer_cache.password)
    sentinels = (f"127.0.0.1:{consumer_cache.sentinel_port}",)
    cache = open_cache(CacheConfig(user=brokers.USER, password_file=str(secret), sentinels=sentinels, timeout=1.0))
    async with api(api_database, api_database.port, tmp_path, cache, token=ADMIN) as client:
        yield client
    await cache.close()


def fill(data: Data, *numbers: int) -> None:
    """Messages with everything that is made of them."""
    for number in numbers:
        data.message(number, f"secret {number}")
        upsert(data.connection, data.channel, number, 20, f"secret edit {number}")
        data.state(number, "published")
        data.connection.execute(
            "INSERT INTO telegram.signals (channel_id, message_id, version, asset, raw_message, source, message_date)"
            " VALUES (%s, %s, 1, 'PETR4', 'secret', 'user_client', now())",
            [data.channel, number],
        )
        data.connection.execute(
            "INSERT INTO telegram.failures (consumer, channel_id, message_id, version, reason, payload, attempts)"
            " VALUES ('signals', %s, %s, 1, 'r', %s, 1)",
            [data.channel, number, Jsonb({"text": "secret"})],
        )
    data.connection.execute("SELECT * FROM telegram.maintain_search()")


def upsert(connection: psycopg.Connection[Any], channel: int, number: int, version: int, text: str) -> None:
    connection.execute(
        "SELECT telegram.bulk_upsert_messages(ARRAY[%(c)s]::bigint[], ARRAY[%(n)s]::bigint[], ARRAY[%(d)s],"
        " ARRAY[%(v)s]::bigint[], ARRAY[%(d)s], '{user_client}', '{text}', ARRAY[%(t)s])",
        {"c": channel, "n": number, "d": START, "v": version, "t": text},
    )


def left(data: Data) -> dict[str, list[int]]:
    """Which messages each table still knows."""
    found = {}
    for table in _TABLES:
        query = f"SELECT DISTINCT message_id FROM telegram.{table} WHERE channel_id = %s ORDER BY 1"  # noqa: S608
        found[table] = [number for (number,) in data.connection.execute(query.encode(), [data.channel])]
    return found


async def test_a_message_is_erased_everywhere_and_does_not_come_back(
    admin: httpx.AsyncClient, consumer_cache: brokers.Cache, data: Data, api_channel: int
) -> None:
    fill(data, 1, 2)
    cached = consumer_cache.client()
    for number in (1, 2):
        cached.set(cache_keys.message(api_channel, number), "secret")
        cached.zadd(cache_keys.recent(api_channel), {str(number): 1.0})
        cached.zadd(cache_keys.pending("signals", api_channel), {str(number): 1.0})
    assert await listed(admin, api_channel) == [2, 1]
    answer = await admin.post(
        "/api/erasures", json={"channelId": str(api_channel), "messageId": "1", "reason": "asked by its author"}
    )
    assert answer.status_code == 201, answer.text
    places = {place["place"]: place["state"] for place in answer.json()["data"]["places"]}
    assert (places.pop("store"), places.pop("cache"), places.pop("photos")) == ("erased", "erased", "unavailable")
    assert places.keys() == {"queue", "spool", "backups", "exports"}
    assert await listed(admin, api_channel) == [2]
    assert left(data) == {table: [2] for table in _TABLES}
    assert cached.get(cache_keys.message(api_channel, 1)) is None
    assert cached.zrange(cache_keys.recent(api_channel), 0, -1) == ["2"]
    assert cached.zrange(cache_keys.pending("signals", api_channel), 0, -1) == ["2"]
    upsert(data.connection, api_channel, 1, 99, "from history")
    assert await listed(admin, api_channel) == [2]
    assert (await admin.get(f"/api/messages/{row_id(api_channel, 1)}/history")).status_code == 404
    records = (await admin.get("/api/erasures", params={"limit": 1})).json()["data"]
    assert records == [answer.json()["data"]["erasure"]]
    expected = {"channelId": str(api_channel), "messageId": "1", "requestedBy": "operator", "erasedRows": 6}
    assert {name: records[0][name] for name in expected} == expected
    assert records[0]["finishedAt"] is not None
    assert "secret" not in answer.text
    cached.close()


async def test_what_a_queue_brings_later_is_erased_by_maintenance(
    admin: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    fill(data, 1, 2)
    answer = await admin.post("/api/erasures", json={"channelId": api_channel, "messageId": 1, "reason": "r"})
    assert answer.status_code == 201, answer.text
    data.state(1, "failed")
    data.connection.execute("UPDATE telegram.settings SET value = 'off' WHERE name = 'retention'")
    data.connection.execute("SELECT * FROM telegram.maintain_retention()")
    data.connection.execute("UPDATE telegram.settings SET value = 'on' WHERE name = 'retention'")
    assert left(data)["processing"] == [2]


async def test_a_channel_is_erased_in_steps_and_may_begin_anew(
    admin: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    await admin.post("/api/channels", json={"channelId": api_channel})
    fill(data, 1, 2, 3)
    data.state(9, "failed")  # of a message that was never stored
    other = next(CHANNELS)
    data.message(1, channel_id=other)
    number = data.connection.execute("SELECT telegram.begin_erasure(%s, NULL, 'test', 'r')", [api_channel]).fetchone()
    assert number is not None
    step = "SELECT telegram.continue_erasure(%s, 2)"
    assert [data.connection.execute(step, number).fetchone() for _ in range(2)] == [(False,), (True,)]
    answer = await admin.post(
        "/api/erasures", json={"channelId": api_channel, "wholeChannel": True, "reason": "closed"}
    )
    assert answer.json()["data"]["erasure"]["messageId"] is None
    assert left(data) == {table: [] for table in _TABLES}
    assert await listed(admin, other) == [1]
    channels = {row["id"]: row for row in (await admin.get("/api/channels")).json()["data"]}
    assert channels[str(api_channel)]["isActive"] is False
    upsert(data.connection, api_channel, 1, 99, "from history")
    assert left(data)["messages"] == []
    data.connection.execute(
        "SELECT telegram.bulk_upsert_messages(ARRAY[%s], '{5}', ARRAY[now() + interval '1 second'], '{1}',"
        " ARRAY[now()], '{user_client}', '{text}', '{new}')",
        [api_channel],
    )
    assert left(data)["messages"] == [5]


async def test_it_has_to_be_clear_what_is_meant_and_who_asks(admin: httpx.AsyncClient, api_channel: int) -> None:
    order: dict[str, Any] = {"channelId": api_channel, "reason": "r"}
    for body in (order, order | {"messageId": 1, "wholeChannel": True}, order | {"messageId": 0}):
        answer = await admin.post("/api/erasures", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "messageId")
    for method in ("GET", "POST"):
        answer = await admin.request(method, "/api/erasures", headers={"X-API-Key": READER}, json=order)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def test_without_its_cache_it_says_so(
    admin: httpx.AsyncClient, consumer_cache: brokers.Cache, data: Data, api_channel: int
) -> None:
    fill(data, 1)
    consumer_cache.stop()
    try:
        answer = await admin.post("/api/erasures", json={"channelId": api_channel, "messageId": 1, "reason": "r"})
    finally:
        consumer_cache.start()
    places = {place["place"]: place["state"] for place in answer.json()["data"]["places"]}
    assert (places["store"], places["cache"]) == ("erased", "unavailable")


async def test_the_api_may_take_messages_out_of_the_cache_and_nothing_else(consumer_cache: brokers.Cache) -> None:
    """The rights as the role renders them, at a real Redis."""
    users = yaml.safe_load((ROOT / "roles/redis_sentinel/vars/main.yml").read_text())["_redis_sentinel_users"]
    [rights] = [user["rights"] for user in users if user["name"] == "telegram_api"]
    operator: Any = consumer_cache.client()
    operator.execute_command("ACL", "SETUSER", "api_test", "on", ">secret", *shlex.split(_grouped(rights)))
    client: Any
    with redis.Redis(port=consumer_cache.port, username="api_test", password="secret") as client:
        assert client.set("api:x", "1", ex=30)
        assert client.get("telegram:msg:1:1") is None
        assert client.delete("telegram:msg:1:1") == client.zrem("telegram:pending:signals:1", "1") == 0
        for refused in (
            ("SET", "telegram:msg:1:1", "x"),
            ("DEL", "telegram:dedup:signals:1:1:1"),
            ("ZADD", "telegram:channel:1:recent", "1", "1"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*refused)
    operator.execute_command("ACL", "DELUSER", "api_test")
    operator.close()


def _grouped(rights: str) -> str:
    """A selector in brackets is one argument."""
    return rights.replace("(", '"(').replace(")", ')"')

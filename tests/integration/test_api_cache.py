"""Answers from the cache: right after every change, whoever made it, and without the cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from tests.integration import brokers
from tests.integration.apis import CHANNELS, Data, api, listed, needs_postgres
from tests.integration.servers import Postgres

from telegram_stack.api.cached import ANSWERS, Answers
from telegram_stack.api.config import CacheConfig
from telegram_stack.cache import open_cache
from telegram_stack.database import Connection, DatabaseConfig, open_pool

pytestmark = [
    needs_postgres,
    pytest.mark.skipif(not brokers.redis_installed(), reason="Redis is not installed"),
    pytest.mark.requirement("API-02"),
]


@pytest.fixture
async def kept(
    api_database: Postgres, consumer_cache: brokers.Cache, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API with a cache."""
    secret = tmp_path / "redis-password"
    secret.write_text(consumer_cache.password)
    sentinels = (f"127.0.0.1:{consumer_cache.sentinel_port}",)
    config = CacheConfig(user=brokers.USER, password_file=str(secret), sentinels=sentinels, timeout=1.0)
    cache = open_cache(config)
    async with api(api_database, api_database.port, tmp_path, cache) as client:
        yield client
    await cache.close()


class Count:
    """How often the cache had what since the last look."""

    def __init__(self) -> None:
        self._seen = self._now()

    def _now(self) -> dict[str, float]:
        return {name: ANSWERS.labels(name)._value.get() for name in ("hit", "miss", "changed", "unavailable")}

    def news(self) -> dict[str, float]:
        before, self._seen = self._seen, self._now()
        return {name: value - before[name] for name, value in self._seen.items() if value != before[name]}


async def test_a_page_comes_from_the_cache_while_it_holds(
    kept: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    count = Count()
    data.message(1)
    assert await listed(kept, api_channel) == [1]
    assert count.news() == {"miss": 1}
    assert await listed(kept, api_channel) == [1]
    assert count.news() == {"hit": 1}
    data.message(2, channel_id=next(CHANNELS))  # another channel's news change nothing here
    assert await listed(kept, api_channel) == [1]
    assert count.news() == {"hit": 1}


@pytest.fixture
def writer(api_database: Postgres) -> Iterator[psycopg.Connection[Any]]:
    with api_database.connect("telegram_owner") as connection:
        yield connection


def upsert(connection: psycopg.Connection[Any], channel: int, number: int, version: int, text: str) -> None:
    now = datetime(2026, 5, 4, 13, tzinfo=UTC)
    connection.execute(
        "SELECT telegram.bulk_upsert_messages("
        "%s::bigint[], %s::bigint[], %s, %s::bigint[], %s, '{user_client}', '{text}', %s)",
        [[channel], [number], [now], [version], [now], [text]],
    )


async def test_every_kind_of_change_is_seen_at_once(
    kept: httpx.AsyncClient, writer: psycopg.Connection[Any], api_channel: int
) -> None:
    async def page() -> list[tuple[str, str, str]]:
        query: dict[str, Any] = {"channelId": api_channel, "includeDeleted": "true"}
        rows = (await kept.get("/api/messages", params=query)).json()["data"]
        return [(row["messageId"], row["text"], row["status"]) for row in rows]

    async def mark() -> None:
        body = {"messageIds": [1], "processedBy": "signals", "channelId": api_channel}
        assert (await kept.post("/api/messages/mark-processed", json=body)).json()["data"]["updated"] == 1

    def run(statement: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            writer.execute(statement.encode(), {"channel": api_channel})

        return work

    async def edit() -> None:
        upsert(writer, api_channel, 1, 2, "edited")

    upsert(writer, api_channel, 1, 1, "first")
    assert await page() == [("1", "first", "received")]
    legacy = "UPDATE telegram_gateway.messages SET status = 'failed' WHERE channel_id = %(channel)s::text"
    delete = "SELECT telegram.mark_messages_deleted(ARRAY[%(channel)s], '{1}', ARRAY[now()])"
    for change, expected in (
        (edit, ("1", "edited", "received")),
        (mark, ("1", "edited", "published")),
        (run(legacy), ("1", "edited", "failed")),
        (run(delete), ("1", "edited", "deleted")),
    ):
        assert await page() == await page()
        await change()
        assert await page() == [expected]


async def test_what_began_before_an_answer_and_ended_behind_it_is_seen(
    kept: httpx.AsyncClient, api_database: Postgres, writer: psycopg.Connection[Any], api_channel: int
) -> None:
    with api_database.connect("telegram_owner") as slow, slow.transaction():
        upsert(slow, api_channel, 1, 1, "slow")
        upsert(writer, next(CHANNELS), 1, 1, "a later transaction that ends first")
        assert await listed(kept, api_channel) == []
        assert await listed(kept, api_channel) == []
    assert await listed(kept, api_channel) == [1]


async def test_marks_that_maintenance_has_forgotten_are_not_taken_for_none(
    kept: httpx.AsyncClient, data: Data, writer: psycopg.Connection[Any], api_channel: int
) -> None:
    data.message(1)
    assert await listed(kept, api_channel, status="received") == [1]
    data.state(1, "published")
    writer.execute("SELECT * FROM telegram.maintain_arrivals()")
    remembered = "SELECT count(*) FROM telegram.marked_channels WHERE channel_id = %s"
    assert writer.execute(remembered.encode(), [api_channel]).fetchone() == (0,)
    assert await listed(kept, api_channel, status="received") == []


async def test_readers_and_writers_at_once_never_see_less_than_was_written(
    kept: httpx.AsyncClient, writer: psycopg.Connection[Any], api_channel: int
) -> None:
    """A reader that begins behind a commit has to see it, however many others fill the cache meanwhile."""
    written = 0

    async def read() -> None:
        while written < 30:
            least = written
            found = await listed(kept, api_channel, limit=1)
            assert (found[0] if found else 0) >= least
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read()) for _ in range(4)]
    for number in range(1, 31):
        upsert(writer, api_channel, number, 1, "x")
        written = number
        await asyncio.sleep(0.02)
    await asyncio.gather(*readers)


async def test_without_redis_it_is_slower_and_right(
    kept: httpx.AsyncClient, consumer_cache: brokers.Cache, data: Data, api_channel: int
) -> None:
    data.message(1)
    assert await listed(kept, api_channel) == [1]
    consumer_cache.stop()
    try:
        count = Count()
        assert await listed(kept, api_channel) == [1]
        data.message(2)
        assert await listed(kept, api_channel) == [2, 1]
        assert count.news() == {"unavailable": 2}
    finally:
        consumer_cache.start()


class Slow:
    """Pages of a channel as the API makes them, which end when they are let go."""

    def __init__(self, channel: int) -> None:
        self.made = 0
        self.go = asyncio.Event()
        self._channel = channel

    async def __call__(self, connection: Connection) -> object:
        self.made += 1
        count = "SELECT count(*) FROM telegram.messages WHERE channel_id = %s"
        found = await (await connection.execute(count, [self._channel])).fetchall()
        await self.go.wait()
        return found[0][0]


@pytest.fixture
async def answers(api_database: Postgres, tmp_path: Path) -> AsyncIterator[Answers]:
    """Answers of an API without a cache."""
    (tmp_path / "password").write_text(api_database.password)
    config = DatabaseConfig(user="telegram_api", password_file=str(tmp_path / "password"), port=api_database.port)
    pool = await open_pool(config, "test")
    yield Answers(pool, None)
    await pool.close()


async def begun(slow: Slow, count: int) -> None:
    """Until so many pages have read what they are to say."""
    while slow.made < count:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)


async def test_those_who_ask_for_the_same_at_once_wait_for_one_answer(
    answers: Answers, data: Data, api_channel: int
) -> None:
    data.message(1)
    slow = Slow(api_channel)
    asked = [asyncio.create_task(answers.get(["slow"], [api_channel], slow)) for _ in range(20)]
    await begun(slow, 1)
    asked.pop(0).cancel()  # the client for which it was begun leaves
    slow.go.set()
    assert await asyncio.gather(*asked) == [b"1"] * 19
    assert slow.made == 1
    assert await answers.get(["slow"], [api_channel], slow) == b"1"
    assert slow.made == 2, "nothing is kept without a cache"


async def test_who_asks_behind_a_change_does_not_get_an_answer_from_before(
    answers: Answers, data: Data, api_channel: int
) -> None:
    slow = Slow(api_channel)
    before = asyncio.create_task(answers.get(["slow"], [api_channel], slow))
    await begun(slow, 1)
    data.message(1)
    behind = asyncio.create_task(answers.get(["slow"], [api_channel], slow))
    await asyncio.sleep(0.1)
    slow.go.set()
    assert (await before, await behind) == (b"0", b"1")


async def test_an_answer_that_fails_fails_for_those_who_wait_and_for_nobody_behind(
    answers: Answers, data: Data, api_channel: int
) -> None:
    async def broken(_connection: Connection) -> object:
        await asyncio.sleep(0.1)
        raise ValueError("broken")

    asked = [answers.get(["slow"], [api_channel], broken) for _ in range(3)]
    assert [str(each) for each in await asyncio.gather(*asked, return_exceptions=True)] == ["broken"] * 3
    slow = Slow(api_channel)
    slow.go.set()
    assert await answers.get(["slow"], [api_channel], slow) == b"0"


async def test_a_client_that_has_the_answer_is_told_so(kept: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    identity = data.message(1)
    for path in (f"/api/messages?channelId={api_channel}", f"/api/messages/{identity}", "/api/channels"):
        first = await kept.get(path)
        tag = first.headers["ETag"]
        again = await kept.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag), path
        assert (await kept.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
    path = f"/api/messages?channelId={api_channel}"
    tag = (await kept.get(path)).headers["ETag"]
    data.state(1, "published")
    changed = await kept.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["data"][0]["status"]) == (200, "published")

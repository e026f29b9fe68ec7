"""What tests of the API share: rows as gateway and worker write them, and the API over real servers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.integration.servers import Cable, Postgres, cable, postgres, postgres_programs

from telegram_stack.api.app import Api
from telegram_stack.api.config import ApiConfig
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.api.health import Health
from telegram_stack.api.tokens import parse_tokens
from telegram_stack.cache import CacheClient
from telegram_stack.database import DatabaseConfig, open_pool, ping
from telegram_stack.ids import row_id

needs_postgres = pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")

READER, WRITER, ADMIN = "reader-token-0123456789", "writer-token-0123456789", "admin-token-0123456789"
TOKENS = f"reader:read:{READER}\ntest:write:{WRITER}\noperator:admin:{ADMIN}"
START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CHANNELS = itertools.count(-1_000_777_000_000, -1)  # away from the least number, which the contract's tests register


@pytest.fixture(scope="session")
def api_database() -> Iterator[Postgres]:
    """One server for all tests of the API; each has a channel of its own."""
    with postgres() as server:
        yield server


@pytest.fixture
def api_channel() -> int:
    """A channel that only this test has."""
    return next(CHANNELS)


@pytest.fixture
def data(api_database: Postgres, api_channel: int) -> Iterator[Data]:
    """Writes into the test's channel."""
    with api_database.connect() as connection:
        yield Data(connection, api_channel)


@pytest.fixture
async def link(api_database: Postgres) -> AsyncIterator[Cable]:
    """The API's way to the database."""
    async with cable("127.0.0.1", api_database.port) as made:
        yield made


@pytest.fixture
async def http(api_database: Postgres, link: Cable, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client with scope write, of an API without a cache."""
    async with api(api_database, link.port, tmp_path) as client:
        yield client


@contextlib.asynccontextmanager
async def api(
    database: Postgres,
    port: int,
    folder: Path,
    cache: CacheClient | None = None,
    *,
    token: str = WRITER,
    gateway: GatewayClient | None = None,
    **settings: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API over the database behind `port`."""
    async with application(database, port, folder, cache, gateway=gateway, **settings) as made:
        transport = httpx.ASGITransport(made.application())
        async with httpx.AsyncClient(
            transport=transport, base_url="http://api", headers={"X-API-Key": token}
        ) as client:
            yield client


@contextlib.asynccontextmanager
async def application(
    database: Postgres,
    port: int,
    folder: Path,
    cache: CacheClient | None = None,
    *,
    gateway: GatewayClient | None = None,
    **settings: Any,
) -> AsyncIterator[Api]:
    """The API itself."""
    password = folder / "password"
    password.write_text(database.password)
    config = DatabaseConfig(user="telegram_api", password_file=str(password), port=port, timeout=1.0)
    pool = await open_pool(config, "test")

    async def check() -> str | None:
        await ping(pool)
        return None

    settings = {"rate_limit": 1_000_000, **settings}
    health = Health({"database": check})
    yield Api(ApiConfig(database=config, **settings), pool, parse_tokens(TOKENS), health, cache=cache, gateway=gateway)
    await pool.close()


class Data:
    """Writes what gateway and worker would have written."""

    def __init__(self, connection: psycopg.Connection[Any], channel: int) -> None:
        self.connection = connection
        self.channel = channel

    def message(self, number: int, text: str = "hello", **columns: Any) -> str:
        """One message, a minute later for each number; returns its row id."""
        moment = START + timedelta(minutes=number)
        identity = row_id(columns.get("channel_id", self.channel), number)
        values = {
            "id": identity,
            "channel_id": self.channel,
            "message_id": number,
            "message_date": moment,
            "version": 10,
            "source": "user_client",
            "message_type": "text",
            "text": text,
            "received_at": moment,
        } | columns
        names = ", ".join(values)
        places = ", ".join(f"%({name})s" for name in values)
        statement = f"INSERT INTO telegram.messages ({names}) VALUES ({places})"  # noqa: S608
        self.connection.execute(statement.encode(), values)
        self.connection.execute(
            "INSERT INTO telegram.message_keys (channel_id, message_id, message_date, version, deleted_at)"
            " VALUES (%(channel_id)s, %(message_id)s, %(message_date)s, %(version)s, %(deleted_at)s)",
            {"deleted_at": None} | values,
        )
        if "deleted_at" in columns:
            self.connection.execute(
                "INSERT INTO telegram.tombstones VALUES (%(channel_id)s, %(message_id)s, %(deleted_at)s, now())", values
            )
        return str(identity)

    def legacy_id(self, name: str, number: int) -> None:
        """The row id that a migrated message had in the legacy table."""
        self.connection.execute("INSERT INTO telegram.legacy_ids VALUES (%s, %s, %s)", [name, self.channel, number])

    def state(self, number: int, status: str, consumer: str = "signals", **metadata: Any) -> None:
        """What `consumer` made of a message."""
        self.connection.execute(
            "INSERT INTO telegram.processing (consumer, channel_id, message_id, version, status, metadata)"
            " VALUES (%s, %s, %s, 10, %s, %s)",
            [consumer, self.channel, number, status, Jsonb(metadata)],
        )


async def listed(http: httpx.AsyncClient, channel: int, **query: Any) -> list[int]:
    """The message ids that a query finds."""
    answer = await http.get("/api/messages", params={"channelId": channel, **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["success"] is True
    return [int(row["messageId"]) for row in answer.json()["data"]]

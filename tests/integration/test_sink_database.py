"""The database sink against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.servers import Postgres, cable, postgres, postgres_programs
from tests.integration.spooled import channel, entries, new_channels, state

from telegram_stack import events
from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.events import Content, Media, deletion
from telegram_stack.ids import row_id
from telegram_stack.sinks.base import RejectedEventsError, SinkUnavailableError
from telegram_stack.sinks.database import DatabaseSink
from telegram_stack.spool import Channel

__all__ = ["channel"]

needs_postgres = pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@contextlib.asynccontextmanager
async def database_sink(
    server: Postgres, tmp_path: Path, *, port: int = 0, register: bool = True, **known: Any
) -> AsyncIterator[DatabaseSink]:
    (tmp_path / "database-password").write_text(server.password)
    config = DatabaseConfig(
        user="telegram_ingest", password_file=str(tmp_path / "database-password"), port=port or server.port, timeout=1
    )
    pool = await open_pool(config, "test")
    channels = {channel.channel_id: channel for channel in known.get("channels", [])}
    sink = DatabaseSink(pool, lambda: channels, register=register)
    try:
        yield sink
    finally:
        await sink.close()


def rows(server: Postgres, columns: str, channel: int, table: str = "messages") -> list[tuple[Any, ...]]:
    order = "message_id" if table != "channels" else "channel_id"
    with server.connect() as connection:
        return connection.execute(
            f"SELECT {columns} FROM telegram.{table} WHERE channel_id = %s ORDER BY {order}",  # noqa: S608 - the test's
            (channel,),
        ).fetchall()


@needs_postgres
@pytest.mark.requirement("GW-04")
async def test_everything_of_a_message_is_stored(server: Postgres, tmp_path: Path, channel: int) -> None:
    full = state(
        channel,
        7,
        content=Content(
            text="olá",
            message_type="photo",
            entities=({"type": "bold", "offset": 0, "length": 3},),
            media=Media(type="photo", id=5, access_hash=-6, size=1000, width=10, height=20),
            link_preview={"url": "https://example.org/"},
        ),
        sender_id=42,
        reply_to={"message_id": 3},
        forward={"from_id": -1009, "message_id": 8},
        grouped_id=99,
        topic_id=2,
    )
    async with database_sink(server, tmp_path) as sink:
        await sink.write(entries(full))
    (row,) = rows(
        server,
        "id, message_date, version, source, message_type, text, entities, sender_id, reply_to, forward, grouped_id,"
        " topic_id, media, link_preview, edit_date, received_at, deleted_at, metadata",
        channel,
    )
    assert full.content is not None
    assert row == (
        row_id(channel, 7),
        full.message_date,
        full.version,
        "user_client",
        "photo",
        "olá",
        [{"type": "bold", "offset": 0, "length": 3}],
        42,
        {"message_id": 3},
        {"from_id": -1009, "message_id": 8},
        99,
        2,
        json.loads(msgspec.json.encode(full.content.media)),
        {"url": "https://example.org/"},
        None,
        full.received_at,
        None,
        {},
    )


@needs_postgres
async def test_the_newest_state_stays_whatever_the_order(server: Postgres, tmp_path: Path, channel: int) -> None:
    date = datetime.now(UTC).replace(microsecond=0)
    first, second, third = (state(channel, 1, f"state {edit}", edit, date=date) for edit in range(3))
    async with database_sink(server, tmp_path) as sink:
        await sink.write(entries(second))
        await sink.write(entries(third, first))
        await sink.write(entries(first, second, third))  # the same batch again, as after a crash
        await sink.write(entries(first))
    assert rows(server, "text, edit_date", channel) == [("state 2", third.edit_date)]


@needs_postgres
async def test_a_deletion_counts_before_and_after_its_message(server: Postgres, tmp_path: Path, channel: int) -> None:
    now = events.utc_now()
    async with database_sink(server, tmp_path) as sink:
        await sink.write(entries(deletion(channel, 1, now)))
        await sink.write(entries(state(channel, 1), state(channel, 2), state(channel, 3)))
        await sink.write(entries(deletion(channel, 2, now), state(channel, 4), deletion(channel, 4, now)))
    assert rows(server, "message_id, deleted_at", channel) == [(1, now), (2, now), (3, None), (4, now)]
    assert [row[0] for row in rows(server, "message_id", channel, "tombstones")] == [1, 2, 4]


@needs_postgres
async def test_what_the_server_refuses_is_found_among_many(server: Postgres, tmp_path: Path, channel: int) -> None:
    batch = entries(*(state(channel, number, "\x00" if number in (5, 11) else "fine") for number in range(1, 21)))
    refused: list[int] = []
    async with database_sink(server, tmp_path) as sink:
        waiting = list(batch)
        while waiting:
            try:
                await sink.write(waiting)
            except RejectedEventsError as error:
                refused += [entry.event.message_id for entry in error.entries]
                waiting = list(error.remaining)
            else:
                break
    assert refused == [5, 11]
    stored = [row[0] for row in rows(server, "message_id", channel)]
    assert stored == [number for number in range(1, 21) if number not in (5, 11)]


@needs_postgres
async def test_channels_follow_their_messages(server: Postgres, tmp_path: Path, channel: int) -> None:
    known = Channel(channel_id=channel, title="Sinais", username="sinais", pts=12)
    async with database_sink(server, tmp_path, channels=[known]) as sink:
        await sink.write(entries(state(channel, 9), state(channel, 3)))
        await sink.write(entries(state(channel, 5)))
        assert (await sink.registered())[channel] is True
    assert rows(server, "title, username, last_message_id, last_pts, is_active", channel, "channels") == [
        ("Sinais", "sinais", 9, 12, True)
    ]


@needs_postgres
@pytest.mark.requirement("GW-15")
async def test_with_a_registry_only_its_channels_are_updated(server: Postgres, tmp_path: Path, channel: int) -> None:
    other = next(new_channels)
    with server.connect() as connection:
        connection.execute("INSERT INTO telegram.channels (channel_id, label) VALUES (%s, 'mine')", (channel,))
    async with database_sink(server, tmp_path, register=False) as sink:
        await sink.write(entries(state(channel, 1), state(other, 1)))
    assert rows(server, "label, last_message_id", channel, "channels") == [("mine", 1)]
    assert rows(server, "channel_id", other, "channels") == []
    assert len(rows(server, "text", other)) == 1


@needs_postgres
@pytest.mark.requirement("GW-05")
async def test_a_cut_database_is_unavailable_and_comes_back(server: Postgres, tmp_path: Path, channel: int) -> None:
    async with (
        cable("127.0.0.1", server.port) as link,
        database_sink(server, tmp_path, port=link.port) as sink,
    ):
        await sink.write(entries(state(channel, 1)))
        await link.cut()
        with pytest.raises(SinkUnavailableError):
            await sink.write(entries(state(channel, 2)))
        await link.mend()
        async with asyncio.timeout(15):
            while True:
                with contextlib.suppress(SinkUnavailableError):
                    await sink.write(entries(state(channel, 2)))
                    break
    assert len(rows(server, "text", channel)) == 2


@needs_postgres
async def test_a_database_without_schema_is_waited_for(server: Postgres, tmp_path: Path, channel: int) -> None:
    async with database_sink(server, tmp_path) as sink:
        with server.connect() as connection:
            connection.execute("ALTER TABLE telegram.tombstones RENAME TO elsewhere")
        try:
            with pytest.raises(SinkUnavailableError, match="tombstones"):
                await sink.write(entries(state(channel, 1)))
        finally:
            with server.connect() as connection:
                connection.execute("ALTER TABLE telegram.elsewhere RENAME TO tombstones")
        await sink.write(entries(state(channel, 1)))
    assert len(rows(server, "text", channel)) == 1


@needs_postgres
async def test_concurrent_batches_do_not_deadlock(server: Postgres, tmp_path: Path, channel: int) -> None:
    date = datetime.now(UTC).replace(microsecond=0)
    batches = [
        entries(*(state(channel, number, f"{edit}", edit, date=date) for number in order))
        for edit, order in ((1, range(1, 301)), (2, range(300, 0, -1)))
    ]
    async with database_sink(server, tmp_path) as one, database_sink(server, tmp_path) as other:
        for _ in range(5):
            await asyncio.gather(one.write(batches[0]), other.write(batches[1]))
    assert {row[0] for row in rows(server, "text", channel)} == {"2"}
    with pytest.raises(psycopg.errors.InsufficientPrivilege), server.connect("telegram_ingest") as connection:
        connection.execute("DELETE FROM telegram.messages")

"""Two gateways that write the same messages at once, in any order; and what no database can hold."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration import servers

from telegram_stack import events
from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.events import Content, Event, deletion, version_of
from telegram_stack.sinks.base import RejectedEventsError
from telegram_stack.sinks.database import DatabaseSink
from telegram_stack.spool import Entry

SECONDS = float(os.environ.get("TELEGRAM_STACK_WRITERS_SECONDS", "5"))
"""60 in the long form."""

CHANNEL = -1001000000001
UPSERT = """SELECT telegram.bulk_upsert_messages(
  %s::bigint[], %s::bigint[], %s::timestamptz[], %s::bigint[], %s::timestamptz[], %s::text[], %s::text[], %s::text[]
)"""


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    with servers.postgres() as running:
        yield running


@pytest.mark.requirement("DB-04")
def test_two_writers_neither_deadlock_nor_lose_a_newer_edit(server: servers.Postgres) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    newest: list[dict[tuple[int, int], int]] = [{}, {}]
    deleted: list[set[tuple[int, int]]] = [set(), set()]
    problems: list[str] = []
    end = time.monotonic() + SECONDS

    def write(writer: int) -> None:
        chance = random.Random(writer)  # noqa: S311 - a test's order, not a secret
        try:
            with server.connect("telegram_ingest") as connection:
                while time.monotonic() < end:
                    keys = [(CHANNEL - chance.randrange(5), chance.randrange(1, 400)) for _ in range(300)]
                    rows = [(*key, chance.randrange(1, 1_000_000)) for key in keys]
                    channels, numbers, versions = (list(column) for column in zip(*rows, strict=True))
                    dates = [day + timedelta(seconds=number) for number in numbers]
                    gone = chance.sample(keys, 3)
                    with connection.transaction():
                        connection.execute("SELECT telegram.lock_channels(%s::bigint[])", [channels])
                        texts = [str(version) for version in versions]
                        kinds = ["text"] * len(rows)
                        connection.execute(UPSERT, [channels, numbers, dates, versions, dates, kinds, kinds, texts])
                        connection.execute(
                            "SELECT telegram.mark_messages_deleted(%s::bigint[], %s::bigint[], %s::timestamptz[])",
                            [[key[0] for key in gone], [key[1] for key in gone], [day] * len(gone)],
                        )
                    for channel, number, version in rows:
                        newest[writer][channel, number] = max(version, newest[writer].get((channel, number), 0))
                    deleted[writer].update(gone)
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=write, args=(writer,)) for writer in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=SECONDS + 60)
    assert problems == []
    expected = {key: max(each.get(key, 0) for each in newest) for key in {*newest[0], *newest[1]}}
    with server.connect("telegram_owner") as connection:
        stored = connection.execute(
            "SELECT channel_id, message_id, version, text, deleted_at FROM telegram.messages WHERE channel_id <= %s",
            [CHANNEL],
        ).fetchall()
        keys = connection.execute(
            "SELECT channel_id, message_id, version, deleted_at FROM telegram.message_keys"
        ).fetchall()
        deadlocks = connection.execute("SELECT sum(deadlocks)::int FROM pg_stat_database").fetchone()
    assert {row[:2]: row[2] for row in stored} == expected == {row[:2]: row[2] for row in keys}
    assert all(text == str(version) for _, _, version, text, _ in stored)
    assert {row[:2] for row in stored if row[4]} == deleted[0] | deleted[1] == {row[:2] for row in keys if row[3]}
    assert deadlocks == (0,)


def event(number: int, channel: int = CHANNEL - 100, date: datetime | None = None, **content: object) -> Event:
    date = date or datetime.now(UTC).replace(microsecond=0)
    shown = Content(**{"text": "fine", **content})  # type: ignore[arg-type]
    try:
        version = version_of(shown, date, None)
    except UnicodeEncodeError:
        version = 1
    return Event(
        kind="new", channel_id=channel, message_id=number, version=version, received_at=events.utc_now(),
        message_date=date, content=shown,
    )  # fmt: skip


BAD = {
    2: event(2, text="a\x00b"),
    4: event(4, text="half \ud83d of a pair"),
    6: event(6, link_preview={"title": "a\x00b"}),
    8: event(8, link_preview={"title": "half \ud83d of a pair"}),
    10: event(10, channel=2**63),
    12: event(12, channel=-(2**70)),
    14: event(2**58),
    16: Event(kind="new", channel_id=CHANNEL, message_id=16, version=1, received_at=events.utc_now()),
    18: deletion(2**64, 18, events.utc_now()),
}
GOOD = {
    1: event(1),
    3: event(3, text="x" * 4_000_000),
    5: event(5, date=datetime(1970, 1, 1, tzinfo=UTC)),
    7: event(7, date=datetime(2100, 1, 1, tzinfo=UTC)),
    9: event(9, link_preview={"title": 'quotes " \\ {} and 😀'}),
}


@pytest.mark.requirement("DB-04")
async def test_what_cannot_be_stored_is_refused_with_a_reason_and_the_rest_is_stored(
    server: servers.Postgres, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(server.password)
    config = DatabaseConfig(
        user="telegram_ingest", password_file=str(tmp_path / "password"), port=server.port, timeout=10
    )
    sink = DatabaseSink(await open_pool(config, "test"), lambda: {}, register=True)
    waiting = [Entry(number, found, b"", time.time()) for number, found in sorted({**BAD, **GOOD}.items())]
    refused: dict[int, str] = {}
    while waiting:
        try:
            await sink.write(waiting)
        except RejectedEventsError as error:
            refused |= {entry.seq: str(error) for entry in error.entries}
            waiting = list(error.remaining)
        else:
            break
    await sink.close()
    assert sorted(refused) == sorted(BAD)
    assert all(refused.values()), refused
    for number, words in (
        (2, "0x00"),
        (4, "surrogates not allowed"),
        (6, "Unicode"),
        (10, "no key of a message: 92"),
        (16, "no date"),
    ):
        assert words in refused[number], refused[number]
    with server.connect("telegram_owner") as connection:
        stored = connection.execute(
            "SELECT message_id, length(text) FROM telegram.messages WHERE channel_id = %s ORDER BY 1", [CHANNEL - 100]
        ).fetchall()
    assert stored == [(1, 4), (3, 4_000_000), (5, 4), (7, 4), (9, 4)]

"""A gateway whose spool knows nothing begins behind what the database has: after a migration, or as a stand-by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from tests.integration.gateways import ListSink, post, running
from tests.integration.servers import Postgres, postgres, postgres_programs, until
from tests.integration.test_gateway_recovery import edit_and_delete, shown, state

from telegram_stack.database import DatabaseConfig, Pool, open_pool
from telegram_stack.gateway.stored import StoredInDatabase
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.sinks.database import DatabaseSink
from telegram_stack.spool import begin_anew
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile
from telegram_stack.telegram.source import Limits
from telegram_stack.telegram.stored import Known, Span, StoreAwayError

pytestmark = pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")

SHALLOW = Limits(history_depth=10, edit_window=200)
LEGACY = """
INSERT INTO legacy_rows (legacy_id, channel_id, message_id, text, received_at, telegram_date, created_at, metadata)
SELECT %(id)s, %(channel)s, %(id)s, %(text)s, at, at, at, '{"processed_by": "tp-capital"}'
FROM to_timestamp(%(date)s) AS at
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(fsync="off") as started:
        yield started


@pytest.fixture
async def pool(server: Postgres, tmp_path: Path) -> AsyncIterator[Pool]:
    with server.connect() as connection:
        connection.execute(
            "TRUNCATE telegram.messages, telegram.message_keys, telegram.tombstones, telegram.processing,"
            " telegram.legacy_ids, telegram.channels"
        )
    (tmp_path / "password").write_text(server.password)
    opened = await open_pool(
        DatabaseConfig(user="telegram_ingest", password_file=str(tmp_path / "password"), port=server.port, timeout=0.5),
        "test",
    )
    try:
        yield opened
    finally:
        await opened.close()


def database(pool: Pool) -> DatabaseSink:
    return DatabaseSink(pool, lambda: {}, register=True)


def stored(server: Postgres) -> dict[tuple[int, int], str | None]:
    """What the database shows, each message once: the text, None for what is deleted."""
    with server.connect() as connection:
        rows = connection.execute(
            "SELECT channel_id, message_id, CASE WHEN deleted_at IS NULL THEN text END FROM telegram.messages"
        ).fetchall()
    found = {(channel, message): text for channel, message, text in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.requirement("GW-15")
async def test_what_a_migration_left_is_gone_on_from(
    telegram: Telegram, session: SessionFile, server: Postgres, pool: Pool
) -> None:
    """500 messages came since, whatever `history_depth` is; what the legacy system had is told to nobody again."""
    channel = next(iter(telegram.store.channels))
    number = marked(channel)
    post(telegram, 300, channel)
    edit_and_delete(telegram, channel, [290], [])
    legacy = [m for m in telegram.store.all_messages(None, deleted=False) if not 231 <= m.id <= 240]
    with server.connect("telegram_owner") as owner, owner.transaction():
        owner.execute("CREATE TEMP TABLE legacy_rows OF telegram.legacy_row ON COMMIT DROP")
        rows = [{"id": str(m.id), "channel": str(number), "text": m.text, "date": m.date} for m in legacy]
        owner.cursor().executemany(LEGACY.encode(), rows)
        owner.execute("SELECT telegram.adopt_legacy_rows('test')")
    edit_and_delete(telegram, channel, [295], [7, 150, 299])
    post(telegram, 500, channel)
    edit_and_delete(telegram, channel, [400], [401, 800])
    queue = ListSink("queue")
    async with running(session, [database(pool), queue], stored=StoredInDatabase(pool), limits=SHALLOW) as gateway:
        await gateway.complete()
        assert gateway.channels[number].pts == telegram.store.channels[channel].pts
    found = stored(server)
    missed = {key: text for key, text in shown(telegram).items() if key[1] > 300}
    assert {key: text for key, text in found.items() if key[1] > 300} == missed
    assert (len(missed), found[number, 295], found[number, 235]) == (498, "edited 295", "Nº 234")
    assert (found[number, 150], found[number, 299]) == (None, None)
    assert found[number, 7] is not None, "that is below the window"
    # those it lacked, in the window and above; of what it had, what has changed
    assert sorted(queue.keys()) == sorted([*((number, lacked) for lacked in range(231, 241)), *missed])
    assert set(queue.keys("edit")) == {(number, 295)}
    assert set(queue.keys("delete")) == {(number, 150), (number, 299)}


@pytest.mark.requirement("GW-15", "GW-06")
async def test_a_stand_by_with_an_empty_spool_goes_on_where_the_first_host_stopped(
    telegram: Telegram, session: SessionFile, server: Postgres, pool: Pool
) -> None:
    first, second, _ = telegram.store.channels
    stood_by = ListSink("queue")
    async with running(session, [database(pool)]) as gateway:
        await gateway.complete()
        post(telegram, 300, first)
        post(telegram, 5, second)
    edit_and_delete(telegram, first, [200, 300], [250, 299])
    post(telegram, 500, first)
    async with running(
        session, [database(pool), stood_by], folder="second", stored=StoredInDatabase(pool), limits=SHALLOW
    ) as gateway:
        await gateway.complete()
    found = stored(server)
    assert {key: text for key, text in found.items() if text is not None} == shown(telegram)
    assert {key[1] for key, text in found.items() if text is None} == {250, 299}
    assert sorted(stood_by.keys()) == [(marked(first), number) for number in range(301, 801)]


@pytest.mark.requirement("GW-15", "GW-06")
@pytest.mark.parametrize("anew", [True, False])
async def test_what_another_program_has_stored_meanwhile_is_left_out_when_the_gateway_begins_anew(
    telegram: Telegram, session: SessionFile, server: Postgres, pool: Pool, anew: bool
) -> None:
    """So it goes after a migration, the way back and another migration."""
    first, *_ = telegram.store.channels
    again = ListSink("queue")
    async with running(session, [database(pool)]) as gateway:
        await gateway.complete()
        post(telegram, 30, first)
        await until(lambda: len(stored(server)) == 30)
    async with running(
        session, [database(pool)], folder="other", stored=StoredInDatabase(pool), limits=SHALLOW
    ) as gateway:
        await gateway.complete()
        post(telegram, 40, first)
        await until(lambda: len(stored(server)) == 70)
    if anew:
        begin_anew(session.path.parent / "spool.db")
    post(telegram, 5, first)
    async with running(session, [database(pool), again], stored=StoredInDatabase(pool), limits=SHALLOW) as gateway:
        await gateway.complete()
    assert sorted(again.keys()) == [(marked(first), number) for number in range(71 if anew else 31, 76)]
    assert {key: text for key, text in stored(server).items() if text is not None} == shown(telegram)


@pytest.mark.requirement("GW-15", "GW-05")
async def test_a_channel_waits_for_a_database_that_is_away_and_what_comes_live_does_not(
    telegram: Telegram, session: SessionFile, server: Postgres, pool: Pool
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, [database(pool)]) as gateway:
        await gateway.complete()
        post(telegram, 100, channel)
    missed = post(telegram, 500, channel)
    queue = ListSink("queue")
    await asyncio.to_thread(server.stop)
    try:
        async with running(
            session, [database(pool), queue], folder="second", stored=StoredInDatabase(pool), limits=SHALLOW
        ) as gateway:
            await until(lambda: gateway.source.state == "connected" and gateway.channels.known)
            live = post(telegram, 300, channel)
            await until(lambda: live <= set(queue.keys()))
            assert not missed & set(queue.keys())
            assert marked(channel) in gateway.channels.open
            await asyncio.to_thread(server.start)
            await gateway.complete()
    finally:
        if not is_up(server):
            server.start()
    assert stored(server) == shown(telegram)
    assert set(state(queue)) == missed | live


def is_up(server: Postgres) -> bool:
    try:
        server.connect().close()
    except Exception:
        return False
    return True


class Racing:
    """A store that answers only when it holds what came live, as a sink that is faster than the question leaves it."""

    def __init__(self, before: int, live: int) -> None:
        self._before, self._live = before, live
        self.away = True

    async def span(self, channel_id: int, below: int | None = None) -> Span | None:
        if self.away:
            raise StoreAwayError("it is away")
        return Span(1, self._live if below is None else self._before)

    async def messages(self, channel_id: int, first: int, last: int) -> Mapping[int, Known]:
        held = [*range(1, self._before + 1), *range(self._live, self._live + 1000)]
        return {number: Known(False, None) for number in held if first <= number <= last}


@pytest.mark.requirement("GW-15")
async def test_what_came_live_hides_nothing_that_was_missed_before(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    channel = next(iter(telegram.store.channels))
    post(telegram, 400, channel)
    store = Racing(100, 401)
    limits = Limits(history_depth=10, edit_window=0)
    async with running(session, sinks, stored=store, limits=limits) as gateway:
        await until(lambda: gateway.source.state == "connected" and gateway.channels.known)
        post(telegram, 3, channel)
        await until(lambda: len(sinks[0].entries) == 3)
        store.away = False
        await gateway.complete()
    assert sorted(sinks[0].keys()) == [(marked(channel), number) for number in range(101, 404)]

"""Two hosts with one session: only the one that has the lease is connected, whatever becomes of the database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.gateways import ListSink, post, running
from tests.integration.servers import Postgres, postgres, postgres_programs, until

from telegram_stack.database import DatabaseConfig, open_pool
from telegram_stack.gateway.lease import DatabaseLease
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.telegram.lease import LeaseError
from telegram_stack.telegram.session import SessionFile

pytestmark = pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")

SECONDS = 12.0  # two more than it takes to leave


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


@asynccontextmanager
async def lease(server: Postgres, folder: Path, holder: str, seconds: float = SECONDS) -> AsyncIterator[DatabaseLease]:
    (folder / "password").write_text(server.password)
    config = DatabaseConfig(
        user="telegram_ingest", password_file=str(folder / "password"), port=server.port, timeout=0.5
    )
    pool = await open_pool(config, holder)
    try:
        yield DatabaseLease(pool, seconds, holder=holder)
    finally:
        await pool.close()


async def is_free(one: DatabaseLease, name: str) -> bool:
    try:
        await one.take(name)
    except LeaseError:
        return False
    return True


@pytest.mark.requirement("GW-02")
async def test_one_host_has_it_until_it_gives_it_back_or_it_runs_out(server: Postgres, tmp_path: Path) -> None:
    async with lease(server, tmp_path, "one") as one, lease(server, tmp_path, "two", 1.0) as two:
        await one.take("a")
        await one.take("a")  # its own again
        with pytest.raises(LeaseError, match=r"the host one has the lease of the session, for 1\d s more"):
            await two.take("a")
        assert await is_free(two, "b")
        await one.give_back()
        assert await is_free(two, "a")
        async with asyncio.timeout(10):
            while not await is_free(one, "a"):  # until the other's has run out
                await asyncio.sleep(0.1)


@pytest.mark.requirement("GW-02")
async def test_it_leaves_before_another_host_can_have_it_when_the_database_is_away(
    server: Postgres, tmp_path: Path
) -> None:
    async with lease(server, tmp_path, "one") as one:
        await one.take("c")
        keeping = asyncio.create_task(one.keep())
        await asyncio.to_thread(server.stop)
        try:
            done, _ = await asyncio.wait({keeping}, timeout=SECONDS)
            assert done, "it kept a lease that another host may have"
            with pytest.raises(LeaseError, match="could not be renewed"):
                await keeping
            with pytest.raises(LeaseError, match="cannot be asked"):
                await one.take("c")
        finally:
            await asyncio.to_thread(server.start)


@pytest.mark.requirement("GW-02", "GW-06")
async def test_the_gateway_that_stands_by_goes_on_where_the_first_one_stopped(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink], server: Postgres, tmp_path: Path
) -> None:
    async with lease(server, tmp_path, "first") as first, lease(server, tmp_path, "second") as second:
        async with running(session, sinks, lease=first) as gateway:
            await gateway.complete()
            with contextlib.suppress(LeaseError):
                await second.take(first._name)
                pytest.fail("two hosts have one session")
        posted = post(telegram, 20)
        async with running(session, sinks, folder="second", lease=second) as gateway:
            await gateway.complete()
            await until(lambda: set(posted) <= set(sinks[0].keys()), 20)

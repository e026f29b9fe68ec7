"""What happens here goes back to the legacy tables, of whichever shape, once and whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from tests.integration import modules, programs, servers
from tests.integration.modules import success
from tests.integration.servers import Postgres, free_port, wait_until
from tests.integration.test_message_copy import SHAPES

from telegram_stack.config import load
from telegram_stack.database import DatabaseUnavailableError
from telegram_stack.legacy.commands import compare, drain
from telegram_stack.legacy.config import FeedConfig
from telegram_stack.legacy.feed import Feed
from telegram_stack.legacy.main import sides
from telegram_stack.legacy.old_side import OldSide
from telegram_stack.legacy.outbox import Outbox

BARE, MARKED, NEW = 1_000_000_001, -1_001_000_000_001, -1_001_000_000_002
"""A channel that the legacy tables call by its bare number; ours; one that they do not know."""
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
WORD = "canary-word-of-the-feed"
DONE = '{"processed_by": "tp-capital", "signal_asset": "VALE3"}'

# Message 1 is done, 2 is not, 3 is there twice.
LEGACY = f"""
INSERT INTO telegram_gateway.messages
  (channel_id, message_id, text, caption, media_type, status, received_at, telegram_date, created_at, updated_at,
   metadata)
VALUES
  ({BARE}, 1, 'done', NULL, NULL, 'published', '{NOW}', '{NOW}', '{NOW}', '{NOW}', '{DONE}'),
  ({BARE}, 2, 'waits', NULL, NULL, 'received', '{NOW}', '{NOW}', '{NOW}', '{NOW}', '{{"mine": 1}}'),
  ({BARE}, 3, NULL, 'see', 'photo', 'received', '{NOW}', '{NOW}', '{NOW}', '{NOW}', '{{}}'),
  ({BARE}, 3, NULL, 'see', 'photo', 'received', '{NOW}', '{NOW}', '{NOW + timedelta(hours=1)}', '{NOW}', '{{}}');
CREATE TABLE telegram_gateway.tp_capital_signals (
  id bigserial PRIMARY KEY, channel text NOT NULL, signal_type text DEFAULT 'Swing Trade', asset text NOT NULL,
  buy_min numeric, buy_max numeric, target_1 numeric, target_2 numeric, target_final numeric, stop numeric,
  raw_message text, source text, ts %s NOT NULL, ingested_at timestamptz, created_at timestamptz DEFAULT now()
)
"""  # noqa: S608 - constants
SIGNAL = """
INSERT INTO telegram.signals (channel_id, message_id, version, asset, buy_min, raw_message, source, message_date)
VALUES (%s, %s, 1, %s, 28.50, 'ATIVO', 'user_client', %s)
ON CONFLICT (channel_id, message_id) DO UPDATE SET buy_min = 29
"""
# What the legacy consumer asks for every five seconds.
POLL = """
SELECT message_id::bigint FROM telegram_gateway.messages
WHERE status = 'received' AND coalesce(metadata ->> 'processed_by', '') <> 'tp-capital' AND deleted_at IS NULL
ORDER BY message_id::bigint
"""
AGAIN = "INSERT INTO telegram.legacy_changes (channel_id, message_id) SELECT * FROM telegram.legacy_changed_keys()"
ROWS = """
SELECT channel_id::text, message_id::bigint, coalesce(nullif(text, ''), caption), status, metadata ->> 'processed_by',
  deleted_at IS NOT NULL
FROM telegram_gateway.messages ORDER BY 1, 2
"""


@dataclass(frozen=True)
class World:
    """A migrated and fenced legacy database, and ours with the feed on."""

    shape: str
    server: Postgres
    folder: Path

    def here(self, statement: str, *given: Any, role: str = "telegram_owner") -> list[Any]:
        return self._run(role, servers.DATABASE, statement, given)

    def there(self, statement: str, *given: Any) -> list[Any]:
        return self._run("postgres", "tradingsystem", statement, given)

    def sabotage(self, statement: str) -> None:
        with self.server.connect(database="tradingsystem") as connection:
            connection.execute(f"SET telegram_stack.feed = '{WORD}'")
            connection.execute(statement.encode())

    def _run(self, role: str, database: str, statement: str, given: Any) -> list[Any]:
        with self.server.connect(role, database) as connection:
            cursor = connection.execute(statement.encode(), given)
            return cursor.fetchall() if cursor.description is not None else []

    def post(self, channel: int, numbers: list[int], text: str, version: int = 1) -> None:
        """Messages (or edits, by their version) as the gateway stores them."""
        count = len(numbers)
        self.here(
            "SELECT telegram.bulk_upsert_messages(%s, %s, %s, %s, %s, %s, %s, %s)",
            [channel] * count,
            numbers,
            [NOW] * count,
            [((int(NOW.timestamp()) + version) << 20)] * count,
            [NOW] * count,
            ["user_client"] * count,
            ["text"] * count,
            [f"{text} {number}" for number in numbers],
            role="telegram_ingest",
        )

    def delete(self, channel: int, number: int) -> None:
        call = "SELECT telegram.mark_messages_deleted(%s, %s, ARRAY[now()])"
        self.here(call, [channel], [number], role="telegram_ingest")

    def process(self, channel: int, numbers: list[int], status: str = "published") -> None:
        call = "SELECT telegram.mark_batch_as_processed('signals', %s, %s, '{\"signal_asset\": \"PETR4\"}', %s)"
        self.here(call, [channel] * len(numbers), numbers, status, role="telegram_worker")

    def config(self, **legacy: Any) -> Path:
        """The program's file, and its credentials beside it."""
        port = {"port": self.server.port, "name": "tradingsystem", **legacy}
        path = self.folder / "legacy_feed.toml"
        path.write_text(
            f'consumer = "tp-capital"\nport = {free_port()}\npoll_seconds = 0.05\nbatch_size = 50\n'
            f'[database]\nuser = "telegram_feed"\nport = {self.server.port}\n'
            f'[legacy]\nhost = "127.0.0.1"\nport = {port["port"]}\nname = "{port["name"]}"\nuser = "postgres"\n'
            'timeout = 1\nsignals_table = "telegram_gateway.tp_capital_signals"\n'
        )
        return path

    def open(self, **legacy: Any) -> AbstractAsyncContextManager[tuple[Outbox, OldSide]]:
        return sides(load(self.config(**legacy), FeedConfig))

    def run(self, command: str, *further: str) -> tuple[int, dict[str, Any], str]:
        """A command of the program: its exit code, what it told, and its errors."""
        done = subprocess.run(
            [*programs.line("legacy.main"), command, "--config", str(self.config()), *further],
            env=programs.environment(self.folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.fixture(scope="module", params=SHAPES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("feed")
    with servers.postgres(fsync="off") as server:
        (folder / "credentials").mkdir()
        secrets = {"postgres-password": server.password, "legacy-password": server.password, "legacy-word": WORD}
        for name, secret in secrets.items():
            (folder / "credentials" / name).write_text(secret)
        with server.connect(database="postgres") as connection:
            connection.execute("CREATE DATABASE tradingsystem")
        with server.connect(database="tradingsystem") as connection:
            connection.execute("CREATE SCHEMA telegram_gateway")
            connection.execute(SHAPES[request.param].encode())
            connection.execute((LEGACY % {"A": "bigint"}.get(request.param, "timestamptz")).encode())
        source = {"source_host": "127.0.0.1", "source_port": server.port, "source_user": "postgres"}
        source |= {"source_password": server.password, "source_db": "tradingsystem"}
        ours = {"login_host": "127.0.0.1", "login_port": server.port, "login_password": server.password}
        success(modules.run("message_copy", {**source, **ours}))
        signals = "telegram_gateway.tp_capital_signals"
        success(modules.run("legacy_fence", {**source, "word": WORD, "signals_table": signals}))
        world = World(request.param, server, folder)
        assert world.here("SELECT telegram.switch_legacy_feed(true)") == [(True,)]
        assert world.here("SELECT telegram.switch_legacy_feed(true)") == [(False,)]
        yield world


@pytest.fixture(autouse=True)
def credentials(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(world.folder / "credentials"))


async def test_everything_that_happens_here_is_there_once(world: World) -> None:
    world.post(MARKED, [2], "edited", version=5)
    world.post(MARKED, [3], "seen", version=5)
    world.post(MARKED, [4, 5], "new")
    world.post(NEW, [4, 6, 7], "new")
    world.delete(MARKED, 5)
    world.process(MARKED, [2, 4])
    world.process(NEW, [6], "ignored")
    world.here("SELECT telegram.upsert_message_status('signals', %s, 7, 'retrying')", NEW, role="telegram_worker")
    world.here(SIGNAL, MARKED, 4, "PETR4", NOW, role="telegram_worker")
    async with world.open() as (outbox, old_side):
        feed = Feed(outbox, old_side, 50)
        assert await feed.step() == 7
        assert (await outbox.state()).backlog == 0
        bare, new = str(BARE), NEW
        assert world.there(ROWS) == [
            *sorted(
                [
                    (bare, 1, "done", "published", "tp-capital", False),
                    (bare, 2, "edited 2", "published", "tp-capital", False),
                    (bare, 3, "seen 3", "received", None, False),
                    (bare, 3, "seen 3", "received", None, False),
                    (bare, 4, "new 4", "published", "tp-capital", False),
                    (bare, 5, "new 5", "deleted", None, True),
                    (str(-new - 10**12), 4, "new 4", "received", None, False),
                    (str(-new - 10**12), 6, "new 6", "published", "tp-capital", False),
                    (str(-new - 10**12), 7, "new 7", "received", None, False),
                ],
                key=lambda row: row[:2],
            )
        ]
        kept = "SELECT metadata -> 'mine', metadata -> 'telegram' ->> 'messageType' FROM telegram_gateway.messages"
        assert world.there(f"{kept} WHERE message_id::bigint IN (2, 6) ORDER BY message_id::bigint")[0][0] == 1
        assert world.there(f"{kept} WHERE message_id::bigint = 6") == [(None, "channel_post")]
        # Twice is once: the same again changes no row, also after an edit of the signal.
        world.here(SIGNAL, MARKED, 4, "PETR4", NOW, role="telegram_worker")
        world.process(MARKED, [2])
        assert await feed.step() == 1
        before = world.there("SELECT xmin::text, * FROM telegram_gateway.messages ORDER BY 2")
        world.here(AGAIN)
        assert await feed.step() == 7
        assert world.there("SELECT xmin::text, * FROM telegram_gateway.messages ORDER BY 2") == before
    signals = world.there("SELECT channel, asset, buy_min, ts::text FROM telegram_gateway.tp_capital_signals")
    ((channel, asset, price, at),) = signals
    assert (channel, asset, price) == (bare, "PETR4", 29)
    assert at.startswith(str(int(NOW.timestamp()) * 1000)) or at.startswith(f"{NOW:%Y-%m-%d %H:%M:%S}")


def test_the_legacy_consumer_repeats_nothing(world: World) -> None:
    assert world.there(POLL) == [(3,), (3,), (4,), (7,)]  # 4 of the other channel


async def test_a_kill_between_the_two_commits_doubles_nothing(world: World) -> None:
    world.post(NEW, [20, 21], "once")
    async with world.open() as (outbox, old_side):
        state = await outbox.state()
        changes = await outbox.first(50)
        assert (await old_side.apply(changes, state.last_row_id)).added == 2
    async with world.open() as (outbox, old_side):
        feed = Feed(outbox, old_side, 50)
        assert await feed.step() == 2
        assert await feed.step() == 0
    assert len(world.there("SELECT FROM telegram_gateway.messages WHERE message_id::bigint IN (20, 21)")) == 2


async def test_what_changes_while_the_old_side_is_away_comes_when_it_is_back(world: World) -> None:
    async with (
        servers.cable("127.0.0.1", world.server.port) as cable,
        world.open(port=cable.port) as (outbox, old_side),
    ):
        feed = Feed(outbox, old_side, 50)
        assert await feed.step() == 0
        await old_side.ping()
        await cable.cut()
        world.post(NEW, [30], "late")
        with pytest.raises(DatabaseUnavailableError):
            await feed.step()
        assert feed.progress.away["legacy"]
        assert (await outbox.state()).backlog == 1
        await cable.mend()
        async with asyncio.timeout(30):
            while feed.progress.away:  # the pool tries in its own time
                with contextlib.suppress(DatabaseUnavailableError):
                    assert await feed.step() == 1
        assert feed.progress.away == {}


async def test_a_message_that_is_refused_waits_and_holds_up_no_other(world: World) -> None:
    world.sabotage("ALTER TABLE telegram_gateway.messages ADD CONSTRAINT no_forty CHECK (message_id::bigint <> 40)")
    world.post(NEW, [40, 41], "forty")
    async with world.open() as (outbox, old_side):
        feed = Feed(outbox, old_side, 50)
        assert await feed.step() == 1
        assert feed.progress.refusal is not None
        assert f"channel {NEW} message 40:" in feed.progress.refusal
        assert "no_forty" in feed.progress.refusal
        assert (await outbox.state()).backlog == 1
        world.sabotage("ALTER TABLE telegram_gateway.messages DROP CONSTRAINT no_forty")
        assert await feed.step() == 1
    assert world.there("SELECT message_id::bigint FROM telegram_gateway.messages WHERE text ~ 'forty'") == [
        (41,),
        (40,),
    ]


async def test_rows_that_commit_out_of_order_are_not_lost(world: World) -> None:
    with world.server.connect("telegram_owner") as slow:
        with slow.transaction():
            slow.execute(
                "INSERT INTO telegram.processing (consumer, channel_id, message_id, version, status)"
                " VALUES ('signals', %s, 20, 1, 'ignored')",
                [NEW],
            )
            world.post(NEW, [50], "fast")
            async with world.open() as (outbox, old_side):
                feed = Feed(outbox, old_side, 50)
                assert await feed.step() == 1
                with pytest.raises(DatabaseUnavailableError):  # it is not empty as long as that may still come
                    await outbox.is_empty()
        async with world.open() as (outbox, old_side):
            assert await Feed(outbox, old_side, 50).step() == 1
            assert await outbox.is_empty()
    assert world.there("SELECT status FROM telegram_gateway.messages WHERE message_id::bigint = 20") == [("published",)]


async def test_a_signal_that_is_there_before_its_message_comes_with_it(world: World) -> None:
    """The worker reads the queue, and may be faster than the gateway's way into the database."""
    world.here(SIGNAL, NEW, 60, "VALE3", NOW, role="telegram_worker")
    async with world.open() as (outbox, old_side):
        feed = Feed(outbox, old_side, 50)
        await feed.step()
        assert (await outbox.state()).backlog == 0
        world.post(NEW, [60], "slow")
        assert await feed.step() == 1
    signals = world.there("SELECT asset FROM telegram_gateway.tp_capital_signals WHERE asset = 'VALE3'")
    assert signals == [("VALE3",)]


async def test_two_signals_of_one_channel_asset_and_second_are_two(world: World) -> None:
    twin = SIGNAL.replace("'ATIVO'", "%s")
    async with world.open() as (outbox, old_side):
        feed = Feed(outbox, old_side, 50)
        for number, text in ((61, "one"), (62, "two")):
            world.post(NEW, [number], text)
            world.here(twin, NEW, number, "ITUB4", text, NOW, role="telegram_worker")
            await feed.step()
        world.here(AGAIN)
        await feed.step()
        assert (await compare(load(world.config(), FeedConfig), sides))["proven"]
    signals = world.there(
        "SELECT raw_message FROM telegram_gateway.tp_capital_signals WHERE asset = 'ITUB4' ORDER BY raw_message"
    )
    assert signals == [("one",), ("two",)]


def test_the_program_survives_kills_and_its_commands_prove_it(world: World) -> None:
    if world.shape != "B":
        pytest.skip("the program is the same for all shapes")
    path = world.config()
    settings = load(path, FeedConfig)
    line = [*programs.line("legacy.main"), "--config", str(path)]
    health = f"http://127.0.0.1:{settings.port}/health"
    numbers = list(range(1000, 1400))
    for turn in range(2):
        feed = subprocess.Popen(line, env=programs.environment(world.folder), stdout=subprocess.DEVNULL)
        try:
            for begin in range(turn * 200, turn * 200 + 200, 20):
                world.post(NEW, numbers[begin : begin + 20], "load")
            if turn == 0:
                wait_until(lambda: world.there("SELECT FROM telegram_gateway.messages WHERE text ~ '^load' LIMIT 1"))
                feed.kill()
                continue
            wait_until(lambda: not world.here("SELECT FROM telegram.legacy_changes LIMIT 1"))
            said = httpx.get(health).json()
            assert (said["status"], said["backlog"]) == ("healthy", 0)
            assert "telegram_legacy_feed_rows_total" in httpx.get(health.replace("health", "metrics")).text
            feed.terminate()
            assert feed.wait(timeout=30) == 0
        finally:
            feed.kill()
            feed.wait()
    world.post(NEW, [1500], "load")
    code, told, _ = world.run("compare")
    assert (code, told["waiting"], told["differences"][0]["missing"]) == (1, True, 1)
    code, told, _ = world.run("drain")
    assert (code, told["proven"], told["fed"], told["backlog"]) == (0, True, 1, 0)
    assert world.there("SELECT count(*) FROM telegram_gateway.messages WHERE text ~ '^load'") == [(401,)]
    code, told, words = world.run("compare")
    assert (code, told["proven"], told["differences"]) == (0, True, []), words
    assert told["compared"] >= 410


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("missing", "DELETE FROM telegram_gateway.messages WHERE message_id::bigint = 21"),
        ("differing", "UPDATE telegram_gateway.messages SET text = 'other' WHERE message_id::bigint = 21"),
        ("undeleted", "UPDATE telegram_gateway.messages SET deleted_at = NULL WHERE message_id::bigint = 5"),
        ("unprocessed", "UPDATE telegram_gateway.messages SET metadata = '{}' WHERE message_id::bigint = 6"),
        ("signals", "DELETE FROM telegram_gateway.tp_capital_signals WHERE asset = 'PETR4'"),
    ],
)
async def test_a_comparison_names_what_is_not_there(world: World, kind: str, change: str) -> None:
    config = load(world.config(), FeedConfig)
    world.sabotage(change)
    told = await compare(config, sides)
    assert not told["proven"]
    (found,) = told["differences"]
    assert found == {"channel": found["channel"], "day": f"{NOW:%Y-%m-%d}", kind: 1}
    assert len(told["messages"]) == 1
    world.here(AGAIN)
    assert (await drain(config, sides, 30))["proven"]
    assert (await compare(config, sides))["proven"]


async def test_once_it_is_off_nobody_pays_and_nothing_is_proven(world: World) -> None:
    assert world.here("SELECT telegram.switch_legacy_feed(false)") == [(True,)]
    world.post(NEW, [60], "after")
    assert world.here("SELECT count(*) FROM telegram.legacy_changes") == [(0,)]
    with pytest.raises(DatabaseUnavailableError, match="the feed is switched off in the database"):
        await compare(load(world.config(), FeedConfig), sides)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        world.here("SELECT text FROM telegram.messages", role="telegram_feed")

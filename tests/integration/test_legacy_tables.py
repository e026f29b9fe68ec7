"""The legacy tables beside the messages, and the failure queue: `legacy_tables_copy` and `failure_queue_import`."""
# ruff: noqa: S608 - statements are of the test's own numbers and names

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration import modules, servers
from tests.integration.modules import failure, success
from tests.integration.servers import Postgres, wait_until

SOURCE = """
CREATE SCHEMA telegram_gateway;
CREATE SCHEMA tp_capital;
CREATE SCHEMA newer;
CREATE TABLE telegram_gateway.channels (
  id bigserial PRIMARY KEY, channel_id bigint UNIQUE, label text, description text, is_active boolean DEFAULT true,
  created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now()
);
CREATE TABLE newer.channels (
  id bigserial PRIMARY KEY, channel_id text, title text, is_active boolean DEFAULT true, last_sync_at timestamptz,
  created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now()
);
CREATE TABLE telegram_gateway.forwarding_rules (
  id bigserial PRIMARY KEY, source_channel_id bigint, target text, is_active boolean DEFAULT true
);
CREATE TABLE tp_capital.tp_capital_signals (
  id bigserial PRIMARY KEY, channel text, signal_type text DEFAULT 'Swing Trade', asset text, buy_min numeric,
  buy_max numeric, target_1 numeric, target_2 numeric, target_final numeric, stop numeric, raw_message text,
  source text, ts bigint, ingested_at timestamptz, created_at timestamptz, updated_at timestamptz
);
CREATE TABLE newer.signals (LIKE tp_capital.tp_capital_signals);
ALTER TABLE newer.signals ALTER COLUMN ts TYPE timestamptz USING to_timestamp(ts / 1000);
"""
EMPTY = """
TRUNCATE telegram.channels, telegram.forwarding_rules, telegram.legacy_documents, telegram.legacy_signals,
  telegram.signals, telegram.quarantine, telegram.messages, telegram.message_keys, telegram.legacy_ids,
  telegram.copied_windows, telegram.processing, telegram.tombstones
"""
FIRST, SECOND, THIRD = -1001000000001, -1001000000002, -1001000000003


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """The stack's database, and beside it the legacy one."""
    with servers.postgres(fsync="off") as running:
        with running.connect(database="postgres") as connection:
            connection.execute("CREATE DATABASE tradingsystem")
        with running.connect(database="tradingsystem") as connection:
            connection.execute(SOURCE)
        yield running


@pytest.fixture(autouse=True)
def emptied(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute(EMPTY)
    tables = "telegram_gateway.channels, telegram_gateway.forwarding_rules, newer.channels, newer.signals"
    source(server, f"TRUNCATE {tables}, tp_capital.tp_capital_signals RESTART IDENTITY")


def source(server: Postgres, statement: str) -> None:
    with server.connect(database="tradingsystem") as connection:
        connection.execute(statement.encode())


def here(server: Postgres, query: str) -> list[tuple[Any, ...]]:
    with server.connect() as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def target(server: Postgres) -> dict[str, Any]:
    return {"login_host": "127.0.0.1", "login_port": server.port, "login_password": server.password}


def copy(server: Postgres, kind: str, *, check: bool = False, **table: Any) -> dict[str, Any]:
    """What the module says of one table, with what is said of the run."""
    said = copy_all(server, [{"kind": kind, **table}], check=check)
    return {**said, **said.get("tables", [{}])[0]}


def copy_all(server: Postgres, tables: list[dict[str, Any]], *, check: bool = False) -> dict[str, Any]:
    there = {"source_host": "127.0.0.1", "source_port": server.port, "source_password": server.password}
    given = {
        **target(server),
        **there,
        "source_user": "postgres",
        "source_db": "tradingsystem",
        "tables": tables,
    }
    return modules.run("legacy_tables_copy", given, check=check)


CHANNELS = "SELECT channel_id, label, is_active FROM telegram.channels ORDER BY channel_id DESC"


def test_channels_follow_the_source_and_what_was_changed_here_stays(server: Postgres) -> None:
    here(server, f"INSERT INTO telegram.channels (channel_id, title) VALUES ({SECOND}, 'of Telegram')")
    source(
        server,
        "INSERT INTO telegram_gateway.channels (channel_id, label, is_active) VALUES"
        f" ({FIRST}, 'one', true), (1000000002, 'two', false), ({THIRD}, 'three', true), (0, 'none', true)",
    )
    said = success(copy(server, "channels", check=True))
    assert (said["changed"], here(server, CHANNELS)) == (True, [(SECOND, None, True)])
    said = success(copy(server, "channels"))
    assert said["counts"] == {"given": 4, "quarantined": 1, "added": 2, "changed": 1}
    assert said["kept"] == []
    assert here(server, CHANNELS) == [(FIRST, "one", True), (SECOND, "two", False), (THIRD, "three", True)]
    assert here(server, f"SELECT title FROM telegram.channels WHERE channel_id = {SECOND}") == [("of Telegram",)]
    assert not success(copy(server, "channels"))["changed"]

    here(server, f"UPDATE telegram.channels SET label = 'mine' WHERE channel_id = {FIRST}")
    here(server, f"UPDATE telegram.channels SET is_active = true WHERE channel_id = {SECOND}")
    assert not success(copy(server, "channels"))["changed"]
    source(server, "UPDATE telegram_gateway.channels SET label = label || '!' WHERE label <> 'none'")
    source(server, "DELETE FROM telegram_gateway.channels WHERE label = 'three!'")
    said = success(copy(server, "channels"))
    assert (said["kept"], said["counts"]["changed"]) == ([f"{FIRST}: label"], 2)
    assert here(server, CHANNELS) == [(FIRST, "mine", True), (SECOND, "two!", True), (THIRD, "three", False)]
    again = success(copy(server, "channels"))
    assert (again["changed"], again["kept"]) == (False, [])


def test_where_no_channel_is_active_all_are_taken(server: Postgres) -> None:
    """The other shape: a text that may lack the mark, and is there twice."""
    source(
        server,
        "INSERT INTO newer.channels (channel_id, title, is_active, last_sync_at) VALUES"
        f" ('{FIRST}', 'one', false, '2026-01-02 03:04:05+00'), ('1000000001', 'again', false, NULL),"
        " ('sala', 'x', true, NULL)",
    )
    said = success(copy(server, "channels", name="newer.channels"))
    assert said["counts"]["quarantined"] == 1
    view = "SELECT channel_id, is_active FROM telegram_gateway.channels"
    assert here(server, view) == [(FIRST, True)]
    assert success(copy(server, "channels", name="newer.channels"))["changed"] is False
    source(server, "UPDATE newer.channels SET is_active = true WHERE title = 'one'")
    success(copy(server, "channels", name="newer.channels"))
    assert here(server, view) == [(FIRST, True)]


def test_forwarding_rules_are_kept_as_they_are(server: Postgres) -> None:
    source(
        server,
        "INSERT INTO telegram_gateway.forwarding_rules (source_channel_id, target) VALUES"
        f" ({FIRST}, 'a'), (1000000002, 'b'), (NULL, 'c')",
    )
    said = success(copy(server, "forwarding_rules", optional=True))
    assert said["counts"] == {"given": 3, "quarantined": 1, "added": 2, "changed": 0}
    rules = (
        "SELECT id, source_channel_id, is_active, definition ->> 'target' FROM telegram.forwarding_rules ORDER BY id"
    )
    assert here(server, rules) == [(1, FIRST, True, "a"), (2, SECOND, True, "b")]
    assert not success(copy(server, "forwarding_rules"))["changed"]
    here(server, "UPDATE telegram.forwarding_rules SET is_active = false WHERE id = 1")
    here(server, f"INSERT INTO telegram.forwarding_rules (source_channel_id) VALUES ({THIRD})")
    source(server, "UPDATE telegram_gateway.forwarding_rules SET target = 'new' WHERE id = 1")
    source(server, "DELETE FROM telegram_gateway.forwarding_rules WHERE id = 2")
    assert success(copy(server, "forwarding_rules"))["counts"]["changed"] == 2
    assert here(server, rules) == [(1, FIRST, False, "new"), (2, SECOND, False, "b"), (3, THIRD, True, None)]
    assert not success(copy(server, "forwarding_rules"))["changed"]


@pytest.mark.parametrize("table", ["tp_capital.tp_capital_signals", "newer.signals"])
def test_signals_of_both_systems_show_together(server: Postgres, table: str) -> None:
    ts = "1767323045000" if table.startswith("tp") else "'2026-01-02 03:04:05+00'"
    source(
        server,
        f"INSERT INTO {table} (id, channel, asset, buy_min, target_1, raw_message, ts) VALUES"
        f" (1, 'sala', 'PETR4', 28.50, 30.20, 'ATIVO: PETR4', {ts}), (2, 'sala', 'VALE3', NULL, 60, 'x', {ts}),"
        f" (3, '__checkpoint__', NULL, NULL, NULL, '', {ts})",
    )
    said = success(copy(server, "signals", name=table))
    assert said["counts"] == {"given": 3, "checkpoints": 1, "added": 2, "changed": 0}
    again = success(copy(server, "signals", name=table))
    assert (again["changed"], again["counts"]["given"]) == (False, 1)  # the checkpoint: what is here is not read again
    source(server, f"UPDATE {table} SET stop = 27 WHERE id = 1")
    changed = success(copy(server, "signals", name=table))
    assert changed["counts"] == {"given": 2, "checkpoints": 1, "added": 0, "changed": 1}
    here(
        server,
        "INSERT INTO telegram.signals (channel_id, message_id, version, asset, raw_message, source, message_date)"
        f" VALUES ({FIRST}, 7, 1, 'ITUB4', 'ours', 'user_client', '2026-02-02 03:04:05+00')",
    )
    with server.connect("telegram_worker") as client:
        read = "SELECT channel, asset, buy_min, stop, ts FROM tp_capital.tp_capital_signals ORDER BY ts, asset"
        assert client.execute(read).fetchall() == [
            ("sala", "PETR4", 28.50, 27, 1767323045000),
            ("sala", "VALE3", None, None, 1767323045000),
            (str(FIRST), "ITUB4", None, None, 1770001445000),
        ]
        timed = "SELECT count(*) FROM signals.tp_capital_signals WHERE ts < '2026-02-01'"
        assert client.execute(timed).fetchone() == (2,)
    # The feed brings ours to the legacy table, from where a later migration brings it back.
    ts = "1770001445000" if table.startswith("tp") else "'2026-02-02 03:04:05+00'"
    source(
        server,
        f"INSERT INTO {table} (id, channel, asset, raw_message, ts) VALUES"
        f" (4, '{FIRST}', 'ITUB4', 'ours', {ts}), (5, '{FIRST}', 'ITUB4', 'theirs', {ts})",
    )
    assert success(copy(server, "signals", name=table))["counts"]["added"] == 1
    both = "SELECT raw_message FROM tp_capital.tp_capital_signals WHERE asset = 'ITUB4' ORDER BY 1"
    assert here(server, both) == [("ours",), ("theirs",)]


def test_what_was_copied_before_a_table_that_fails_stays(server: Postgres) -> None:
    source(server, f"INSERT INTO telegram_gateway.channels (channel_id, label) VALUES ({FIRST}, 'one')")
    source(server, "CREATE VIEW tp_capital.broken AS SELECT 1 / (length('x') - 1) AS raw_message")
    tables = [{"kind": "channels"}, {"kind": "signals", "name": "tp_capital.broken"}]
    assert "division by zero (22012). Copied before: channels." in failure(copy_all(server, tables))
    assert here(server, CHANNELS) == [(FIRST, "one", True)]


def test_a_table_that_is_not_there_is_named_or_may_be_missing(server: Postgres) -> None:
    nowhere: dict[str, Any] = {"name": "telegram_gateway.nothing"}
    assert "There is no table telegram_gateway.nothing" in failure(copy(server, "channels", **nowhere))
    said = success(copy(server, "forwarding_rules", optional=True, **nowhere))
    assert (said["present"], said["changed"]) == (False, False)
    assert "has no column raw_message" in failure(copy(server, "signals", name="telegram_gateway.channels"))


# The failure queue


def queue(server: Postgres, path: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    return modules.run("failure_queue_import", {**target(server), "path": str(path), **options}, check=check)


def line(number: int, text: str, minute: int = 0, **fields: Any) -> str:
    at = f"2026-01-02T03:{minute:02d}:00Z"
    message = {"channelId": str(FIRST), "messageId": number, "text": text, "telegramDate": at, "receivedAt": at}
    return json.dumps({**message, **fields}) + "\n"


def adopt(server: Postgres, number: int, text: str, created_at: str) -> None:
    """A row of the legacy table."""
    with server.connect("telegram_owner") as owner, owner.transaction():
        owner.execute("CREATE TEMP TABLE legacy_rows OF telegram.legacy_row ON COMMIT DROP")
        owner.execute(
            "INSERT INTO legacy_rows (legacy_id, channel_id, message_id, text, telegram_date, created_at)"
            " VALUES (%s, %s, %s, %s, '2026-01-02 03:00:00+00', %s)",
            [f"row {number}", str(FIRST), str(number), text, created_at],
        )
        owner.execute("SELECT telegram.adopt_legacy_rows('test')")


MESSAGES = "SELECT message_id, text FROM telegram.messages ORDER BY message_id"


def test_the_failure_queue_brings_what_the_table_lacks_and_overrides_nothing_newer(
    server: Postgres, tmp_path: Path
) -> None:
    adopt(server, 1, "newer in the table", "2026-01-02 03:30:00+00")
    adopt(server, 2, "older in the table", "2026-01-02 03:00:00+00")
    here(
        server,
        f"SELECT telegram.bulk_upsert_messages('{{{FIRST}}}', '{{3}}', '{{2026-01-02 03:00:00+00}}', '{{1}}',"
        " '{2026-01-02 03:00:00+00}', '{user_client}', '{text}', '{told by Telegram}')",
    )
    file = tmp_path / "failure-queue.jsonl"
    lines = [line(1, "old"), line(2, "edited", 20), line(3, "old", 20), line(4, "lacking"), line(4, "lacking")]
    bad = ['{"channelId": 1, "mess\n', line(5, "x", channelId="sala"), "\n", "[]\n"]
    file.write_text("".join([*lines, *bad]))
    said = success(queue(server, file, check=True))
    assert (said["changed"], said["lines"]) == (True, {"all": 9, "imported": 0, "left": 9})
    assert len(here(server, MESSAGES)) == 3
    said = success(queue(server, file))
    assert (said["changed"], said["complete"], said["lines"]["left"]) == (True, True, 0)
    counted = {name: said["counts"][name] for name in ("given", "told", "written", "quarantined", "broken")}
    assert counted == {"given": 5, "told": 1, "written": 2, "quarantined": 1, "broken": 2}
    expected = [(1, "newer in the table"), (2, "edited"), (3, "told by Telegram"), (4, "lacking")]
    assert here(server, MESSAGES) == expected
    kept = here(server, "SELECT (payload ->> 'line')::int, reason FROM telegram.quarantine ORDER BY 1")
    assert kept == [
        (6, "the line is cut off or no JSON"),
        (7, "the channel id is none of Telegram"),
        (9, "the line is no message"),
    ]
    again = success(queue(server, file))
    assert (again["changed"], again["complete"]) == (False, True)

    with file.open("a") as more:
        more.write(line(6, "later"))
    said = success(queue(server, file))
    assert (said["lines"]["imported"], said["counts"]["written"], said["counts"]["quarantined"]) == (10, 1, 0)
    assert here(server, MESSAGES) == [*expected, (6, "later")]
    assert here(server, "SELECT count(*) FROM telegram.quarantine") == [(3,)]


def test_a_long_queue_is_imported_in_several_runs(server: Postgres, tmp_path: Path) -> None:
    file = tmp_path / "failure-queue.jsonl"
    file.write_text("".join(line(number, f"text {number}") for number in range(1, 12_001)))
    first = success(queue(server, file, seconds=0))
    assert (first["complete"], first["lines"]) == (False, {"all": 12_000, "imported": 5_000, "left": 7_000})
    rest = success(queue(server, file))
    assert (rest["complete"], rest["lines"]["imported"]) == (True, 7_000)
    assert here(server, "SELECT count(*) FROM telegram.messages") == [(12_000,)]


def test_a_queue_that_is_not_there_is_named(server: Postgres, tmp_path: Path) -> None:
    said = failure(queue(server, tmp_path / "none.jsonl"))
    assert f"The failure queue {tmp_path}/none.jsonl cannot be read: No such file or directory" in said


def test_an_import_waits_for_the_one_whose_controller_was_killed(server: Postgres, tmp_path: Path) -> None:
    file = tmp_path / "failure-queue.jsonl"
    file.write_text(line(1, "text"))
    with server.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(1668246649)")
        running = modules.start("failure_queue_import", {**target(server), "path": str(file)})
        wanted = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: here(server, wanted) == [(1,)])
        assert here(server, MESSAGES) == []
    assert success(modules.answer(running))["complete"]

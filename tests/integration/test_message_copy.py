"""`message_copy` and `message_verify` as Ansible runs them, on the three shapes in which the legacy table is found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils import legacy_windows
from ansible_collections.tradingsystem.telegram_stack.plugins.modules import legacy_database_info
from benchmarks.database.legacy import COLUMNS
from tests.integration import modules, servers
from tests.integration.modules import failure, success
from tests.integration.servers import Postgres, wait_until

OUTCOME = Path(__file__).resolve().parents[2] / "roles" / "migration" / "files" / "outcome.sql"
ROWS = 24_000
CHANNELS = 40
SHAPES = {
    "A": f"""
CREATE TABLE telegram_gateway.messages ({COLUMNS["A"]}) PARTITION BY RANGE (created_at);
CREATE TABLE telegram_gateway.messages_old PARTITION OF telegram_gateway.messages
  FOR VALUES FROM (MINVALUE) TO ('2026-03-01');
CREATE TABLE telegram_gateway.messages_new PARTITION OF telegram_gateway.messages
  FOR VALUES FROM ('2026-03-01') TO (MAXVALUE)
""",
    "B": f"CREATE TABLE telegram_gateway.messages ({COLUMNS['B']})",
    "C": f"CREATE TABLE telegram_gateway.messages ({COLUMNS['C']})",
}
# Of each forty messages one is there twice, of each hundred one is deleted, half are processed, some have no date.
FILL = f"""
INSERT INTO telegram_gateway.messages (
  channel_id, message_id, text, status, received_at, telegram_date, created_at, metadata, deleted_at
)
SELECT
  -1000000001000 - m % {CHANNELS}, m, 'text ' || n, CASE WHEN m % 2 = 0 THEN 'published' ELSE 'received' END,
  at, CASE WHEN m % 50 > 0 THEN at END, at + CASE WHEN n > {ROWS} THEN interval '1 day' ELSE interval '1 s' END,
  CASE WHEN m % 2 = 0 THEN '{{"processed_by": "tp-capital", "kept": 1}}' ELSE '{{}}' END::jsonb,
  CASE WHEN m % 100 = 7 THEN at + interval '1 hour' END
FROM generate_series(1, {ROWS} + {ROWS} / 40) AS n
CROSS JOIN LATERAL (SELECT CASE WHEN n > {ROWS} THEN (n - {ROWS}) * 40 ELSE n END AS m) AS k
CROSS JOIN LATERAL (SELECT timestamptz '2026-01-01 00:00+00' + m * interval '5 minutes' AS at) AS t
"""  # noqa: S608 - numbers from above
BUSY = """
INSERT INTO telegram_gateway.messages (channel_id, message_id, text, telegram_date, created_at)
SELECT -1000000009000, m, 'busy', at, at
FROM generate_series(%s::bigint, %s::bigint) AS m
CROSS JOIN LATERAL (SELECT timestamptz '2026-06-01 00:00+00' + m * interval '8 s' AS at) AS t
"""
RESULT = """
SELECT count(*), count(DISTINCT channel_id), count(deleted_at), sum(hashtext(text)), sum((metadata ->> 'kept')::int)
FROM telegram.messages
"""
STATES = "SELECT status, count(*) FROM telegram.processing GROUP BY status ORDER BY status"


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(shape: str) -> Iterator[Postgres]:
    """The stack's database, and beside it the legacy one with what a reader needs."""
    with servers.postgres(shared_buffers="128MB", fsync="off") as running:
        with running.connect(database="postgres") as connection:
            connection.execute("CREATE DATABASE tradingsystem")
            connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{running.password}'")
        with running.connect(database="tradingsystem") as connection:
            connection.execute("CREATE SCHEMA telegram_gateway")
            connection.execute(SHAPES[shape].encode())
            connection.execute(FILL.encode())
            connection.execute("GRANT USAGE ON SCHEMA telegram_gateway TO reader")
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA telegram_gateway TO reader")
        yield running


def copy(server: Postgres, *, check: bool = False, **options: Any) -> dict[str, Any]:
    return modules.run("message_copy", arguments(server, **options), check=check)


def verify(server: Postgres, **options: Any) -> dict[str, Any]:
    return modules.run("message_verify", arguments(server, **options))


def arguments(server: Postgres, **options: Any) -> dict[str, Any]:
    here = {"login_host": "127.0.0.1", "login_port": server.port, "login_password": server.password}
    source = {"source_host": "127.0.0.1", "source_port": server.port, "source_password": server.password}
    return {**here, **source, "source_user": "reader", "source_db": "tradingsystem", **options}


def one(server: Postgres, query: str, database: str = servers.DATABASE) -> Any:
    with server.connect(database=database) as connection:
        return connection.execute(query.encode()).fetchone()


def source(server: Postgres, statement: str) -> None:
    with server.connect(database="tradingsystem") as connection:
        connection.execute(statement.encode())


def test_it_tells_what_there_is_and_copies_nothing_in_check_mode(server: Postgres) -> None:
    said = success(copy(server, check=True))
    assert (said["changed"], said["complete"]) == (True, False)
    assert said["rows"] == {"all": ROWS + ROWS // 40, "copied": 0, "left": ROWS + ROWS // 40}
    assert one(server, "SELECT count(*) FROM telegram.messages") == (0,)


def test_a_copy_in_several_runs_is_whole_and_a_further_one_has_nothing_to_do(server: Postgres, shape: str) -> None:
    first = success(copy(server, seconds=0))
    assert (first["changed"], first["complete"], first["windows"]["copied"]) == (True, False, 1)
    assert first["windows"]["all"] == {"A": 85, "B": 3, "C": 3}[shape]
    runs = [first, success(copy(server))]
    assert runs[-1]["complete"]
    assert runs[-1]["rows"]["left"] == runs[-1]["seconds_left"] == 0
    counts = {name: sum(run["counts"][name] for run in runs) for name in first["counts"]}
    assert counts["given"] == ROWS + ROWS // 40
    assert (counts["duplicates"], counts["quarantined"]) == (ROWS // 40, 0)
    assert one(server, RESULT) == one(
        server,
        # of duplicates the last one made
        "SELECT count(*), count(DISTINCT channel_id), count(deleted_at), sum(hashtext(text)),"
        " sum((metadata ->> 'kept')::int) FROM (SELECT DISTINCT ON (channel_id, message_id) *"
        " FROM telegram_gateway.messages ORDER BY channel_id, message_id, created_at DESC) AS last",
        "tradingsystem",
    )
    assert one(server, STATES) == ("published", ROWS // 2)
    assert one(server, "SELECT count(*) FROM telegram.legacy_ids") == (ROWS + ROWS // 40,)
    again = success(copy(server))
    assert (again["changed"], again["complete"], again["rows"]["copied"]) == (False, True, 0)
    windows, rows, queue_lines, checksum, messages, duplicates, *_, merged, merges = one(server, OUTCOME.read_text())
    assert (windows, rows, queue_lines) == (first["windows"]["all"], 24_600, 0)
    assert (messages, duplicates, merged) == (24_000, 600, 600)
    assert (len(checksum), len(merges), len(merges[0]["rows"])) == (32, 500, 2)


def test_what_changes_at_the_source_comes_with_the_next_run_and_nothing_else(server: Postgres) -> None:
    source(
        server,
        "UPDATE telegram_gateway.messages SET text = 'changed', status = 'published',"
        """ metadata = metadata || '{"processed_by": "x"}' WHERE message_id::bigint = 11""",
    )
    said = success(copy(server))
    assert (said["complete"], said["windows"]["copied"]) == (True, 1)
    assert (said["counts"]["given"], said["counts"]["written"]) == (1, 1)  # of the window's hundreds
    found = one(
        server,
        "SELECT m.text, p.status FROM telegram.messages AS m"
        " JOIN telegram.processing AS p USING (channel_id, message_id) WHERE m.message_id = 11",
    )
    assert found == ("changed", "published")
    assert not success(copy(server))["changed"]


def test_the_source_is_spared(server: Postgres) -> None:
    source(server, "UPDATE telegram_gateway.messages SET caption = 'x' WHERE message_id::bigint = 12")
    said = success(copy(server, rows_per_second=1_000_000))
    assert 0 < said["rows_per_second"] <= 1_000_000
    assert one(server, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'") == (0,)


def test_a_whole_copy_is_found_to_be_one_also_in_several_runs(server: Postgres) -> None:
    said = success(verify(server))
    assert (said["complete"], said["rows"], said["differences"], said["changed"]) == (
        True,
        ROWS + ROWS // 40,
        [],
        False,
    )
    first = success(verify(server, seconds=0))
    assert not first["complete"]
    rest = success(verify(server, begin=first["next_window"]))
    assert (rest["complete"], first["rows"] + rest["rows"]) == (True, said["rows"])
    assert "There is no window nowhere" in failure(verify(server, begin="nowhere"))


def test_of_a_source_in_use_what_was_copied_is_compared_and_the_rest_by_the_copy_that_takes_it(
    server: Postgres,
) -> None:
    source(server, "UPDATE telegram_gateway.messages SET text = 'newer' WHERE message_id::bigint = 15")
    assert "1 differing" in failure(verify(server))
    success(copy(server))
    source(server, "UPDATE telegram_gateway.messages SET text = 'newest' WHERE message_id::bigint = 15")
    assert success(verify(server, settled=True))["rows"] == ROWS + ROWS // 40 - 1
    # What goes wrong on the way is noticed before it is committed.
    with server.connect() as connection:
        connection.execute(
            "CREATE FUNCTION telegram.spoil() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN NEW.text := ''spoilt''; RETURN NEW; END';"
            " CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON telegram.messages"
            " FOR EACH ROW EXECUTE FUNCTION telegram.spoil()"
        )
        said = failure(copy(server, verify=True))
        connection.execute("DROP FUNCTION telegram.spoil() CASCADE")
    assert "rows that are not here as they are there: 1 differing" in said
    assert one(server, "SELECT text FROM telegram.messages WHERE message_id = 15") == ("newer",)
    assert success(copy(server, verify=True))["counts"]["written"] == 1
    assert success(verify(server))["complete"]


def test_a_row_that_was_lost_is_found_though_its_day_has_changed(server: Postgres) -> None:
    source(server, "UPDATE telegram_gateway.messages SET caption = 'x' WHERE message_id::bigint = 16")
    with server.connect() as connection:
        connection.execute("DELETE FROM telegram.messages WHERE message_id = 17")
    assert "1 lacking" in failure(verify(server, settled=True))
    success(copy(server))
    assert success(verify(server))["complete"]


def test_whatever_differs_is_named_and_mended_by_a_copy(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("DELETE FROM telegram.legacy_ids WHERE message_id = 21")
        connection.execute("DELETE FROM telegram.processing WHERE message_id = 22")
        connection.execute("DELETE FROM telegram.messages WHERE message_id = 31")
        connection.execute("UPDATE telegram.messages SET text = 'other' WHERE message_id = 41")
        connection.execute("UPDATE telegram.messages SET deleted_at = NULL WHERE message_id = 107")
    said = verify(server)
    assert "2 lacking, 1 differing, 1 undeleted, 1 unprocessed, in 5 pairs of channel and day" in failure(said)
    kinds = ("lacking", "differing", "undeleted", "unprocessed")
    found = [[kind for kind in kinds if pair[kind]] for pair in said["differences"]]
    assert sorted(found) == [["differing"], ["lacking"], ["lacking"], ["undeleted"], ["unprocessed"]]
    with server.connect() as connection:
        connection.execute("DELETE FROM telegram.tombstones WHERE message_id = 107")
    success(copy(server))
    assert success(verify(server))["complete"]
    texts = "SELECT array_agg(text ORDER BY message_id) FROM telegram.messages WHERE message_id IN (31, 41)"
    assert one(server, texts) == (["text 31", "text 41"],)


def test_a_copy_waits_for_the_one_whose_controller_was_killed(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(1668246648)")
        running = modules.start("message_copy", arguments(server))
        wanted = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: one(server, wanted) == (1,))
    assert success(modules.answer(running))["complete"]


def test_one_copy_at_a_time(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(1668246648)")
        said = failure(copy(server, lock_timeout=1))
    assert "has been copying into this database for 1 s. Wait for it" in said


def test_a_window_that_cannot_be_taken_leaves_what_was_and_says_so(server: Postgres) -> None:
    source(server, "UPDATE telegram_gateway.messages SET text = 'again' WHERE message_id::bigint = 14")
    with server.connect() as connection:
        connection.execute("ALTER TABLE telegram.processing ADD CONSTRAINT broken CHECK (message_id <> 14) NOT VALID")
        said = failure(copy(server))
        connection.execute("ALTER TABLE telegram.processing DROP CONSTRAINT broken")
    assert "of tradingsystem.telegram_gateway.messages were not copied" in said
    assert "What was copied before stays" in said
    assert one(server, "SELECT text FROM telegram.messages WHERE message_id = 14") == ("text 14",)
    assert success(copy(server))["counts"]["written"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"source_table": "telegram_gateway.posts"},
            "There is no table telegram_gateway.posts in database tradingsystem",
        ),
        ({"source_table": "pg_catalog.pg_class"}, "it is no table of messages of the legacy gateway"),
        ({"source_db": "nowhere"}, 'database "nowhere" does not exist'),
        ({"source_password": "canary-secret"}, "password authentication failed"),
    ],
)
def test_a_wrong_source_is_named(server: Postgres, options: dict[str, Any], words: str) -> None:
    said = failure(copy(server, **options))
    assert words in said
    assert "canary-secret" not in said


def test_of_a_busy_day_only_the_hours_that_have_changed_are_copied_again(server: Postgres, shape: str) -> None:
    def post(first: int, last: int) -> None:
        with server.connect(database="tradingsystem") as connection:
            connection.execute(BUSY.encode(), [first, last])

    post(1, 9_000)
    success(copy(server))
    post(9_001, 10_600)  # more than a window has
    success(copy(server))
    source(
        server,
        "UPDATE telegram_gateway.messages SET text = 'changed' WHERE channel_id::text = '-1000000009000'"
        " AND message_id::bigint = 7",
    )
    assert success(copy(server))["rows"]["copied"] <= {"A": 450, "B": 10_000, "C": 10_000}[shape]
    days = one(server, "SELECT count(*) FROM telegram.copied_windows WHERE window_start LIKE 'day 2026-06-01%'")
    assert days == (0,)
    assert success(verify(server))["complete"]


def look(server: Postgres, **options: Any) -> dict[str, Any]:
    given = {name: value for name, value in arguments(server, **options).items() if not name.startswith("login_")}
    return success(modules.run("legacy_database_info", given))


def test_what_the_old_database_is_and_what_stands_in_the_way(server: Postgres, shape: str) -> None:
    said = look(server)
    assert said["rows"] == one(server, "SELECT count(*) FROM telegram_gateway.messages", "tradingsystem")[0]
    assert said["shape"] == {
        "read_by": "timestamp with time zone" if shape == "A" else "id",
        "unread_columns": [],
    }
    assert said["tables"] == ["messages"]
    assert said["active_channels"] == 0
    assert said["bytes"] > 1_000_000
    [finding] = said["findings"]
    assert finding.startswith("reader does not own the legacy table and could not fence it")
    assert look(server, source_user="postgres")["findings"] == []


def test_a_look_that_takes_long_is_no_clock_that_differs(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large table has many windows to add up."""

    def slowly(_table: legacy_windows.LegacyTable) -> list[legacy_windows.Window]:
        time.sleep(1.5)
        return []

    monkeypatch.setattr(legacy_windows.LegacyTable, "windows", slowly)
    given = {"source_table": "telegram_gateway.messages", "transaction_seconds": 600, "clock_seconds": 1}
    module = SimpleNamespace(params=given)
    with server.connect(database="tradingsystem") as source:
        table = legacy_windows.LegacyTable(module, source)
        assert legacy_database_info.inspect(module, table, source)["findings"] == []


def test_it_counts_the_channels_that_the_old_gateway_takes(server: Postgres) -> None:
    with server.connect(database="tradingsystem") as connection:
        connection.execute("CREATE TABLE telegram_gateway.channels (channel_id bigint, is_active boolean)")
        connection.execute("INSERT INTO telegram_gateway.channels VALUES (-1, true), (-2, false), (-3, true)")
        try:
            assert look(server, source_user="postgres")["active_channels"] == 2
        finally:
            connection.execute("DROP TABLE telegram_gateway.channels")


def test_a_transaction_that_the_fence_would_wait_for_is_named(server: Postgres) -> None:
    with server.connect(database="tradingsystem") as connection, connection.transaction():
        connection.execute("SELECT 1 FROM telegram_gateway.messages LIMIT 1")
        pid = connection.info.backend_pid
        said = look(server, source_user="postgres", transaction_seconds=0)
    assert [client["pid"] for client in said["clients"]] == [pid]
    assert f"SELECT pg_terminate_backend({pid})" in said["findings"][0]


def test_it_needs_no_more_than_to_read(server: Postgres) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        server.connect("reader", "tradingsystem") as connection,
    ):
        connection.execute("UPDATE telegram_gateway.messages SET text = ''")

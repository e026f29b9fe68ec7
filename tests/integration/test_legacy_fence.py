"""`legacy_fence` as Ansible runs it: nobody writes to the legacy tables but who has the word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from benchmarks.database.legacy import COLUMNS
from tests.integration import modules
from tests.integration.modules import failure, success
from tests.integration.servers import Postgres

WORD = "canary word of the feed"
TABLES = {"legacy.messages": True, "legacy.channels": True}
WRITES = (
    "INSERT INTO legacy.messages (channel_id, message_id, text) VALUES ('-1001000000001', 9, 'late')",
    "UPDATE legacy.messages SET status = 'published'",
    "DELETE FROM legacy.messages",
    "TRUNCATE legacy.messages",
    "INSERT INTO legacy.channels VALUES (2)",
)


@pytest.fixture(scope="module")
def server(engine_server: Postgres) -> Iterator[Postgres]:
    """The legacy tables, of shape A, as a hypertable where the engine has them."""
    with engine_server.connect() as connection:
        connection.execute("CREATE SCHEMA legacy")
        connection.execute(f"CREATE TABLE legacy.messages ({COLUMNS['A']})".encode())
        connection.execute("CREATE TABLE legacy.channels (channel_id bigint)")
        if connection.execute("SELECT FROM pg_extension WHERE extname = 'timescaledb'").fetchone():
            connection.execute("SELECT create_hypertable('legacy.messages', 'created_at')")
        connection.execute(WRITES[0].encode())
    yield engine_server


def fence(server: Postgres, *, check: bool = False, **options: Any) -> dict[str, Any]:
    with server.connect() as connection:
        database = connection.info.dbname
    given = {
        "source_host": server.host,
        "source_port": server.port,
        "source_user": "postgres",
        "source_password": server.password,
        "source_db": database,
        "source_table": "legacy.messages",
        "word": WORD,
    }
    return modules.run("legacy_fence", {**given, **options}, check=check)


def refused(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Whether `statement` is refused by the fence; it is rolled back where not."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement.encode())
    except psycopg.errors.ReadOnlySqlTransaction as error:
        assert "its messages have moved to the Telegram stack" in str(error)
        return True
    return False


def traces(server: Postgres) -> list[Any]:
    with server.connect() as connection:
        return connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ 'fence' UNION ALL"
            " SELECT tgname FROM pg_trigger WHERE tgname ~ 'fence' UNION ALL"
            " SELECT proname FROM pg_proc WHERE prosrc ~ 'telegram_stack'"
        ).fetchall()


def test_a_check_only_tells(server: Postgres) -> None:
    said = success(fence(server, check=True))
    assert (said["changed"], said["fenced"], said["tables"]) == (True, True, TABLES)
    assert said["diff"]["before"] == {"fenced": dict.fromkeys(TABLES, False)}
    assert not success(fence(server, state="read"))["fenced"]
    assert traces(server) == []


def test_it_refuses_a_superuser_and_lets_the_feed_through(server: Postgres) -> None:
    said = success(fence(server))
    assert (said["changed"], said["fenced"], said["tables"]) == (True, True, TABLES)
    with server.connect() as connection:
        assert [refused(connection, statement) for statement in WRITES] == [True] * len(WRITES)
        connection.execute("SET session_replication_role = replica")
        assert refused(connection, WRITES[1])
        connection.execute("RESET session_replication_role")
        assert connection.execute("SELECT count(*) FROM legacy.messages").fetchone() == (1,)
        connection.execute("SET telegram_stack.feed = 'a guess'")
        assert refused(connection, WRITES[0])
        connection.execute(f"SET telegram_stack.feed = '{WORD}'")
        assert [refused(connection, statement) for statement in WRITES] == [False] * len(WRITES)
        assert not connection.execute("SELECT FROM pg_proc WHERE prosrc ~ %s", [WORD]).fetchone()
    again = success(fence(server))
    assert (again["changed"], again["fenced"]) == (False, True)


def test_a_fence_with_a_hole_is_not_one_and_is_mended(server: Postgres) -> None:
    success(fence(server))
    with server.connect() as connection:
        connection.execute("ALTER TABLE legacy.channels DISABLE TRIGGER telegram_stack_fence")
    said = success(fence(server, state="read"))
    assert (said["fenced"], said["tables"]) == (False, {**TABLES, "legacy.channels": False})
    assert success(fence(server))["fenced"]
    assert not success(fence(server, state="read", word="another"))["fenced"]


def test_it_is_removed_without_a_trace(server: Postgres) -> None:
    success(fence(server))
    assert success(fence(server, state="absent", check=True))["changed"]
    assert traces(server) != []
    assert success(fence(server, state="absent"))["changed"]
    assert traces(server) == []
    assert not success(fence(server, state="absent"))["changed"]
    with server.connect() as connection:
        assert [refused(connection, statement) for statement in WRITES] == [False] * len(WRITES)


def test_who_is_in_the_way_is_named_and_nothing_is_changed(server: Postgres) -> None:
    if server.process is None:
        pytest.skip("needs a server of several sessions of this test's own")
    with server.connect() as writer, writer.transaction(force_rollback=True):
        writer.execute("SET application_name = 'old-gateway'")
        writer.execute("INSERT INTO legacy.channels VALUES (3)")
        said = failure(fence(server, wait_seconds=0.2))
        assert f"process {writer.info.backend_pid} (postgres, old-gateway), whose last query began" in said
        assert "could not be had within 0.2 s, and nothing was changed" in said
        found = success(fence(server, state="read"))
        (session,) = [one for one in found["sessions"] if one["pid"] == writer.info.backend_pid]
        assert (session["application_name"], session["state"]) == ("old-gateway", "idle in transaction")
        assert session["last_query_start"].endswith("Z")
        assert found["sessions_complete"]
    assert traces(server) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source_table": "legacy.posts"}, "There is no table legacy.posts in database"),
        ({"signals_table": "legacy.signals"}, "Name it in signals_table, with its schema"),
        ({"word": ""}, "word is empty: everybody would have it"),
    ],
)
def test_a_wrong_call_says_so(server: Postgres, options: dict[str, Any], words: str) -> None:
    assert words in failure(fence(server, **options))

"""The module `sql_migrations` as Ansible runs it, on a real server."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.integration import modules, servers
from tests.integration.modules import ROOT, failure

LOCK = 0x74656C65


def file(name: str, *lines: str) -> dict[str, str]:
    return {"name": name, "content": "\n".join(lines)}


def checksum(given: dict[str, str]) -> str:
    """What the ledger keeps of a file: SHA-256 of its text."""
    return hashlib.sha256(given["content"].encode()).hexdigest()


TABLE = file("0001_table.sql", "CREATE TABLE telegram.one (a int);")
ROWS = file("0002_rows.sql", "INSERT INTO telegram.one VALUES (1);", "INSERT INTO telegram.one VALUES (2);")


@dataclass(frozen=True)
class Target:
    """A new, empty database, and the module to run on it."""

    server: servers.Postgres
    database: str

    def start(self, *migrations: dict[str, str], check: bool = False, **options: Any) -> subprocess.Popen[str]:
        """Begin a run."""
        arguments = {
            "login_host": "127.0.0.1",
            "login_port": self.server.port,
            "login_password": self.server.password,
            "login_db": self.database,
            "owner": "telegram_owner",
            "migrations": list(migrations),
            **options,
        }
        return modules.start("sql_migrations", arguments, check=check)

    def run(self, *migrations: dict[str, str], check: bool = False, **options: Any) -> dict[str, Any]:
        """The module's answer."""
        return modules.answer(self.start(*migrations, check=check, **options))

    def dump(self) -> str:
        """All that is in the database, with its data."""
        programs = servers.postgres_programs()
        assert programs
        url = f"postgresql://postgres:{self.server.password}@127.0.0.1:{self.server.port}/{self.database}"
        dump = subprocess.run([programs / "pg_dump", url], check=True, capture_output=True, text=True).stdout
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", dump)  # newer programs write a random word there

    def rows(self, query: str) -> list[Any]:
        """First column of a query, as the superuser."""
        with self.server.connect(database=self.database) as connection:
            return [row[0] for row in connection.execute(query.encode())]

    def pairs(self, query: str) -> list[tuple[Any, Any]]:
        """Two columns of a query."""
        with self.server.connect(database=self.database) as connection:
            return [(row[0], row[1]) for row in connection.execute(query.encode())]

    def until(self, query: str, expected: int) -> None:
        """Wait until the one number that `query` gives is the expected one."""
        servers.wait_until(lambda: self.rows(query) == [expected])


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    with servers.postgres() as running:
        yield running


@pytest.fixture
def target(server: servers.Postgres) -> Iterator[Target]:
    with server.connect() as connection:
        connection.execute("CREATE DATABASE scratch OWNER telegram_owner")
        yield Target(server, "scratch")
        connection.execute("DROP DATABASE scratch WITH (FORCE)")


@pytest.mark.requirement("DB-05")
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_check_mode_changes_nothing_and_predicts_what_a_run_does(target: Target, done: int) -> None:
    index = file("0003_index.sql", "-- transaction: no", "CREATE INDEX CONCURRENTLY one_a ON telegram.one (a);")
    every = [TABLE, ROWS, index]
    if done:
        target.run(*every[:done])
    before = target.dump()
    predicted = target.run(*every, check=True)
    assert target.dump() == before
    real = target.run(*every)
    assert predicted["applied"] == []
    for key in ("changed", "pending", "interrupted", "current", "diff"):
        assert predicted[key] == real[key], key
    assert real["applied"] == predicted["pending"] == [each["name"] for each in every[done:]]


@pytest.mark.requirement("DB-05")
def test_check_mode_refuses_what_a_run_refuses(target: Target) -> None:
    target.run(TABLE, ROWS)
    for wrong in ([TABLE], [file("0001_table.sql", "SELECT 1;"), ROWS], [file("0000_early.sql"), TABLE, ROWS]):
        assert failure(target.run(*wrong, check=True)) == failure(target.run(*wrong))


@pytest.mark.requirement("DB-05")
def test_check_run_and_second_run(target: Target) -> None:
    predicted = target.run(TABLE, ROWS, check=True)
    assert (predicted["changed"], predicted["applied"]) == (True, [])
    assert predicted["pending"] == ["0001_table.sql", "0002_rows.sql"]
    assert predicted["diff"]["after"] == "0001_table.sql\n0002_rows.sql\n"
    assert target.rows("SELECT to_regnamespace('telegram')") == [None]

    first = target.run(TABLE, ROWS)
    assert (first["changed"], first["applied"], first["current"]) == (True, ["0001_table.sql", "0002_rows.sql"], 2)
    assert target.rows("SELECT a FROM telegram.one ORDER BY a") == [1, 2]

    kept = target.dump()
    second = target.run(TABLE, ROWS)
    assert (second["changed"], second["applied"], second["current"]) == (False, [], 2)
    assert target.dump() == kept


def test_the_owner_owns_what_is_made_and_the_superuser_only_what_asks_for_it(target: Target) -> None:
    special = {"name": "0002_special.sql", "content": "-- run-as: login\nCREATE TABLE telegram.two (a int);\n"}
    target.run(TABLE, special)
    owners = target.rows(
        "SELECT tablename || ' ' || tableowner FROM pg_tables WHERE schemaname = 'telegram' ORDER BY 1"
    )
    assert owners == ["one telegram_owner", "schema_migrations telegram_owner", "two postgres"]


@pytest.mark.requirement("DB-05")
def test_a_failing_file_leaves_nothing_and_says_where(target: Target) -> None:
    broken = file("0002_broken.sql", "-- two", "INSERT INTO telegram.one VALUES (1);", "", "SELECT 1,", "  nowhere")
    message = failure(target.run(TABLE, broken))
    assert '0002_broken.sql, line 5: column "nowhere" does not exist' in message
    assert "Nothing of this file was kept" in message
    assert target.rows("SELECT count(*) FROM telegram.one") == [0]
    assert target.rows("SELECT name FROM telegram.schema_migrations") == ["0001_table.sql"]
    assert target.run(TABLE, ROWS)["applied"] == ["0002_rows.sql"]


def test_an_error_without_a_position_is_named_by_its_statement(target: Target) -> None:
    broken = file("0002_broken.sql", "SELECT 1;", "", "-- too much", "SELECT 1 / a", "  FROM (VALUES (0)) AS v (a);")
    assert "0002_broken.sql, line 4: division by zero" in failure(target.run(TABLE, broken))


def test_an_error_within_a_block_is_named_with_the_server_s_own_place(target: Target) -> None:
    broken = file("0002_broken.sql", "SELECT 1;", "DO $$", "BEGIN", "  PERFORM 1 / 0;", "END $$;")
    message = failure(target.run(TABLE, broken))
    assert "0002_broken.sql, line 2: division by zero" in message
    assert "Where: " in message


@pytest.mark.requirement("DB-05")
def test_changed_and_late_files_are_refused_with_both_checksums_before_anything_runs(target: Target) -> None:
    target.run(TABLE, ROWS)
    before = target.dump()
    sums = dict(target.pairs("SELECT name, checksum FROM telegram.schema_migrations"))
    third = file("0003_third.sql", "CREATE TABLE telegram.three (a int);")

    other = file("0002_rows.sql", "SELECT 1;")
    changed = failure(target.run(TABLE, other, third))
    assert "0002_rows.sql was changed after it was applied" in changed
    assert sums["0002_rows.sql"] in changed and checksum(other) in changed

    early = file("0000_early.sql", "SELECT 2;")
    late = failure(target.run(early, TABLE, ROWS, third))
    assert "0000_early.sql" in late and "comes too late: 0002_rows.sql" in late
    assert sums["0002_rows.sql"] in late and checksum(early) in late
    assert target.dump() == before


def test_a_file_without_transaction_may_do_what_needs_none(target: Target) -> None:
    index = file(
        "0002_index.sql",
        "-- transaction: no",
        "CREATE INDEX CONCURRENTLY one_a ON telegram.one (a);",
        "VACUUM telegram.one;",
    )
    assert target.run(TABLE, index)["applied"] == ["0001_table.sql", "0002_index.sql"]
    assert target.rows("SELECT tableowner FROM pg_tables WHERE tablename = 'one'") == ["telegram_owner"]
    assert target.rows("SELECT indisvalid FROM pg_index WHERE indexrelid = 'telegram.one_a'::regclass") == [True]


HALF = file(
    "0002_half.sql",
    "-- transaction: no",
    "CREATE TABLE IF NOT EXISTS telegram.half (a int);",
    "INSERT INTO telegram.half VALUES (1);",
    "SELECT 1 / (SELECT count(*) FROM telegram.one);",
)


@pytest.mark.requirement("DB-05")
def test_a_file_without_transaction_that_failed_half_way_is_reported_and_runs_again(target: Target) -> None:
    message = failure(target.run(TABLE, HALF))
    assert "0002_half.sql, line 4: division by zero" in message
    assert "What its earlier statements did was kept, and they run again" in message
    assert target.rows("SELECT count(*) FROM telegram.half") == [1]

    before = target.dump()
    predicted = target.run(TABLE, HALF, check=True)
    assert (predicted["pending"], predicted["interrupted"]) == (["0002_half.sql"], ["0002_half.sql"])
    assert "An earlier run began 0002_half.sql and did not finish it" in str(predicted["warnings"])
    assert target.dump() == before
    assert "0002_half.sql (" in failure(target.run(TABLE)), "a half-run file that is gone is no end of the matter"

    mended = file("0002_half.sql", "-- transaction: no", "CREATE TABLE IF NOT EXISTS telegram.half (a int);")
    repaired = target.run(TABLE, mended)
    assert (repaired["applied"], repaired["interrupted"]) == (["0002_half.sql"], ["0002_half.sql"])
    again = target.run(TABLE, mended)
    assert (again["changed"], again["interrupted"], again.get("warnings")) == (False, [], None)
    assert "was changed after it was applied" in failure(target.run(TABLE, HALF))


@pytest.mark.requirement("DB-05")
def test_a_file_whose_run_was_killed_is_reported_and_runs_again(target: Target) -> None:
    target.run(TABLE)
    index = file(
        "0002_index.sql",
        "-- transaction: no",
        "DROP INDEX CONCURRENTLY IF EXISTS telegram.one_a;",
        "CREATE INDEX CONCURRENTLY one_a ON telegram.one (a);",
    )
    with target.server.connect(database=target.database) as writer, writer.transaction():
        writer.execute("INSERT INTO telegram.one VALUES (1)")  # the index waits for this
        run = target.start(TABLE, index)
        target.until("SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('telegram.one_a')", 1)
        run.kill()
        run.communicate()
        writer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
        )
        target.until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", 0)
    assert target.rows("SELECT indisvalid FROM pg_index WHERE indexrelid = 'telegram.one_a'::regclass") == [False]

    repaired = target.run(TABLE, index)
    assert (repaired["applied"], repaired["interrupted"]) == (["0002_index.sql"], ["0002_index.sql"])
    assert target.rows("SELECT indisvalid FROM pg_index WHERE indexrelid = 'telegram.one_a'::regclass") == [True]


def test_an_index_left_invalid_is_never_taken_for_a_good_one(target: Target) -> None:
    target.run(TABLE, file("0002_rows.sql", "INSERT INTO telegram.one VALUES (1), (1);"))
    index = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one_a ON telegram.one (a);"
    files = [TABLE, file("0002_rows.sql", "INSERT INTO telegram.one VALUES (1), (1);")]
    files.append(file("0003_index.sql", "-- transaction: no", index))
    assert "could not create unique index" in failure(target.run(*files))
    assert "these indexes are invalid: telegram.one_a" in failure(target.run(*files))
    with target.server.connect(database=target.database) as connection:
        connection.execute("DELETE FROM telegram.one")
        connection.execute("DROP INDEX CONCURRENTLY telegram.one_a")
    assert target.run(*files)["applied"] == ["0003_index.sql"]


@pytest.mark.requirement("DB-05")
def test_two_runs_at_once_take_turns_and_apply_each_file_once(target: Target) -> None:
    with target.server.connect(database=target.database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        runs = [target.start(TABLE, ROWS) for _ in range(2)]
        target.until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 2)
        assert target.rows("SELECT to_regnamespace('telegram')") == [None]
        other.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
        first, second = sorted((modules.answer(run) for run in runs), key=lambda said: not said["changed"])
    assert first["applied"] == ["0001_table.sql", "0002_rows.sql"]
    assert (second.get("failed"), second["changed"], second["pending"]) == (None, False, [])
    assert target.rows("SELECT count(*) FROM telegram.one") == [2]


def test_a_run_does_not_wait_for_another_for_ever(target: Target) -> None:
    with target.server.connect(database=target.database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        assert "Another run has been changing this schema" in failure(target.run(TABLE, lock_timeout=1))
        assert target.rows("SELECT to_regnamespace('telegram')") == [None]
    assert target.run(TABLE)["applied"] == ["0001_table.sql"]


def test_a_ledger_of_the_first_form_is_taken_over(target: Target) -> None:
    target.run(TABLE)
    with target.server.connect(database=target.database) as connection:
        connection.execute("ALTER TABLE telegram.schema_migrations ALTER COLUMN duration_ms SET NOT NULL")
    noted = file("0002_vacuum.sql", "-- transaction: no", "VACUUM telegram.one;")
    assert target.run(TABLE, noted)["applied"] == ["0002_vacuum.sql"]
    assert not target.run(TABLE, noted)["changed"]


def test_where_nothing_serves_yet_check_mode_predicts_and_a_real_run_refuses(target: Target) -> None:
    nobody = servers.free_port()
    answer = target.run(TABLE, ROWS, check=True, login_port=nobody)
    assert (answer["changed"], answer["pending"]) == (True, ["0001_table.sql", "0002_rows.sql"])
    assert "every migration counts as pending" in str(answer["warnings"])
    assert target.run(TABLE, check=True, login_db="not_made_yet")["pending"] == ["0001_table.sql"]
    assert "Cannot connect to database scratch at 127.0.0.1:" in failure(target.run(TABLE, login_port=nobody))


def test_a_wrong_password_is_no_virgin_host(target: Target) -> None:
    message = failure(target.run(TABLE, check=True, login_password="wrong-password-7"))
    assert "password authentication failed" in message
    assert "wrong-password-7" not in message


@pytest.mark.requirement("DB-05")
def test_the_shipped_schema_is_applied_once(target: Target) -> None:
    sql = ROOT / "sql"
    shipped = [{"name": str(path.relative_to(sql)), "content": path.read_text()} for path in sorted(sql.rglob("*.sql"))]
    first = target.run(*shipped, engine="native")
    assert first["changed"] and not first.get("failed"), first
    assert target.rows("SELECT value FROM telegram.settings WHERE name = 'engine'") == ["native"]
    assert not target.run(*shipped, engine="native")["changed"]
    assert "made for another engine" in failure(target.run(*shipped, engine="timescale_apache"))

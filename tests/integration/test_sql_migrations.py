"""The module `sql_migrations` as Ansible runs it, on a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration import servers

ROOT = Path(__file__).resolve().parents[2]


def file(name: str, *lines: str) -> dict[str, str]:
    return {"name": name, "content": "\n".join(lines)}


TABLE = file("0001_table.sql", "CREATE TABLE telegram.one (a int);")
ROWS = file("0002_rows.sql", "INSERT INTO telegram.one VALUES (1);", "INSERT INTO telegram.one VALUES (2);")


@dataclass(frozen=True)
class Target:
    """A new, empty database, and the module to run on it."""

    server: servers.Postgres
    database: str
    collections: Path

    def run(self, *migrations: dict[str, str], check: bool = False, **options: Any) -> dict[str, Any]:
        """The module's answer."""
        arguments = {
            "login_host": "127.0.0.1",
            "login_port": self.server.port,
            "login_password": self.server.password,
            "login_db": self.database,
            "owner": "telegram_owner",
            "migrations": list(migrations),
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            "_ansible_remote_tmp": str(self.collections),
            **options,
        }
        process = subprocess.run(
            [sys.executable, "-m", "ansible_collections.tradingsystem.telegram_stack.plugins.modules.sql_migrations"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": str(self.collections)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.stdout, process.stderr
        answer: dict[str, Any] = json.loads(process.stdout)
        return answer

    def rows(self, query: str) -> list[Any]:
        """First column of a query, as the superuser."""
        with self.server.connect(database=self.database) as connection:
            return [row[0] for row in connection.execute(query.encode())]


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Postgres]:
    with servers.postgres() as running:
        yield running


@pytest.fixture
def target(server: servers.Postgres, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Target]:
    link = tmp_path / "ansible_collections" / "tradingsystem" / "telegram_stack"
    link.parent.mkdir(parents=True)
    link.symlink_to(ROOT)
    with server.connect() as connection:
        connection.execute("CREATE DATABASE scratch OWNER telegram_owner")
        yield Target(server, "scratch", tmp_path)
        connection.execute("DROP DATABASE scratch WITH (FORCE)")


def failure(answer: dict[str, Any]) -> str:
    assert answer.get("failed"), answer
    return str(answer["msg"])


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

    second = target.run(TABLE, ROWS)
    assert (second["changed"], second["applied"], second["current"]) == (False, [], 2)
    assert target.rows("SELECT count(*) FROM telegram.one") == [2]


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


@pytest.mark.requirement("DB-05")
def test_changed_and_late_files_are_refused_before_anything_runs(target: Target) -> None:
    target.run(TABLE, ROWS)
    third = file("0003_third.sql", "CREATE TABLE telegram.three (a int);")
    changed = failure(target.run(TABLE, file("0002_rows.sql", "SELECT 1;"), third))
    assert "0002_rows.sql was changed after it was applied" in changed
    assert target.rows("SELECT to_regclass('telegram.three')") == [None]
    assert "0000_early.sql comes too late" in failure(target.run(file("0000_early.sql"), TABLE, ROWS))


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


@pytest.mark.requirement("DB-05")
def test_two_runs_at_once_apply_each_file_once(target: Target) -> None:
    with target.server.connect(database=target.database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [0x74656C65])
        assert "Another run has been changing this schema" in failure(target.run(TABLE, lock_timeout=1))
        assert target.rows("SELECT to_regnamespace('telegram')") == [None]
    assert target.run(TABLE)["applied"] == ["0001_table.sql"]


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

"""Rows and checksum of every table: what a restore is compared with."""

from __future__ import annotations

import contextlib
import time
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from .tools import BackupError

SCHEMA = "telegram"
ATTEMPTS = 20

# Partitions and chunks are read through their parent.
_TABLES = """
SELECT c.relname FROM pg_class AS c
WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p')
  AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid)
ORDER BY c.relname
"""


class Content(NamedTuple):
    """What a table held. Two of the same content are equal whatever the order of their rows."""

    rows: int
    checksum: str


def connect(socket_dir: str, port: int, name: str) -> psycopg.Connection[Any]:
    """A connection as the database's administrator, in which values have one form only."""
    try:
        connection = psycopg.connect(
            host=socket_dir, port=port, user="postgres", dbname=name, autocommit=True, connect_timeout=10
        )
    except psycopg.OperationalError as error:
        raise BackupError(f"no connection to database {name} at {socket_dir}:{port}: {str(error).strip()}") from error
    connection.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET extra_float_digits = 1; SET jit = off")
    return connection


def contents(connection: psycopg.Connection[Any]) -> dict[str, Content]:
    """Rows and checksum of each table, by name."""
    found = {}
    for table in _names(connection):
        statement = sql.SQL("SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM {} AS t")
        row = connection.execute(statement.format(sql.Identifier(SCHEMA, table))).fetchone()
        found[table] = Content(*(row or (0, "")))
    return found


def contents_at(connection: psycopg.Connection[Any], other: psycopg.Connection[Any], name: str) -> dict[str, Content]:
    """Set restore point `name` and say what the tables held at it, exactly.

    Writers wait for the few milliseconds between the snapshot of `connection` and the restore point that `other` sets;
    they do not wait while the tables are read. Raises BackupError where long transactions keep the tables.
    """
    for _attempt in range(ATTEMPTS):
        with contextlib.suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected), other.transaction():
            # In a deadlock it is this transaction that ends, and writers are not kept long.
            other.execute("SET LOCAL deadlock_timeout = '10ms'; SET LOCAL lock_timeout = '1s'")
            tables = sql.SQL(", ").join(sql.Identifier(SCHEMA, table) for table in _names(other))
            other.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(tables))
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute("SELECT 1")  # takes the snapshot
            other.execute("SELECT pg_create_restore_point(%s)", [name])
            break
        time.sleep(0.2)
    else:
        raise BackupError(
            f"transactions kept the tables in {ATTEMPTS} attempts, so no restore point was set. "
            "Find the long one in pg_stat_activity, end it, then start the backup again"
        )
    found = contents(connection)
    connection.execute("COMMIT")
    return found


def differences(wanted: dict[str, Any], found: dict[str, Content]) -> list[str]:
    """A sentence for each table of which `found` is not what the catalogue says."""
    said = []
    for table in sorted(wanted.keys() | found.keys()):
        expected = Content(**wanted[table]) if table in wanted else None
        if expected != found.get(table):
            said.append(f"{table}: {_described(expected)} in the catalogue, {_described(found.get(table))} restored")
    return said


def _described(content: Content | None) -> str:
    return "no table" if content is None else f"{content.rows} rows with checksum {content.checksum}"


def _names(connection: psycopg.Connection[Any]) -> list[str]:
    names = [row[0] for row in connection.execute(_TABLES, [SCHEMA])]
    if not names:
        raise BackupError(f"the database has no tables in schema {SCHEMA}")
    return names

# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A relation of TimescaleDB and one of its policies, read from and written to a server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from .timescale import (
    INTERVALS,
    JOB_SETTINGS,
    PROCEDURES,
    SETTINGS,
    STORAGE,
    Interval,
    Order,
    PolicyError,
    add_statement,
    alter_statement,
    engine,
    remove_statement,
    texts,
)

with contextlib.suppress(ImportError):  # postgresql.connect() says it
    import psycopg
    from psycopg import sql

if TYPE_CHECKING:
    from psycopg import Connection


class Server:
    """One relation and one of its policies, as the server knows them."""

    def __init__(self, connection: Connection[Any], relation: str, policy: str) -> None:
        self._connection = connection
        self._relation = relation
        self._policy = policy

    def engine(self) -> str:
        """Which engine the database runs on."""
        row = self._connection.execute(
            "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),"
            " current_setting('timescaledb.license', true)"
        ).fetchone()
        return engine(*row) if row else "native"

    def intervals(self, settings: dict[str, Any]) -> dict[str, Any]:
        """`settings` with texts of intervals read by the server. Raises PolicyError with the option's name."""
        return {
            name: self._interval(name, value) if name in INTERVALS and value is not None else value
            for name, value in settings.items()
        }

    def _interval(self, name: str, value: Any) -> Interval:
        try:
            found = self._connection.execute(
                "SELECT v, v::text FROM (SELECT %s::text::interval) AS i (v)", [str(value)]
            ).fetchall()
        except psycopg.Error as error:
            words = error.diag.message_primary
            raise PolicyError(f"{name}: {value!r} is no interval ({words}). Write it like 14 days.") from error
        span, text = found[0]
        return Interval(span, text)

    def job(self) -> dict[str, Any] | None:
        """The policy's job, if it has one. Older servers name a continuous aggregate's hidden table in it."""
        columns = ("job_id", "config", *JOB_SETTINGS.values())
        names = sql.SQL(", ").join(sql.SQL("j.") + sql.Identifier(column) for column in columns)
        query = sql.SQL(
            "SELECT {} FROM timescaledb_information.jobs AS j"
            " LEFT JOIN timescaledb_information.continuous_aggregates AS c"
            " ON (j.hypertable_schema, j.hypertable_name)"
            " = (c.materialization_hypertable_schema, c.materialization_hypertable_name)"
            " WHERE j.proc_name = %s AND to_regclass(%s) = to_regclass(format('%%I.%%I',"
            " coalesce(c.view_schema, j.hypertable_schema), coalesce(c.view_name, j.hypertable_name)))"
        ).format(names)
        row = self._connection.execute(query, [PROCEDURES[self._policy], self._relation]).fetchone()
        if row is None:
            return None
        job = dict(zip(columns, row, strict=True))
        return job | {name: str(job[name]) for name in ("schedule_interval", "max_runtime", "retry_period")}

    def storage(self) -> dict[str, Any] | None:
        """How the relation is compressed; None where compression is off."""
        enabled = self._connection.execute(
            "SELECT true FROM timescaledb_information.hypertables WHERE compression_enabled"
            " AND to_regclass(format('%%I.%%I', hypertable_schema, hypertable_name)) = to_regclass(%(relation)s)"
            " UNION ALL SELECT true FROM timescaledb_information.continuous_aggregates WHERE compression_enabled"
            " AND to_regclass(format('%%I.%%I', view_schema, view_name)) = to_regclass(%(relation)s)",
            {"relation": self._relation},
        ).fetchone()
        if not enabled:
            return None
        rows = self._connection.execute(
            "SELECT attname, segmentby_column_index, orderby_column_index, orderby_asc, orderby_nullsfirst"
            " FROM timescaledb_information.compression_settings AS s"
            " LEFT JOIN timescaledb_information.continuous_aggregates AS c"
            " ON (s.hypertable_schema, s.hypertable_name)"
            " = (c.materialization_hypertable_schema, c.materialization_hypertable_name)"
            " WHERE to_regclass(%s) = to_regclass(format('%%I.%%I',"
            " coalesce(c.view_schema, s.hypertable_schema), coalesce(c.view_name, s.hypertable_name)))"
            " ORDER BY segmentby_column_index, orderby_column_index",
            [self._relation],
        ).fetchall()
        return {
            "segment_by": [name for name, segment, *_rest in rows if segment is not None],
            "order_by": [Order(name, asc, first) for name, segment, _place, asc, first in rows if segment is None],
        }

    def set_storage(self, storage: dict[str, Any]) -> None:
        """Turn compression on and set what `storage` holds."""
        settings = [sql.SQL("timescaledb.compress")] + [
            sql.SQL("timescaledb.{} = {}").format(sql.SQL(STORAGE[name]), sql.Literal(", ".join(map(str, value))))
            for name, value in storage.items()
        ]
        row = self._connection.execute("SELECT %s::regclass::text", [self._relation]).fetchone()
        kind = self._connection.execute("SELECT relkind FROM pg_class WHERE oid = %s::regclass", [self._relation])
        noun = "MATERIALIZED VIEW" if kind.fetchone() == ("v",) else "TABLE"
        self._connection.execute(
            sql.SQL("ALTER {} {} SET ({})").format(
                sql.SQL(noun), sql.SQL(row[0] if row else ""), sql.SQL(", ").join(settings)
            )
        )

    def add(self, settings: dict[str, Any]) -> int:
        """Make the policy; its job's number."""
        every = {**dict.fromkeys(SETTINGS), **texts(settings), "relation": self._relation}
        row = self._connection.execute(add_statement(self._policy), every).fetchone()
        return int(row[0]) if row else -1

    def alter(self, job: int, settings: dict[str, Any]) -> None:
        """Set what `settings` holds."""
        if settings:
            statement = alter_statement(self._policy, settings)
            self._connection.execute(statement, {**texts(settings), "job": job})

    def remove(self) -> None:
        """Remove the policy."""
        self._connection.execute(remove_statement(self._policy), {"relation": self._relation})

"""TimescaleDB and the pool in front of it."""

from __future__ import annotations

from tools.dashboards.page import RATE, Limit, Page, Query, Row, Variable, lines, stat

_H = 'instance=~"$host"'
_D = f'{_H}, datname="[[ telegram_database_name ]]"'
_UP = ((0, "down"), (1, "up"))


def _rate(metric: str) -> str:
    return f"sum by (instance) (rate({metric}{{{_D}}}{RATE}))"


_SERVER = Row(
    "Server",
    [
        stat(
            "Database",
            "Whether the exporter reaches it.",
            "short",
            Query(f"pg_up{{{_H}}}", "{{instance}}"),
            alerts=("DatabaseDown",),
            states=_UP,
        ),
        stat("Size", "Of the stack's database.", "bytes", Query(f"sum(pg_database_size_bytes{{{_D}}})", "size")),
        lines(
            "Connections in use",
            "Share of max_connections.",
            "percent",
            Query(
                f"100 * sum by (instance) (pg_stat_activity_count{{{_H}}})"
                f" / on (instance) pg_settings_max_connections{{{_H}}}",
                "{{instance}}",
            ),
            limit=Limit("DatabaseConnectionsHigh", "[[ telegram_connections_limit_percent ]]"),
        ),
        lines(
            "Connections by state",
            "Of the stack's database.",
            "short",
            Query(f"sum by (state) (pg_stat_activity_count{{{_D}}})", "{{state}}"),
            stacked=True,
        ),
        lines(
            "Transactions",
            "Of the stack's database.",
            "cps",
            Query(_rate("pg_stat_database_xact_commit"), "committed"),
            Query(_rate("pg_stat_database_xact_rollback"), "rolled back"),
        ),
        lines(
            "Rows",
            "Of the stack's database.",
            "cps",
            Query(_rate("pg_stat_database_tup_inserted"), "inserted"),
            Query(_rate("pg_stat_database_tup_updated"), "updated"),
            Query(_rate("pg_stat_database_tup_deleted"), "deleted"),
            Query(_rate("pg_stat_database_tup_fetched"), "fetched by an index"),
        ),
        lines(
            "Blocks found in memory",
            "Share of the blocks that were asked for. The others come from the system's cache or the disk.",
            "percent",
            Query(
                f"100 * {_rate('pg_stat_database_blks_hit')} / ({_rate('pg_stat_database_blks_hit')}"
                f" + {_rate('pg_stat_database_blks_read')} > 0)",
                "{{instance}}",
            ),
        ),
        lines(
            "Longest transaction",
            "By what it is doing. A long one keeps dead rows from being removed.",
            "s",
            Query(f"max by (state) (pg_stat_activity_max_tx_duration{{{_D}}})", "{{state}}"),
        ),
        lines(
            "Locks",
            "Held or waited for, by mode.",
            "short",
            Query(f"sum by (mode) (pg_locks_count{{{_D}}})", "{{mode}}"),
            stacked=True,
        ),
        lines(
            "Trouble",
            "Deadlocks, and bytes that did not fit into memory.",
            "cps",
            Query(_rate("pg_stat_database_deadlocks"), "deadlocks"),
            Query(_rate("pg_stat_database_temp_files"), "temporary files"),
        ),
        lines(
            "Log archive",
            "Segments of the write-ahead log in 15 minutes.",
            "short",
            Query(f"increase(pg_stat_archiver_archived_count{{{_H}}}[15m])", "archived"),
            Query(f"increase(pg_stat_archiver_failed_count{{{_H}}}[15m])", "failed"),
            alerts=("LogArchiveFails",),
        ),
    ],
)

_POOL = Row(
    "PgBouncer and its clients",
    [
        stat(
            "PgBouncer",
            "Whether its console answers.",
            "short",
            Query("min by (instance) (pgbouncer_up)", "{{instance}}"),
            alerts=("PgBouncerDown",),
            states=_UP,
        ),
        stat(
            "Longest wait",
            "How long the first client in the row has waited for a connection.",
            "s",
            Query("max(pgbouncer_pools_client_maxwait_seconds)", "wait"),
        ),
        lines(
            "Clients that wait",
            "All users of a database together.",
            "short",
            Query("sum by (instance, database) (pgbouncer_pools_client_waiting_connections)", "{{database}}"),
            limit=Limit("DatabaseConnectionPoolExhausted", "[[ telegram_pool_waiting_limit ]]"),
        ),
        lines(
            "Clients that have a connection",
            "By user.",
            "short",
            Query("sum by (user) (pgbouncer_pools_client_active_connections)", "{{user}}"),
            stacked=True,
        ),
        lines(
            "Connections to the server",
            "In use, and kept for the next client.",
            "short",
            Query("sum(pgbouncer_pools_server_active_connections)", "in use"),
            Query("sum(pgbouncer_pools_server_idle_connections)", "idle"),
            stacked=True,
        ),
        lines(
            "Transactions of the services, p95",
            "From a free connection to the commit, the wait in PgBouncer included.",
            "ms",
            Query("job:telegram_database_transaction_seconds:p95_rate5m * 1000", "{{job}}"),
            limit=Limit("SlowDatabaseQueries", "[[ monitoring_slow_query_limit_ms ]]"),
        ),
        lines(
            "Transactions of the services",
            "By service.",
            "cps",
            Query(f"sum by (job) (rate(telegram_database_transaction_seconds_count{RATE}))", "{{job}}"),
        ),
    ],
)

PAGE = Page(
    name="database",
    title="Telegram: TimescaleDB and PgBouncer",
    text="The database, the pool in front of it, and how long the services wait for both.",
    variables=[Variable("host", "instance", "pg_up", "Database")],
    rows=[_SERVER, _POOL],
)

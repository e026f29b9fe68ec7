"""What one engine holds loads into another, as docs/database.md says, and is the same there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.integration import engines, servers

NOW = datetime.now(UTC).replace(microsecond=0)
FILL = """
SELECT telegram.bulk_upsert_messages(
  array_agg(-1000000000000 - n % 3), array_agg(n), array_agg(now() - n * interval '1 hour'), array_agg(n),
  array_agg(now()), array_agg('user_client'::text), array_agg('text'::text), array_agg('compra ' || n)
) FROM generate_series(1, 1500::bigint) AS n;
SELECT telegram.mark_messages_deleted('{-1000000000001}', '{1}', ARRAY[now()]);
SELECT telegram.mark_batch_as_processed('signals', '{-1000000000001,-1000000000002}', '{4,2}');
INSERT INTO telegram.failures (consumer, channel_id, message_id, version, reason, payload, attempts)
VALUES ('signals', -1, 1, 1, E'tab\\t and \\\\ and ação', '{"a": "b"}', 1);
INSERT INTO telegram.rollup_hourly VALUES ('2020-01-01', -1000000000001, 5, 0, 0, 0);
"""


def transfer(old: psycopg.Connection[Any], new: psycopg.Connection[Any]) -> None:
    for copy_out, copy_in in old.execute("SELECT copy_out, copy_in FROM telegram.transfer_tables").fetchall():
        with old.cursor().copy(copy_out) as source, new.cursor().copy(copy_in) as sink:
            for block in source:
                sink.write(block)
    new.execute("SELECT telegram.finish_transfer()")


def content(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    tables = [name for (name,) in connection.execute("SELECT table_name FROM telegram.transfer_tables")]
    shown = {name: f"SELECT to_jsonb(t) - 'arrival' FROM telegram.{name} AS t" for name in tables}  # noqa: S608
    shown["counts"] = (
        "SELECT extract(epoch FROM bucket)::bigint, sum(messages)::int FROM telegram.messages_hourly GROUP BY 1"
    )
    shown["legacy"] = "SELECT id, status, text FROM telegram_gateway.messages"
    return {name: sorted(map(str, connection.execute(query.encode()))) for name, query in shown.items()}


@pytest.mark.skipif(bool(engines.lacks("timescale_apache")), reason=engines.lacks("timescale_apache"))
@pytest.mark.requirement("DB-05")
def test_native_data_loads_into_timescaledb_goes_on_there_and_comes_back() -> None:
    with (
        servers.postgres() as native,
        engines.engine("timescale_apache") as other,
        native.connect("telegram_owner") as old,
        other.connect("telegram_owner") as new,
    ):
        old.execute(FILL.encode())
        old.execute("UPDATE telegram.rollup_state SET hours_until = %s", [NOW - timedelta(days=100)])
        transfer(old, new)
        assert content(new) == content(old)
        poll = "SELECT message_id FROM telegram.get_unprocessed_messages('signals', 2000)"
        assert sorted(old.execute(poll)) == sorted(new.execute(poll))
        new.execute("CALL telegram.run_maintenance()")
        assert content(new)["counts"] == content(old)["counts"]
        new.execute(FILL.split(";")[3].encode())
        assert new.execute("SELECT max(id) FROM telegram.failures").fetchone() == (2,)
        transfer_back(new)


def transfer_back(old: psycopg.Connection[Any]) -> None:
    with servers.postgres() as native, native.connect("telegram_owner") as new:
        transfer(old, new)
        assert content(new) == content(old)
        new.execute("CALL telegram.run_maintenance()")
        assert content(new)["counts"] == content(old)["counts"]


@pytest.mark.skipif(bool(engines.lacks("timescale")), reason=engines.lacks("timescale"))
@pytest.mark.requirement("DB-03")
def test_an_apache_database_becomes_a_community_one_in_its_place() -> None:
    with engines.apache_on_community() as server, server.connect("telegram_owner") as connection:
        connection.execute(
            "INSERT INTO telegram.schema_migrations VALUES ('engine/timescale_apache/0003_messages.sql')"
        )
        connection.execute(FILL.encode())
        connection.execute("CALL telegram.run_maintenance()")
        before = content(connection)
        jobs = "SELECT job FROM telegram.maintenance_status"
        assert ("rollups",) in connection.execute(jobs).fetchall()
        for _ in range(2):  # the second time it has nothing to do
            connection.execute("CALL telegram.adopt_engine()")
            assert content(connection) == before
        assert connection.execute("SELECT telegram.setting('engine')").fetchone() == ("timescale",)
        ledger = connection.execute("SELECT name FROM telegram.schema_migrations").fetchall()
        assert ledger == [("engine/timescale/0003_messages.sql",)]
        found = {job for (job,) in connection.execute(jobs)}
        assert {"policy:compression", "policy:retention", "refresh:counts_hourly"} <= found and "rollups" not in found
        connection.execute("CALL telegram.run_maintenance()")
        for (job,) in connection.execute(
            "SELECT job_id FROM timescaledb_information.jobs WHERE job_id >= 1000"
        ).fetchall():
            connection.execute(f"CALL run_job({job})".encode())
        compressed = "SELECT count(*) > 0 FROM timescaledb_information.chunks WHERE is_compressed"
        assert connection.execute(compressed).fetchone() == (True,)
        assert content(connection) == before

"""Every index serves the query it names, by an honest plan: 150,000 messages, ANALYZE, no enable_* setting touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.integration import servers

from telegram_stack.api.queries import MessageFilter, counting
from telegram_stack.gateway import stored

QUERIES = {
    "messages_pkey": "SELECT * FROM telegram.messages WHERE channel_id = -1000000000007"
    " ORDER BY message_date DESC, message_id DESC LIMIT 50",
    "messages_newest": "SELECT * FROM telegram.messages ORDER BY message_date DESC, message_id DESC LIMIT 50",
    "message_keys_arrival": "SELECT channel_id, message_id, message_date, version FROM telegram.message_keys"
    " WHERE arrival >= (SELECT max(arrival) FROM telegram.message_keys)"
    " ORDER BY arrival, channel_id, message_id LIMIT 100",
    "message_keys_counted": "SELECT count(*) FROM telegram.message_keys"
    " WHERE channel_id = -1000000000007 AND deleted_at IS NULL",
    "message_keys_row_id": "SELECT status FROM telegram_gateway.messages WHERE id = telegram.row_id(-1000000000007, 5)",
    "message_keys_legacy_channel": "SELECT id FROM telegram_gateway.messages WHERE channel_id = '-1000000000007'"
    " AND status = 'received' ORDER BY received_at LIMIT 100",
    "message_search_vector": "SELECT channel_id, message_id FROM telegram.message_search"
    " WHERE vector @@ telegram.search_query('raro77') ORDER BY message_date DESC LIMIT 50",
    "processing_waiting": "SELECT channel_id, message_id FROM telegram.processing WHERE consumer = 'signals'"
    " AND status IN ('received', 'retrying', 'queued', 'failed', 'reprocess_pending') AND status = 'retrying'",
    "processing_created": "SELECT * FROM telegram.message_processing_stats",
    "legacy_ids_message": "SELECT max(created_at) FROM telegram.legacy_ids"
    " WHERE channel_id = -1000000000007 AND message_id = 7",
    "failures_waiting": "SELECT * FROM telegram.failures WHERE consumer = 'c' AND replayed_at IS NULL"
    " ORDER BY id LIMIT 50",
}

FILL = """
SELECT telegram.bulk_upsert_messages(
  array_agg(-1000000000000 - n %% 200), array_agg(n), array_agg(now() - n * interval '40 seconds'), array_agg(n),
  array_agg(now() - n * interval '40 seconds'), array_agg('user_client'::text), array_agg('text'::text),
  array_agg('compra raro' || n %% 1000)
) FROM generate_series(%s::bigint, %s::bigint) AS n;
"""
REST = """
INSERT INTO telegram.processing (consumer, channel_id, message_id, version, status, created_at)
SELECT 'signals', -1000000000000 - n % 200, n, n, CASE WHEN n % 500 = 0 THEN 'retrying' ELSE 'published' END,
  now() - n * interval '40 seconds'
FROM generate_series(150000, 1, -1) AS n;
INSERT INTO telegram.failures (consumer, channel_id, message_id, version, reason, payload, attempts, replayed_at)
SELECT 'c' || n % 2, 1, n, 1, 'r', '{}', 3, CASE WHEN n % 100 > 0 THEN now() END FROM generate_series(1, 20000) AS n;
INSERT INTO telegram.legacy_ids SELECT n, -1000000000000 - n % 200, n, now() FROM generate_series(1, 20000) AS n;
SELECT * FROM telegram.maintain_search();
"""

NOW = datetime.now(UTC)
AGO = NOW - timedelta(days=10)


@pytest.fixture(scope="module")
def filled() -> Iterator[psycopg.Connection[Any]]:
    """The owner's connection to a database with 150,000 messages of 200 channels in 70 days."""
    with servers.postgres() as server, server.connect("telegram_owner") as connection:
        for begin in range(1, 150_000, 10_000):
            connection.execute(FILL.encode(), [begin, begin + 9_999])
        connection.execute(REST.encode())
        connection.execute("VACUUM ANALYZE")
        yield connection


@pytest.mark.requirement("DB-04")
@pytest.mark.parametrize("index", QUERIES)
def test_an_index_serves_the_query_it_names(filled: psycopg.Connection[Any], index: str) -> None:
    plan = "\n".join(line for (line,) in filled.execute(f"EXPLAIN {QUERIES[index]}".encode()))
    names = filled.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %(name)s::regclass"
        " UNION SELECT %(name)s::regclass::text",
        {"name": f"telegram.{index}"},
    ).fetchall()
    used = [name.removeprefix("telegram.") for (name,) in names]
    assert any(f" using {name} " in plan or f" on {name} " in f"{plan} " for name in used), plan


@pytest.mark.requirement("DB-04")
def test_there_is_no_index_but_these_and_the_primary_keys(filled: psycopg.Connection[Any]) -> None:
    found = filled.execute(
        "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " WHERE c.relnamespace = 'telegram'::regnamespace AND NOT i.indisprimary AND NOT c.relispartition"
    )
    assert {name for (name,) in found} == set(QUERIES) - {"messages_pkey"}


@pytest.mark.requirement("DB-04")
def test_a_published_state_is_updated_in_its_place(filled: psycopg.Connection[Any]) -> None:
    before = filled.execute("SELECT pg_stat_get_tuples_hot_updated('telegram.processing'::regclass)").fetchone()
    filled.execute("SELECT telegram.upsert_message_status('signals', -1000000000007, 7, 'published', '{\"a\": 1}')")
    filled.execute("SELECT pg_stat_force_next_flush()")
    after = filled.execute("SELECT pg_stat_get_tuples_hot_updated('telegram.processing'::regclass)").fetchone()
    assert before is not None and after is not None and after[0] == before[0] + 1


@pytest.mark.requirement("DB-04")
def test_the_plan_kept_from_empty_tables_reads_none_of_them_whole(filled: psycopg.Connection[Any]) -> None:
    many = "FROM generate_series(1, 20000) AS n"
    with filled.transaction(force_rollback=True):
        filled.execute("DISCARD PLANS")
        filled.execute(FILL.encode(), [150_001, 150_001])
        filled.execute(f"INSERT INTO telegram.erased SELECT 1, n, now() {many}".encode())
        filled.execute(f"INSERT INTO telegram.tombstones SELECT 1, n, now(), now() {many}".encode())
        filled.execute(FILL.encode(), [150_002, 150_101])
        read = filled.execute("SELECT relname FROM pg_stat_xact_user_tables WHERE seq_tup_read > 0")
        assert read.fetchall() == []


@pytest.mark.requirement("GW-15")
@pytest.mark.parametrize(
    ("query", "key"),
    [
        (stored.SPAN, {"channel": -1000000000007, "below": None}),
        (stored.SPAN, {"channel": -1000000000007, "below": 149_000}),
        (stored.KEYS, {"channel": -1000000000007, "first": 130_000, "last": 150_000}),
        (stored.ADOPTED, {"channel": -1000000000007, "first": 1, "last": 20_000, "earliest": AGO, "latest": NOW}),
    ],
)
def test_where_a_channel_begins_costs_a_few_pages(
    filled: psycopg.Connection[Any], query: str, key: dict[str, Any]
) -> None:
    plan = "\n".join(line for (line,) in filled.execute(f"EXPLAIN (ANALYZE, BUFFERS) {query}".encode(), key))
    assert not re.search(r"Seq Scan on (message_keys|messages_\d+ .*rows=[1-9]\d)", plan), plan
    found = re.search(r"Buffers: shared (?:hit=(\d+))?(?: ?read=(\d+))?", plan)
    assert found
    assert sum(int(pages) for pages in found.groups(default="0")) < 1000, plan


LOUD, QUIET = -1000000000007, -1000000000008


@pytest.mark.requirement("API-01")
@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("channels", [[LOUD], [LOUD, QUIET], []])
def test_the_total_of_channels_is_counted_without_their_messages(
    filled: psycopg.Connection[Any], channels: list[int], deleted: bool
) -> None:
    statement, values = counting("signals", MessageFilter(channels=channels, include_deleted=deleted))
    found = filled.execute(statement, values).fetchone()
    plan = "\n".join(line for (line,) in filled.execute(sql.SQL("EXPLAIN (ANALYZE) ") + statement, values))
    assert found == (750 * len(channels) or 150_000,)
    if channels:
        assert "Index Only Scan using message_keys_counted" in plan and "Heap Fetches: 0" in plan, plan
    assert not re.search(r" on (messages|processing)", plan), plan

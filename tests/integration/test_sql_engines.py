"""One suite of the schema's functions and views for all three engines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.integration.servers import Postgres

NOW = datetime.now(UTC).replace(microsecond=0)
UPSERT = """SELECT telegram.bulk_upsert_messages(
  %s::bigint[], %s::bigint[], %s::timestamptz[], %s::bigint[], %s::timestamptz[], %s::text[], %s::text[], %s::text[]
)"""
_channels = itertools.count(-1001000000000, -1)


@pytest.fixture
def channel() -> int:
    """A channel of the test's own."""
    return next(_channels)


@pytest.fixture
def owner(engine_server: Postgres) -> Iterator[psycopg.Connection[Any]]:
    with engine_server.connect("telegram_owner") as connection:
        yield connection


def store(connection: psycopg.Connection[Any], channel: int, *rows: tuple[int, int, datetime, str]) -> int:
    """Messages given as number, version, date and text; how many were written."""
    numbers, versions, dates, texts = (list(column) for column in zip(*rows, strict=True))
    size = len(rows)
    arguments = [[channel] * size, numbers, dates, versions, dates, ["user_client"] * size, ["text"] * size, texts]
    return int(one(connection, UPSERT, *arguments))


def one(connection: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def numbers(connection: psycopg.Connection[Any], query: str, *values: Any) -> list[int]:
    return [row[0] for row in connection.execute(query.encode(), values)]


@pytest.mark.requirement("DB-04")
def test_the_newest_version_stays_under_its_first_date(owner: psycopg.Connection[Any], channel: int) -> None:
    assert store(owner, channel, (2, 5, NOW, "b"), (1, 3, NOW, "old"), (1, 7, NOW, "new"), (1, 5, NOW, "older")) == 2
    assert store(owner, channel, (1, 6, NOW, "late"), (2, 5, NOW, "tie")) == 0
    assert store(owner, channel, (1, 8, NOW - timedelta(days=1), "edited")) == 1
    rows = owner.execute(
        "SELECT message_id, text, version, message_date, id = telegram.row_id(channel_id, message_id)"
        " FROM telegram.messages WHERE channel_id = %s ORDER BY 1",
        [channel],
    ).fetchall()
    assert rows == [(1, "edited", 8, NOW, True), (2, "b", 5, NOW, True)]


@pytest.mark.requirement("DB-04")
def test_a_deletion_counts_before_and_after_its_message(owner: psycopg.Connection[Any], channel: int) -> None:
    store(owner, channel, (1, 1, NOW, "a"))
    delete = "SELECT telegram.mark_messages_deleted(%s::bigint[], %s::bigint[], %s::timestamptz[])"
    assert one(owner, delete, [channel, channel], [2, 1], [NOW, NOW]) == 1
    assert one(owner, delete, [channel], [1], [NOW + timedelta(hours=1)]) == 0
    store(owner, channel, (1, 2, NOW, "edit"), (2, 1, NOW, "b"), (3, 1, NOW, "c"))
    rows = owner.execute(
        "SELECT message_id, deleted_at FROM telegram.messages WHERE channel_id = %s ORDER BY 1", [channel]
    ).fetchall()
    assert rows == [(1, NOW), (2, NOW), (3, None)]


@pytest.mark.requirement("DB-04")
def test_a_consumer_gets_what_it_has_not_done(owner: psycopg.Connection[Any], channel: int) -> None:
    poll = "SELECT message_id FROM telegram.get_unprocessed_messages('mine', 100, %s)"
    store(owner, channel, *((number, 1, NOW, "x") for number in range(1, 6)))
    one(owner, "SELECT telegram.mark_messages_deleted(%s::bigint[], '{5}', %s::timestamptz[])", [channel], [NOW])
    assert numbers(owner, poll, channel) == [1, 2, 3, 4]
    mark = "SELECT telegram.mark_batch_as_processed('mine', %s::bigint[], %s::bigint[])"
    assert one(owner, mark, [channel] * 3, [2, 1, 99]) == 2
    assert one(owner, mark, [channel] * 2, [1, 2]) == 0
    assert numbers(owner, poll, channel) == [3, 4]
    store(owner, channel, (1, 2, NOW, "edited"))
    one(owner, "SELECT telegram.upsert_message_status('mine', %s, 2, 'reprocess_pending')", channel)
    one(owner, "SELECT telegram.upsert_message_status('mine', %s, 3, 'retrying', '{\"a\": 1}', 'why', 2)", channel)
    assert numbers(owner, poll, channel) == [2, 4, 1]
    assert numbers(owner, poll.replace("%s)", "%s, '{retrying}')"), channel) == [3]
    assert numbers(owner, poll.replace("mine", "another"), channel) == [2, 3, 4, 1]
    assert one(owner, "SELECT telegram.upsert_message_status('mine', %s, 98, 'failed')", channel) is False
    with pytest.raises(psycopg.errors.CheckViolation, match="known_status"):
        one(owner, "SELECT telegram.upsert_message_status('mine', %s, 1, 'done')", channel)


def test_a_poll_goes_on_behind_what_is_done_and_misses_nothing(owner: psycopg.Connection[Any], channel: int) -> None:
    store(owner, channel, *((number, 1, NOW, "x") for number in range(1, 1502)))
    mark = "SELECT telegram.mark_batch_as_processed('steady', %s::bigint[], %s::bigint[])"
    one(owner, mark, [channel] * 1500, list(range(1, 1501)))
    poll = "SELECT message_id FROM telegram.get_unprocessed_messages('steady', 10, %s)"
    assert numbers(owner, poll, channel) == [1501]
    one(owner, mark, [channel], [1501])
    assert numbers(owner, poll, channel) == []
    assert one(owner, "SELECT count(*) FROM telegram.positions WHERE reader = 'consumer steady'") == 1
    store(owner, channel, (7, 2, NOW, "edited"), (2000, 1, NOW - timedelta(days=3), "late"))
    assert sorted(numbers(owner, poll, channel)) == [7, 2000]
    # As after a restore on a server whose transactions are counted from the beginning.
    ahead = "UPDATE telegram.positions SET position = '9000000000000' WHERE reader = 'consumer steady'"
    owner.execute(ahead.encode())
    assert sorted(numbers(owner, poll, channel)) == [7, 2000]
    owner.execute(ahead.encode())
    owner.execute("CALL telegram.run_maintenance()")
    assert one(owner, "SELECT count(*) FROM telegram.positions WHERE reader = 'consumer steady'") == 0


@pytest.mark.requirement("DB-04")
def test_legacy_sql_goes_on(engine_server: Postgres, channel: int) -> None:
    with engine_server.connect("telegram_owner") as owner:
        store(owner, channel, (1, 1, NOW, "ATIVO: PETR4"), (2, 1, NOW, "b"), (3, 1, NOW, "c"))
        owner.execute("INSERT INTO telegram.channels (channel_id, label) VALUES (%s, 'Sinais')", [channel])
    with engine_server.connect("telegram_worker") as legacy:
        poll = (
            "SELECT message_id, id FROM telegram_gateway.messages"
            " WHERE channel_id = %s AND status = 'received' ORDER BY received_at, message_id LIMIT 100"
        )
        found = legacy.execute(poll.encode(), [str(channel)]).fetchall()
        assert [number for number, _ in found] == [1, 2, 3]
        changed = legacy.execute(
            "UPDATE telegram_gateway.messages SET status = 'published', published_at = now(), updated_at = now(),"
            " metadata = metadata || %s WHERE id = ANY(%s)",
            [Jsonb({"processed_by": "tp-capital", "signal_asset": "PETR4"}), [found[0][1], found[1][1]]],
        )
        assert changed.rowcount == 2
        assert numbers(legacy, poll, str(channel)) == [3]
        status, metadata, published = legacy.execute(
            "SELECT status, metadata, published_at FROM telegram_gateway.messages"
            " WHERE channel_id = %s AND message_id = 1",
            [str(channel)],
        ).fetchall()[0]
        assert (status, metadata["processed_by"], metadata["signal_asset"]) == ("published", "tp-capital", "PETR4")
        assert metadata["telegram"]["chatId"] == str(channel) and published is not None
        legacy.execute(
            "UPDATE telegram_gateway.messages SET metadata = metadata - 'signal_asset' WHERE id = %s", [found[0][1]]
        )
        kept = one(legacy, "SELECT metadata FROM telegram_gateway.messages WHERE id = %s", found[0][1])
        assert kept["processed_by"] == "tp-capital" and "signal_asset" not in kept
        legacy.execute("UPDATE telegram_gateway.messages SET status = 'deleted' WHERE id = %s", [found[2][1]])
        assert one(legacy, "SELECT deleted_at IS NOT NULL FROM telegram_gateway.messages WHERE id = %s", found[2][1])
        assert one(legacy, "SELECT label FROM telegram_gateway.channels WHERE channel_id = %s", channel) == "Sinais"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            legacy.execute("UPDATE telegram_gateway.messages SET text = 'x' WHERE id = %s", [found[0][1]])
    with (
        engine_server.connect("telegram_owner") as owner,
        pytest.raises(psycopg.errors.FeatureNotSupported, match="only status"),
    ):
        owner.execute("UPDATE telegram_gateway.messages SET text = 'x' WHERE id = %s", [found[0][1]])


@pytest.mark.requirement("DB-03")
def test_counts_are_right_after_each_refresh(owner: psycopg.Connection[Any], channel: int) -> None:
    hour = (NOW - timedelta(days=2)).replace(minute=0, second=0)
    day = hour.replace(hour=0)

    def counts() -> list[Any]:
        hourly = "SELECT bucket, messages, deleted FROM telegram.messages_hourly WHERE channel_id = %s ORDER BY 1"
        daily = "SELECT sum(messages)::int FROM telegram.messages_daily WHERE channel_id = %s AND bucket = %s"
        return [*owner.execute(hourly.encode(), [channel]), one(owner, daily, channel, day)]

    def refresh() -> None:
        owner.execute("CALL telegram.run_maintenance()")
        for view in ("hourly", "daily"):
            if one(owner, "SELECT to_regclass(%s) IS NOT NULL", f"telegram.counts_{view}"):
                owner.execute(
                    "CALL refresh_continuous_aggregate("
                    f"'telegram.counts_{view}', NULL, date_trunc('hour', now()))".encode()
                )

    store(owner, channel, (1, 1, hour, "a"), (2, 1, hour + timedelta(minutes=59), "b"), (3, 1, NOW, "c"))
    for number in (0, 1):
        if number:
            store(owner, channel, (4, 1, hour + timedelta(minutes=5), "late"))
            one(
                owner, "SELECT telegram.mark_messages_deleted(%s::bigint[], '{1}', %s::timestamptz[])", [channel], [NOW]
            )
        refresh()
        this_hour = NOW.replace(minute=0, second=0)
        assert counts() == [(hour, 2 + number, number), (this_hour, 1, 0), 2 + number]


@pytest.mark.requirement("API-06")
def test_words_are_found_before_and_after_they_are_indexed(owner: psycopg.Connection[Any], channel: int) -> None:
    store(
        owner,
        channel,
        (1, 1, NOW, "Compras de ações"),
        (2, 1, NOW + timedelta(seconds=1), "comprar hoje"),
        (3, 1, NOW, "venda"),
    )
    find = "SELECT message_id FROM telegram.search_messages(%s, 10, %s)"
    for _ in range(2):
        assert numbers(owner, find, "compra", channel) == [2, 1]
        assert numbers(owner, find, "compra -hoje", channel) == [1]
        owner.execute("CALL telegram.run_maintenance()")
    store(owner, channel, (2, 2, NOW, "nada"))
    assert numbers(owner, find, "compra", channel) == [1]
    owner.execute("CALL telegram.set_search_language('simple')")
    assert numbers(owner, find, "compra", channel) == []
    assert numbers(owner, find, "compras", channel) == [1]
    with pytest.raises(psycopg.errors.UndefinedObject, match="portuguese"):
        owner.execute("CALL telegram.set_search_language('klingon')")
    owner.execute("CALL telegram.set_search_language('portuguese')")


@pytest.mark.requirement("DB-03")
def test_old_messages_go_with_their_states_when_retention_is_on(owner: psycopg.Connection[Any], channel: int) -> None:
    old, young = NOW - timedelta(days=95), NOW - timedelta(days=80)
    store(owner, channel, (1, 1, old, "old"), (2, 1, young, "young"))
    one(owner, "SELECT telegram.mark_batch_as_processed('c', %s::bigint[], '{1,2}')", [channel, channel])
    owner.execute("UPDATE telegram.settings SET value = 'off' WHERE name = 'retention'")
    owner.execute("CALL telegram.run_maintenance()")
    assert one(owner, "SELECT telegram.count_old_messages()") == 1
    owner.execute("UPDATE telegram.settings SET value = 'on' WHERE name = 'retention'")
    owner.execute("CALL telegram.run_maintenance()")
    for table in ("messages", "message_keys", "processing"):
        query = f"SELECT message_id FROM telegram.{table} WHERE channel_id = %s"  # noqa: S608 - the names above
        assert numbers(owner, query, channel) == [2], table
    with pytest.raises(psycopg.errors.CheckViolation, match="days_are_a_whole_number"):
        owner.execute("UPDATE telegram.settings SET value = '-1' WHERE name = 'retention_days'")


KEPT = "SELECT channel_id, message_id, message_date, version, deleted_at FROM telegram."
LIVE = "SELECT count(*) FROM telegram.message_keys WHERE channel_id = %s AND deleted_at IS NULL"


@pytest.mark.requirement("DB-04")
def test_keys_count_the_messages_after_every_kind_of_write(owner: psycopg.Connection[Any], channel: int) -> None:
    def deletion(*deleted: int) -> Any:
        query = "SELECT telegram.mark_messages_deleted(%s::bigint[], %s::bigint[], %s::timestamptz[])"
        return one(owner, query, [channel] * len(deleted), list(deleted), [NOW] * len(deleted))

    def erasure(number: int | None) -> Any:
        record = one(owner, "SELECT telegram.begin_erasure(%s, %s, 'test', 'r')", channel, number)
        return one(owner, "SELECT telegram.continue_erasure(%s)", record)

    owner.execute("UPDATE telegram.settings SET value = 'on' WHERE name = 'retention'")
    old = NOW - timedelta(days=95)
    for live, write in (
        (4, lambda: store(owner, channel, *((number, 1, NOW, "new") for number in (1, 2, 3, 4)))),
        (4, lambda: store(owner, channel, (1, 1, NOW, "again"), (1, 1, NOW, "again"), (2, 2, NOW, "edited"))),
        (2, lambda: deletion(1, 2, 2, 9)),  # 9 is still to come
        (2, lambda: deletion(1)),
        (2, lambda: store(owner, channel, (1, 5, NOW, "edited and deleted"), (9, 1, NOW, "late"))),
        (4, lambda: store(owner, channel, (5, 1, old, "old"), (6, 1, old, "old"))),
        (3, lambda: deletion(6, 5) and store(owner, channel, (7, 1, old, "old"))),
        (2, lambda: owner.execute("CALL telegram.run_maintenance()")),
        (1, lambda: erasure(3)),
        (1, lambda: erasure(1)),
        (1, lambda: store(owner, channel, (3, 7, NOW, "erased"))),
        (0, lambda: erasure(None)),
    ):
        write()
        assert one(owner, LIVE, channel) == live
        for some, others in (("messages", "message_keys"), ("message_keys", "messages")):
            assert owner.execute(f"{KEPT}{some} EXCEPT {KEPT}{others}".encode()).fetchall() == []


def test_retention_by_policy_leaves_a_day_for_what_takes_the_keys_along(
    owner: psycopg.Connection[Any], channel: int
) -> None:
    if one(owner, "SELECT telegram.setting('engine')") != "timescale":
        pytest.skip("only the community edition has policies")
    owner.execute("CALL telegram.run_maintenance()")
    store(owner, channel, (1, 1, NOW - timedelta(days=91), "before our next run"))
    job = one(owner, "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention'")
    owner.execute(f"CALL run_job({job})".encode())
    for table, found in (("messages", [1]), ("message_keys", [1])):
        query = f"SELECT message_id FROM telegram.{table} WHERE channel_id = %s"  # noqa: S608 - the names above
        assert numbers(owner, query, channel) == found, table
    owner.execute("CALL telegram.run_maintenance()")
    assert one(owner, LIVE, channel) == 0


@pytest.mark.requirement("DB-03")
def test_a_failing_job_is_shown_and_stops_no_other(owner: psycopg.Connection[Any]) -> None:
    owner.execute("ALTER FUNCTION telegram.maintain_search() RENAME TO elsewhere")
    status = "SELECT last_ok, last_detail, runs_failed_since_success FROM telegram.maintenance_status WHERE job = %s"
    try:
        for failures in (1, 2):
            with pytest.raises(psycopg.errors.RaiseException, match="maintenance failed: search"):
                owner.execute("CALL telegram.run_maintenance()")
            ok, detail, count = owner.execute(status.encode(), ["search"]).fetchall()[0]
            assert (ok, count) == (False, failures) and "maintain_search() does not exist" in detail
            assert one(owner, status, "delivery") is True
    finally:
        owner.execute("ALTER FUNCTION telegram.elsewhere() RENAME TO maintain_search")
    owner.execute("CALL telegram.run_maintenance()")
    assert owner.execute(status.encode(), ["search"]).fetchall()[0][::2] == (True, 0)


@pytest.mark.requirement("DB-03")
def test_the_views_show_what_happened(owner: psycopg.Connection[Any], channel: int) -> None:
    now = datetime.now(UTC).replace(microsecond=0)  # NOW may be more than the view's five minutes ago
    owner.execute("INSERT INTO telegram.channels (channel_id, title) VALUES (%s, 'Mercado')", [channel])
    store(owner, channel, (1, 1, now, "a"), (2, 1, now, "b"))
    one(owner, "SELECT telegram.mark_batch_as_processed('shown', %s::bigint[], '{1,2}')", [channel, channel])
    owner.execute("CALL telegram.run_maintenance()")
    states = "SELECT status, messages FROM telegram.message_processing_stats WHERE consumer = 'shown'"
    assert owner.execute(states).fetchall() == [("published", 2)]
    health = (
        "SELECT name, messages_last_day, last_message_date FROM telegram.channel_health_summary WHERE channel_id = %s"
    )
    assert owner.execute(health.encode(), [channel]).fetchall() == [("Mercado", 2, now)]
    metrics = dict(owner.execute("SELECT metric, value FROM telegram.performance_metrics_realtime").fetchall())
    assert metrics["messages_per_second"] > 0 and metrics["database_size"] > 0
    delivered = owner.execute(
        "SELECT sum(messages)::int, sum(published)::int, bool_and(latency_p95_ms IS NOT NULL)"
        " FROM telegram.delivery_hourly WHERE consumer = 'shown'"
    ).fetchall()
    assert delivered == [(2, 2, True)]


def test_old_chunks_are_compressed_and_still_take_edits(owner: psycopg.Connection[Any], channel: int) -> None:
    if one(owner, "SELECT telegram.setting('engine')") != "timescale":
        pytest.skip("only the community edition compresses")
    old = NOW - timedelta(days=30)
    store(owner, channel, (1, 1, old, "old"), (2, 1, old, "other"))
    waiting = "SELECT backlog FROM telegram.maintenance_status WHERE job = 'policy:compression'"
    assert one(owner, waiting) > 0
    job = one(owner, "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'")
    owner.execute(f"CALL run_job({job})".encode())
    assert one(owner, waiting) == 0
    assert store(owner, channel, (1, 2, old, "edited")) == 1
    one(owner, "SELECT telegram.mark_messages_deleted(%s::bigint[], '{2}', %s::timestamptz[])", [channel], [NOW])
    rows = owner.execute("SELECT text, deleted_at FROM telegram.messages WHERE channel_id = %s ORDER BY 1", [channel])
    assert rows.fetchall() == [("edited", None), ("other", NOW)]


@pytest.mark.requirement("DB-04")
def test_any_date_and_size_is_kept(owner: psycopg.Connection[Any], channel: int) -> None:
    long_text = "ação " * 800_000  # 4 MB in characters, more in bytes
    past, future = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    assert store(owner, channel, (1, 1, past, "past"), (2, 1, future, "future"), (3, 1, NOW, long_text)) == 3
    rows = owner.execute(
        "SELECT message_date, length(text) FROM telegram.messages WHERE channel_id = %s ORDER BY message_id", [channel]
    ).fetchall()
    assert rows == [(past, 4), (future, 6), (NOW, len(long_text))]
    owner.execute("CALL telegram.run_maintenance()")
    assert numbers(owner, "SELECT message_id FROM telegram.search_messages('ação', 10, %s)", channel) == [3]


@pytest.mark.requirement("API-06")
def test_an_edit_keeps_what_it_replaces(owner: psycopg.Connection[Any], channel: int) -> None:
    store(owner, channel, (1, 1, NOW, "first"))
    store(owner, channel, (1, 3, NOW, "third"))
    store(owner, channel, (1, 2, NOW, "too late"))
    one(owner, "SELECT telegram.mark_messages_deleted(%s::bigint[], '{1}', ARRAY[now()])", [channel])
    kept = owner.execute(
        "SELECT version, text FROM telegram.message_history WHERE channel_id = %s", [channel]
    ).fetchall()
    assert kept == [(1, "first")]


@pytest.mark.requirement("API-02")
def test_a_snapshot_knows_what_has_changed_since(owner: psycopg.Connection[Any], channel: int) -> None:
    def snapshot() -> str:
        return str(one(owner, "SELECT pg_current_snapshot()::text"))

    def unchanged(since: str, *channels: int) -> bool:
        return bool(one(owner, "SELECT telegram.unchanged_since(%s::pg_snapshot, %s)", since, list(channels) or None))

    store(owner, channel, (1, 1, NOW, "a"))
    for change in (
        lambda: store(owner, channel, (1, 2, NOW, "edited")),
        lambda: one(owner, "SELECT telegram.mark_batch_as_processed('c', %s::bigint[], '{1}')", [channel]),
        lambda: one(owner, "SELECT telegram.upsert_message_status('c', %s, 1, 'failed')", channel),
        lambda: one(owner, "SELECT telegram.mark_messages_deleted(%s::bigint[], '{1}', ARRAY[now()])", [channel]),
    ):
        before = snapshot()
        assert unchanged(before, channel)
        assert unchanged(before)
        change()
        assert not unchanged(before, channel)
        assert not unchanged(before)
        assert unchanged(before, channel - 1)
    before = snapshot()
    owner.execute("SELECT * FROM telegram.maintain_arrivals()")
    assert unchanged(snapshot(), channel)
    one(owner, "SELECT telegram.upsert_message_status('c', %s, 1, 'published')", channel)
    owner.execute("SELECT * FROM telegram.maintain_arrivals()")
    assert not unchanged(before, channel)


@pytest.mark.requirement("API-08")
def test_what_was_erased_is_gone_and_stays_away(owner: psycopg.Connection[Any], channel: int) -> None:
    store(owner, channel, (1, 1, NOW, "a"), (2, 1, NOW, "b"))
    store(owner, channel, (1, 2, NOW, "a edited"))
    one(owner, "SELECT telegram.mark_batch_as_processed('c', %s::bigint[], '{1,2}')", [channel, channel])
    record = one(owner, "SELECT telegram.begin_erasure(%s, 1, 'test', 'r')", channel)
    assert one(owner, "SELECT telegram.continue_erasure(%s)", record) is True
    store(owner, channel, (1, 3, NOW, "again"))
    for table in ("messages", "message_keys", "processing"):
        query = f"SELECT message_id FROM telegram.{table} WHERE channel_id = %s"  # noqa: S608 - the names above
        assert numbers(owner, query, channel) == [2], table
    assert numbers(owner, "SELECT message_id FROM telegram.message_history WHERE channel_id = %s", channel) == []
    record = one(owner, "SELECT telegram.begin_erasure(%s, NULL, 'test', 'r')", channel)
    assert one(owner, "SELECT telegram.continue_erasure(%s)", record) is True
    store(owner, channel, (3, 1, NOW, "of before"))
    store(owner, channel, (4, 1, NOW + timedelta(hours=1), "of later"))
    assert numbers(owner, "SELECT message_id FROM telegram.messages WHERE channel_id = %s", channel) == [4]
